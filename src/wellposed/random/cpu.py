"""The same draws as ``reference.py``, bit for bit, at the speed of the memory: Numba loops on threads of ours.

Work runs in chunks that stay in the first-level cache, each in three plain loops that the compiler vectorises: words
(``philox.py``), words to values (``formulas.py``), values to the tensor's dtype (``dtypes.py``), in ``kernels``.
"""

import numpy as np
import torch
from torch import Tensor

from wellposed.random.box import Layout
from wellposed.random.draw import CODES, Draw
from wellposed.random.integers import signed
from wellposed.random.kernels import engine, shares
from wellposed.random.kernels.results import result_like
from wellposed.random.native import core  # noqa: F401  # without which there is no backend of this name


def serves(tensor: Tensor) -> bool:
    """Whether ``tensor`` has memory of a kind that the kernels reach: a dense CPU tensor of a dtype they know."""
    return tensor.is_cpu and tensor.dtype in CODES and tensor.layout == torch.strided


def fill_(tensor: Tensor, draw: Draw, key: tuple[int, int], call: int, layout: Layout) -> None:
    """Fill ``tensor`` with the draw's values at the layout's global indices."""
    target = tensor if tensor.is_contiguous() else torch.empty(tensor.shape, dtype=tensor.dtype)
    where, _held = _where(layout)
    name = (*where, *key, signed(call), *draw.parameters)
    shares.split(engine.fill_double if draw.wide else engine.fill, target.numel(), (target.data_ptr(),), name)
    if target is not tensor:
        with torch.no_grad():
            tensor.copy_(target)


def thin(x: Tensor, threshold: int, scale: float, key: tuple[int, int], call: int, layout: Layout) -> Tensor:
    """A contiguous copy of ``x``: 0 where the element's word is below ``threshold``, elsewhere ``x * scale``."""
    if threshold > 0xFFFF_FFFF:
        return torch.zeros_like(x, memory_format=torch.contiguous_format)
    x = x.contiguous()
    result = result_like(x)
    where, _held = _where(layout)
    name = (*where, *key, signed(call), threshold, scale)
    shares.split(engine.thin, x.numel(), (x.data_ptr(), result.data_ptr(), CODES[x.dtype]), name)
    return result


def thin_groups(x: Tensor, inner: int, low: int, high: int, call: int, threshold: int, scale: float) -> Tensor:
    """``thin`` of a contiguous tensor that is the whole, where ``inner`` elements in a row share a word.

    The threshold is below 2^32 and the call signed.
    """
    result = result_like(x)
    before, after = (x.data_ptr(), result.data_ptr(), CODES[x.dtype]), (inner, 0, 0, low, high, call, threshold, scale)
    shares.split(engine.thin_groups, x.numel(), before, after)
    return result


def _where(layout: Layout) -> tuple[tuple[int, int, int], object]:
    """A layout as kernels take it: start, rank, and the address of sizes and strides; and what holds that memory."""
    if layout.is_run:
        return (layout.start, 0, 0), None
    numbers = np.array((*layout.sizes, *layout.strides), np.int64)
    return (layout.start, len(layout.sizes), numbers.ctypes.data), numbers
