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
    dim, first, end = where
    found: list[tuple[Tensor, Box | None]] = []
    for block, box in local_blocks(tensor):
        if box is None:
            found.append((part_of(block, where), None))
            continue
        here = box.offset[dim]
        start, stop = max(first, here), min(end, here + block.shape[dim])
        if start < stop:
            shape, offset = list(box.shape), list(box.offset)
            shape[dim], offset[dim] = end - first, start - first
            found.append((block.narrow(dim, start - here, stop - start), Box(tuple(shape), tuple(offset))))
    return found
