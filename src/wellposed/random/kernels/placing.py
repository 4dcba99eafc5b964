"""Where a tensor lies in the global one, as Triton kernels are told: by a few numbers a launch."""

import functools
from typing import NamedTuple

from triton import language as tl

from wellposed.random.box import Layout, layout_of

_MOST_DIMS = 3
_SMALL = 2**30  # below so many elements, those that a program numbers beyond the end fit in int32, too


class Place(NamedTuple):
    """Where a run of elements of a tensor lies in the global one.

    Attributes:
        first: The number of the first element within the tensor.
        length: How many there are.
        per_block: How many in a row take their words from one Philox block; 1 where that is not known of all.
        dims: How many dimensions the layout has.
        numbers: The count; then start, two sizes and three strides as ``words.global_index`` takes them.
    """

    first: int
    length: int
    per_block: int
    dims: int
    numbers: tuple[int, ...]

    @property
    def form(self) -> tuple[int, int, tl.dtype]:
        """What kernels are specialised on: elements a block, dimensions, the dtype of numbers within the tensor."""
        return self.per_block, self.dims, tl.int32 if self.length < _SMALL else tl.int64


@functools.lru_cache(maxsize=1024)
def places(layout: Layout, count: int, per_block: int) -> tuple[Place, ...]:
    """The launches that it takes for ``count`` elements at a layout: one, unless it has many dimensions.

    Args:
        layout: Where the tensor lies.
        count: How many elements it has.
        per_block: How many elements one Philox block has words for.
    """
    return tuple(_place(first, length, part, per_block) for first, length, part in _parts(layout, 0, count))


def _parts(layout: Layout, first: int, count: int) -> list[tuple[int, int, Layout]]:
    start, (outer, *sizes), (step, *strides) = layout.start, layout.sizes or (1,), layout.strides or (1,)
    if len(layout.sizes) <= _MOST_DIMS:
        return [(first, count, layout)]
    length = count // outer
    inner = [layout_of(start + k * step, tuple(sizes), tuple(strides)) for k in range(outer)]
    return [part for k in range(outer) for part in _parts(inner[k], first + k * length, length)]


def _place(first: int, count: int, layout: Layout, per_block: int) -> Place:
    sizes, strides = list(layout.sizes[::-1]), list(layout.strides[::-1])
    together = [layout.start, *sizes[:1], *strides[1:]]
    if any(number % per_block for number in together) or (strides and strides[0] != 1):
        per_block = 1
    dims, start = len(sizes), layout.start // per_block
    sizes = [size // per_block for size in sizes[:1]] + sizes[1:]
    strides = strides[:1] + [stride // per_block for stride in strides[1:]]
    numbers = (count, start, *[*sizes[:2], 1, 1][:2], *[*strides, 0, 0, 0][:3])
    return Place(first, count, per_block, dims, numbers)
