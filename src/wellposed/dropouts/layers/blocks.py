"""Dropout of square and cubic regions of feature maps."""

import functools
import math
import struct
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.compiler import is_dynamo_compiling

from wellposed._torch import is_ordinary
from wellposed.dropouts.functional import check_input, rank_of
from wellposed.dropouts.layers.thinning import Thinning
from wellposed.dropouts.linear import linear
from wellposed.dropouts.masks import stream_tensor
from wellposed.dropouts.operator import thin_by_operator
from wellposed.dropouts.sharding.blockwise import Placed, arrived, blockwise
from wellposed.errors import WellposedError
from wellposed.random.backend import kernels_for
from wellposed.random.box import Box
from wellposed.random.shards import is_sharded


class Corners(NamedTuple):
    """Where the blocks of DropBlock may lie in feature maps of a shape.

    A corner is drawn with probability p * size / covered, at most 1.

    Attributes:
        blocks: The sides of a block.
        shape: The shape of the mask of corners, (N, C or 1, ...).
        size: How many elements a map has.
        covered: How many elements all blocks have together that a map has places for.
    """

    blocks: tuple[int, ...]
    shape: tuple[int, ...]
    size: int
    covered: int


class Rule(NamedTuple):
    """The side of a block, and whether all channels of a sample have the same blocks."""

    block_size: int
    couple_channels: bool

    def corners(self, shape: tuple[int, ...]) -> Corners:
        """Where blocks may lie in maps of a shape (N, C, ...)."""
        sides = shape[2:]
        blocks = tuple(min(self.block_size, side) for side in sides)
        places = tuple(side - block + 1 for side, block in zip(sides, blocks, strict=True))
        corners = (shape[0], 1 if self.couple_channels else shape[1], *places)
        return Corners(blocks, corners, math.prod(sides), max(1, math.prod(blocks) * math.prod(places)))


