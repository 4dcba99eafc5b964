"""The Triton kernels of thinning: drop elements by their random words, and scale the others."""

import triton
from triton import language as tl

from wellposed.random.kernels.memory import interleaved
from wellposed.random.kernels.numbers import exact, four16, from16, is_below, number, rounded
from wellposed.random.kernels.words import STREAM, WHERE, call_number, global_index, one_of, philox

CUT = ("threshold", "scale", "addend", "floor")


@triton.jit
def cut_of(cut, threshold, scale, addend, floor, EXACT: tl.constexpr, IS_READ: tl.constexpr):
    """The four numbers of a cut, as they were given or as memory of the device has them when the kernel runs."""
    IS_FLOAT64: tl.constexpr = tl.float64 == EXACT
    if IS_READ:
        threshold, scale, addend, floor = tl.load(cut), tl.load(cut + 1), tl.load(cut + 2), tl.load(cut + 3)
    scale, addend, floor = number(scale, IS_FLOAT64), number(addend, IS_FLOAT64), number(floor, IS_FLOAT64)
    return threshold.to(tl.int64), scale, addend, floor


@triton.jit
def thinned(x, word, threshold, scale, addend, floor):
    """float32 or float64 numbers after dropout."""
    return tl.where(is_below(word, threshold), floor, x * scale + addend)


def _thin(
    x,
    out,
    shift,
    cut,
    count: tl.int64,
    start: tl.int64,
    size0: tl.int64,
    size1: tl.int64,
    stride0: tl.int64,
    stride1: tl.int64,
    stride2: tl.int64,
    key: tl.int64,
    call: tl.int64,
    threshold: tl.int64,
    scale: tl.int64,
    addend: tl.int64,
    floor: tl.int64,
    PER_BLOCK: tl.constexpr,
    DIMS: tl.constexpr,
    INDEX: tl.constexpr,
    IS_PACKED: tl.constexpr,
    IS_SHIFTED: tl.constexpr,
    IS_READ: tl.constexpr,
    BLOCKS: tl.constexpr,
    TARGET: tl.constexpr,
):
    """Thin ``count`` elements of a tensor that lies somewhere in a global one.

    Args:
        x: The memory that is read.
        out: The memory that is written.
        shift: What is added to the call number, if ``IS_SHIFTED``.
        cut: The four numbers of the cut, if ``IS_READ``.
        count: How many elements there are.
        start: The global index of the first, in units of ``PER_BLOCK`` elements; sizes and strides likewise.
        size0: The sizes of the layout's dimensions, see ``global_index``.
        size1: The next.
        stride0: Its strides.
        stride1: The next.
        stride2: The next.
        key: The key.
        call: The call number.
        threshold: Elements whose word is below it are dropped.
        scale: The bits of what the others are multiplied by, in float32; in float64 for float64. The next likewise.
        addend: Of what is added to them then.
        floor: Of what dropped ones become.
        PER_BLOCK: How many elements a Philox block serves: 4, or 1 where neighbours are not known to share one.
        DIMS: How many dimensions the layout has.
        INDEX: The dtype of numbers within the tensor.
        IS_PACKED: Whether four elements of 16 bits are one access.
        IS_SHIFTED: Whether ``shift`` is read.
        IS_READ: Whether ``cut`` is.
        BLOCKS: Philox blocks a program.
        TARGET: What is compiled for.
    """
    dtype: tl.constexpr = x.dtype.element_ty
    EXACT: tl.constexpr = tl.float64 if dtype == tl.float64 else tl.float32
    threshold, scale, addend, floor = cut_of(cut, threshold, scale, addend, floor, EXACT, IS_READ)
    call = call_number(call, shift, IS_SHIFTED)
    program = tl.program_id(0).to(tl.int64)
    i = program * BLOCKS + tl.arange(0, BLOCKS)
    index = global_index(i.to(INDEX), start, size0, size1, stride0, stride1, stride2, DIMS)
    if PER_BLOCK == 4:
        a, b, c, d = philox(index, key, call)
        is_whole = (program + 1) * (4 * BLOCKS) <= count
        if IS_PACKED and is_whole:
            four = tl.load(x.to(tl.pointer_type(tl.uint64), bitcast=True) + i)
            low, high = four.to(tl.uint32), (four >> 32).to(tl.uint32)
            v = thinned(from16(low, dtype), a, threshold, scale, addend, floor)
            w = thinned(from16(low >> 16, dtype), b, threshold, scale, addend, floor)
            y = thinned(from16(high, dtype), c, threshold, scale, addend, floor)
            z = thinned(from16(high >> 16, dtype), d, threshold, scale, addend, floor)
            tl.store(out.to(tl.pointer_type(tl.uint64), bitcast=True) + i, four16(v, w, y, z, dtype, TARGET))
        else:
            at = program * (4 * BLOCKS) + tl.arange(0, 4 * BLOCKS)
            word = interleaved(a, b, c, d)
            if is_whole:  # without a mask, memory is read and written in wide accesses
                kept = thinned(exact(tl.load(x + at), EXACT, TARGET), word, threshold, scale, addend, floor)
                tl.store(out + at, rounded(kept, dtype, TARGET))
            else:
                kept = thinned(
                    exact(tl.load(x + at, mask=at < count), EXACT, TARGET), word, threshold, scale, addend, floor
                )
                tl.store(out + at, rounded(kept, dtype, TARGET), mask=at < count)
    else:
        a, b, c, d = philox(index >> 2, key, call)
        word = one_of(index & 3, a, b, c, d)
        is_read = (i < count) & (is_below(word, threshold) == 0)  # what is dropped is not
        read = exact(tl.load(x + i, mask=is_read, other=0.0), EXACT, TARGET)
        kept = thinned(read, word, threshold, scale, addend, floor)
        tl.store(out + i, rounded(kept, dtype, TARGET), mask=i < count)


