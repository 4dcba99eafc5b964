"""Which columns a network learns from: what is left out, what is filled in, and why."""

from collections.abc import Collection, Sequence
from shlex import quote

import numpy as np

from wellposed.study.table.identifiers import identifies
from wellposed.study.training.columns import Column
from wellposed.study.training.dataset import MOST_LEVELS
from wellposed.study.wording import count

_OWN = 0.9  # from this share of different texts on, each row has one of its own


def inputs(
    columns: Sequence[Column], rows: "np.ndarray[tuple[int], np.dtype[np.int64]]", keep: Collection[str] = ()
) -> tuple[list[Column], list[str]]:
    """Choose the columns to learn from.

    Args:
        columns: All but the target, at all rows.
        rows: The rows that have a target.
        keep: The names of columns to learn from though they look like identifiers.

    Returns:
        The columns at those rows, and notes.
    """
    features, notes = [], []
    for whole in columns:
        kept = whole.name in keep
        column = whole.take(rows)
        identifier = None if kept else identifies(whole) or _own_texts(column)
        if reason := _useless(column) or identifier:
            advice = f"; to learn from it, give --keep {quote(column.name)}" if reason == identifier else ""
            notes.append(f"Left out column {column.name!r}: {reason}{advice}.")
            continue
        notes += column.notes
        if gaps := int(column.missing.sum()):
            filled = "mean" if column.levels is None else "commonest text"
            notes.append(f"Filled {count(gaps, 'gap')} in column {column.name!r} with the training rows' {filled}.")
        if column.levels and len(column.levels) > MOST_LEVELS:
            notes.append(
                f"Kept the {MOST_LEVELS} commonest of {len(column.levels)} texts in column {column.name!r}; "
                "the others share no input."
            )
        features.append(column)
    return features, notes


def _useless(column: Column) -> str | None:
    if column.strange:
        return f"it holds {column.strange} values, not numbers, dates or text"
    kinds = len(np.unique(column.values[~column.missing]))
    return {0: "every row is missing", 1: "it is the same in every row"}.get(kinds)


def _own_texts(column: Column) -> str | None:
    present = column.values[~column.missing]
    if column.levels is not None and len(np.unique(present)) > _OWN * len(present):
        return "nearly every row has a text of its own"
    return None
