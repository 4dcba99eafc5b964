"""Numbers as people read them."""

from dataclasses import dataclass

from wellposed.study.estimate import Estimate

DIVERGED = "diverged"
MINUS = "\u2212"


@dataclass(frozen=True)
class Words:
    """How the scores of a task are said.

    Args:
        task: ``"classification"`` (scores are accuracies, said in percent) or ``"regression"`` (R squared).
    """

    task: str

    @property
    def percent(self) -> bool:
        """Whether scores are said in percent."""
        return self.task == "classification"

    @property
    def name(self) -> str:
        """What a score is."""
        return "accuracy" if self.percent else "R²"

    @property
    def error_name(self) -> str:
        """What 1 less a score is."""
        return "error" if self.percent else "unexplained variance"

    @property
    def unit(self) -> str:
        """What differences of scores are counted in."""
        return "points" if self.percent else "of R²"

    def score(self, value: Estimate) -> str:
        """A mean and its standard error."""
        if value["mean"] is None:
            return DIVERGED
        mean, error = value["mean"], value["error"]
        if self.percent:
            return f"{100 * mean:.1f} %" if error is None else f"{100 * mean:.1f} ± {100 * error:.1f} %"
        return f"{mean:.3f}" if error is None else f"{mean:.3f} ± {error:.3f}"

    def scored(self, value: Estimate) -> str:
        """A score with its name."""
        return f"{self.score(value)} {self.name}" if self.percent else f"an R² of {self.score(value)}"

    def points(self, value: Estimate) -> str:
        """A difference of scores, without its unit."""
        if value["mean"] is None:
            return DIVERGED
        scale, digits = (100, 1) if self.percent else (1, 3)
        mean, error = value["mean"] * scale, value["error"]
        return f"{mean:.{digits}f}".replace("-", MINUS) + ("" if error is None else f" ± {error * scale:.{digits}f}")

    def change(self, value: Estimate) -> str:
        """A difference of scores with its sign and unit."""
        text = self.points(value)
        return f"{'+' if (value['mean'] or 0.0) > 0 else ''}{text} {self.unit}"


def share(value: float) -> str:
    """A share in percent.

    Example:
        >>> share(0.5), share(0.031), share(0.0004)
        ('50 %', '3.1 %', '0.04 %')
    """
    percent = 100 * value
    if percent == 0 or percent >= 10:
        return f"{percent:.0f} %"
    return f"{percent:.2g} %"


def factor(value: float) -> str:
    """A factor below 1 as one part in so many, or as a share.

    Example:
        >>> factor(1 / 243), factor(0.25)
        ('1/243', '25 %')
    """
    return f"1/{1 / value:,.0f}" if value < 0.1 else share(value)


def count(number: int, thing: str) -> str:
    """A number of things.

    Example:
        >>> count(1, "run"), count(3, "run")
        ('1 run', '3 runs')
    """
    return f"{number} {thing}{'' if number == 1 else 's'}"
