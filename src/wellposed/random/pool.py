"""A small pool of threads for kernels that release the interpreter lock.

The number of threads is torch's (``torch.set_num_threads``). Results never depend on the split: a value is a function
of its index alone. Numba's own parallel layers are left alone, since one aborts on concurrent use and another on use
after a fork.
"""

import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait

import torch

SMALLEST_SHARE = 1 << 16  # elements a thread: below, handing work over costs more than it saves
_GRAIN = 64  # shares start on a multiple of it, so that no two threads write to one cache line
_pools: dict[int, ThreadPoolExecutor] = {}


def split(work: Callable[..., object], count: int, before: tuple[int, ...], after: tuple[float, ...]) -> None:
    """Run ``work(*before, first, last, *after)`` over shares of ``range(count)``, the first on the calling thread."""
    threads = min(torch.get_num_threads(), count // SMALLEST_SHARE) if count >= 2 * SMALLEST_SHARE else 1
    if threads == 1:
        work(*before, 0, count, *after)
        return
    share = -(-count // (threads * _GRAIN)) * _GRAIN
    cuts = [min(n * share, count) for n in range(threads + 1)]
    others = [_pool(threads).submit(work, *before, low, high, *after) for low, high in itertools.pairwise(cuts[1:])]
    try:
        work(*before, cuts[0], cuts[1], *after)
    finally:
        wait(others)  # never leave while a thread still writes to the caller's memory
    for other in others:
        other.result()


def _pool(threads: int) -> ThreadPoolExecutor:
    if threads not in _pools:
        _pools[threads] = ThreadPoolExecutor(threads - 1, thread_name_prefix="wellposed")
    return _pools[threads]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pools.clear)  # the parent's threads do not exist in the child
