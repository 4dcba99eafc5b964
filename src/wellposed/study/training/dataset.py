"""A table to learn from: its target, its columns, and what was left out of it."""

import re
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from wellposed.errors import WellposedError
from wellposed.study.needs import need
from wellposed.study.training.columns import Column, read
from wellposed.study.wording import count

Task = Literal["classification", "regression"]

_LEAST_ROWS = 30
_MOST_CLASSES = 100
_FEW = 20  # whole numbers of at most so many kinds are classes
MOST_LEVELS = 50
_NUMBER = re.compile(r"[+-]?\d[\d.,]*")  # of thousands or decimals after a comma, which cannot be told apart


@dataclass(frozen=True, eq=False)
class Dataset:
    """Columns, a target and what was noted while reading them.

    Attributes:
        name: What the report calls it.
        task: ``"classification"`` or ``"regression"``.
        target: The target's name.
        classes: The names of the classes, in the order of their codes; empty for a regression.
        features: The columns to learn from.
        y: int64 codes (n,), or float64 values (n,).
        notes: What was left out or filled in, a sentence each.
    """

    name: str
    task: Task
    target: str
    classes: tuple[str, ...]
    features: tuple[Column, ...]
    y: NDArray[Any]
    notes: tuple[str, ...] = field(default=())

    @property
    def rows(self) -> int:
        """How many examples there are."""
        return len(self.y)

    @cached_property
    def digest(self) -> str:
        """A hash of everything that a result depends on."""
        digest = blake2b(f"{self.task} {self.classes}".encode(), digest_size=16)
        digest.update(np.ascontiguousarray(self.y).tobytes())
        for column in self.features:
            digest.update(repr((column.name, column.levels)).encode())
            digest.update(np.ascontiguousarray(column.values).tobytes())
        return digest.hexdigest()


def load(data: str | Path = "digits", target: str | None = None) -> Dataset:
    """Load a dataset.

    Args:
        data: ``"digits"`` (1797 images of 8 x 8 pixels, bundled with scikit-learn), or a path to a CSV or Parquet file.
        target: The column to learn; needed for a file.

    Returns:
        The dataset.

    Raises:
        WellposedError: If the file or the target cannot be used; the message is one sentence that says why.

    Source: the digits, Alpaydin & Kaynak (1998).
    """
    if str(data) == "digits":
        if target is not None:
            raise WellposedError("--target was given with digits, whose target is fixed; leave --target out")
        return _digits()
    return from_columns(Path(data).name, read(data), target)


def from_columns(name: str, columns: list[Column], target: str | None) -> Dataset:
    """Make a dataset of columns, one of which is the target."""
    names = [column.name for column in columns]
    known = ", ".join(map(repr, names[:12])) + (", ..." if len(names) > 12 else "")
    if target is None:
        raise WellposedError(f"--target is missing; name the column to learn, one of: {known}")
    if target not in names:
        raise WellposedError(f"--target was given {target!r}, which is no column of {name}; its columns are: {known}")
    goal = columns[names.index(target)]
    if goal.strange:
        raise WellposedError(
            f"target {target!r} of {name} holds {goal.strange} values; expected numbers, dates or text"
        )
    notes = []
    if goal.missing.any():
        kept = np.flatnonzero(~goal.missing)
        notes.append(f"Left out {count(int(goal.missing.sum()), 'row')} without a target.")
        columns, goal = [column.take(kept) for column in columns], goal.take(kept)
    if len(goal.values) < _LEAST_ROWS:
        raise WellposedError(
            f"{name} has {count(len(goal.values), 'row')} with a target; a study needs at least {_LEAST_ROWS}"
        )
    task, classes, y = _target(goal)
    features = []
    for column in columns:
        if column.name == target:
            continue
        if commas := _with_comma(column):
            notes.append(
                f"Took column {column.name!r} for texts: its numbers have commas, as {commas!r}; write them like 1023 "
                "or 1.5 to have them read as numbers."
            )
        reason = _useless(column)
        if reason:
            notes.append(f"Left out column {column.name!r}: {reason}.")
            continue
        gaps = int(column.missing.sum())
        if gaps:
            filled = "mean" if column.levels is None else "commonest text"
            notes.append(f"Filled {count(gaps, 'gap')} in column {column.name!r} with the training rows' {filled}.")
        if column.levels and len(column.levels) > MOST_LEVELS:
            notes.append(
                f"Kept the {MOST_LEVELS} commonest of {len(column.levels)} texts in column {column.name!r}; "
                "the others share no input."
            )
        features.append(column)
    if not features:
        raise WellposedError(
            f"{name} has no column to learn {target!r} from; {' '.join(notes) or 'it is the only one'}"
        )
    return Dataset(name, task, target, classes, tuple(features), y, tuple(notes))


def _digits() -> Dataset:
    bundle = need("sklearn.datasets").load_digits()
    pixels = np.asarray(bundle.data, dtype=np.float64)
    columns = tuple(
        Column(f"pixel {i // 8},{i % 8}", pixels[:, i].copy())
        for i in range(pixels.shape[1])
        if np.ptp(pixels[:, i]) > 0
    )
    note = f"Left out {pixels.shape[1] - len(columns)} pixels that are the same in every image."
    y = np.asarray(bundle.target, dtype=np.int64)
    return Dataset("digits", "classification", "digit", tuple(map(str, range(10))), columns, y, (note,))


def _target(goal: Column) -> tuple[Task, tuple[str, ...], NDArray[Any]]:
    kinds, codes = np.unique(goal.values, return_inverse=True)
    if len(kinds) == 1:
        raise WellposedError(
            f"target {goal.name!r} is {goal.said(kinds[0])!r} in every row; expected a target that varies"
        )
    if commas := _with_comma(goal):
        raise WellposedError(
            f"target {goal.name!r} has numbers with commas, as {commas!r}; write them like 1023 or 1.5"
        )
    integral = goal.levels is None and bool((goal.values == np.round(goal.values)).all())
    if goal.levels is None and not (integral and len(kinds) <= _FEW and len(goal.values) >= 5 * len(kinds)):
        return "regression", (), goal.values.astype(np.float64)
    if len(kinds) > _MOST_CLASSES or len(goal.values) < 5 * len(kinds):
        raise WellposedError(
            f"target {goal.name!r} has {len(kinds)} different texts in {len(goal.values)} rows; expected at most "
            f"{_MOST_CLASSES} classes with 5 rows each on average, or numbers"
        )
    return "classification", tuple(map(goal.said, kinds)), codes.astype(np.int64)


def _with_comma(column: Column) -> str | None:
    """A text of a column that has a comma, if all of its texts are numbers."""
    levels = column.levels or ()
    return next((text for text in levels if "," in text), None) if all(map(_NUMBER.fullmatch, levels)) else None


def _useless(column: Column) -> str | None:
    if column.strange:
        return f"it holds {column.strange} values, not numbers, dates or text"
    present = column.values[~column.missing]
    kinds = len(np.unique(present))
    if kinds == 0:
        return "every row is missing"
    if kinds == 1:
        return "it is the same in every row"
    if column.levels is not None and kinds > MOST_LEVELS and kinds > 0.9 * len(present):
        return "nearly every row has a text of its own"
    return None
