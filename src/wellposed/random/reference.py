"""The reference backend: every draw in plain torch, on any device. The kernels must give the same bits."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from wellposed.arguments import signed
from wellposed.random import inverse_normal
from wellposed.random.box import Layout
from wellposed.random.draw import Cut, Draw, Kind, cut_numbers

NAME = "reference"
_WORD = 0xFFFF_FFFF
_CHUNK = 1 << 19  # elements at a time, since temporaries take some 60 bytes an element


def serves(tensor: Tensor) -> bool:
    """Whether this backend can fill or thin ``tensor``: it can, on every device that has memory, if it is dense."""
    return not tensor.is_meta and tensor.layout == torch.strided


@torch.no_grad()
def fill_(tensor: Tensor, draw: Draw, key: int, call: int, layout: Layout) -> None:
    """Fill ``tensor`` with the draw's values at the layout's global indices."""
    flat = tensor.view(-1) if tensor.is_contiguous() else tensor.new_empty(tensor.numel())
    for first in range(0, flat.numel(), _CHUNK):
        part = flat[first : first + _CHUNK]
        part.copy_(values(draw, words_at(layout, first, part, key, call, is_float64=draw.is_float64)))
    if not tensor.is_contiguous():
        tensor.copy_(flat.view(tensor.shape))


def thin(x: Tensor, cut: Cut | Tensor, key: int, call: int, layout: Layout, shift: Tensor | None = None) -> Tensor:
    """A contiguous copy of ``x``: the floor where the element's word is below the threshold, else x * scale + addend.

    It is computed in float32 (float64 for float64) and rounded once. A cut in a tensor, as ``cut_bits`` gives its
    numbers, is not read by the host, nor is ``shift``, which is added to the call number.
    """
    flat = x.contiguous().view(-1)
    result = torch.empty_like(flat)
    exact = torch.promote_types(x.dtype, torch.float32)
    number = call if shift is None else shift + signed(call)
    threshold, scale, addend, floor = cut_numbers(cut, exact, x.device)
    for first in range(0, flat.numel(), _CHUNK):
        part = flat[first : first + _CHUNK]
        dropped = words_at(layout, first, part, key, number) < threshold
        result[first : first + _CHUNK] = torch.where(dropped, floor, part.to(exact) * scale + addend)
    return result.view(x.shape)


def words_at(
    layout: Layout, first: int, part: Tensor, key: int, call: int | Tensor, *, is_float64: bool = False
) -> Tensor:
    """The random words of elements first, first + 1, ... of a block, as many as ``part`` has, on its device: int64.

    Where these follow each other in the global tensor, each Philox block is computed once for all its elements.
    """
    if layout.sizes:
        index = global_index(layout, first, part.numel(), part.device)
        return words(index, key, call, is_float64=is_float64)
    start, count = layout.start + first, part.numel()
    if is_float64:
        pairs = _run(2 * start, 2 * count, part.device, key, call).view(-1, 2)
        return pairs[:, 0] | pairs[:, 1] << 32
    return _run(start, count, part.device, key, call)


def _run(start: int, count: int, device: torch.device, key: int, call: int | Tensor) -> Tensor:
    """``count`` words of 32 bits that follow each other."""
    block = torch.arange(start // 4, (start + count + 3) // 4, device=device)
    return torch.stack(_blocks(block, key, call), dim=1).view(-1)[start % 4 : start % 4 + count]


def global_index(layout: Layout, first: int, count: int, device: torch.device) -> Tensor:
    """The global indices of elements first to first + count of a block, row by row: int64."""
    rest = torch.arange(first, first + count, device=device)
    if not layout.sizes:
        return layout.start + rest
    index = torch.full_like(rest, layout.start)
    for size, stride in zip(reversed(layout.sizes), reversed(layout.strides), strict=True):
        index += rest % size * stride
        rest = rest // size
    return index


def words(index: Tensor, key: int | Tensor, call: int | Tensor, *, is_float64: bool = False) -> Tensor:
    """The random words of elements as int64: 32 bits each, or 64, of two words, for values in float64.

    Args:
        index: Their global indices.
        key: The key's 64 bits.
        call: The call number; either may be a scalar int64 tensor.
        is_float64: Whether values are drawn in float64.
    """
    if is_float64:
        return words(2 * index, key, call) | words(2 * index + 1, key, call) << 32
    a, b, c, d = _blocks(index >> 2, key, call)
    lane = index & 3
    return torch.where(lane < 2, torch.where(lane == 0, a, b), torch.where(lane == 2, c, d))


def _blocks(block: Tensor, key: int | Tensor, call: int | Tensor) -> list[Tensor]:
    """The four words of each Philox block of a stream."""
    number = call if isinstance(call, Tensor) else torch.full((), signed(call), dtype=torch.int64, device=block.device)
    counter = (block & _WORD, block >> 32, number & _WORD, number >> 32 & _WORD)
    return philox(counter, (key & _WORD, key >> 32 & _WORD))


def philox(counter: Sequence[Tensor], key: tuple[int | Tensor, int | Tensor]) -> list[Tensor]:
    """Philox4x32-10 of four counter words: four words, all int64 holding 32 bits (Salmon et al., 2011)."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        high0, low0 = _multiply(c0, 0xD2511F53)
        high1, low1 = _multiply(c2, 0xCD9E8D57)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + 0x9E3779B9) & _WORD, (k1 + 0xBB67AE85) & _WORD
    return [c0, c1, c2, c3]


