"""The GPU backend: Triton kernels over the memory of tensors, with the same bits as ``reference.py``."""

import functools
import math
import struct

import torch
from torch import Tensor
from triton import cdiv, next_power_of_2

from wellposed._torch import PLAIN_TYPES
from wellposed.arguments import signed
from wellposed.random.backend import TRITON_DEVICES, in_memory_order
from wellposed.random.box import Layout, layout_of
from wellposed.random.draw import BITS, CODES, Cut, Draw, Kind, cut_bits, number_bits
from wellposed.random.kernels.choosing import choose
from wellposed.random.kernels.fills import fill
from wellposed.random.kernels.launching import IS_INTERPRETED, Launcher, target
from wellposed.random.kernels.painting import clear, paint
from wellposed.random.kernels.placing import places
from wellposed.random.kernels.thins import thin as thin_elements
from wellposed.random.kernels.thins import thin_packed, thin_rows

NAME = "gpu"
DEVICES = ("cpu",) if IS_INTERPRETED else TRITON_DEVICES
_CONSTANTS = 9  # of a draw, that are handed over as numbers; the others lie in memory
MOST_TOKENS = 4096  # of a row, that one program can choose from
_SHORT_ROW = 256  # rows of fewer elements that share a word have no programs of their own
_TILE = 1024  # elements of a row a program

_fill, _thin, _thin_packed, _thin_rows = map(Launcher, (fill, thin_elements, thin_packed, thin_rows))
_paint, _clear, _choose = map(Launcher, (paint, clear, choose))


def serves(tensor: Tensor) -> bool:
    """Whether ``tensor`` has memory of a kind that the kernels reach: dense, on such a device, of a dtype they know."""
    return (
        tensor.device.type in DEVICES
        and type(tensor) in PLAIN_TYPES
        and tensor.dtype in CODES
        and tensor.layout is torch.strided
    )


def fill_(tensor: Tensor, draw: Draw, key: int, call: int, layout: Layout) -> None:
    """Fill ``tensor`` with the draw's values at the layout's global indices."""
    is_plain = tensor.is_contiguous() and not tensor.is_neg()
    whole = tensor if is_plain else torch.empty(tensor.shape, dtype=tensor.dtype, device=tensor.device)
    out = whole.view(-1).view(torch.uint8) if whole.dtype == torch.bool else whole.view(-1)
    terms = draw.constants[_CONSTANTS:]
    exact = torch.float64 if draw.is_float64 else torch.float32
    series = torch.tensor(terms, dtype=exact, device="cpu").to(out.device, non_blocking=True) if terms else out
    numbers = (signed(key), signed(call), *_constants(draw))
    for place in places(layout, out.numel(), 2 if draw.is_float64 else 4):
        part = out[place.first : place.first + place.length]
        is_packed = part.element_size() < 4 and part.data_ptr() % 8 == 0
        form = (int(draw.kind), len(terms), draw.is_float64, *place.form, is_packed, 512, target())
        _fill(cdiv(place.length, 512 * place.per_block), (part, series), (*place.numbers, *numbers), form)
    if not is_plain:
        with torch.no_grad():
            tensor.copy_(whole)


def thin(x: Tensor, cut: Cut | Tensor, key: int, call: int, layout: Layout, shift: Tensor | None = None) -> Tensor:
    """A contiguous copy of ``x`` with elements dropped and the others scaled as the cut says.

    Args:
        x: The tensor.
        cut: The cut; or its numbers, as ``cut_bits`` gives them, on the device, to be read when the kernel runs.
        key: The 64 bits of the key.
        call: The call number.
        layout: Where the tensor lies.
        shift: An int64 scalar on the device that is added to the call number when the kernel runs.
    """
    x = in_memory_order(x)
    result = torch.empty_like(x)
    read = (shift is not None, isinstance(cut, Tensor))
    memory = (x if shift is None else shift, cut if isinstance(cut, Tensor) else x)
    bits = (0, 0, 0, 0) if isinstance(cut, Tensor) else cut_bits(cut, x.dtype == torch.float64)
    numbers = (signed(key), signed(call), *bits)
    if len(layout.sizes) == 2 and layout.strides[1] == 0 and layout.sizes[1] >= _SHORT_ROW:
        rows, inner = layout.sizes
        where = (inner, cdiv(inner, _TILE), layout.start, layout.strides[0])
        _thin_rows(rows * where[1], (x, result, *memory), (*where, *numbers), (inner % 16 == 0, *read, _TILE, target()))
        return result
    flat, out = x.view(-1), result.view(-1)
    for place in places(layout, flat.numel(), 4):
        end = place.first + place.length
        pair = flat[place.first : end], out[place.first : end]
        is_packed = x.element_size() == 2 and place.per_block == 4 and all(t.data_ptr() % 8 == 0 for t in pair)
        is_light = place.per_block == 1 or (is_packed and x.dtype == torch.bfloat16)
        blocks = 512 if is_light else 256  # as many as the registers of a program have room for
        launch = _thin_packed if is_packed else _thin
        form = (*place.form, is_packed, *read, blocks, target())
        launch(cdiv(place.length, blocks * place.per_block), (*pair, *memory), (*place.numbers, *numbers), form)
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
    lengths = struct.unpack("6q", sides)
    corners = maps * math.prod(side - block + 1 for side, block in zip(lengths[:3], lengths[3:], strict=True))
    painted = torch.zeros(maps * size, dtype=torch.uint8, device=x.device)
    numbers = (corners, start, *lengths, signed(key), signed(call), threshold)
    _paint(cdiv(corners, _TILE), (painted,), numbers, (_TILE,))
    dropped = painted.sum(dtype=torch.int64)
    numbers = (x.numel(), size, shared, painted.numel())
    _clear(cdiv(x.numel(), _TILE), (x, result, painted, dropped), numbers, (_TILE, target()))
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
    rows, _, *rest = x.shape
    words = torch.empty(rows, others, dtype=torch.uint32, device=x.device)
    fill_(words, BITS, key, call, layout_of(row * others))
    chosen = torch.empty(rows * (prefix + kept), dtype=torch.int64, device=x.device)
    size = next_power_of_2(max(others, prefix, 1))
    _choose(rows, (words, chosen), (prefix, others, kept), (size, max(1, 4096 // size)))
    whole = prefix + others
    if back:
        put = x.new_zeros(rows * whole, *rest)
        return put.index_copy_(0, chosen, x.reshape(-1, *rest)).reshape(rows, whole, *rest)
    return x.reshape(rows * whole, *rest).index_select(0, chosen).reshape(rows, prefix + kept, *rest)


@functools.lru_cache(maxsize=1024)
def _constants(draw: Draw) -> tuple[int, ...]:
    constants = draw.constants[:_CONSTANTS]
    bits = (int(constants[0]),) if draw.kind == Kind.BERNOULLI else number_bits(constants, draw.is_float64)
    return (*bits, *[0] * (_CONSTANTS - len(bits)))
