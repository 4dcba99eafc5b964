"""The part of a weight that a block is, and the local shard of it."""

from torch import Tensor

from wellposed.random.box import Box
from wellposed.random.shards import local_block


def local_part(tensor: Tensor, where: tuple[int, int, int] | None) -> tuple[Tensor, Box | None]:
    """The local shard of a part of a tensor.

    Args:
        tensor: The tensor, sharded or not.
        where: The part, as (dimension, first, end); ``None`` for all of it.

    Returns:
        A view of the tensor's memory, and where it lies in the part; ``None`` where it is the part.
    """
    return part_in(*local_block(tensor), where)


def part_in(local: Tensor, box: Box | None, where: tuple[int, int, int] | None) -> tuple[Tensor, Box | None]:
    """What a block of a tensor holds of a part of it.

    Args:
        local: The block.
        box: Where it lies in the tensor; ``None`` where it is the tensor.
        where: The part, as (dimension, first, end); ``None`` for all of it.

    Returns:
        A view of the block's memory, and where it lies in the part; ``None`` where it is the part.
    """
    if where is None:
        return local, box
    dim, first, end = where
    if box is None:
        return local.narrow(dim, first, end - first), None
    here = box.offset[dim]
    start = min(max(first, here), here + local.shape[dim])
    stop = max(start, min(end, here + local.shape[dim]))
    shape, offset = list(box.shape), list(box.offset)
    shape[dim], offset[dim] = end - first, max(start - first, 0) if start < stop else 0
    return local.narrow(dim, start - here, stop - start), Box(tuple(shape), tuple(offset))
