"""Memory for results, which a large one leaves to the next.

Malloc gives large memory back to the system as soon as it is free, or hands out what was free the longest, and the
first touch of either costs more than any of the kernels. So a large result lies in memory of ours, and when it is no
more the next of its size takes that, the latest first. Measured at 2^24 float32 values, dropout takes half the time;
and four layers of ReLU, DropPath and a multiplication train in 0.6 to 1.0 of theirs at 2^20 to 2^22.

What lies idle is never more than ``_IDLE``, and all of it but the latest ``_WARM`` is the system's to take back when it
runs short. To tell the system so costs a tenth of a kernel's time, and glibc's malloc holds on to half as much.

A tensor may go on any thread, with or without the interpreter, so all of this is compiled. Nobody waits: who finds the
list of idle blocks in use maps a block anew, or unmaps it.
"""

import functools
import mmap
import sys
from collections.abc import Callable

import numpy as np
import torch
from numba import int32, int64, types, void
from numba.extending import register_jitable
from torch import Tensor

from wellposed.random.kernels.builtin import (
    builtin,
    describe,
    item,
    load,
    new_like_at,
    retained,
    stack,
    store,
    to_int,
    wrapper,
)
from wellposed.random.kernels.jit import c_function, exchange
from wellposed.random.memory import PLAIN_TYPES

_IS_LINUX = sys.platform.startswith("linux")
LARGE = 1 << 22  # bytes
_IDLE, _WARM = 1 << 29, 1 << 27  # bytes
_UNIT = 1 << 16  # bytes, of which each block has a whole number
_MOST = _IDLE // LARGE  # idle blocks

# The list of idle blocks: whether someone is at it, how many there are, and the address of each, the latest last.
_TAKEN, _COUNT, _FIRST = range(3)
_list = np.zeros(_FIRST + _MOST + 1, np.int64)
# What is known of a block, in memory of its own: where it is and how large, its list, and whether its pages are the
# system's to take.
_ADDRESS, _SIZE, _LIST, _IS_COLD = range(4)

_allocate = types.ExternalFunction("malloc", int64(int64))
_free = types.ExternalFunction("free", void(int64))
_map = types.ExternalFunction("mmap", int64(int64, int64, int32, int32, int32, int64))
_unmap = types.ExternalFunction("munmap", int32(int64, int64))
_advise = types.ExternalFunction("madvise", int32(int64, int64, int32))
_ACCESS, _OURS_ALONE = (
    (mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) if _IS_LINUX else (0, 0)
)
_LARGE_PAGES, _TAKE_BACK = (mmap.MADV_HUGEPAGE, mmap.MADV_FREE) if _IS_LINUX else (0, 0)


@register_jitable
def _take(blocks, size):
    """The latest idle block of a size; 0 if there is none."""
    if exchange(blocks, 1) != 0:
        return 0
    count, found = load(blocks, _COUNT), 0
    for i in range(count - 1, -1, -1):
        block = load(blocks, _FIRST + i)
        if load(block, _SIZE) == size:
            found = block
            for j in range(i, count - 1):
                store(blocks, _FIRST + j, load(blocks, _FIRST + j + 1))
            store(blocks, _COUNT, count - 1)
            break
    exchange(blocks, 0)
    return found


@register_jitable
def _new(blocks, size):
    """A block from the system; 0 if it has none."""
    address = _map(0, size, int32(_ACCESS), int32(_OURS_ALONE), int32(-1), 0)
    if address == -1:
        return 0
    block = _allocate(32)
    if block == 0:
        _unmap(address, size)
        return 0
    _advise(address, size, int32(_LARGE_PAGES))
    store(block, _ADDRESS, address)
    store(block, _SIZE, size)
    store(block, _LIST, blocks)
    return block


@register_jitable
def _drop(block):
    _unmap(load(block, _ADDRESS), load(block, _SIZE))
    _free(block)


def _give_back(_address, block):
    """Keep a block for the next result of its size, in place of those that have been idle longest."""
    blocks = load(block, _LIST)
    if exchange(blocks, 1) != 0:
        _drop(block)
        return
    count, total, kept = load(blocks, _COUNT) + 1, 0, 0
    store(block, _IS_COLD, 0)
    store(blocks, _FIRST + count - 1, block)
    for i in range(count - 1, -1, -1):
        idle = load(blocks, _FIRST + i)
        total += load(idle, _SIZE)
        if total > _IDLE:
            break
        kept += 1
        if total > _WARM and load(idle, _IS_COLD) == 0:
            _advise(load(idle, _ADDRESS), load(idle, _SIZE), int32(_TAKE_BACK))
            store(idle, _IS_COLD, 1)
    for i in range(count - kept):
        _drop(load(blocks, _FIRST + i))
    for i in range(kept):
        store(blocks, _FIRST + i, load(blocks, _FIRST + count - kept + i))
    store(blocks, _COUNT, kept)
    exchange(blocks, 0)


@register_jitable
def large_like(context, at, slot, new, size):
    """A tensor like a described one of so many bytes; 0 if there is no such memory to be had.

    The items of the context from ``at`` on are :func:`our_memory`; ``new`` is written to as ``describe`` does.
    """
    blocks, end, wrap = to_int(item(context, at)), to_int(item(context, at + 1)), to_int(item(context, at + 2))
    if not _IS_LINUX or blocks == 0:
        return 0
    size = -(-size // _UNIT) * _UNIT
    block = _take(blocks, size)
    if block == 0:
        block = _new(blocks, size)
    if block == 0:
        return 0
    return new_like_at(wrap, slot, new, load(block, _ADDRESS), end, block)


@functools.cache
def our_memory() -> tuple[int, int, int]:
    """The list of idle blocks, the address of what gives them back, and :func:`wrapper`; zeros where that cannot be."""
    if not (_IS_LINUX and wrapper()):
        return 0, 0, 0
    return _list.ctypes.data, c_function(_give_back, "void(int64, int64)"), wrapper()


def result_like(x: Tensor) -> Tensor:
    """A new tensor like the contiguous ``x``, its values yet to be written.

    The storage of a large one is like that of a tensor made from an array: ``resize_`` cannot make it larger.
    """
    size = x.nbytes
    result = _large_like()(x, size) if size >= LARGE and type(x) in PLAIN_TYPES else None
    return torch.empty_like(x) if result is None else result


@functools.cache
def _large_like() -> Callable[[Tensor, int], Tensor | None]:
    return builtin(_make_large, (*our_memory(), "_cdata", None), otherwise=None)


def _make_large(context, arguments, _count):
    slot, new = stack(), stack()
    result = 0
    if describe(load(arguments, 0), item(context, 3), slot):
        result = large_like(context, 0, slot, new, to_int(load(arguments, 1)))
    return retained(item(context, 4)) if result == 0 else result
