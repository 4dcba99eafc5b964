"""Loads and stores in Triton of four elements a Philox block, packed where a dtype is narrow."""

import triton
from triton import language as tl

from wellposed.random.kernels.numbers import four16, rounded


@triton.jit
def interleaved(a, b, c, d):
    """The elements a[0], b[0], c[0], d[0], a[1], ..."""
    return tl.interleave(tl.interleave(a, c), tl.interleave(b, d))


@triton.jit
def store_four(out, first, count, a, b, c, d, IS_PACKED: tl.constexpr, TARGET: tl.constexpr):
    """Store elements ``first`` to ``first + 4 n``, those below ``count``, from the n numbers in each of four tensors.

    Args:
        out: The memory.
        first: The number of the first element.
        count: How many elements there are.
        a: What becomes of the first word of each block.
        b: Of the second.
        c: Of the third.
        d: Of the fourth.
        IS_PACKED: Whether memory is aligned to four elements, of 8 or 16 bits: four are one access then.
        TARGET: What is compiled for.
    """
    dtype: tl.constexpr = out.dtype.element_ty
    BLOCKS: tl.constexpr = a.shape[0]
    is_whole = first + 4 * BLOCKS <= count
    if IS_PACKED and is_whole:
        block = first // 4 + tl.arange(0, BLOCKS)
        if dtype.primitive_bitwidth == 16:
            packed = four16(a, b, c, d, dtype, TARGET)
            tl.store(out.to(tl.pointer_type(tl.uint64), bitcast=True) + block, packed)
        else:
            low = a.to(tl.uint32) | (b.to(tl.uint32) << 8)
            packed = low | (c.to(tl.uint32) << 16) | (d.to(tl.uint32) << 24)
            tl.store(out.to(tl.pointer_type(tl.uint32), bitcast=True) + block, packed)
    else:
        at = first + tl.arange(0, 4 * BLOCKS)
        elements = rounded(interleaved(a, b, c, d), dtype, TARGET)
        if is_whole:
            tl.store(out + at, elements)
        else:
            tl.store(out + at, elements, mask=at < count)
