"""Words: the first loop of every kernel."""

import numpy as np
from numba import carray, int64, uint32, uint64
from numba.extending import register_jitable

from wellposed.random.kernels.jit import kernel, pointer, stack_memory

CHUNK = 2048  # elements: 8 KiB of words and 8 KiB of values stay in the first-level cache
PADDING = 8  # words by which whole blocks may overhang a chunk at its two ends

_M0, _M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_W0, _W1 = np.uint32(0x9E3779B9), np.uint32(0xBB67AE85)
_HALF = np.uint64(32)
_run = stack_memory(4 * (2 * CHUNK + PADDING))


@register_jitable(forceinline=True)
def block_words(number, k0, k1, call):
    """The four words of one Philox4x32-10 block."""
    a, b, c, d = uint32(number), uint32(number >> _HALF), uint32(call), uint32(uint64(call) >> _HALF)
    key0, key1 = uint32(k0), uint32(k1)
    for _ in range(10):
        p = uint64(a) * _M0
        q = uint64(c) * _M1
        a, b, c, d = uint32(q >> _HALF) ^ b ^ key0, uint32(q), uint32(p >> _HALF) ^ d ^ key1, uint32(p)
        key0 = uint32(key0 + _W0)
        key1 = uint32(key1 + _W1)
    return uint32(a), b, uint32(c), d  # Numba types an exclusive or of uint32 as uint64


@kernel
def fill_blocks(out, block, count, k0, k1, call):
    """Words of ``count`` whole blocks, in order."""
    for j in range(count):
        a, b, c, d = block_words(uint64(block) + uint64(j), k0, k1, call)
        out[4 * j] = a
        out[4 * j + 1] = b
        out[4 * j + 2] = c
        out[4 * j + 3] = d


@kernel
def fill_words(out, first, count, k0, k1, call):
    """Whole blocks that cover words first to first + count; returns where in ``out`` the first of them is."""
    block = first >> 2
    fill_blocks(out, block, ((first & 3) + count + 3) >> 2, k0, k1, call)
    return first & 3


@kernel
def layout_words(out, first, count, width, start, rank, table, k0, k1, call):
    """The words of elements first to first + count of a block of a tensor, ``width`` words an element.

    ``table`` is the address of the layout's ``rank`` sizes and then its ``rank`` strides; rank 0 is one run. Returns
    where in ``out`` the words begin.
    """
    if rank == 0:
        return fill_words(out, (start + first) * width, count * width, k0, k1, call)
    numbers = carray(pointer(table), (2, rank), int64)
    inner, step = numbers[0, rank - 1], numbers[1, rank - 1]
    run = carray(pointer(_run()), 2 * CHUNK + PADDING, uint32)
    done = 0
    while done < count:
        row, column = (first + done) // inner, (first + done) % inner
        index = start + column * step
        for d in range(rank - 2, -1, -1):
            index += row % numbers[0, d] * numbers[1, d]
            row //= numbers[0, d]
        length = min(inner - column, count - done)
        if step == 1:
            shift = fill_words(run, index * width, length * width, k0, k1, call)
            for i in range(length * width):
                out[done * width + i] = run[shift + i]
        else:
            for i in range(length):
                if i == 0 or step != 0:
                    shift = fill_words(run, (index + i * step) * width, width, k0, k1, call)
                for w in range(width):
                    out[(done + i) * width + w] = run[shift + w]
        done += length
    return 0
