"""Scores, differences, percentages and counts as text."""

from collections.abc import Sequence
from dataclasses import dataclass

from wellposed.study.estimate import Estimate

DIVERGED = "diverged"
MINUS = "\u2212"
NO_BREAK = "\u00a0"
_PLUS_MINUS = f"{NO_BREAK}±{NO_BREAK}"


@dataclass(frozen=True)
class Wording:
    """How the scores of a measure are written: accuracies in percent, or R squared.

    Args:
        name: The measure: ``"accuracy"`` or ``"balanced accuracy"`` (written in percent), or ``"R²"``.
    """

    name: str

    @property
    def percent(self) -> bool:
        """Whether scores are written in percent."""
        return self.name != "R²"

    @property
    def unit(self) -> str:
        """The unit of a difference of scores."""
        return "points" if self.percent else "of R²"

    def score(self, value: Estimate) -> str:
        """A mean and its standard error."""
        if value["mean"] is None:
            return DIVERGED
        mean, error = value["mean"], value["error"]
        scale, digits, unit = (100, 1, f"{NO_BREAK}%") if self.percent else (1, 3, "")
        spread = "" if error is None else f"{_PLUS_MINUS}{scale * error:.{digits}f}"
        return f"{scale * mean:.{digits}f}{spread}{unit}".replace("-", MINUS)

    def scored(self, value: Estimate) -> str:
        """A score with its name."""
        return f"{self.score(value)} {self.name}" if self.percent else f"an R² of {self.score(value)}"

    def points(self, value: Estimate) -> str:
        """A difference of scores, without its unit."""
        if value["mean"] is None:
            return DIVERGED
        scale, digits = (100, 1) if self.percent else (1, 3)
        mean, error = _rounded(value["mean"] * scale, digits), value["error"]
        return mean + ("" if error is None else f"{_PLUS_MINUS}{error * scale:.{digits}f}")

    def amount(self, value: Estimate) -> str:
        """The absolute difference of scores with its unit, for a sentence whose verb gives the sign."""
        return f"{self.points(value).removeprefix(MINUS)}{NO_BREAK}{self.unit}"

    def change(self, value: Estimate) -> str:
        """A difference of scores with its sign and unit."""
        text = self.points(value)
        mean = value["mean"]
        sign = "+" if mean is not None and mean > 0 and float(text.split(NO_BREAK)[0]) else ""
        return f"{sign}{text}{NO_BREAK}{self.unit}"


def _rounded(value: float, digits: int) -> str:
    """A rounded number with a typographic minus sign, and none before a zero."""
    text = f"{value:.{digits}f}"
    return text.replace("-", MINUS if float(text) else "")


def percentage(value: float) -> str:
    """A fraction in percent.

    Example:
        >>> [percentage(value).split() for value in (0.5, 0.031, 0.0004)]
        [['50', '%'], ['3.1', '%'], ['0.04', '%']]
        >>> percentage(0.9997).split(), percentage(1.0).split()
        (['over', '99', '%'], ['100', '%'])
    """
    percent = 100 * value
    if 99.5 <= percent < 100:
        return f"over 99{NO_BREAK}%"
    if percent == 0 or percent >= 10:
        return f"{percent:.0f}{NO_BREAK}%"
    return f"{percent:.2g}{NO_BREAK}%"


def factor(value: float) -> str:
    """A factor below 1 as one part in so many, or in percent.

    Example:
        >>> factor(1 / 243)
        '1/243'
    """
    return f"1/{1 / value:,.0f}" if value < 0.1 else percentage(value)


def count(number: int, thing: str) -> str:
    """A number and a noun, in the singular or the plural.

    Example:
        >>> count(1, "run"), count(3, "run")
        ('1 run', '3 runs')
    """
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def join(parts: Sequence[str]) -> str:
    """A list in a sentence.

    Example:
        >>> join(["L1"]), join(["L1", "L2", "dropout"])
        ('L1', 'L1, L2 and dropout')
    """
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def number(value: float) -> str:
    """A setting, to two digits.

    Example:
        >>> number(0.001 / 3), number(0.05)
        ('0.00033', '0.05')
    """
    return f"{value:.2g}"
