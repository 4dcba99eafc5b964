"""Initializers that make a weight as a whole, read as a stack of matrices."""

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from wellposed.errors import WellposedError
from wellposed.init.initializers.initializer import Initializer
from wellposed.models.fans import LINEAR, Axes, Dims
from wellposed.random.box import Box, layout
from wellposed.random.key import Key
from wellposed.random.shards import local_block


class Matrices(NamedTuple):
    """How a weight is read as a stack of matrices, one for each member of a batch and each group.

    Attributes:
        split: The weight's shape with the grouped dimension split into groups and members.
        order: The permutation of ``split`` to batch, groups, output, input and receptive field.
        stack: How many matrices there are.
        rows: The outputs of one.
        columns: The inputs of one, times the receptive field.
    """

    split: tuple[int, ...]
    order: tuple[int, ...]
    stack: int
    rows: int
    columns: int

    def weight(self, values: Tensor, shape: Sequence[int]) -> Tensor:
        """The weight whose matrices are ``values``, of shape (stack, rows, columns)."""
        inverse = sorted(range(len(self.order)), key=self.order.__getitem__)
        return values.reshape([self.split[d] for d in self.order]).permute(inverse).reshape(tuple(shape))


def matrices(shape: Sequence[int], axes: Axes = LINEAR) -> Matrices:
    """Read a weight as a stack of matrices (output, input times receptive field).

    Example:
        >>> matrices((6, 4, 3, 3), Axes(groups=2))[2:]
        (2, 3, 36)
    """
    dims = axes.resolve(shape)
    split = list(shape)
    if dims.grouped is None:
        named = Dims(dims.out, dims.in_, dims.batch, dims.field, None)
        groups: tuple[int, ...] = ()
    else:
        g = dims.grouped
        split[g : g + 1] = [axes.groups, split[g] // axes.groups]
        out, in_, batch, field = (tuple(d + (d >= g) for d in group) for group in dims[:4])
        named = Dims(out, in_, batch, field, None)
        groups = (g,)
    sizes = [math.prod(split[d] for d in group) for group in named[:4]]
    order = (*named.batch, *groups, *named.out, *named.in_, *named.field)
    return Matrices(tuple(split), order, sizes[2] * math.prod(split[d] for d in groups), sizes[0], sizes[1] * sizes[3])


class Whole(Initializer):
    """An initializer that makes a weight as a whole; a box of it is cut out."""

    def fill_(self, tensor: Tensor, key: Key, *, axes: Axes = LINEAR, box: Box | None = None) -> Tensor:
        """Fill a tensor in place; of a box, the whole is made first and is let go."""
        if not tensor.is_floating_point():
            raise WellposedError(
                f"{self} was given a tensor of dtype {tensor.dtype}, which cannot hold its values; use a float dtype"
            )
        local, box = local_block(tensor, box)
        layout(local.shape, box)
        shape = tuple(tensor.shape) if box is None else box.shape
        offset = (0,) * len(shape) if box is None else box.offset
        if 0 not in shape:
            self._check(shape, axes)
        if local.is_meta or local.numel() == 0:
            return tensor
        block = tuple(slice(o, o + n) for o, n in zip(offset, local.shape, strict=True))
        with torch.no_grad():
            local.copy_(self._whole(shape, axes, key, local)[block])
        return tensor

    def _check(self, shape: tuple[int, ...], axes: Axes) -> None:
        axes.resolve(shape)

    @abstractmethod
    def _whole(self, shape: tuple[int, ...], axes: Axes, key: Key, like: Tensor) -> Tensor: ...


def check_gain(initializer: Initializer, gain: float) -> None:
    """Refuse a gain that is negative or not finite."""
    if not 0 <= gain < math.inf:
        raise WellposedError(f"{initializer} was given; expected a finite gain of at least 0")
