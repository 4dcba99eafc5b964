"""One column of a table: numbers with gaps, or texts as codes."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Column:
    """One column of a table.

    Attributes:
        name: Its name.
        values: float64 with NaN for a gap; of a text column the codes, int64 with -1 for a gap. Dates are seconds since
            1970, times of day seconds since midnight.
        levels: The texts that the codes stand for, in alphabetical order; ``None`` for a column of numbers.
        truth: Whether it holds booleans, as 0 and 1.
        dated: Whether it holds dates or times.
        strange: The kind of the values if they are no numbers, dates or text; all of them are gaps then.
        notes: What was decided in reading it, a sentence each.
    """

    name: str
    values: NDArray[Any]
    levels: tuple[str, ...] | None = None
    truth: bool = False
    dated: bool = False
    strange: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def missing(self) -> NDArray[np.bool_]:
        """Where the gaps are."""
        return np.isnan(self.values) if self.levels is None else self.values < 0

    def take(self, rows: NDArray[Any]) -> "Column":
        """The column at some rows only."""
        return replace(self, values=self.values[rows])

    def said(self, value: float) -> str:
        """One of its values as text."""
        if self.levels is not None:
            return self.levels[int(value)]
        return ("false", "true")[int(value)] if self.truth else f"{value:.15g}"
