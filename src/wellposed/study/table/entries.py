"""What columns of texts hold: numbers, dates, truth values, JSON or texts; gaps are told apart from entries.

Where one column can be read in two ways, as 1,234 or 03.04.2020, the other columns of the table tell, or the user does.
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from shlex import quote
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wellposed.errors import WellposedError
from wellposed.study.needs import need
from wellposed.study.table import dates, numerals
from wellposed.study.table.typed import distinct, number_column, text_column, typed_column
from wellposed.study.training.columns import Column
from wellposed.study.wording import join

# A gap in any column, and what is one only among numbers and dates, in any case.
_GAPS = frozenset(
    ["", "?", "NA", "N/A", "n/a", "#N/A", "#NA", "NaN", "nan", "-NaN", "-nan", "NULL", "null", "<NA>", "NaT"]
)
_SPREADSHEET_ERRORS = ["#n/a", "#nv", "#div/0!", "#value!", "#ref!", "#num!", "#name?", "#null!"]
_DASHES = ["-", "--", "\u2013", "\u2014", ".", "..", "*"]
_GAPS_AMONG_NUMBERS = frozenset(
    [*_DASHES, *_SPREADSHEET_ERRORS, "na", "n/a", "n.a.", "none", "null", "nil", "missing", "unknown"]
)
_CODE = r"^0\d+$"  # whole numbers that begin with zeros, as postal codes do
_GROUPED = r"^[+-]?[1-9]\d{0,2}(\.\d{3})+$"  # whole where a comma stands before the decimals
_POINTED = r"^[+-]?\d*\."
_MANY_NUMBERS = 0.5  # from this share on, texts among which there are numbers are worth a note


@dataclass(frozen=True, eq=False)
class _Texts:
    """A column of texts, and the equally good ways to read it as numbers or as dates."""

    name: str
    levels: list[str]
    codes: NDArray[np.int64]
    numbers: Mapping[str, NDArray[np.float64]]
    dates: Mapping[str, NDArray[np.float64]]


def read_columns(
    arrays: Sequence[tuple[str, Any]], *, decimal: str | None = None, date_order: str | None = None
) -> list[Column]:
    """Read the columns of a table.

    Args:
        arrays: Each column's name and its entries, a pyarrow array; or a column that needs no reading.
        decimal: ``"."`` or ``","``, where it cannot be told what stands before the decimals.
        date_order: ``"day-first"`` or ``"month-first"``, where that cannot be told.

    Returns:
        The columns, with a note on each decision.

    Raises:
        WellposedError: If a column can be read in two ways and nothing tells which, or has numbers of different units.
    """
    trimmed = {name: _trimmed(array) for name, array in arrays if _is_text(array)}
    found = {name: _looked_at(name, trimmed[name]) if name in trimmed else _typed(name, a) for name, a in arrays}
    texts = [look for look in found.values() if isinstance(look, _Texts)]
    read_fast = [name for name in trimmed if isinstance(found[name], Column)]
    marks = _decided([look.numbers for look in texts]) & {*numerals.MARKS}
    if any(look.numbers for look in texts) and any(_has_decimals(trimmed[name]) for name in read_fast):
        marks.add(".")
    mark = decimal or (marks.pop() if len(marks) == 1 else None)
    orders = _decided([look.dates for look in texts]) & {*dates.ORDERS}
    order = date_order or (orders.pop() if len(orders) == 1 else None)
    if mark == ",":
        found |= {name: _texts(name, trimmed[name]) for name in read_fast if _is_grouped(trimmed[name])}
    return [look if isinstance(look, Column) else _read(look, mark, order) for look in found.values()]


def _is_text(array: Any) -> bool:
    """Whether a pyarrow array holds texts whose meaning is to be told; categories mean what they are."""
    if isinstance(array, Column):
        return False
    types = need("pyarrow").types
    return bool(types.is_string(array.type) or types.is_large_string(array.type) or types.is_string_view(array.type))


def _trimmed(array: Any) -> Any:
    return need("pyarrow.compute").utf8_trim_whitespace(array.cast(need("pyarrow").large_string()))


def _typed(name: str, array: Any) -> Column:
    return array if isinstance(array, Column) else typed_column(name, array)


def _looked_at(name: str, trimmed: Any) -> Column | _Texts:
    arrow, compute = need("pyarrow"), need("pyarrow.compute")
    if not compute.any(compute.match_substring_regex(trimmed, _CODE)).as_py():
        bare = compute.if_else(compute.equal(trimmed, ""), None, trimmed)
        for kind in (arrow.float64(), arrow.timestamp("us"), arrow.timestamp("us", "UTC")):
            with suppress(arrow.ArrowInvalid):  # what pyarrow reads without a doubt, it reads fast
                return typed_column(name, bare.cast(kind))
    return _texts(name, trimmed)


def _texts(name: str, trimmed: Any) -> _Texts:
    levels, codes = distinct(trimmed)
    counts = np.bincount(codes[codes >= 0], minlength=len(levels))
    counts[[level in _GAPS or level.lower() in _GAPS_AMONG_NUMBERS for level in levels]] = 0
    numbers = {} if any(map(_is_code, levels)) else _best(numerals.readings(name, levels, counts), counts)
    days = {} if numbers else _best(dates.readings(levels, counts, numerals.NEARLY_ALL), counts)
    return _Texts(name, levels, codes, numbers, days)


def _best(ways: Mapping[str, NDArray[np.float64]], counts: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
    """The ways that read the most entries."""
    covered = {way: int(counts[~np.isnan(values)].sum()) for way, values in ways.items()}
    return {way: ways[way] for way, rows in covered.items() if rows == max(covered.values())}


def _decided(columns: Sequence[Mapping[str, NDArray[np.float64]]]) -> set[str]:
    """The ways of those columns that can be read in one way only."""
    return {way for column in columns if len(column) == 1 for way in column}


def _has_decimals(trimmed: Any) -> bool:
    """Whether numbers that pyarrow read have a point that can only stand before decimals."""
    compute = need("pyarrow.compute")
    pointed, grouped = (compute.match_substring_regex(trimmed, form) for form in (_POINTED, _GROUPED))
    return bool(compute.any(compute.and_not(pointed, grouped)).as_py())


def _is_grouped(trimmed: Any) -> bool:
    """Whether they have points, all of which can stand between thousands."""
    compute = need("pyarrow.compute")
    return bool(compute.any(compute.match_substring_regex(trimmed, _GROUPED)).as_py()) and not _has_decimals(trimmed)


def _is_code(text: str) -> bool:
    return len(text) > 1 and text.isdigit() and text.startswith("0")


def _read(texts: _Texts, mark: str | None, order: str | None) -> Column:
    name, levels = texts.name, texts.levels
    entries = [level for level in levels if level not in _GAPS]
    if texts.numbers:
        values = texts.numbers[_chosen_mark(texts, mark)]
        form = next(
            (i for i, level in enumerate(levels) if not np.isnan(values[i]) and not _is_plain(level, values[i])), None
        )
        told = [] if form is None else [f"Read column {name!r} as numbers, {levels[form]!r} as {values[form]:.15g}."]
        return _column(texts, values, "number", told)
    if texts.dates:
        order = _chosen_order(texts, order)
        first = next(level for level, day in zip(levels, texts.dates[order], strict=True) if not np.isnan(day))
        told = [] if order == "clear" else [f"Read column {name!r} as dates, {order.replace('-', ' ')}, as {first!r}."]
        return _column(texts, texts.dates[order], "date", told)
    if entries and {level.lower() for level in entries} <= {"true", "false"}:
        truth = np.array([np.nan if level in _GAPS else float(level.lower() == "true") for level in levels])
        return number_column(name, _entries(texts, truth), notes=_gap_notes(texts), truth=True)
    if entries and all(map(_is_json, entries)):
        return Column(name, np.full(len(texts.codes), np.nan), strange="JSON")
    kept = ["" if level in _GAPS else level for level in levels]
    return text_column(name, kept, texts.codes, notes=[*_text_notes(texts, entries), *_gap_notes(texts)])


def _column(texts: _Texts, values: NDArray[np.float64], kind: str, told: list[str]) -> Column:
    """Numbers or dates; entries that are none are gaps, and a note says which."""
    counts = np.bincount(texts.codes[texts.codes >= 0], minlength=len(texts.levels))
    stray = [i for i, level in enumerate(texts.levels) if level and np.isnan(values[i])]
    if stray:
        rows, others = int(counts[stray].sum()), int(counts[~np.isnan(values)].sum())
        gaps = "a gap" if rows == 1 else "gaps"
        told.append(
            f"Took {_some([texts.levels[i] for i in stray])} in column {texts.name!r} for {gaps}; "
            f"the other {others:,} of {rows + others:,} entries are {kind}s."
        )
    return number_column(texts.name, _entries(texts, values), notes=told, dated=kind == "date")


def _entries(texts: _Texts, values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.append(values, np.nan)[texts.codes]


def _chosen_mark(texts: _Texts, mark: str | None) -> str:
    ways = texts.numbers
    if (settled := _settled(ways, mark)) is not None:
        return settled
    with_commas = [i for i in _differ(ways) if "," in texts.levels[i]]
    if not with_commas:
        return "."  # which stands before decimals where nothing speaks for a comma
    read = " or ".join(f"{values[with_commas[0]]:.15g}" for values in ways.values())
    raise WellposedError(
        f"column {texts.name!r} can be read in two ways: {texts.levels[with_commas[0]]!r} is {read}; say which by "
        f"--decimal '.' or --decimal ',', or leave the column out by --drop {quote(texts.name)}"
    )


def _chosen_order(texts: _Texts, order: str | None) -> str:
    if (settled := _settled(texts.dates, order)) is not None:
        return settled
    doubtful = texts.levels[_differ(texts.dates)[0]]
    raise WellposedError(
        f"column {texts.name!r} can be read in two ways: {doubtful!r} begins with the day or with the "
        "month; say which by --dates day-first or --dates month-first, or leave the column out by --drop "
        f"{quote(texts.name)}"
    )


def _settled(ways: Mapping[str, NDArray[np.float64]], told: str | None) -> str | None:
    """The way that was told, or any where all read the same; ``None`` where there is a doubt."""
    if told is not None and told in ways:
        return told
    return None if _differ(ways) else next(iter(ways))


def _differ(ways: Mapping[str, NDArray[np.float64]]) -> list[int]:
    """Where the ways to read a column's texts do not agree."""
    read = np.nan_to_num([*ways.values()], nan=np.inf)
    places: list[int] = np.flatnonzero((read != read[0]).any(axis=0)).tolist()
    return places


def _is_plain(text: str, value: float) -> bool:
    with suppress(ValueError):
        return float(text) == value
    return False


def _is_json(text: str) -> bool:
    if text[0] not in "{[":
        return False
    with suppress(ValueError):
        json.loads(text)
        return True
    return False


def _gap_notes(texts: _Texts) -> list[str]:
    words = [level for level in texts.levels if level and level in _GAPS]
    return [f"Took {_some(words)} in column {texts.name!r} for gaps."] if words else []


def _text_notes(texts: _Texts, entries: list[str]) -> list[str]:
    if code := next(filter(_is_code, entries), None):
        return [f"Took column {texts.name!r} for texts: it has whole numbers that begin with a zero, as {code!r}."]
    others = [level for level in entries if numerals.number(level, ".") is None]
    if len(others) > (1 - _MANY_NUMBERS) * len(entries):
        return []
    return [f"Took column {texts.name!r} for texts: some are numbers, and others, as {_some(others)}, are not."]


def _some(words: Sequence[str], most: int = 3) -> str:
    shown = [repr(word) for word in words[:most]]
    return join([*shown, f"{len(words) - most} others"] if len(words) > most else shown)
