"""Kernels on many threads: C functions that take shares of the elements, one after the other, until none is left.

Each thread takes the shares of its own part first, which is the part that torch's own operators give it: what the last
of them wrote lies in the caches near its core, and what we write lies there for the next. Measured on two cores that
share the last cache alone, a multiplication after dropout of 2^20 elements takes up to a fifth longer otherwise. Shares
are taken from the end of the part, which torch's operators come to last, to its beginning, which they come to first:
measured between two multiplications of 2^21 elements, that saves a tenth of all three. A thread that has finished then
helps the others, so that one which is held up does not hold up all. Taking a share is an atomic addition, without the
interpreter.
"""

import ctypes
import functools
import struct
from array import array
from collections.abc import Callable
from typing import Any

from numba import carray, float64, int64
from numba.extending import register_jitable

from wellposed.random import pool
from wellposed.random.kernels import engine
from wellposed.random.kernels.jit import c_function, call_int32, fetch_add, kernel, pointer, stack_memory
from wellposed.random.libtorch import c_function as torchs_function

_SHARES = 16  # a thread takes at most of its own
_GRAIN = 64  # elements: shares start on a multiple of it, so that no two threads write to one cache line

# A block: the numbers of elements, of a part and of a share, the kernel's arguments, then from ``THREAD`` on the
# address of the function that tells a thread its number, and how many elements have been taken of each part.
THREAD = 16
TAKEN, MOST_PARTS = THREAD + 1, 64
block_memory = stack_memory(8 * (TAKEN + MOST_PARTS))

_thread = torchs_function("omp_get_thread_num")
THREAD_NUMBER: int = 0 if _thread is None else ctypes.cast(_thread, ctypes.c_void_p).value or 0


def split(
    work: Callable[..., object], count: int, before: tuple[int, ...], after: tuple[float, ...], size: int = 1
) -> "array[int]":
    """Run the kernel ``work(*before, first, last, *after)`` over ``range(count)``, on as many threads as are worth it.

    ``size`` is how many elements each of ``count`` stands for. Returns the block as it is left.
    """
    threads = pool.threads_for(count * size)
    block = block_of(count, *lengths(count, threads, size), *before, *map(_bits, after), threads=threads)
    pool.run(body(work), block.buffer_info()[0], threads)
    return block


def block_of(*numbers: int, threads: int) -> "array[int]":
    """A block for so many threads that begins with these numbers, and of which nothing has been taken yet."""
    return array("q", numbers + _rest(len(numbers), threads))


@functools.cache
def _rest(begun: int, threads: int) -> tuple[int, ...]:
    return (*(0,) * (THREAD - begun), THREAD_NUMBER, *(0,) * min(threads, MOST_PARTS))


@register_jitable
def lengths(count, threads, size):
    """How many of ``count``, each of ``size`` elements, a part has and a share; there is one part a thread."""
    grain = -(-_GRAIN // size)
    part = -(-count // (min(threads, MOST_PARTS) * grain)) * grain
    if threads == 1:
        return part, part
    return part, max(-(-pool.SMALLEST_SHARE // size), -(-part // (_SHARES * grain)) * grain)


def _bits(number: float) -> int:
    """The int64 in which a block holds a number: an int itself, or the bits of a float64."""
    return number if type(number) is int else _FLOAT_BITS.unpack(_FLOAT.pack(number))[0]


_FLOAT, _FLOAT_BITS = struct.Struct("d"), struct.Struct("q")


@functools.cache
def address_of(work: Callable[..., object]) -> int:
    """Where the C function is that takes shares of a kernel's work; it is given the address of a block.

    The kernel's arguments are there in order, but for ``first`` and ``last``.
    """
    return c_function(BODIES[work])


@functools.cache
def body(work: Callable[..., object]) -> Any:
    """The same C function as ``pool.run`` takes it."""
    return pool.Body(address_of(work))


@kernel
def take(block):
    """The next share: its first element and the one after its last, both the same when none is left."""
    numbers = carray(pointer(block), TAKEN, int64)
    count, length, share = numbers[0], numbers[1], numbers[2]
    parts = -(-count // length) if count > 0 else 0
    part = call_int32(numbers[THREAD]) % parts if parts > 1 and numbers[THREAD] != 0 else 0
    for _ in range(parts):
        begin = part * length
        end = min(begin + length, count)
        taken = fetch_add(block + 8 * (TAKEN + part), share)
        if taken < end - begin:
            first = begin + (end - begin - 1 - taken) // share * share
            return first, min(first + share, end)
        part = part + 1 if part + 1 < parts else 0
    return count, count


def _fill(block):
    n = carray(pointer(block), 14, int64)
    first, last = take(block)
    while first < last:
        engine.fill(n[3], first, last, n[4], n[5], n[6], n[7], n[8], n[9], n[10], n[11], n[12], n[13])
        first, last = take(block)


def _fill_double(block):
    n = carray(pointer(block), 14, int64)
    first, last = take(block)
    while first < last:
        engine.fill_double(n[3], first, last, n[4], n[5], n[6], n[7], n[8], n[9], n[10], n[11], n[12], n[13])
        first, last = take(block)


def _thin(block):
    n, scale = carray(pointer(block), 14, int64), carray(pointer(block), 14, float64)[13]
    first, last = take(block)
    while first < last:
        engine.thin(n[3], n[4], n[5], first, last, n[6], n[7], n[8], n[9], n[10], n[11], n[12], scale)
        first, last = take(block)


def _thin_groups(block):
    n, scale = carray(pointer(block), 14, int64), carray(pointer(block), 14, float64)[13]
    first, last = take(block)
    while first < last:
        engine.thin_groups(n[3], n[4], n[5], first, last, n[6], n[9], n[10], n[11], n[12], scale)
        first, last = take(block)


# The C function of each kernel. A package that has kernels of its own adds theirs.
BODIES: dict[Callable[..., object], Callable[[int], None]] = {
    engine.fill: _fill,
    engine.fill_double: _fill_double,
    engine.thin: _thin,
    engine.thin_groups: _thin_groups,
}