def _multiply(a: Tensor, b: int) -> tuple[Tensor, Tensor]:
    """The high and low words of a 32 x 32 bit product; int64 wraps, which leaves all 64 bits right."""
    product = a * b
    return product >> 32 & _WORD, product & _WORD


def values(draw: Draw, word: Tensor) -> Tensor:
    """The values of random words: float32, or float64 for a float64 draw; int64 for bits, and bool for Bernoulli."""
    return _FORMULAS[draw.kind](draw, word)


def _bits(draw: Draw, word: Tensor) -> Tensor:
    return word


def _bernoulli(draw: Draw, word: Tensor) -> Tensor:
    return word < int(draw.constants[0])


def _uniform(draw: Draw, word: Tensor) -> Tensor:
    low, span, bottom, top = draw.constants
    if draw.is_float64:
        u = (word >> 11 & (1 << 53) - 1).to(torch.float64) * 2.0**-53
    else:
        u = (word >> 8).to(torch.float32) * 2.0**-24
    return _clamp(low + span * u, bottom, top)


def _normal(draw: Draw, word: Tensor) -> Tensor:
    mean, std = draw.constants
    x, t, _ = _centred(word, draw.is_float64)
    return mean + std * _quantile(x, t)


def _straddling(draw: Draw, word: Tensor) -> Tensor:
    mean, std, middle, half, lower_tail, upper_tail, bottom, top = draw.constants
    x, t, lower = _centred(word, draw.is_float64)
    x = middle + half * x
    below = x < 0
    t = torch.where(below == lower, t, 2 - t)
    tails = torch.tensor([upper_tail, lower_tail], dtype=x.dtype, device=x.device)
    t = tails[below.long()] + half * t
    return _clamp(mean + std * _quantile(x, t), bottom, top)


def _one_sided(draw: Draw, word: Tensor) -> Tensor:
    anchor, amplitude, mass, rest, bend, scale, shift, bottom, top, *series = draw.constants
    _, t, lower = _centred(word, draw.is_float64)
    near = lower == (amplitude > 0)
    left = mass * (0.5 * torch.where(near, t, 2 - t))  # the part of the mass between the anchor and the value
    right = rest + mass * (0.5 * torch.where(near, 2 - t, t))
    y = -_log(right)
    gone = 1 - right
    y = torch.where(left < 0.5, torch.where(gone == 0, left, y * (left / gone)), y)
    s = _sqrt(1 + bend * y)
    z = _clamp(scale * s + shift, -1, 1)
    upper = lowered = torch.zeros_like(z)
    for coefficient in reversed(series[1:]):
        upper, lowered = coefficient + ((z + z) * upper - lowered), upper
    total = series[0] + (z * upper - lowered)
    return _clamp(anchor + amplitude * (y / (1 + s) * total), bottom, top)


_FORMULAS: dict[Kind, Callable[[Draw, Tensor], Tensor]] = {
    Kind.BITS: _bits,
    Kind.UNIFORM: _uniform,
    Kind.NORMAL: _normal,
    Kind.STRADDLING: _straddling,
    Kind.ONE_SIDED: _one_sided,
    Kind.BERNOULLI: _bernoulli,
}


