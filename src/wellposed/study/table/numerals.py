"""Numbers among texts: a point or a comma, thousands, a currency sign, a percent sign."""

import re
from collections.abc import Mapping, Sequence
from shlex import quote

import numpy as np
from numpy.typing import NDArray

from wellposed.errors import WellposedError

MARKS = (".", ",")
NEARLY_ALL = 0.95  # of the entries that are no gaps
_CURRENCY = "$¢£¤¥฿\u20a0-\u20cf"
_SPACES = " \u00a0\u2009\u202f'\u2019"
_SIGN = "[-+\u2212]"


def _written_with(mark: str) -> re.Pattern[str]:
    group = f"[{_SPACES}{',' if mark == '.' else '.'}]"
    whole = rf"[1-9]\d{{0,2}}(?P<group>{group})\d{{3}}(?:(?P=group)\d{{3}})*|\d+"
    fraction = f"{re.escape(mark)}\\d*"
    return re.compile(
        rf"(?P<open>\()?\s*(?P<sign>{_SIGN})?\s*(?P<before>[{_CURRENCY}])?\s*(?P<inner>{_SIGN})?"
        rf"(?P<number>(?:(?:{whole})(?:{fraction})?|{re.escape(mark)}\d+)(?:[eE][+-]?\d+)?)"
        rf"\s*(?P<after>[{_CURRENCY}%])?\s*(?P<close>\))?",
    )


_PATTERNS = {mark: _written_with(mark) for mark in MARKS}


def number(text: str, mark: str) -> tuple[float, str] | None:
    """The number that a text stands for, and its unit.

    Args:
        text: The text, without spaces around it.
        mark: What stands before the decimals: ``"."`` or ``","``; the other may stand between thousands.

    Returns:
        The number as it is written and its currency sign, percent sign or ``""``; ``None`` if the text is no number.

    Example:
        >>> number("-$1,234.50", "."), number("1.234,5 €", ","), number("12 %", "."), number("1,23", ".")
        ((-1234.5, '$'), (1234.5, '€'), (12.0, '%'), None)
    """
    found = _PATTERNS[mark].fullmatch(text)
    if found is None or bool(found["open"]) != bool(found["close"]) or (bool(found["sign"]) and bool(found["inner"])):
        return None
    if found["before"] and found["after"]:
        return None
    digits = found["number"].replace(found["group"], "") if found["group"] else found["number"]
    value = float(digits.replace(",", "."))
    negative = (found["sign"] or found["inner"] or "+") != "+" or bool(found["open"])  # accounts write (5) for -5
    return (-value if negative else value), found["before"] or found["after"] or ""


def readings(
    column: str, levels: Sequence[str], counts: NDArray[np.int64], *, share: float = NEARLY_ALL
) -> Mapping[str, NDArray[np.float64]]:
    """The ways to read texts as numbers.

    Args:
        column: What messages call the column.
        levels: Its different texts.
        counts: How often each stands there.
        share: Which share of the entries has to be numbers.

    Returns:
        For each of ``MARKS`` that gives numbers in nearly all entries, the number of each text, NaN where it is none.

    Raises:
        WellposedError: If the numbers have different units.
    """
    ways = {}
    for mark in MARKS:
        told = [number(level, mark) for level in levels]
        units: dict[str, int] = {}
        for one, times in zip(told, counts.tolist(), strict=True):
            if one is not None:
                units[one[1]] = units.get(one[1], 0) + times
        if sum(units.values()) < share * counts.sum() or not units:
            continue
        commonest = max(units, key=units.__getitem__)
        if units[commonest] < share * counts.sum():
            with_units = [text for unit in sorted(units) for text in _first(levels, told, unit)]
            raise WellposedError(
                f"column {column!r} has numbers of different units, as {' and '.join(map(repr, with_units[:2]))}; "
                f"write them in one, or leave the column out by --drop {quote(column)}"
            )
        ways[mark] = np.array([np.nan if one is None or one[1] != commonest else one[0] for one in told])
    return ways


def _first(levels: Sequence[str], told: Sequence[tuple[float, str] | None], unit: str) -> list[str]:
    return [level for level, one in zip(levels, told, strict=True) if one is not None and one[1] == unit][:1]
