"""Columns that name or count the rows: they tell where a row stands, and nothing of rows to come."""

import re

import numpy as np

from wellposed.study.training.columns import Column

_NAMED = re.compile(
    r"index|idx|rows?|row ?names?|num|number|record|serial|unnamed: ?\d+|level_\d+|column \d+"
    r"|(.*[\W_])?(id|uuid|guid|key|no|nr)\.?",
    re.IGNORECASE,
)
_CAMEL = re.compile(r".*[a-z](Id|ID|Key|No|Nr)")
_DENSE = 3  # identifiers that rise from row to row skip two in three at most


def identifies(column: Column) -> str | None:
    """Why a column of whole numbers names or counts the rows.

    Args:
        column: The column, in the order of the table's rows.

    Returns:
        The reason, for a sentence; ``None`` where it does not.

    Example:
        >>> identifies(Column("patient", np.arange(100.0, 160.0)))
        'it counts the rows'
    """
    values = column.values
    if column.levels is not None or column.dated or column.truth or len(values) < 2 or column.missing.any():
        return None
    if (values != np.round(values)).any() or len(np.unique(values)) < len(values):
        return None
    steps = np.diff(values)
    if (np.abs(steps) == 1).all():
        return "it counts the rows"
    if _NAMED.fullmatch(column.name) or _CAMEL.fullmatch(column.name):
        return "every row has a number of its own, as an identifier does"
    rising = (steps > 0).all() or (steps < 0).all()
    if rising and np.ptp(values) <= _DENSE * len(values):
        return "its whole numbers go from row to row, as identifiers do"
    return None
