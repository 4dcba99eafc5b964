"""Maps of a tensor block by block, each told where it lies in the whole: of DTensors, and of plain local shards."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from wellposed._torch import apply_of, is_recorded, materialized
from wellposed.dropouts.linear import linear
from wellposed.dropouts.masks import Mask, slope
from wellposed.dropouts.operator import thin
from wellposed.random.box import Box
from wellposed.random.shards import is_sharded, local_blocks

Part = Callable[[Tensor, Box], Tensor]
Blocks = tuple[tuple[tuple[slice, ...], Box], ...]  # slices of a local tensor, and where each lies in the whole


class Outward(NamedTuple):
    """A step outward along one dimension: what was the whole is one of equal parts, which come after some rows."""

    dim: int
    parts: int = 1
    place: int = 0
    row: int = 0


class Placed(NamedTuple):
    """Where a tensor lies in a larger one.

    Attributes:
        inner: The blocks of a plain tensor; ``None`` for one that is a single block, and for a DTensor, which knows
            its own.
        outward: Steps outward from the whole of these, innermost first.
    """

    inner: Blocks | None = None
    outward: tuple[Outward, ...] = ()

    def box(self, box: Box) -> Box:
        """A box in the innermost whole as one in the outermost."""
        if not self.outward:
            return box
        shape, offset = list(box.shape), list(box.offset)
        for dim, parts, place, row in self.outward:
            offset[dim] += place * shape[dim] + row
            shape[dim] = shape[dim] * parts + row
        return Box(tuple(shape), tuple(offset))

    def blocks(self, x: Tensor) -> Blocks:
        """The blocks of a plain tensor."""
        if self.inner is None:
            return ((tuple(map(slice, x.shape)), self.box(Box(tuple(x.shape), (0,) * x.dim()))),)
        return tuple((slices, self.box(box)) for slices, box in self.inner)


class Work(NamedTuple):
    """A linear map that is to be done block by block, or its transpose.

    Attributes:
        forth: From a block of the tensor, and its box, to a block of the result.
        back: The transpose. For a map that is not linear, that of its derivative.
        placed: Where the tensor lies.
        length: The sizes of dimension 1 before and after, where the map changes it; then it needs that dimension whole.
    """

    forth: Part
    back: Part
    placed: Placed
    length: tuple[int, int] | None = None

    @property
    def transposed(self) -> "Work":
        """The transpose, of which the derivative is the map itself."""
        length = None if self.length is None else (self.length[1], self.length[0])
        return Work(self.back, self.forth, self.placed, length)


def blockwise(x: Tensor, forth: Part, back: Part, placed: Placed, length: tuple[int, int] | None = None) -> Tensor:
    """Map a DTensor or a plain local shard, recorded for derivatives of any order; the arguments are those of ``Work``.

    A gradient is mapped where it lies itself, however it comes placed: a block's map depends on its box alone.
    """
    if is_sharded(x):
        return _on_shards(x, Work(forth, back, placed, length))
    blocks = placed.blocks(x)

    def mapped(x: Tensor, part: Part) -> Tensor:
        if len(blocks) == 1:
            return part(x, blocks[0][1])
        made = torch.zeros_like(x)
        for slices, box in blocks:
            made[slices] = part(x[slices], box)
        return made

    return linear(x, lambda x: mapped(x, forth), lambda grad: mapped(grad, back))


def arrived(x: Tensor) -> Tensor:
    """A tensor, and of one that a collective is still bringing, the plain tensor, for which an operator waits."""
    return x.expand_as(x) if type(x).__name__ == "AsyncCollectiveTensor" else x


def thin_blocks(x: Tensor, mask: Mask, placed: Placed) -> Tensor:
    """Apply the mask of a whole to a DTensor, or to a plain local shard of it; the mask has no box."""
    complex_dims = (tuple(range(x.dim())) if mask.dims is None else mask.dims) if x.is_complex() else None

    def part(x: Tensor, box: Box, mask: Mask) -> Tensor:
        if complex_dims is None:
            return thin(x, mask._replace(box=box))
        pairs = Box((*box.shape, 2), (*box.offset, 0))
        return torch.view_as_complex(thin(torch.view_as_real(x), mask._replace(box=pairs, dims=complex_dims)))

    mask, derivative = mask.settled(), slope(mask.settled())
    return blockwise(x, lambda x, box: part(x, box, mask), lambda grad, box: part(grad, box, derivative), placed)


def filled_blocks(like: Tensor, placed: Placed, fill: Callable[[Tensor, Box], object], dtype: torch.dtype) -> Tensor:
    """A new tensor that lies as another does, each of its blocks filled as its place in the whole says."""

    def part(x: Tensor, box: Box) -> Tensor:
        made = torch.empty(x.shape, dtype=dtype, device=x.device)
        fill(made, box)
        return made

    empty = torch.empty_like(like.detach(), dtype=dtype)
    with torch.no_grad():
        return blockwise(empty, part, part, placed)


class _OnShards(torch.autograd.Function):
    """The same of a DTensor."""

    @staticmethod
    def forward(ctx: Any, x: Any, work: Work) -> Tensor:
        ctx.work, ctx.placements = work, x.placements
        return _mapped_shards(x, work)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _on_shards(grad, ctx.work.transposed, ctx.placements), None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, _: None) -> Tensor:
        return _on_shards(materialized(tangent), ctx.work, ctx.placements)


_apply = apply_of(_OnShards)


def _on_shards(x: Any, work: Work, wanted: Any = None) -> Tensor:
    """Map a DTensor; terms of a sum are summed first, where ``wanted`` says they are to lie, since maps round."""
    from torch.distributed.tensor import Replicate

    given, needed = x.placements, list(x.placements)
    for i, placement in enumerate(given):
        if placement.is_partial():
            needed[i] = Replicate() if wanted is None or wanted[i].is_partial() else wanted[i]
        if work.length is not None and getattr(needed[i], "dim", None) == 1:
            needed[i] = Replicate()
    if needed != list(given):
        x = x.redistribute(placements=needed)
    made: Any = _apply(x, work) if is_recorded(x) else _mapped_shards(x, work)
    if work.length is not None and not any(placement.is_partial() for placement in given) and needed != list(given):
        made = made.redistribute(placements=given)
    result: Tensor = made
    return result


def _mapped_shards(x: Any, work: Work) -> Tensor:
    """A new DTensor of the blocks of another, mapped."""
    shape = list(x.shape)
    local = arrived(x.to_local())
    x = _sharded(local, x, shape)
    blocks = local_blocks(x)
    size = list(local.shape)
    if work.length is not None:
        shape[1] = size[1] = work.length[1]
    if len(blocks) == 1 and blocks[0][0].shape == local.shape:
        view, box = blocks[0]
        return _sharded(work.forth(view, _boxed(work, box)), x, shape)
    made: Tensor = _sharded(local.new_empty(size), x, shape)
    for (view, box), (place, _) in zip(blocks, local_blocks(made), strict=True):
        place.copy_(work.forth(view, _boxed(work, box)))
    return made


def _boxed(work: Work, box: Box | None) -> Box:
    assert box is not None  # of a DTensor each block has one
    return work.placed.box(box)


def _sharded(local: Tensor, like: Any, shape: list[int]) -> Tensor:
    """A DTensor that is placed as another is, of a shape that need not be the same."""
    stride = like.stride() if list(like.shape) == shape else torch.empty(shape, device="meta").stride()
    made: Tensor = type(like).from_local(
        local, like.device_mesh, like.placements, run_check=False, shape=torch.Size(shape), stride=stride
    )
    return made
