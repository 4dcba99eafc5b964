"""Initializers that make a weight as a whole, read as a stack of matrices."""

import math
from abc import abstractmethod
from collections.abc import Sequence

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
        self._prepare(tensor, tuple(tensor.shape) if box is None else box.shape, axes)
        self.fill_blocks(local_blocks(tensor, box), key, axes=axes)
        return tensor

    def fill_blocks(self, blocks: Sequence[tuple[Tensor, Box | None]], key: Key, *, axes: Axes = LINEAR) -> None:
        """Fill blocks in place; the whole is made once for all of them."""
        for block, place in blocks:
            self._prepare(block, tuple(block.shape) if place is None else place.shape, axes)
            layout(block.shape, place)
        blocks = [(block, place) for block, place in blocks if not block.is_meta and block.numel()]
        if not blocks:
            return
        first, box = blocks[0]
        with torch.no_grad():
            whole = self._whole(tuple(first.shape) if box is None else box.shape, axes, key, first)
            for block, place in blocks:
                offset = (0,) * block.ndim if place is None else place.offset
                block.copy_(whole[tuple(slice(o, o + n) for o, n in zip(offset, block.shape, strict=True))])

    def _prepare(self, tensor: Tensor, shape: tuple[int, ...], axes: Axes) -> None:
        """Refuse what cannot be filled."""
        if why := unwritable(tensor):
            raise WellposedError(f"{self} was given a tensor that {why}")
        if not tensor.is_floating_point():
            raise WellposedError(
                f"{self} was given a tensor of dtype {tensor.dtype}, which cannot hold its values; use a float dtype"
            )
        if 0 not in shape:
            self._check(shape, axes)

    def _check(self, shape: tuple[int, ...], axes: Axes) -> None:
        axes.resolve(shape)

    @abstractmethod
    def _whole(self, shape: tuple[int, ...], axes: Axes, key: Key, like: Tensor) -> Tensor: ...


def check_gain(initializer: Initializer, gain: float) -> None:
    """Refuse a gain that is negative or not finite."""
    if not 0 <= gain < math.inf:
        raise WellposedError(f"{initializer} was given; expected a finite gain of at least 0")
