"""Initializers that make a weight as a whole, read as a stack of matrices."""

import math
from abc import abstractmethod

import torch
from torch import Tensor

from wellposed.arguments import unwritable
from wellposed.errors import WellposedError
from wellposed.init.initializers.initializer import Initializer
from wellposed.models.fans import LINEAR, Axes
from wellposed.random.box import Box, layout
from wellposed.random.key import Key
from wellposed.random.shards import local_blocks


class Whole(Initializer):
    """An initializer that makes a weight as a whole; a box of it is cut out."""

    def fill_(self, tensor: Tensor, key: Key, *, axes: Axes = LINEAR, box: Box | None = None) -> Tensor:
        """Fill a tensor in place; of a box, the whole is made first and is let go."""
        if why := unwritable(tensor):
            raise WellposedError(f"{self} was given a tensor that {why}")
        if not tensor.is_floating_point():
            raise WellposedError(
                f"{self} was given a tensor of dtype {tensor.dtype}, which cannot hold its values; use a float dtype"
            )
        blocks = local_blocks(tensor, box)
        for block, place in blocks:
            layout(block.shape, place)
        shape = tuple(tensor.shape) if box is None else box.shape
        if 0 not in shape:
            self._check(shape, axes)
        blocks = [(block, place) for block, place in blocks if not block.is_meta and block.numel()]
        if not blocks:
            return tensor
        with torch.no_grad():
            whole = self._whole(shape, axes, key, blocks[0][0])
            for block, place in blocks:
                offset = (0,) * len(shape) if place is None else place.offset
                block.copy_(whole[tuple(slice(o, o + n) for o, n in zip(offset, block.shape, strict=True))])
        return tensor

    def _check(self, shape: tuple[int, ...], axes: Axes) -> None:
        axes.resolve(shape)

    @abstractmethod
    def _whole(self, shape: tuple[int, ...], axes: Axes, key: Key, like: Tensor) -> Tensor: ...


def check_gain(initializer: Initializer, gain: float) -> None:
    """Refuse a gain that is negative or not finite."""
    if not 0 <= gain < math.inf:
        raise WellposedError(f"{initializer} was given; expected a finite gain of at least 0")
