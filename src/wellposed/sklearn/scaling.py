"""Standardising numbers: mean 0 and standard deviation 1, as they were on the rows that were fitted."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Scaling:
    """A number v of a column becomes (v / size - mean) / deviation; a column that does not vary becomes 0.

    Attributes:
        size: The largest size of each column, so that the squares of huge values do not overflow.
        mean: The mean after division by it.
        deviation: The standard deviation after it; infinite for a column that does not vary.
    """

    size: Floats
    mean: Floats
    deviation: Floats

    @classmethod
    def of(cls, values: Floats) -> "Scaling":
        """The scaling of the columns of an array, (rows, columns).

        Example:
            >>> Scaling.of(np.array([[1.0, 5.0], [3.0, 5.0]]))(np.array([[3.0, 6.0]]))
            array([[1., 0.]])
        """
        size = np.abs(values).max(axis=0)
        size[size == 0] = 1.0
        scaled = values / size
        deviation = scaled.std(axis=0)
        deviation[(np.ptp(values, axis=0) == 0) | (deviation == 0)] = np.inf
        return cls(size, scaled.mean(axis=0), deviation)

    def __call__(self, values: Floats) -> Floats:
        """Standardise the columns of an array."""
        return (values / self.size - self.mean) / self.deviation

    def back(self, values: Floats) -> Floats:
        """The numbers that standardised ones stand for; of a column that does not vary, its one number."""
        return values * self.spread + self.mean * self.size

    @property
    def spread(self) -> Floats:
        """The standard deviation of each column; 0 for one that does not vary."""
        return np.where(np.isinf(self.deviation), 0.0, self.deviation) * self.size
