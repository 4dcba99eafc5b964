"""Sparse matrices of normal entries."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from wellposed import random
from wellposed.errors import WellposedError
from wellposed.init.initializers.whole import Whole
from wellposed.models.fans import LINEAR, Axes, matrices
from wellposed.random.key import Key


@dataclass(frozen=True)
class Sparse(Whole):
    """Entries normal, of which a fixed share of each column, chosen by the key, is 0.

    Args:
        sparsity: The share of zeros in each column (of the outputs of one input), in [0, 1], rounded up.
        std: The standard deviation of the others.

    Raises:
        WellposedError: If the sparsity is not in [0, 1], or std is negative or not finite.

    Example:
        >>> import wellposed as wp
        >>> int((wp.init.Sparse(0.5)((10, 4), wp.Key(0)) == 0).sum())
        20

    Source: Martens (2010).
    """

    sparsity: float
    std: float = 0.01

    def __post_init__(self) -> None:
        if not 0 <= self.sparsity <= 1 or not 0 <= self.std < math.inf:
            raise WellposedError(f"{self} was given; expected a sparsity in [0, 1] and a finite std of at least 0")

    def _zeros(self, rows: int) -> int:
        return math.ceil(self.sparsity * rows)

    def _whole(self, shape: tuple[int, ...], axes: Axes, key: Key, like: Tensor) -> Tensor:
        m = matrices(shape, axes)
        stack = torch.empty(m.stack, m.rows, m.columns, dtype=like.dtype, device=like.device)
        random.normal_(stack, key, 0.0, self.std)
        rank = random.uniform(tuple(stack.shape), key.fold("zeros"), dtype=torch.float64, device=like.device)
        first = rank.argsort(dim=1)[:, : self._zeros(m.rows)]
        return m.weight(stack.scatter_(1, first, 0.0), shape)

    def std_for(self, shape: Sequence[int], axes: Axes = LINEAR) -> float:
        """The standard deviation of an entry, zeros included."""
        rows = matrices(shape, axes).rows
        return self.std * math.sqrt(1 - self._zeros(rows) / rows) if rows else self.std
