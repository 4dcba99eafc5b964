"""Boxes: where a block of a tensor lies in the global tensor that it is a part of."""

import functools
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from wellposed.arguments import integer
from wellposed.errors import WellposedError

_MOST_ELEMENTS = 2**62  # word numbers of float64 elements, 2i and 2i + 1, still fit in a signed 64-bit integer


@dataclass(frozen=True, slots=True)
class Box:
    """A block of a larger tensor: the shape of the whole, and where the block starts in it.

    The block's own shape is that of the tensor that is filled. Filling it gives exactly the values that the whole
    tensor has there: element j of the block is element offset + j of the whole, dimension by dimension.

    Args:
        shape: The shape of the whole, at most 2^62 elements.
        offset: Where the block starts, an index in each dimension.

    Raises:
        WellposedError: If the two differ in length, a number is negative, or an offset lies outside the shape.

    Example:
        >>> import torch
        >>> import wellposed as wp
        >>> key = wp.Key(0)
        >>> whole = wp.random.normal((4, 6), key)
        >>> part = wp.random.normal_(torch.empty(2, 3), key, box=wp.Box((4, 6), (1, 2)))
        >>> torch.equal(part, whole[1:3, 2:5])
        True
    """

    shape: tuple[int, ...]
    offset: tuple[int, ...]

    def __post_init__(self) -> None:
        shape, offset = _sizes(self.shape, "Box(shape)"), _sizes(self.offset, "Box(offset)")
        if len(shape) != len(offset) or any(not 0 <= o <= s for s, o in zip(shape, offset, strict=True)):
            raise WellposedError(
                f"Box was given shape {shape} and offset {offset}; expected an offset in [0, size] for each dimension"
            )
        if math.prod(shape) > _MOST_ELEMENTS:
            raise WellposedError(f"Box was given shape {shape} of {math.prod(shape)} elements; expected at most 2^62")
        object.__setattr__(self, "shape", shape)
        object.__setattr__(self, "offset", offset)


def _sizes(given: object, name: str) -> tuple[int, ...]:
    if not isinstance(given, Sequence) or isinstance(given, str | bytes):
        raise WellposedError(f"{name} was given {given!r}; expected integers, one for each dimension")
    return tuple(integer(size, name, -(2**63), 2**63) for size in given)


class Layout(NamedTuple):
    """The global index of each element of a block, as a start and strides over a few merged dimensions.

    Element (j_1, ..., j_n) of the merged dimensions has global index ``start + sum(j_d * strides[d])``. Dimensions that
    continue each other are merged, so a block that is one contiguous run has no dimension left.

    Attributes:
        start: The index of the first element.
        sizes: The dimensions.
        strides: How far apart the indices are in each.
        packed: All these numbers in a row, as kernels read them.
    """

    start: int
    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    packed: bytes


def layout_of(start: int, sizes: tuple[int, ...] = (), strides: tuple[int, ...] = ()) -> Layout:
    """A layout of a start, sizes and strides."""
    if strides == (1,):
        sizes = strides = ()
    return Layout(start, sizes, strides, struct.pack(f"{1 + 2 * len(sizes)}q", start, *sizes, *strides))


WHOLE = layout_of(0)  # of a tensor of any shape that is not a part of a larger one


@functools.lru_cache(maxsize=1024)  # to find it takes longer than to draw a small tensor
def layout(shape: tuple[int, ...], box: Box | None = None, dims: tuple[int, ...] | None = None) -> Layout:
    """The global indices of a block of ``shape`` that lies at ``box``.

    Args:
        shape: The block's shape.
        box: Where it lies; ``None`` when it is the whole tensor.
        dims: The dimensions that the index counts; elements that differ in other dimensions only have the same index.
            ``None`` counts all.

    Returns:
        The merged layout.

    Raises:
        WellposedError: If the block does not lie inside the box's shape.
    """
    whole, offset = (shape, (0,) * len(shape)) if box is None else (box.shape, box.offset)
    if len(shape) != len(whole) or any(o + n > s for n, s, o in zip(shape, whole, offset, strict=True)):
        raise WellposedError(
            f"a tensor of shape {shape} does not fit into a box of shape {whole} at offset {offset}; "
            "expected offset + size <= the box's size in each dimension"
        )
    counted = range(len(shape)) if dims is None else dims
    start, stride = 0, 1
    merged: list[tuple[int, int]] = []  # (size, stride), innermost first
    for d in reversed(range(len(shape))):
        step = stride if d in counted else 0
        if d in counted:
            start += offset[d] * stride
            stride *= whole[d]
        if shape[d] == 1:
            continue
        if merged and step == merged[-1][0] * merged[-1][1]:
            merged[-1] = (merged[-1][0] * shape[d], merged[-1][1])
        else:
            merged.append((shape[d], step))
    merged.reverse()
    return layout_of(start, tuple(size for size, _ in merged), tuple(step for _, step in merged))
