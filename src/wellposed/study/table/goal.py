"""The target: whether its values are classes or numbers."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from wellposed.errors import WellposedError
from wellposed.study.training.columns import Column
from wellposed.study.training.dataset import Task

_MOST_CLASSES = 100
_ROWS_A_CLASS = 5  # on average
_FEW = 20  # whole numbers of at most so many kinds are classes

TASKS = ("classification", "regression")


def goal_of(column: Column, task: str | None = None) -> tuple[Task, tuple[str, ...], NDArray[Any], tuple[str, ...]]:
    """Read a target.

    Args:
        column: The target at the rows that have one.
        task: What to take it for; ``None`` is told from its values.

    Returns:
        The task, the classes, the values (codes of the classes, or numbers), and notes.

    Raises:
        WellposedError: If it does not vary, or the task cannot be had with its values.
    """
    name, notes = column.name, column.notes
    kinds, codes = np.unique(column.values, return_inverse=True)
    if len(kinds) == 1:
        raise WellposedError(
            f"target {name!r} is {column.said(kinds[0])!r} in every row; expected a target that varies"
        )
    rows_enough = len(kinds) <= _MOST_CLASSES and len(column.values) >= _ROWS_A_CLASS * len(kinds)
    numbers = column.levels is None and not column.truth
    if task is None and numbers:
        whole = bool((column.values == np.round(column.values)).all()) and not column.dated
        task = "classification" if whole and len(kinds) <= _FEW and rows_enough else "regression"
        if task == "classification" and len(kinds) > 2:
            notes += (
                f"Took target {name!r} for {len(kinds)} classes, being {len(kinds)} whole numbers; to have it as a "
                "number, give --task regression.",
            )
    if task == "regression":
        if column.levels is not None:
            raise WellposedError(
                f"--task was given 'regression', but target {name!r} has texts, as {column.levels[0]!r}; expected "
                f"numbers{_told(column)}"
            )
        return "regression", (), column.values.astype(np.float64), notes
    if not rows_enough:
        different = "numbers" if numbers else "texts"
        raise WellposedError(
            f"target {name!r} has {len(kinds)} different {different} in {len(column.values)} rows; expected at most "
            f"{_MOST_CLASSES} classes with {_ROWS_A_CLASS} rows each on average, or numbers{_told(column)}"
        )
    return "classification", tuple(map(column.said, kinds)), codes.astype(np.int64), notes


def _told(column: Column) -> str:
    """What was noted when the column was read, in brackets."""
    return f" ({' '.join(column.notes)})" if column.notes else ""
