"""Dates and times of day among texts, in the common orders."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wellposed.study.needs import need

ORDERS = ("day-first", "month-first")
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_NAMES = (
    "jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?"
    "|nov(?:ember)?|dec(?:ember)?"
)
# What the codes of ``strftime`` stand for in the layouts below, %f with its point and %b long or short.
_FIELDS = {
    "%Y": r"(?P<year>\d{4})",
    "%y": r"(?P<year>\d{2})",
    "%m": r"(?P<month>\d{1,2})",
    "%d": r"(?P<day>\d{1,2})",
    "%b": f"(?P<month>{_NAMES})",
    "%H": r"(?P<hour>\d{1,2})",
    "%I": r"(?P<hour>\d{1,2})",
    "%M": r"(?P<minute>\d{1,2})",
    "%p": "(?P<half>[ap]m)",
    "%S": r"(?P<second>\d{1,2})",
    "%f": r"(?P<fraction>\.\d{1,6})",
    " ": r"\s+",
}
_CLEAR = (
    *("%Y-%m-%d", "%Y/%m/%d", "%Y.%m.%d", "%Y-%m"),
    *("%d %b %Y", "%d-%b-%Y", "%d-%b-%y", "%d. %b %Y", "%b %d, %Y", "%b %Y"),
)
_CLOCK = ("%H:%M", "%H:%M:%S", "%H:%M:%S%f", "%I:%M %p", "%I:%M:%S %p")
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
    texts = need("pyarrow").array(levels, need("pyarrow").large_string())
    ways = {}
    for order, layouts in _LAYOUTS.items():
        best, most = None, max(share * counts.sum(), 1)
        for layout in (layout for layout in layouts if _SHAPES[layout] in tried):
            if counts[_fits(texts, layout)].sum() < most:  # which takes a tenth of the time of reading
                continue
            values = _read(texts, layout)
            if (covered := counts[~np.isnan(values)].sum()) >= most:
                best, most = values, covered + 1
        if best is not None:
            ways[order] = best
    return ways


def _shape(text: str) -> str:
    """A text with a 0 for each number and an a for each word."""
    return re.sub(r"[^\W\d_]+", "a", re.sub(r"\d+", "0", text))


_SHAPES = {
    layout: _shape(re.sub("%[bp]", "a", re.sub("%[YymdHIMS]", "0", layout.replace("%f", ".0"))))
    for layouts in _LAYOUTS.values()
    for layout in layouts
}


def _pattern(layout: str) -> str:
    pattern = re.sub(r"%\w|.", lambda found: _FIELDS.get(found[0], re.escape(found[0])), layout)
    return f"(?i)^{pattern}$"


def _fits(texts: Any, layout: str) -> NDArray[np.bool_]:
    unnamed = re.sub(r"\(\?P<\w+>", "(?:", _pattern(layout))
    return np.asarray(need("pyarrow.compute").match_substring_regex(texts, unnamed))


def _read(texts: Any, layout: str) -> NDArray[np.float64]:
    """Seconds since 1970, or since midnight, of each text; NaN where it has another layout or no such day exists."""
    compute = need("pyarrow.compute")
    fields = compute.extract_regex(texts, _pattern(layout))
    named = {field.name for field in fields.type}

    def part(name: str) -> Any:
        return compute.fill_null(compute.struct_field(fields, name), "0" if name != "half" else "am")

    def whole(name: str) -> NDArray[np.int64]:
        if name not in named:
            return np.zeros(len(texts), dtype=np.int64)
        return np.asarray(part(name).cast("int64"))

    hour, minute, second = whole("hour"), whole("minute"), whole("second")
    exists = fields.is_valid().to_numpy(zero_copy_only=False) & (hour < 24) & (minute < 60) & (second < 60)
    if "half" in named:
        exists &= (hour >= 1) & (hour <= 12)
        hour = hour % 12 + 12 * np.asarray(compute.equal(compute.utf8_lower(part("half")), "pm"))
    seconds = (60.0 * hour + minute) * 60 + second
    if "fraction" in named:
        seconds += part("fraction").cast("float64").to_numpy(zero_copy_only=False)
    if "year" in named:
        year, month, day = whole("year"), _month(part("month"), layout), whole("day") if "day" in named else 1
        year = year if "%Y" in layout else year + np.where(year < 69, 2000, 1900)
        months = (12 * (year - 1970) + month - 1).astype("datetime64[M]")
        first, after = (one.astype("datetime64[D]").astype(np.int64) for one in (months, months + 1))
        exists &= (month >= 1) & (month <= 12) & (year >= 1) & (day >= 1) & (day <= after - first)
        seconds += 86400.0 * (first + day - 1)
    return np.where(exists, seconds, np.nan)


def _month(texts: Any, layout: str) -> NDArray[np.int64]:
    """The month of each text, 0 where it is none."""
    if "%b" not in layout:
        return np.asarray(texts.cast("int64"))
    short = need("pyarrow.compute").utf8_slice_codeunits(need("pyarrow.compute").utf8_lower(texts), 0, 3)
    places = {name: place for place, name in enumerate(_MONTHS, 1)}
    return np.array([places.get(name, 0) for name in short.to_pylist()], dtype=np.int64)
