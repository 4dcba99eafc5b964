"""Random words in Triton: Philox4x32-10 at the global indices of a block, beside ``reference.words``."""

import triton
from triton import language as tl

# What says where a tensor lies in the global one; and the stream. Kernels are not specialised on their values.
WHERE = ("count", "start", "size0", "size1", "stride0", "stride1", "stride2")
STREAM = ("key", "call")


@triton.jit
def philox(block, key, call):
    """The four words of blocks of a stream: Philox4x32-10 (Salmon et al., 2011).

    Args:
        block: int64 numbers of blocks.
        key: The 64 bits of the key.
        call: The call number.
    """
    key, call = key.to(tl.int64), call.to(tl.int64)
    c0, c1 = block.to(tl.uint32), (block >> 32).to(tl.uint32)
    c2, c3 = tl.zeros_like(c0) + call.to(tl.uint32), tl.zeros_like(c0) + (call >> 32).to(tl.uint32)
    k0, k1 = tl.zeros_like(c0) + key.to(tl.uint32), tl.zeros_like(c0) + (key >> 32).to(tl.uint32)
    for _ in tl.static_range(10):
        p0, p1 = c0.to(tl.uint64) * 0xD2511F53, c2.to(tl.uint64) * 0xCD9E8D57
        c0, c1, c2, c3 = (
            (p1 >> 32).to(tl.uint32) ^ c1 ^ k0,
            p1.to(tl.uint32),
            (p0 >> 32).to(tl.uint32) ^ c3 ^ k1,
            p0.to(tl.uint32),
        )
        k0 += 0x9E3779B9
        k1 += 0xBB67AE85
    return c0, c1, c2, c3


@triton.jit
def global_index(i, start, size0, size1, stride0, stride1, stride2, DIMS: tl.constexpr):
    """The global index of element i of a block, whose merged dimensions are numbered from the innermost.

    Args:
        i: Numbers of elements within the block, int32 where they fit, since a division takes longer in int64.
        start: The global index of the first element.
        size0: The size of the innermost dimension.
        size1: The size of the next one.
        stride0: How far apart global indices are along the innermost dimension.
        stride1: The same along the next one.
        stride2: The same along the outermost of three.
        DIMS: How many dimensions there are; without any, elements follow each other.
    """
    if DIMS == 0:
        return start + i.to(tl.int64)
    else:
        size = size0.to(i.dtype)
        index = start + (i % size).to(tl.int64) * stride0
        rest = i // size
        if DIMS == 3:
            size = size1.to(i.dtype)
            index += (rest % size).to(tl.int64) * stride1
            return index + (rest // size).to(tl.int64) * stride2
        else:
            return index + rest.to(tl.int64) * stride1


@triton.jit
def one_of(which, a, b, c, d):
    """Word number ``which``, 0 to 3, of a block."""
    return tl.where(which < 2, tl.where(which == 0, a, b), tl.where(which == 2, c, d))


@triton.jit
def call_number(call, shift, IS_SHIFTED: tl.constexpr):
    """The call number, with what memory of the device adds to it when the kernel runs."""
    call = call.to(tl.int64)
    if IS_SHIFTED:
        call += tl.load(shift)
    return call
