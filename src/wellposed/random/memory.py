"""Fresh memory for large results, asked of the system in large pages.

The first touch of fresh memory costs more than any of the kernels: the system clears it page by page, and pages are
4 KiB unless a program asks for larger ones. Torch asks only where THP_MEM_ALLOC_ENABLE is set. Measured at 2^24
float32 values, the first fill of asked-for memory takes half the time.
"""

import ctypes
import functools
import sys
from collections.abc import Callable

import torch
from torch import Tensor

_LARGE = 1 << 22  # bytes; below, memory mostly comes from what the process has already touched
_PAGE = 1 << 12
_HUGE_PAGES = 14  # MADV_HUGEPAGE
PLAIN_TYPES = (Tensor, torch.nn.Parameter)  # types whose values lie at their address, unlike those of most subclasses


def on_large_pages(tensor: Tensor) -> Tensor:
    """Ask for large pages under a tensor that is about to be written for the first time; returns it.

    This is advice: it changes no value, and does nothing for a small tensor, another device or another system.
    """
    advise = _advise()
    if advise is not None and tensor.is_cpu and tensor.nbytes >= _LARGE and type(tensor) in PLAIN_TYPES:
        start = -(-tensor.data_ptr() // _PAGE) * _PAGE
        advise(start, tensor.data_ptr() + tensor.nbytes - start, _HUGE_PAGES)
    return tensor


@functools.cache
def _advise() -> Callable[[int, int, int], int] | None:
    if not sys.platform.startswith("linux"):
        return None
    advise = ctypes.CDLL(None).madvise
    advise.argtypes, advise.restype = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int), ctypes.c_int
    return advise
