"""Memory for results, which a large one leaves to the next.

Malloc gives large memory back to the system as soon as it is free, and the first touch of what it asks for instead
costs more than any of the kernels. So a large result lies in memory of ours, and when it is no more another of its
size takes that. Measured at 2^24 float32 values, dropout takes half the time.

What lies idle is never more than ``_IDLE``, and all of it but the latest ``_WARM`` is the system's to take back when it
runs short. To tell the system so costs a tenth of a kernel's time, and glibc's malloc holds on to half as much.
"""

import contextlib
import mmap
import sys
import weakref

import torch
from torch import Tensor

from wellposed.random.memory import PLAIN_TYPES

LARGE = 1 << 25  # bytes from which on glibc's malloc asks the system each time; below, it hands out again
_IDLE, _WARM = 1 << 29, 1 << 27  # bytes
_UNIT = 1 << 21  # bytes: a large page, of which each block has a whole number
_idle: list[mmap.mmap] = []  # the latest last; others may change it between any two steps, though not within one


def result_like(x: Tensor) -> Tensor:
    """A new tensor like the contiguous ``x``, its values yet to be written.

    The storage of a large one is like that of a tensor made from an array: ``resize_`` cannot make it larger.
    """
    if x.nbytes < LARGE or not (x.is_cpu and type(x) in PLAIN_TYPES and sys.platform.startswith("linux")):
        return torch.empty_like(x)
    block = _block(-(-x.nbytes // _UNIT) * _UNIT)
    memory = memoryview(block)
    result = torch.frombuffer(memory, dtype=x.dtype, count=x.numel())
    weakref.finalize(memory, _give_back, block).atexit = False
    result.data = result.as_strided(x.shape, x.stride())  # what is shaped in place counts as changed
    return result


def _block(size: int) -> mmap.mmap:
    """A block that lies idle, if there is one of that size, else a new one."""
    for block in reversed(_idle[:]):
        if len(block) == size:
            with contextlib.suppress(ValueError):  # another thread took it
                _idle.remove(block)
                return block
    block = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(OSError):  # this is advice; a system may know no large pages
        block.madvise(mmap.MADV_HUGEPAGE)
    return block


def _give_back(block: mmap.mmap) -> None:
    """Keep a block for the next result of its size, in place of those that have been idle longest."""
    _idle.append(block)
    total = 0
    for earlier in reversed(_idle[:]):
        total += len(earlier)
        if total > _IDLE:
            with contextlib.suppress(ValueError):  # another thread took it
                _idle.remove(earlier)
        elif total > _WARM and (earlier is block or total - len(block) <= _WARM):  # and it was warm so far
            with contextlib.suppress(OSError):  # this is advice
                earlier.madvise(mmap.MADV_FREE)
