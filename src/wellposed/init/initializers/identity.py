"""Identities: of matrices, and of convolutions."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from wellposed.errors import WellposedError
from wellposed.init.initializers.whole import Whole
from wellposed.models.fans import LINEAR, Axes, matrices
from wellposed.random.key import Key


@dataclass(frozen=True)
class Identity(Whole):
    """The identity matrix times ``gain``; of a weight that is not square, as much of it as there is.

    Args:
        gain: The factor.

    Raises:
        WellposedError: If the gain is not finite; when it is used, if the weight has a receptive field.

    Example:
        >>> import wellposed as wp
        >>> wp.init.Identity()((2, 3), wp.Key(0))
        tensor([[1., 0., 0.],
                [0., 1., 0.]])
    """

    keyed: ClassVar[bool] = False
    gain: float = 1.0

    def __post_init__(self) -> None:
        if not math.isfinite(self.gain):
            raise WellposedError(f"{self} was given; expected a finite gain")

    def _check(self, shape: tuple[int, ...], axes: Axes) -> None:
        if axes.resolve(shape).field:
            raise WellposedError(
                f"{self} was given a kernel of shape {shape}; use Dirac(), which has one at its centre"
            )

    def _whole(self, shape: tuple[int, ...], axes: Axes, key: Key, like: Tensor) -> Tensor:
        m = matrices(shape, axes)
        one = torch.eye(m.rows, m.columns, dtype=like.dtype, device=like.device).mul_(self.gain)
        return m.weight(one.expand(m.stack, m.rows, m.columns), shape)

    def std_for(self, shape: Sequence[int], axes: Axes = LINEAR) -> float:
        """The standard deviation over all entries."""
        m = matrices(shape, axes)
        share = min(m.rows, m.columns) / max(m.rows * m.columns, 1)
        return abs(self.gain) * math.sqrt(share * (1 - share))


@dataclass(frozen=True)
class Dirac(Whole):
    """A convolution that hands its input on: 1 at the centre of the kernel from input i to output i, 0 elsewhere.

    Args:
        groups: Into how many groups the outputs are divided, each of which gets all inputs anew. Axes that have groups
            of their own need none here.

    Raises:
        WellposedError: If groups is not positive; when it is used, if the weight has no receptive field or the
            outputs do not divide into the groups.

    Example:
        >>> import wellposed as wp
        >>> wp.init.Dirac()((2, 2, 3), wp.Key(0))[0]
        tensor([[0., 1., 0.],
                [0., 0., 0.]])

    Source: ``torch.nn.init.dirac_``, whose values these are.
    """

    keyed: ClassVar[bool] = False
    groups: int = 1

    def __post_init__(self) -> None:
        if isinstance(self.groups, bool) or not isinstance(self.groups, int) or self.groups < 1:
            raise WellposedError(f"{self} was given; expected a whole number of groups of at least 1")

    def _check(self, shape: tuple[int, ...], axes: Axes) -> None:
        m = matrices(shape, axes)
        if not axes.resolve(shape).field or m.rows % self.groups:
            raise WellposedError(
                f"{self} was given a weight of shape {shape}; expected a kernel whose outputs divide into "
                f"{self.groups} groups, or use Identity()"
            )

    def _whole(self, shape: tuple[int, ...], axes: Axes, key: Key, like: Tensor) -> Tensor:
        m, field = matrices(shape, axes), [shape[d] for d in axes.resolve(shape).field]
        inputs, members = m.columns // max(math.prod(field), 1), m.rows // self.groups
        kernel = torch.zeros(m.stack, self.groups, members, inputs, *field, dtype=like.dtype, device=like.device)
        d = torch.arange(min(members, inputs), device=like.device)
        place: tuple[Any, ...] = (slice(None), slice(None), d, d, *(size // 2 for size in field))
        kernel[place] = 1
        return m.weight(kernel, shape)

    def std_for(self, shape: Sequence[int], axes: Axes = LINEAR) -> float:
        """The standard deviation over all entries."""
        m = matrices(shape, axes)
        field = math.prod(shape[d] for d in axes.resolve(shape).field)
        ones = self.groups * min(m.rows // self.groups, m.columns // max(field, 1))
        share = ones / max(m.rows * m.columns, 1)
        return math.sqrt(share * (1 - share))
