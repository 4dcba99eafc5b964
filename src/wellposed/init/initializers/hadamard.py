"""Identities where a layer does not widen, Hadamard matrices where it does: no randomness."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from wellposed.init.initializers.whole import Whole
from wellposed.models.fans import LINEAR, Axes, matrices
from wellposed.random.key import Key


@dataclass(frozen=True)
class Hadamard(Whole):
    """A part of the identity where outputs are no more than inputs, else a part of a Hadamard matrix; no randomness.

    With p the least power of two that is no less than the outputs, the latter is H_p / sqrt(p), whose columns are
    orthonormal, cut to the weight's shape. A kernel has it at its centre.

    Example:
        >>> import wellposed as wp
        >>> wp.init.Hadamard()((4, 2), wp.Key(0))
        tensor([[ 0.5000,  0.5000],
                [ 0.5000, -0.5000],
                [ 0.5000,  0.5000],
                [ 0.5000, -0.5000]])

    Source: Zhao, Schaefer & Anandkumar (2022), algorithm 1, normalised as in the authors' code.
    """

    keyed: ClassVar[bool] = False

    def _whole(self, shape: tuple[int, ...], axes: Axes, key: Key, like: Tensor) -> Tensor:
        m, field = matrices(shape, axes), [shape[d] for d in axes.resolve(shape).field]
        inputs = m.columns // math.prod(field)
        kernel = torch.zeros(m.stack, m.rows, inputs, *field, dtype=like.dtype, device=like.device)
        place: tuple[Any, ...] = (..., *(size // 2 for size in field))
        kernel[place] = _centre(m.rows, inputs).to(like.device, like.dtype)
        return m.weight(kernel, shape)

    def std_for(self, shape: Sequence[int], axes: Axes = LINEAR) -> float:
        """The standard deviation over all entries."""
        m = matrices(shape, axes)
        field = math.prod(shape[d] for d in axes.resolve(shape).field)
        if not m.rows * m.columns:
            return 0.0
        centre = _centre(m.rows, m.columns // field)
        mean = float(centre.sum()) / (m.rows * m.columns)
        return math.sqrt(max(float(centre.square().sum()) / (m.rows * m.columns) - mean * mean, 0.0))


def _centre(rows: int, columns: int) -> Tensor:
    if rows <= columns:
        return torch.eye(rows, columns, dtype=torch.float64, device="cpu")
    signs = torch.ones(1, 1, dtype=torch.float64, device="cpu")
    while len(signs) < rows:
        signs = torch.cat([torch.cat([signs, signs], 1), torch.cat([signs, -signs], 1)])
    return signs[:rows, :columns] / math.sqrt(len(signs))
