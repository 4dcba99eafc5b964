"""Regions: where in a weight the part lies that a row of a plan is about, and what of it this process holds."""

from torch import Tensor

from wellposed.init.plan import Row
from wellposed.random.box import Box
from wellposed.random.shards import local_block


def region(tensor: Tensor, row: Row) -> Tensor:
    """The part of a weight that a row is about.

    Args:
        tensor: The weight.
        row: The row.

    Returns:
        A view of the weight; of a sharded one, of what this process holds of it.

    Example:
        >>> import torch, wellposed as wp
        >>> module = torch.nn.MultiheadAttention(4, 2)
        >>> keys = wp.init.region(module.in_proj_weight, wp.init.plan(module)["in_proj_weight[k]"])
        >>> keys.shape, keys.storage_offset()
        (torch.Size([4, 4]), 16)
    """
    return held(tensor, row.where)[0]


def held(tensor: Tensor, where: tuple[int, int, int] | None) -> tuple[Tensor, Box | None]:
    """What this process holds of a part of a tensor.

    Args:
        tensor: The tensor, sharded or not.
        where: The part, as (dimension, first, end); ``None`` for all of it.

    Returns:
        A view of the tensor's memory, and where it lies in the part; ``None`` where it is the part.
    """
    local, box = local_block(tensor)
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
