"""A small pool of threads for kernels that release the interpreter lock.

The number of threads is torch's (``torch.set_num_threads``). Results never depend on the split: a value is a function
of its index alone. Numba's own parallel layers are left alone, since one aborts on concurrent use and another on use
after a fork.
"""

import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait

import torch

SMALLEST_SHARE = 1 << 16  # elements a thread: below, handing work over costs more than it saves
_SHARES = 16  # a thread takes at most: threads that others hold up, such as OpenMP's spinning ones, then take fewer
_GRAIN = 64  # shares start on a multiple of it, so that no two threads write to one cache line
_pools: dict[int, ThreadPoolExecutor] = {}


def split(work: Callable[..., object], count: int, before: tuple[int, ...], after: tuple[float, ...]) -> None:
    """Run ``work(*before, first, last, *after)`` over shares of ``range(count)``, as threads come free for them."""
    threads = min(torch.get_num_threads(), count // SMALLEST_SHARE) if count >= 2 * SMALLEST_SHARE else 1
    if threads == 1:
        work(*before, 0, count, *after)
        return
    share = max(SMALLEST_SHARE, -(-count // (threads * _SHARES * _GRAIN)) * _GRAIN)
    left = deque(range(0, count, share))

    def take() -> None:
        while True:
            try:
                first = left.popleft()
            except IndexError:
                return
            work(*before, first, min(first + share, count), *after)

    others = [_pool(threads).submit(take) for _ in range(threads - 1)]
    try:
        take()
    finally:
        left.clear()
        wait(others)  # never leave while a thread still writes to the caller's memory
    for other in others:
        other.result()


def _pool(threads: int) -> ThreadPoolExecutor:
    if threads not in _pools:
        _pools[threads] = ThreadPoolExecutor(threads - 1, thread_name_prefix="wellposed")
    return _pools[threads]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pools.clear)  # the parent's threads do not exist in the child
