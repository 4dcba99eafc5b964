"""Kernels on many threads: C functions that take shares of the elements, one after the other, until none is left.

Threads that others hold up take fewer shares then. Taking one is an atomic addition, without the interpreter.
"""

import functools
import struct
from array import array
from collections.abc import Callable
from typing import Any

from numba import carray, float64, int64

from wellposed.random import pool
from wellposed.random.kernels import engine
from wellposed.random.kernels.jit import c_function, fetch_add, kernel, pointer

_SHARES = 16  # a thread takes at most
_GRAIN = 64  # elements: shares start on a multiple of it, so that no two threads write to one cache line
_HEAD = 3  # the numbers that a block begins with, before the kernel's arguments


def split(
    work: Callable[..., object], count: int, before: tuple[int, ...], after: tuple[float, ...], size: int = 1
) -> None:
    """Run the kernel ``work(*before, first, last, *after)`` over ``range(count)``, on as many threads as are worth it.

    ``size`` is how many elements each of ``count`` stands for.
    """
    threads, grain = pool.threads_for(count * size), -(-_GRAIN // size)
    share = max(-(-pool.SMALLEST_SHARE // size), -(-count // (threads * _SHARES * grain)) * grain)
    block = array("q", (0, count, share, *before, *map(_bits, after)))
    pool.run(body(work), block.buffer_info()[0], threads)


def _bits(number: float) -> int:
    """The int64 in which a block holds a number: an int itself, or the bits of a float64."""
    return number if type(number) is int else _FLOAT_BITS.unpack(_FLOAT.pack(number))[0]


_FLOAT, _FLOAT_BITS = struct.Struct("d"), struct.Struct("q")


@functools.cache
def address_of(work: Callable[..., object]) -> int:
    """Where the C function is that takes shares of a kernel's work; it is given the address of a block of numbers.

    The block holds the next element to take, the number of elements, the elements a share, and the kernel's arguments
    but for ``first`` and ``last``.
    """
    return c_function(BODIES[work])


@functools.cache
def body(work: Callable[..., object]) -> Any:
    """The same C function as ``pool.run`` takes it."""
    return pool.Body(address_of(work))


@kernel
def take(block):
    """The next share: its first element and the one after its last, both the same when none is left."""
    numbers = carray(pointer(block), _HEAD, int64)
    first = min(fetch_add(block, numbers[2]), numbers[1])
    return first, min(first + numbers[2], numbers[1])


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
