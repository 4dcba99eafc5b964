"""The same draws as ``reference.py``, bit for bit, at the speed of the memory: Numba loops on threads of ours.

Work runs in chunks that stay in the first-level cache, each in three plain loops that the compiler vectorises: words
(``philox.py``), words to values (``formulas.py``), values to the tensor's dtype (``dtypes.py``), in ``kernels``.
"""

import functools

import numpy as np
import torch
from torch import Tensor

from wellposed.random import pool
from wellposed.random.box import Layout
from wellposed.random.draw import Draw
from wellposed.random.kernels import dtypes, engine

_CODES = {
    torch.float32: dtypes.FLOAT32,
    torch.float64: dtypes.FLOAT64,
    torch.bfloat16: dtypes.BFLOAT16,
    torch.float16: dtypes.FLOAT16,
    torch.bool: dtypes.BYTE,
    torch.uint8: dtypes.BYTE,
    torch.uint32: dtypes.WORD,
}


def serves(tensor: Tensor) -> bool:
    """Whether ``tensor`` has memory of a kind that the kernels reach: a dense CPU tensor of a dtype they know."""
    return tensor.is_cpu and tensor.dtype in _CODES and tensor.layout == torch.strided


def fill_(tensor: Tensor, draw: Draw, key: tuple[int, int], call: int, layout: Layout) -> None:
    """Fill ``tensor`` with the draw's values at the layout's global indices."""
    target = tensor if tensor.is_contiguous() else torch.empty(tensor.shape, dtype=tensor.dtype)
    address, code = target.data_ptr(), _CODES[tensor.dtype]
    constants, table = _array(draw.constants), _table(layout)  # held here while the kernels read them
    where = (layout.start, table.size // 2, table.ctypes.data)
    name = (*key, _signed(call), int(draw.kind), constants.ctypes.data, constants.size)
    pool.split(lambda first, last: engine.fill(address, code, first, last, *where, *name), target.numel())
    if target is not tensor:
        tensor.copy_(target)


def thin(x: Tensor, threshold: int, scale: float, key: tuple[int, int], call: int, layout: Layout) -> Tensor:
    """A contiguous copy of ``x``: 0 where the element's word is below ``threshold``, elsewhere ``x * scale``."""
    x = x.contiguous()
    if threshold > 0xFFFF_FFFF:
        return torch.zeros_like(x)
    result = torch.empty_like(x)
    source, address, code = x.data_ptr(), result.data_ptr(), _CODES[x.dtype]
    table = _table(layout)
    where = (layout.start, table.size // 2, table.ctypes.data)
    name = (*key, _signed(call), threshold, scale)
    pool.split(lambda first, last: engine.thin(source, address, code, first, last, *where, *name), x.numel())
    return result


@functools.lru_cache(maxsize=4096)
def _array(constants: tuple[float, ...]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.array(constants, np.float64)


@functools.lru_cache(maxsize=256)
def _table(layout: Layout) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """The layout's sizes, then its strides; empty for one run of consecutive indices."""
    return np.array(() if layout.is_run else (*layout.sizes, *layout.strides), np.int64)


def _signed(number: int) -> int:
    """The 64 bits of an unsigned number as the signed one that a kernel takes."""
    return number - (number >> 63 << 64)
