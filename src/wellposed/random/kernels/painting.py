"""The Triton kernels of DropBlock: blocks painted at the corners that are drawn, and cleared."""

import triton
from triton import language as tl

from wellposed.random.kernels.numbers import exact, is_below, rounded
from wellposed.random.kernels.words import STREAM, one_of, philox

SIDES = ("depth", "height", "width", "block_depth", "block_height", "block_width")


@triton.jit(do_not_specialize=["count", "start", *SIDES, *STREAM, "threshold"])
def paint(
    painted,
    count: tl.int64,
    start: tl.int64,
    depth: tl.int64,
    height: tl.int64,
    width: tl.int64,
    block_depth: tl.int64,
    block_height: tl.int64,
    block_width: tl.int64,
    key: tl.int64,
    call: tl.int64,
    threshold: tl.int64,
    TILE: tl.constexpr,
):
    """Write 1 to the elements of each block whose corner is drawn.

    Args:
        painted: Bytes, one an element of each map.
        count: How many corners there are, over all maps.
        start: The word of the first corner.
        depth: The sides of a map, of which there may be fewer: the first are 1 then.
        height: The next.
        width: The next.
        block_depth: The sides of a block, likewise.
        block_height: The next.
        block_width: The next.
        key: The key.
        call: The call number.
        threshold: A word below it is drawn as the corner of a block.
        TILE: Corners a program.
    """
    corner = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
    index = start.to(tl.int64) + corner
    a, b, c, d = philox(index >> 2, key, call)
    is_drawn = (corner < count) & is_below(one_of(index & 3, a, b, c, d), threshold)
    columns, rows, slices = width - block_width + 1, height - block_height + 1, depth - block_depth + 1
    x, rest = corner % columns, corner // columns
    y, rest = rest % rows, rest // rows
    z, map_ = rest % slices, rest // slices
    first = ((map_ * depth + z) * height + y) * width + x
    if tl.max(is_drawn.to(tl.int32), 0) > 0:
        for dz in range(block_depth):
            for dy in range(block_height):
                for dx in range(block_width):
                    at = first + (dz * height + dy) * width + dx
                    tl.store(painted + at, tl.full((TILE,), 1, tl.uint8), mask=is_drawn)


@triton.jit(do_not_specialize=["count", "size", "shared"])
def clear(
    x,
    out,
    painted,
    dropped,
    count: tl.int64,
    size: tl.int64,
    shared: tl.int64,
    elements: tl.int64,
    TILE: tl.constexpr,
    TARGET: tl.constexpr,
):
    """Set painted elements to zero, and divide the others by the fraction that is left.

    Args:
        x: The memory that is read.
        out: The memory that is written.
        painted: Bytes, one an element of each map.
        dropped: How many of them are painted: an int64 scalar in memory.
        count: How many elements there are.
        size: How many a map has.
        shared: How many maps in a row have the same blocks.
        elements: How many bytes there are.
        TILE: Elements a program.
        TARGET: What is compiled for.
    """
    dtype: tl.constexpr = x.dtype.element_ty
    EXACT: tl.constexpr = tl.float64 if dtype == tl.float64 else tl.float32
    left = tl.maximum(elements.to(tl.int64) - tl.load(dropped), 1)
    scale = (elements.to(tl.float64) / left.to(tl.float64)).to(EXACT)
    i = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
    byte = tl.load(painted + (i // (size * shared)) * size + i % size, mask=i < count, other=1)
    value = exact(tl.load(x + i, mask=(i < count) & (byte == 0), other=0.0), EXACT, TARGET)
    tl.store(out + i, rounded(tl.where(byte == 0, value * scale, 0.0), dtype, TARGET), mask=i < count)
