"""The Triton kernel that fills memory with the values of a draw."""

import triton
from triton import language as tl

from wellposed.random.kernels.memory import store_four
from wellposed.random.kernels.numbers import rounded
from wellposed.random.kernels.word_values import CONSTANTS, value
from wellposed.random.kernels.words import STREAM, WHERE, global_index, one_of, philox


@triton.jit(do_not_specialize=[*WHERE, *STREAM, *CONSTANTS])
def fill(
    out,
    series,
    count: tl.int64,
    start: tl.int64,
    size0: tl.int64,
    size1: tl.int64,
    stride0: tl.int64,
    stride1: tl.int64,
    stride2: tl.int64,
    key: tl.int64,
    call: tl.int64,
    constant0: tl.int64,
    constant1: tl.int64,
    constant2: tl.int64,
    constant3: tl.int64,
    constant4: tl.int64,
    constant5: tl.int64,
    constant6: tl.int64,
    constant7: tl.int64,
    constant8: tl.int64,
    KIND: tl.constexpr,
    TERMS: tl.constexpr,
    IS_FLOAT64: tl.constexpr,
    PER_BLOCK: tl.constexpr,
    DIMS: tl.constexpr,
    INDEX: tl.constexpr,
    IS_PACKED: tl.constexpr,
    BLOCKS: tl.constexpr,
    TARGET: tl.constexpr,
):
    """Fill ``count`` elements of a tensor that lies somewhere in a global one.

    Args:
        out: The memory.
        series: Constants beyond the first nine.
        count: How many elements there are.
        start: The global index of the first, in units of ``PER_BLOCK`` elements; sizes and strides likewise.
        size0: The sizes of the layout's dimensions, see ``global_index``.
        size1: The next.
        stride0: Its strides.
        stride1: The next.
        stride2: The next.
        key: The key.
        call: The call number.
        constant0: The bits of the constants, in order.
        constant1: The next.
        constant2: The next.
        constant3: The next.
        constant4: The next.
        constant5: The next.
        constant6: The next.
        constant7: The next.
        constant8: The next.
        KIND: The kind of the draw.
        TERMS: How many constants lie in ``series``.
        IS_FLOAT64: Whether values are drawn in float64, from two words each.
        PER_BLOCK: How many elements a Philox block serves: 4, of float64 draws 2, or 1 where neighbours are not
            known to share one.
        DIMS: How many dimensions the layout has.
        INDEX: The dtype of numbers within the tensor.
        IS_PACKED: Whether four elements are one access.
        BLOCKS: Philox blocks a program.
        TARGET: What is compiled for.
    """
    c = (constant0, constant1, constant2, constant3, constant4, constant5, constant6, constant7, constant8)
    program = tl.program_id(0).to(tl.int64)
    i = program * BLOCKS + tl.arange(0, BLOCKS)
    index = global_index(i.to(INDEX), start, size0, size1, stride0, stride1, stride2, DIMS)
    if PER_BLOCK == 4:
        a, b, c_, d = philox(index, key, call)
        a, b = value(a, c, series, KIND, TERMS, TARGET), value(b, c, series, KIND, TERMS, TARGET)
        c_, d = value(c_, c, series, KIND, TERMS, TARGET), value(d, c, series, KIND, TERMS, TARGET)
        store_four(out, program * (4 * BLOCKS), count, a, b, c_, d, IS_PACKED, TARGET)
    elif PER_BLOCK == 2:
        a, b, c_, d = philox(index, key, call)
        first = value(a.to(tl.uint64) | (b.to(tl.uint64) << 32), c, series, KIND, TERMS, TARGET)
        second = value(c_.to(tl.uint64) | (d.to(tl.uint64) << 32), c, series, KIND, TERMS, TARGET)
        at = program * (2 * BLOCKS) + tl.arange(0, 2 * BLOCKS)
        tl.store(out + at, tl.interleave(first, second), mask=at < count)
    elif IS_FLOAT64:
        a, b, c_, d = philox(index >> 1, key, call)
        is_second = (index & 1) != 0
        low, high = tl.where(is_second, c_, a), tl.where(is_second, d, b)
        word = low.to(tl.uint64) | (high.to(tl.uint64) << 32)
        tl.store(out + i, value(word, c, series, KIND, TERMS, TARGET), mask=i < count)
    else:
        a, b, c_, d = philox(index >> 2, key, call)
        v = value(one_of(index & 3, a, b, c_, d), c, series, KIND, TERMS, TARGET)
        tl.store(out + i, rounded(v, out.dtype.element_ty, TARGET), mask=i < count)
