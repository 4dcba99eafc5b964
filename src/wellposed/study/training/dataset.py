"""What is learned: columns and a target."""

from dataclasses import dataclass, field
from functools import cached_property
from hashlib import blake2b
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from wellposed.study.training.columns import Column

Task = Literal["classification", "regression"]

MOST_LEVELS = 50


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
        notes: How the table was read, and what was left out or filled in, a sentence each.
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
