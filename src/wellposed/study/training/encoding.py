"""How a column becomes inputs of a network, fitted on the training rows and applied to all."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wellposed.study.training.columns import Column
from wellposed.study.training.dataset import MOST_LEVELS


@dataclass(frozen=True)
class Encoding:
    """One column's way to inputs: a standardised number, or one input for each text.

    A number v becomes (v / scale - mean) / deviation, and 0 where it is missing. A missing text counts as the commonest
    one; a text without an input leaves all of them 0.

    Attributes:
        name: The column's name.
        scale: The largest size on the training rows, so that the squares of huge values do not overflow.
        mean: The mean after division by ``scale``.
        deviation: The standard deviation after it; ``None`` for a column that does not vary, whose input is 0.
        texts: The texts that have an input; ``None`` for a column of numbers.
        commonest: The commonest text.
    """

    name: str
    scale: float = 1.0
    mean: float = 0.0
    deviation: float | None = None
    texts: tuple[str, ...] | None = None
    commonest: str | None = None

    def __call__(self, column: Column) -> NDArray[np.float64]:
        """The column's inputs, (rows, 1) or (rows, texts)."""
        if self.texts is not None:
            place = {text: i for i, text in enumerate(self.texts)}
            levels = column.levels or ()
            of_code = np.array([*(place.get(level, -1) for level in levels), place.get(self.commonest or "", -1)])
            hot: NDArray[np.bool_] = of_code[column.values][:, None] == np.arange(len(self.texts))
            return hot.astype(np.float64)
        if self.deviation is None:
            return np.zeros((len(column.values), 1))
        values: NDArray[np.float64] = (column.values / self.scale - self.mean) / self.deviation
        return np.nan_to_num(values, nan=0.0)[:, None]

    def plain(self) -> dict[str, Any]:
        """The fitted values, ready for JSON."""
        return asdict(self)


def fit(column: Column, train: NDArray[Any]) -> Encoding:
    """Fit a column's encoding on the training rows."""
    seen = column.values[train]
    if column.levels is not None:
        counts = np.bincount(seen[seen >= 0], minlength=len(column.levels))
        # A text that training never saw has no trained weight: no input stands for it.
        commonest = [i for i in np.argsort(-counts, kind="stable")[:MOST_LEVELS] if counts[i]]
        texts = tuple(column.levels[i] for i in sorted(commonest))
        return Encoding(column.name, texts=texts, commonest=column.levels[commonest[0]] if commonest else None)
    seen = seen[~np.isnan(seen)]
    if not len(seen) or np.ptp(seen) == 0:
        return Encoding(column.name)
    scale = float(np.abs(seen).max())
    return Encoding(column.name, scale, float((seen / scale).mean()), float((seen / scale).std()))