def _clamp(value: Tensor, bottom: float, top: float) -> Tensor:
    """The value, or the end that it lies beyond."""
    value = torch.where(value < bottom, bottom, value)
    return torch.where(value > top, top, value)


def _centred(word: Tensor, is_float64: bool) -> tuple[Tensor, Tensor, Tensor]:
    """The centred uniform x in [-1, 1], twice the smaller tail t in (0, 1], and whether it is the lower one.

    Both come from the word itself, so each keeps all its digits: x near the centre, t far out in the tail.
    """
    if is_float64:
        lower = word >= 0  # the sign bit of the 64 bits
        from_end, from_centre, dtype, unit = word ^ (word >> 63), word ^ -(2**63), torch.float64, 2.0**-63
    else:
        lower = word < 2**31
        from_end, from_centre, dtype, unit = (
            torch.where(lower, word, _WORD - word),
            word - 2**31,
            torch.float32,
            2.0**-31,
        )
    return (from_centre.to(dtype) + 0.5) * unit, (from_end.to(dtype) + 0.5) * unit, lower


def _quantile(x: Tensor, t: Tensor) -> Tensor:
    """The normal quantile of F = (1 + x) / 2, where 1 - |x| = t."""
    if x.dtype == torch.float32:
        exponent, g = _split(t * (2 - t))
        l = -(exponent + g * _polynomial(inverse_normal.LOG2, g))  # noqa: E741
        return x * (_polynomial(inverse_normal.NUMERATOR, l) / _polynomial(inverse_normal.DENOMINATOR, l))
    half = 0.5 * x
    centre = half * _ratio(inverse_normal.CENTRE, 0.180625 - half * half)
    r = _sqrt(-_log(0.5 * t))
    tail = torch.where(r <= 5, _ratio(inverse_normal.TAIL, r - 1.6), _ratio(inverse_normal.FAR_TAIL, r - 5))
    return torch.where(half.abs() <= 0.425, centre, torch.where(x < 0, -tail, tail))


def _log(x: Tensor) -> Tensor:
    """The natural logarithm of positive normal numbers."""
    exponent, f = _split(x)
    if x.dtype == torch.float32:
        return (exponent + f * _polynomial(inverse_normal.LOG2, f)) * inverse_normal.LN2
    s = f / (2 + f)
    z = s * s
    half_square = 0.5 * f * f
    series = z * _polynomial(inverse_normal.LOG, z)
    return exponent * inverse_normal.LN2_HIGH - (
        (half_square - (s * (half_square + series) + exponent * inverse_normal.LN2_LOW)) - f
    )


def _sqrt(x: Tensor) -> Tensor:
    """The correctly rounded square root of positive numbers; ``torch.sqrt`` may be one unit off on a CPU."""
    if x.dtype == torch.float32:
        return torch.sqrt(x.double()).float()
    root = torch.sqrt(x)
    head = root * (2.0**27 + 1)
    head = head - (head - root)
    rest = root - head
    square = root * root
    lost = (head * head - square + 2 * head * rest) + rest * rest  # root^2 = square + lost exactly (Dekker, 1971)
    return root + (x - square - lost) / (2 * root)


def _split(x: Tensor) -> tuple[Tensor, Tensor]:
    """The exponent e and the fraction f of x = 2^e (1 + f) with 1 + f in [sqrt(1/2), sqrt(2)), both floating."""
    integers, digits, root = (
        (torch.int32, 23, inverse_normal.ROOT_HALF_32)
        if x.dtype == torch.float32
        else (torch.int64, 52, inverse_normal.ROOT_HALF_64)
    )
    bits = x.view(integers)
    exponent = bits - root >> digits
    return exponent.to(x.dtype), (bits - (exponent << digits)).view(x.dtype) - 1


def _polynomial(coefficients: Sequence[float], x: Tensor) -> Tensor:
    """The sum of coefficients[k] * x^k, by Horner's rule."""
    total = torch.full_like(x, coefficients[-1])  # a scalar is rounded to x's dtype, here and below
    for coefficient in reversed(coefficients[:-1]):
        total = total * x + coefficient
    return total


def _ratio(fraction: tuple[Sequence[float], Sequence[float]], x: Tensor) -> Tensor:
    return _polynomial(fraction[0], x) / _polynomial(fraction[1], x)
