"""The part of a weight that a block is, and what this process holds of it."""

from collections.abc import Sequence

from torch import Tensor

from wellposed.random.box import Box
from wellposed.random.shards import local_blocks


def part_of(tensor: Tensor, where: tuple[int, int, int] | None) -> Tensor:
    """A part of a tensor that is not sharded, a view of it.

    Args:
        tensor: The tensor.
        where: The part, as (dimension, first, end); ``None`` for all of it.
    """
    if where is None:
        return tensor
    dim, first, end = where
    return tensor.narrow(dim, first, end - first)


def dims_apart(boxes: Sequence[Box]) -> list[int]:
    """The dimensions in which boxes of one whole start at different places."""
    return [dim for dim, firsts in enumerate(zip(*(box.offset for box in boxes), strict=True)) if len({*firsts}) > 1]


def local_parts(
    tensor: Tensor, where: tuple[int, int, int] | None, boxes: Sequence[Box] = ()
) -> list[tuple[Tensor, Box | None]]:
    """The blocks that this process holds of a part of a tensor.

    Args:
        tensor: The tensor, sharded or not.
        where: The part, as (dimension, first, end); ``None`` for all of it.
        boxes: Where the part lies in a larger one, if it is not sharded: as many equal pieces, in the one dimension in
            which these are apart.

    Returns:
        Views of the tensor's memory, and where each lies in the part; ``None`` where it is the part.
    """
    if boxes:
        dim = next(iter(dims_apart(boxes)), 0)
        return [*zip(part_of(tensor, where).tensor_split(len(boxes), dim), boxes, strict=True)]
    if where is None:
        return local_blocks(tensor)
    parts = [part_in(block, box, where) for block, box in local_blocks(tensor)]
    return [(part, box) for part, box in parts if box is None or part.numel()]


def part_in(block: Tensor, box: Box | None, where: tuple[int, int, int] | None) -> tuple[Tensor, Box | None]:
    """What a block of a tensor holds of a part of it.

    Args:
        block: The block.
        box: Where it lies in the tensor; ``None`` where it is the tensor.
        where: The part, as (dimension, first, end); ``None`` for all of it.

    Returns:
        A view of the block's memory, and where it lies in the part; ``None`` where it is the part.
    """
    if box is None or where is None:
        return part_of(block, where), box
    dim, first, end = where
    here = box.offset[dim]
    start = min(max(first, here), here + block.shape[dim])
    stop = max(start, min(end, here + block.shape[dim]))
    shape, offset = list(box.shape), list(box.offset)
    shape[dim], offset[dim] = end - first, max(start - first, 0) if start < stop else 0
    return block.narrow(dim, start - here, stop - start), Box(tuple(shape), tuple(offset))