_NUMBERS = [*WHERE, *STREAM, *CUT]
thin = triton.jit(_thin, do_not_specialize=_NUMBERS)
# Four elements of 16 bits are read as one number of 8 bytes; knowing of 16 the compiler would read two, more slowly.
thin_packed = triton.jit(_thin, do_not_specialize=_NUMBERS, do_not_specialize_on_alignment=["x", "out"])


@triton.jit(do_not_specialize=["inner", "tiles", "start", "stride", *STREAM, *CUT])
def thin_rows(
    x,
    out,
    shift,
    cut,
    inner: tl.int64,
    tiles: tl.int64,
    start: tl.int64,
    stride: tl.int64,
    key: tl.int64,
    call: tl.int64,
    threshold: tl.int64,
    scale: tl.int64,
    addend: tl.int64,
    floor: tl.int64,
    IS_ALIGNED: tl.constexpr,
    IS_SHIFTED: tl.constexpr,
    IS_READ: tl.constexpr,
    TILE: tl.constexpr,
    TARGET: tl.constexpr,
):
    """Thin rows whose elements share a word, as channels and samples do; dropped rows are not read.

    Args:
        x: The memory that is read.
        out: The memory that is written.
        shift: What is added to the call number, if ``IS_SHIFTED``.
        cut: The four numbers of the cut, if ``IS_READ``.
        inner: The length of a row.
        tiles: How many programs a row has.
        start: The global index of the first row.
        stride: How far apart those of rows are.
        key: The key.
        call: The call number.
        threshold: The numbers of the cut, as ``thin`` has them.
        scale: Likewise.
        addend: Likewise.
        floor: Likewise.
        IS_ALIGNED: Whether a row has a multiple of 16 elements: memory is read and written in wide accesses then.
        IS_SHIFTED: Whether ``shift`` is read.
        IS_READ: Whether ``cut`` is.
        TILE: Elements a program.
        TARGET: What is compiled for.
    """
    dtype: tl.constexpr = x.dtype.element_ty
    EXACT: tl.constexpr = tl.float64 if dtype == tl.float64 else tl.float32
    threshold, scale, addend, floor = cut_of(cut, threshold, scale, addend, floor, EXACT, IS_READ)
    if IS_ALIGNED:
        inner = inner // 16 * 16
    program = tl.program_id(0).to(tl.int64)
    row = program // tiles
    index = start + row * stride
    a, b, c, d = philox(index >> 2, key, call_number(call, shift, IS_SHIFTED))
    word = one_of(index & 3, a, b, c, d)
    at = (program % tiles) * TILE + tl.arange(0, TILE)
    first = row * inner
    if is_below(word, threshold):
        tl.store(out + first + at, rounded(tl.zeros((TILE,), EXACT) + floor, dtype, TARGET), mask=at < inner)
    else:
        kept = exact(tl.load(x + first + at, mask=at < inner), EXACT, TARGET) * scale + addend
        tl.store(out + first + at, rounded(kept, dtype, TARGET), mask=at < inner)
