"""Dates and times of day among texts, in the common orders."""

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

ORDERS = ("day-first", "month-first")
_CLEAR = (
    *("%Y-%m-%d", "%Y/%m/%d", "%Y.%m.%d", "%Y-%m"),
    *("%d %b %Y", "%d %B %Y", "%d-%b-%Y", "%d-%b-%y", "%d. %B %Y", "%b %d, %Y", "%B %d, %Y", "%b %Y", "%B %Y"),
)
_CLOCK = ("%H:%M", "%H:%M:%S", "%H:%M:%S.%f", "%I:%M %p", "%I:%M:%S %p")
_TIMES = ("", *(between + time for between in (" ", "T", ", ") for time in _CLOCK))
_LAYOUTS: Mapping[str, tuple[str, ...]] = {
    "clear": (*(date + time for date in _CLEAR for time in _TIMES), *_CLOCK),
    **{
        order: tuple(
            f"{first}{between}{second}{between}{year}{time}"
            for between in "/.-"
            for year in ("%Y", "%y")
            for time in _TIMES
        )
        for order, (first, second) in zip(ORDERS, (("%d", "%m"), ("%m", "%d")), strict=True)
    },
}
_TRIED = 3  # texts whose shape tells a layout
_GLANCE = 1000  # texts that are read by it first, since a hundred thousand take seconds
_NO_DATE = datetime(1900, 1, 1, tzinfo=UTC)  # what stands for a time of day alone
_ZERO = datetime(1970, 1, 1, tzinfo=UTC)


def readings(levels: Sequence[str], counts: NDArray[np.int64], share: float) -> Mapping[str, NDArray[np.float64]]:
    """The ways to read texts as dates or times of day.

    Args:
        levels: The different texts of a column.
        counts: How often each stands there.
        share: Which share of the entries has to be dates.

    Returns:
        For ``"clear"``, where only one order is possible, and for each of ``ORDERS`` that gives dates in that share of
        the entries: seconds since 1970, or since midnight, of each text, NaN where it is none.

    Example:
        >>> {order: days.tolist() for order, days in readings(["1.2.1970", "13.1.1970"], np.array([1, 1]), 1.0).items()}
        {'day-first': [2678400.0, 1036800.0]}
    """
    tried = {_shape(level) for level in [level for level in levels if any(map(str.isdigit, level))][:_TRIED]}
    ways = {}
    for order, layouts in _LAYOUTS.items():
        best, most = None, max(share * counts.sum(), 1)
        for layout in (layout for layout in layouts if _SHAPES[layout] in tried):
            if np.isnan(_read(levels[:: 1 + len(levels) // _GLANCE], layout)).mean() > 1 / 2:
                continue
            values = _read(levels, layout)
            if (covered := counts[~np.isnan(values)].sum()) >= most:
                best, most = values, covered + 1
        if best is not None:
            ways[order] = best
    return ways


def _shape(text: str) -> str:
    """A text with a 0 for each number and an a for each word."""
    return re.sub(r"[^\W\d_]+", "a", re.sub(r"\d+", "0", text))


_SHAPES = {
    layout: _shape(re.sub("%[bBp]", "a", re.sub("%[YymdHIMSf]", "0", layout)))
    for layouts in _LAYOUTS.values()
    for layout in layouts
}


def _read(levels: Sequence[str], layout: str) -> NDArray[np.float64]:
    return np.array([np.nan if (told := _seconds(level, layout)) is None else told for level in levels])


def _seconds(text: str, layout: str) -> float | None:
    with suppress(ValueError):
        told = datetime.strptime(text, layout).replace(tzinfo=UTC)
        return (told - (_NO_DATE if layout in _CLOCK else _ZERO)).total_seconds()
    return None
