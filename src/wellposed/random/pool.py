"""Threads for kernels that release the interpreter lock: torch's own team of them, where it can be had.

The workers of torch's OpenMP team keep spinning on their cores for milliseconds after every operator, so threads of
another team wait for a core in any program that also calls torch. As members of the same team the kernels start at
once: measured, a fill of 2^20 elements between two torch operators takes 0.55 of its time on a team of our own.

The number of threads is torch's (``torch.set_num_threads``). Results never depend on the split: a value is a function
of its index alone. Numba's own parallel layers are left alone, since one aborts on concurrent use and another on use
after a fork.
"""

import ctypes
import functools
import os
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import torch

from wellposed import forks
from wellposed.random.libtorch import c_function

SMALLEST_SHARE = 1 << 15  # elements a thread: below, handing work over costs more than it saves
Body = ctypes.CFUNCTYPE(None, ctypes.c_int64)  # what a thread runs: a C function of one address
_executors: dict[int, ThreadPoolExecutor] = {}


def threads_for(count: int) -> int:
    """How many threads work on ``count`` elements is worth."""
    return 1 if count < 2 * SMALLEST_SHARE else min(torch.get_num_threads(), count // SMALLEST_SHARE)


def run(body: Any, data: int, threads: int) -> None:
    """Call the ``Body`` with ``data`` on so many threads at once, this one among them, and wait until all return."""
    if threads == 1:
        body(data)
        return
    team = None if forks.is_forked else _openmp()
    if team is not None:
        team(body, data, threads, 0)
        return
    if threads not in _executors:
        _executors[threads] = ThreadPoolExecutor(threads - 1, thread_name_prefix="wellposed")
    others = [_executors[threads].submit(body, data) for _ in range(threads - 1)]
    body(data)
    wait(others)


@functools.cache
def _openmp() -> Any:
    """``GOMP_parallel`` of the OpenMP library that torch runs on; ``None`` where it is another kind of library."""
    team = c_function("GOMP_parallel")
    if team is not None:
        team.argtypes, team.restype = (Body, ctypes.c_int64, ctypes.c_uint, ctypes.c_uint), None
    return team


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_executors.clear)
