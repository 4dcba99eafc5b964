"""Columns whose type is known: those of Parquet files, of frames and of arrays."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wellposed.study.needs import need
from wellposed.study.training.columns import Column
from wellposed.study.wording import count

MICROSECONDS = 10**6


def typed_column(name: str, array: Any) -> Column:
    """A column of an array's type.

    Args:
        name: Its name.
        array: A pyarrow array, chunked or not.

    Returns:
        Numbers; dates as seconds since 1970, times of day since midnight, durations in seconds; truth values as 0 and
        1; categories as texts; and of anything else only what it is.
    """
    arrow = need("pyarrow")
    types, kind = arrow.types, array.type
    if types.is_dictionary(kind):
        return text_column(name, *distinct(array))
    if dated := types.is_temporal(kind) and not types.is_interval(kind):
        array = _microseconds(array)
    elif not (types.is_boolean(kind) or types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind)):
        return Column(name, np.full(len(array), np.nan), strange=None if types.is_null(kind) else str(kind))
    values = array.cast(arrow.float64(), safe=False).to_numpy(zero_copy_only=False).astype(np.float64)
    return number_column(name, values / MICROSECONDS if dated else values, truth=types.is_boolean(kind), dated=dated)


def number_column(
    name: str, values: NDArray[np.float64], *, notes: Sequence[str] = (), truth: bool = False, dated: bool = False
) -> Column:
    """A column of numbers, NaN for a gap; infinite numbers are gaps, and a note says so."""
    infinite = np.isinf(values)
    if infinite.any():
        values = np.where(infinite, np.nan, values)
        notes = (*notes, f"Took {count(int(infinite.sum()), 'infinite number')} in column {name!r} for gaps.")
    return Column(name, values, truth=truth, dated=dated, notes=tuple(notes))


def distinct(array: Any) -> tuple[list[str], NDArray[np.int64]]:
    """The different entries of a pyarrow array as texts, and which of them each is, -1 for a gap."""
    arrow = need("pyarrow")
    encoded = array if arrow.types.is_dictionary(array.type) else array.dictionary_encode()
    if isinstance(encoded, arrow.ChunkedArray):
        encoded = encoded.unify_dictionaries().combine_chunks()
    texts = ["" if entry is None else str(entry).strip() for entry in encoded.dictionary.to_pylist()]
    return texts, encoded.indices.cast(arrow.int64()).fill_null(-1).to_numpy(zero_copy_only=False)


def text_column(name: str, texts: Sequence[str], codes: NDArray[np.int64], *, notes: Sequence[str] = ()) -> Column:
    """A column of texts, in alphabetical order; an empty text is a gap."""
    levels = sorted({*texts} - {""})
    rank = {level: code for code, level in enumerate(levels)}
    places = np.array([*(rank.get(text, -1) for text in texts), -1], dtype=np.int64)
    return Column(name, places[codes], tuple(levels), notes=tuple(notes))


def _microseconds(array: Any) -> Any:
    arrow = need("pyarrow")
    types, kind = arrow.types, array.type
    if types.is_duration(kind):
        fine = arrow.duration("us")
    elif types.is_time(kind):
        fine = arrow.time64("us")
    else:
        fine = arrow.timestamp("us", kind.tz if types.is_timestamp(kind) else None)
    return array.cast(fine, safe=False).cast(arrow.int64())
