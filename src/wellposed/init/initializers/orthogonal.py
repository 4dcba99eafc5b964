"""Orthogonal matrices, and kernels that are one at their centre."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from wellposed import random
from wellposed.errors import WellposedError
from wellposed.init.initializers.whole import Whole, check_gain
from wellposed.models.fans import LINEAR, Axes, matrices
from wellposed.random.key import Key


@dataclass(frozen=True)
class Orthogonal(Whole):
    """A (semi-)orthogonal matrix, uniformly distributed (Haar), times ``gain``.

    A weight is read as a matrix of outputs times inputs and receptive field, one for each member of a batch and each
    group. Its rows are orthonormal where they are the fewer, else its columns.

    Args:
        gain: The factor, at least 0.

    Raises:
        WellposedError: If the gain is negative or not finite.

    Example:
        >>> import wellposed as wp
        >>> q = wp.init.Orthogonal()((3, 5), wp.Key(0), dtype=torch.float64)
        >>> torch.allclose(q @ q.T, torch.eye(3, dtype=torch.float64))
        True

    Source: Saxe et al. (2014); the distribution, Mezzadri (2007). The last bits are those of the linear algebra library
    that torch was built with.
    """

    gain: float = 1.0

    def __post_init__(self) -> None:
        check_gain(self, self.gain)

    def _whole(self, shape: tuple[int, ...], axes: Axes, key: Key, like: Tensor) -> Tensor:
        m = matrices(shape, axes)
        return m.weight(haar(m.stack, m.rows, m.columns, key, like).mul_(self.gain), shape)

    def std_for(self, shape: Sequence[int], axes: Axes = LINEAR) -> float:
        """The standard deviation of an entry: gain / sqrt(the longer side of the matrix)."""
        m = matrices(shape, axes)
        return self.gain / math.sqrt(max(m.rows, m.columns, 1))


@dataclass(frozen=True)
class DeltaOrthogonal(Whole):
    """A convolution that is an orthogonal matrix at the centre of its kernel and 0 elsewhere.

    Args:
        gain: The factor, at least 0.

    Raises:
        WellposedError: If the gain is negative or not finite; when it is used, if the weight has no receptive field or
            fewer outputs than inputs, which no kernel of this kind can carry.

    Example:
        >>> import wellposed as wp
        >>> wp.init.DeltaOrthogonal()((8, 4, 3, 3), wp.Key(0))[:, :, 1, 1].norm().round()
        tensor(2.)

    Source: Xiao et al. (2018).
    """

    gain: float = 1.0

    def __post_init__(self) -> None:
        check_gain(self, self.gain)

    def _check(self, shape: tuple[int, ...], axes: Axes) -> None:
        dims, m = axes.resolve(shape), matrices(shape, axes)
        field = math.prod(shape[d] for d in dims.field)
        if not dims.field or m.rows * field < m.columns:
            raise WellposedError(
                f"{self} was given a weight of shape {shape} with {axes}; expected a kernel with at least as many "
                "outputs as inputs: use Orthogonal()"
            )

    def _whole(self, shape: tuple[int, ...], axes: Axes, key: Key, like: Tensor) -> Tensor:
        m, field = matrices(shape, axes), [shape[d] for d in axes.resolve(shape).field]
        inputs = m.columns // math.prod(field)
        centre = haar(m.stack, m.rows, inputs, key, like).mul_(self.gain)
        kernel = centre.new_zeros(m.stack, m.rows, inputs, *field)
        place: tuple[Any, ...] = (..., *((size - 1) // 2 for size in field))
        kernel[place] = centre
        return m.weight(kernel, shape)

    def std_for(self, shape: Sequence[int], axes: Axes = LINEAR) -> float:
        """The root mean square of the entries, zeros included."""
        m = matrices(shape, axes)
        field = math.prod(shape[d] for d in axes.resolve(shape).field)
        return self.gain / math.sqrt(max(m.rows, 1) * max(field, 1))


def haar(count: int, rows: int, columns: int, key: Key, like: Tensor) -> Tensor:
    """Matrices with orthonormal rows or columns, whichever are the fewer, uniformly distributed.

    The orthogonal factor of a normal matrix is uniform once the triangular one has a positive diagonal. Its k-th
    reflection is that of a normal vector which the reflections before it do not touch, so the vectors are drawn as they
    are and nothing is factorised.

    Args:
        count: How many.
        rows: Of each.
        columns: Of each.
        key: The stream of the normal numbers that they are made from.
        like: A tensor of the device; float64 is computed in float64, all else in float32.

    Returns:
        Of shape (count, rows, columns), float64 or float32.

    Source: Stewart (1980); Mezzadri (2007).
    """
    dtype = torch.promote_types(like.dtype, torch.float32)
    long, short = max(rows, columns), min(rows, columns)
    vectors = random.normal((count, long, short), key, dtype=dtype, device=like.device).tril_()
    first = vectors.diagonal(dim1=-2, dim2=-1).to(torch.float64)
    image = -torch.linalg.vector_norm(vectors, dim=-2, dtype=torch.float64).copysign(first)
    empty = image == 0  # the vector of one entry that may be exactly 0: any sign will do
    first, image = first.masked_fill(empty, 1.0), image.masked_fill(empty, -1.0)
    weights = ((image - first) / image).to(dtype)
    vectors /= (first - image).to(dtype).unsqueeze(-2)
    q: Tensor = torch.linalg.householder_product(vectors, weights)
    q *= image.sign().to(dtype).unsqueeze(-2)
    return q if rows >= columns else q.mT
