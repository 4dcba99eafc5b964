"""The CPU backend: the loops of the native core over the memory of tensors, with the same bits as ``reference.py``."""

import torch
from torch import Tensor

from wellposed.random.backend import in_memory_order
from wellposed.random.box import Layout, layout_of
from wellposed.random.draw import BITS, CODES, Cut, Draw
from wellposed.random.native import core

NAME = "cpu"
MOST_TOKENS = 2**62  # of a row, that the kernel can choose from: any


def serves(tensor: Tensor) -> bool:
    """Whether ``tensor`` has memory of a kind that the kernels reach: a dense CPU tensor of a dtype they know."""
    return tensor.is_cpu and tensor.dtype in CODES and tensor.layout is torch.strided


def fill_(tensor: Tensor, draw: Draw, key: int, call: int, layout: Layout) -> None:
    """Fill ``tensor`` with the draw's values at the layout's global indices."""
    is_plain = tensor.is_contiguous() and not tensor.is_neg()
    target = tensor if is_plain else torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu")
    core.fill(target.data_ptr(), draw.code, target.numel(), layout.packed, key, call, draw.kind, draw.packed)
    if not is_plain:
        with torch.no_grad():
            tensor.copy_(target)


def thin(x: Tensor, cut: Cut, key: int, call: int, layout: Layout, shift: None = None) -> Tensor:
    """A contiguous copy of ``x`` with elements dropped and the others scaled as the cut says."""
    x = in_memory_order(x)
    result = torch.empty_like(x)
    core.thin(x.data_ptr(), result.data_ptr(), CODES[x.dtype], x.numel(), layout.packed, key, call, *cut)
    return result


def clear_blocks(
    x: Tensor, maps: int, shared: int, sides: bytes, start: int, key: int, call: int, threshold: int
) -> Tensor:
    """DropBlock: a contiguous copy of ``x`` with blocks set to zero, and the rest divided by the fraction that is left.

    Args:
        x: Maps, of any shape.
        maps: How many of them have blocks of their own.
        shared: How many in a row have the same.
        sides: Three sides of a map and three of a block, packed as int64.
        start: The word of the first corner.
        key: The 64 bits of the key.
        call: The call number.
        threshold: A word below it is drawn as the corner of a block.
    """
    x = in_memory_order(x)
    result, size = torch.empty_like(x), x.numel() // max(1, maps * shared)
    painted = torch.zeros(maps * size, dtype=torch.uint8, device="cpu")
    dropped = core.paint(painted.data_ptr(), maps, sides, start, key, call, threshold)
    scale = painted.numel() / max(1, painted.numel() - dropped)
    code, at = CODES[x.dtype], painted.data_ptr()
    core.clear(x.data_ptr(), result.data_ptr(), code, x.numel(), at, size, shared, scale)
    return result


def move_tokens(x: Tensor, prefix: int, others: int, kept: int, row: int, key: int, call: int, back: bool) -> Tensor:
    """Token dropout: gather the tokens of each row of ``x`` that are kept; or the transpose, which scatters them back.

    Args:
        x: Rows of tokens (rows, tokens, ...).
        prefix: How many tokens at the start are always kept.
        others: How many others a whole row has.
        kept: How many of those are kept.
        row: Which row of a larger batch is the first.
        key: The 64 bits of the key.
        call: The call number.
        back: Whether to scatter tokens back to where they were gathered from, with 0 elsewhere.
    """
    x = in_memory_order(x)
    rows, tokens, *rest = x.shape
    result = x.new_empty((rows, prefix + (others if back else kept), *rest))
    if not x.numel() or not result.numel():
        return result.zero_()
    words = torch.empty(rows, others, dtype=torch.uint32, device="cpu")
    fill_(words, BITS, key, call, layout_of(row * others))
    token = x.nbytes // (rows * tokens)
    core.move(x.data_ptr(), result.data_ptr(), words.data_ptr(), rows, token, prefix, others, kept, back)
    return result