def clear_blocks(x: Tensor, rule: Rule, p: float, key: int, call: int, row: int) -> Tensor:
    """Set the blocks to zero whose corners a stream draws, and scale the rest so that the mean over the batch stays."""
    kernels = kernels_for(x) if is_ordinary(x) else None
    if kernels is None:
        rate = torch.tensor(p, dtype=torch.float64, device="cpu")
        return clear_by_operators(x, rule, stream_tensor(key, call, row), rate)
    blocks, corners, size, covered = rule.corners(x.shape)
    maps, places, shared = math.prod(corners[:2]), math.prod(corners[1:]), max(1, x.shape[1] // max(1, corners[1]))
    ones = (1,) * (3 - len(blocks))
    sides = struct.pack("6q", *ones, *x.shape[2:], *ones, *blocks)
    threshold = round(min(1.0, p * size / covered) * 2**32)
    cleared: Tensor = kernels.clear_blocks(x, maps, shared, sides, row * places, key, call, threshold)
    return cleared


def clear_by_operators(x: Tensor, rule: Rule, stream: Tensor, p: Tensor) -> Tensor:
    """The same by torch's operators, as a reference for the kernel."""
    if 0 in x.shape:  # which torch's pools refuse
        return x.clone()
    dropped = _dropped(x, rule, tuple(x.shape), stream, p)
    exact = torch.promote_types(x.dtype, torch.float32)
    kept = (dropped == 0).sum().clamp(min=1).double()
    scale = (torch.full_like(kept, dropped.numel()) / kept).to(exact)  # a number over a tensor is rounded twice
    return torch.where(dropped != 0, x.new_zeros((), dtype=exact), x.to(exact) * scale).to(x.dtype)


def _dropped(like: Tensor, rule: Rule, shape: tuple[int, ...], stream: Tensor, p: Tensor) -> Tensor:
    """Ones where blocks lie in maps of a shape, else zeros, of shape (N, C or 1, ...)."""
    blocks, corners, size, covered = rule.corners(shape)
    ones = like.new_ones(corners, dtype=torch.float32)
    dropped = (thin_by_operator(ones, stream, (p * size / covered).clamp(max=1)) == 0).float()
    dropped = nn.functional.pad(dropped, [block - 1 for block in reversed(blocks) for _ in range(2)])
    pool = nn.functional.max_pool2d if len(blocks) == 2 else nn.functional.max_pool3d
    for dim, block in enumerate(blocks):  # one dimension at a time: a sum of sides rather than their product
        dropped = pool(dropped, [block if d == dim else 1 for d in range(len(blocks))], stride=1)
    return dropped


def _clear_shards(x: Tensor, rule: Rule, p: float, key: int, call: int, placed: Placed) -> Tensor:
    """The same for a DTensor or a plain local shard, whose blocks may begin in others, and whose scale is the whole's.

    Each process therefore draws the corners of all samples, one sample at a time.
    """
    whole = tuple(x.shape)
    larger = placed.box(Box(whole, (0,) * x.dim()))
    if larger.shape[1:] != whole[1:] or not is_sharded(x):
        raise WellposedError(
            "DropBlock was given a part of a larger tensor, and its scale depends on all of that; give it a DTensor, "
            "or the whole"
        )
    rate = torch.tensor(p, dtype=torch.float64, device="cpu")
    like = torch.empty((), device=x.device)

    def sample(number: int) -> Tensor:
        return _dropped(like, rule, (1, *whole[1:]), stream_tensor(key, call, number), rate)

    is_empty, row = 0 in whole, larger.offset[0]
    kept = [(sample(row + number) == 0).sum() for number in range(0 if is_empty else whole[0])]
    count = whole[0] * (1 if rule.couple_channels else whole[1]) * math.prod(whole[2:])

    def part(x: Tensor, box: Box) -> Tensor:
        if is_empty or 0 in x.shape:
            return x.clone()
        exact = torch.promote_types(x.dtype, torch.float32)
        ones = torch.stack(kept).sum().clamp(min=1).double()
        scale = (torch.full_like(ones, count) / ones).to(exact)
        inside = [slice(o, o + n) for o, n in zip(box.offset[1:], x.shape[1:], strict=True)]
        inside[0] = slice(None) if rule.couple_channels else inside[0]
        dropped = torch.cat([sample(box.offset[0] + number)[(slice(None), *inside)] for number in range(x.shape[0])])
        return torch.where(dropped != 0, x.new_zeros((), dtype=exact), x.to(exact) * scale).to(x.dtype)

    return blockwise(x, part, part, placed)


class _DropBlock(Thinning):
    """DropBlock in any number of dimensions."""

    rank: int  # dimensions of a map

    def __init__(
        self, p: float = 0.1, block_size: int = 7, *, couple_channels: bool = False, inplace: bool = False
    ) -> None:
        super().__init__(p, inplace)
        if block_size < 1:
            raise WellposedError(f"{type(self).__name__} was given block_size={block_size}; expected at least 1")
        self.block_size, self.couple_channels = block_size, couple_channels

    def forward(self, x: Tensor) -> Tensor:
        """Drop blocks of ``x``; outside training, return ``x`` itself."""
        if rank_of(type(self).__name__, x) != 2 + self.rank:
            raise WellposedError(
                f"{type(self).__name__} was given an input of shape {tuple(x.shape)}; "
                f"expected (N, C, ...) of {2 + self.rank} dimensions"
            )
        if not self.training:
            return x
        check_input(type(self).__name__, x)
        if not is_dynamo_compiling() and self.p == 0.0:
            return x
        x = arrived(x)
        rule = Rule(self.block_size, self.couple_channels)
        if is_ordinary(x) or is_sharded(x):
            key, call, row, placed, _ = self.next_stream(x)
            if placed is not None:
                return _clear_shards(x, rule, self._p, key, call, placed)
            clear = functools.partial(clear_blocks, rule=rule, p=self._p, key=key, call=call, row=row)
        else:
            stream = self.next_stream_tensor(x.detach())
            clear = functools.partial(clear_by_operators, rule=rule, stream=stream, p=self._rate)
        return linear(x, clear, clear)

    def extra_repr(self) -> str:
        """The arguments, as they are printed."""
        return f"p={self.p}, block_size={self.block_size}, couple_channels={self.couple_channels}"


class DropBlock2d(_DropBlock):
    """DropBlock: drop square regions of feature maps while training, and scale the rest so that the batch mean stays.

    Corners of regions are drawn with probability p H W / (block_size^2 (H - block_size + 1) (W - block_size + 1)).

    Args:
        p: The share of elements that are dropped, roughly: regions may overlap.
        block_size: The side of a region.
        couple_channels: Whether the same regions are dropped from all channels of a sample.
        inplace: Only ``False`` is possible; taken since torch's modules take it.

    Shape:
        (N, C, H, W), and the output is like the input. A side shorter than ``block_size`` is dropped whole.

    Raises:
        WellposedError: If p is not in [0, 1], ``inplace`` is true, the block size is not positive, or the
            input is not of that shape.

    Example:
        >>> DropBlock2d(0.2, 3)(torch.ones(2, 3, 8, 8)).shape
        torch.Size([2, 3, 8, 8])

    Source: Ghiasi et al. (2018).
    """

    rank = 2


class DropBlock3d(_DropBlock):
    """DropBlock in 3-D: drop cubes of feature maps while training, and scale the rest so that the batch mean stays.

    Args:
        p: The share of elements that are dropped, roughly: cubes may overlap.
        block_size: The side of a cube.
        couple_channels: Whether the same cubes are dropped from all channels of a sample.
        inplace: Only ``False`` is possible; taken since torch's modules take it.

    Shape:
        (N, C, D, H, W), and the output is like the input. A side shorter than ``block_size`` is dropped whole.

    Raises:
        WellposedError: If p is not in [0, 1], ``inplace`` is true, the block size is not positive, or the
            input is not of that shape.

    Example:
        >>> DropBlock3d(0.2, 3)(torch.ones(2, 3, 4, 8, 8)).shape
        torch.Size([2, 3, 4, 8, 8])

    Source: Ghiasi et al. (2018), in one more dimension.
    """

    rank = 3
