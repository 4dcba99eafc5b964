"""Words to values: the second loop, one function a distribution; ``reference.py`` says what each computes.

The same code serves both widths: uint32 words with float32 constants, uint64 words with float64 constants. What
differs between them, how a word becomes a uniform and how the logarithm and the quantile are evaluated, is chosen by
type. ``number`` makes a literal of the right type, since a bare one would promote float32 to float64.
"""

from typing import Any

import numpy as np
from numba import float32, float64, int32, int64, types, uint32, uint64
from numba.extending import overload, register_jitable

from wellposed.random import inverse_normal
from wellposed.random.kernels.jit import (
    float32_from_bits,
    float64_from_bits,
    int32_bits,
    int64_bits,
    kernel,
    polynomial,
    select,
)

_log2_32 = polynomial(inverse_normal.LOG2, types.float32)
_numerator_32, _denominator_32 = (
    polynomial(c, types.float32) for c in (inverse_normal.NUMERATOR, inverse_normal.DENOMINATOR)
)
_log_64 = polynomial(inverse_normal.LOG, types.float64)
_centre_above, _centre_below = (polynomial(c, types.float64) for c in inverse_normal.CENTRE)
_tail_above, _tail_below = (polynomial(c, types.float64) for c in inverse_normal.TAIL)
_far_above, _far_below = (polynomial(c, types.float64) for c in inverse_normal.FAR_TAIL)
_LN2 = np.float32(inverse_normal.LN2)
_LN2_HIGH, _LN2_LOW = inverse_normal.LN2_HIGH, inverse_normal.LN2_LOW
_ROOT_HALF_32, _ROOT_HALF_64 = np.int32(inverse_normal.ROOT_HALF_32), np.int64(inverse_normal.ROOT_HALF_64)
_SIGN_32, _SIGN_64 = np.int32(-(2**31)), np.int64(-(2**63))
_UNIT_24, _UNIT_31 = np.float32(2.0**-24), np.float32(2.0**-31)
_UNIT_53, _UNIT_63 = 2.0**-53, 2.0**-63
_HALF, _ONE, _TWO = np.float32(0.5), np.float32(1), np.float32(2)


@register_jitable(forceinline=True)
def _split32(x):
    """The exponent e and the fraction f of x = 2^e (1 + f)."""
    bits = int32_bits(x)
    exponent = int32(bits - _ROOT_HALF_32) >> int32(23)
    return float32(exponent), float32_from_bits(int32(bits - (exponent << int32(23)))) - _ONE


@register_jitable(forceinline=True)
def _split64(x):
    """The exponent e and the fraction f of x = 2^e (1 + f)."""
    bits = int64_bits(x)
    exponent = int64(bits - _ROOT_HALF_64) >> int64(52)
    return float64(exponent), float64_from_bits(int64(bits - (exponent << int64(52)))) - 1.0


@register_jitable(forceinline=True)
def _log32(x):
    """The natural logarithm."""
    exponent, f = _split32(x)
    return (exponent + f * _log2_32(f)) * _LN2


@register_jitable(forceinline=True)
def _log64(x):
    """The natural logarithm."""
    exponent, f = _split64(x)
    s = f / (2.0 + f)
    z = s * s
    half_square = 0.5 * f * f
    series = z * _log_64(z)
    return exponent * _LN2_HIGH - ((half_square - (s * (half_square + series) + exponent * _LN2_LOW)) - f)


@register_jitable(forceinline=True)
def _quantile32(x, t):
    """The normal quantile of F = (1 + x) / 2, where 1 - |x| = t."""
    exponent, g = _split32(t * (_TWO - t))
    l = -(exponent + g * _log2_32(g))  # noqa: E741
    return x * (_numerator_32(l) / _denominator_32(l))


@register_jitable(forceinline=True)
def _quantile64(x, t):
    """The normal quantile of F = (1 + x) / 2, where 1 - |x| = t."""
    half = 0.5 * x
    z = 0.180625 - half * half
    r = np.sqrt(-_log64(0.5 * t))
    near, far = r - 1.6, r - 5.0
    is_near, is_centre = r <= 5.0, abs(half) <= 0.425
    above = select(is_centre, _centre_above(z), select(is_near, _tail_above(near), _far_above(far)))
    below = select(is_centre, _centre_below(z), select(is_near, _tail_below(near), _far_below(far)))
    ratio = above / below
    return select(is_centre, half * ratio, select(x < 0.0, -ratio, ratio))


@register_jitable(forceinline=True)
def _centred32(word):
    """The centred uniform x, and twice the smaller tail t."""
    s = int32(word)
    x = (float32(int32(s ^ _SIGN_32)) + _HALF) * _UNIT_31
    return x, (float32(int32(s ^ (s >> int32(31)))) + _HALF) * _UNIT_31


@register_jitable(forceinline=True)
def _centred64(word):
    """The centred uniform x, and twice the smaller tail t."""
    s = int64(word)
    x = (float64(int64(s ^ _SIGN_64)) + 0.5) * _UNIT_63
    return x, (float64(int64(s ^ (s >> int64(63)))) + 0.5) * _UNIT_63


@register_jitable(forceinline=True)
def _unit32(word):
    """The uniform in [0, 1) of 24 bits."""
    return float32(int32(word >> uint32(8))) * _UNIT_24


@register_jitable(forceinline=True)
def _unit64(word):
    """The uniform in [0, 1) of 53 bits."""
    return float64(int64(word >> uint64(11))) * _UNIT_53


@kernel
def clamp(value, bottom, top):
    """The value, or the end that it lies beyond."""
    value = bottom if value < bottom else value
    return top if value > top else value


_INLINE = {"forceinline": True}  # a call that is left in a loop keeps it from being vectorised


def _stub(*_arguments: Any) -> Any:
    raise AssertionError("kernels alone can call this")


def log(x: Any) -> Any:
    """The natural logarithm of a positive normal number."""
    return _stub(x)


def quantile(x: Any, t: Any) -> Any:
    """The normal quantile of F = (1 + x) / 2, where 1 - |x| = t."""
    return _stub(x, t)


def centred(word: Any) -> Any:
    """The centred uniform x of a word, and twice the smaller tail t."""
    return _stub(word)


def unit(word: Any) -> Any:
    """The uniform in [0, 1) of a word."""
    return _stub(word)


overload(log, jit_options=_INLINE)(lambda x: _log32 if x.bitwidth == 32 else _log64)
overload(quantile, jit_options=_INLINE)(lambda x, t: _quantile32 if x.bitwidth == 32 else _quantile64)
overload(centred, jit_options=_INLINE)(lambda word: _centred32 if word.bitwidth == 32 else _centred64)
overload(unit, jit_options=_INLINE)(lambda word: _unit32 if word.bitwidth == 32 else _unit64)


@kernel
def uniform(words, count, out, constants):
    """Uniform on [low, low + span)."""
    low, span, bottom, top = constants[0], constants[1], constants[2], constants[3]
    for i in range(count):
        out[i] = clamp(low + span * unit(words[i]), bottom, top)


@kernel
def normal_(words, count, out, constants):
    """Normal."""
    mean, std = constants[0], constants[1]
    for i in range(count):
        x, t = centred(words[i])
        out[i] = mean + std * quantile(x, t)


@kernel
def straddling(words, count, out, constants):
    """Normal, truncated to an interval around its mean."""
    number = out.dtype.type
    zero, two = number(0), number(2)
    mean, std, middle, half = constants[0], constants[1], constants[2], constants[3]
    lower_tail, upper_tail, bottom, top = constants[4], constants[5], constants[6], constants[7]
    for i in range(count):
        x0, t0 = centred(words[i])
        x = middle + half * x0
        below = x < zero
        t = select(below == (x0 < zero), t0, two - t0)
        t = select(below, lower_tail, upper_tail) + half * t
        out[i] = clamp(mean + std * quantile(x, t), bottom, top)


@kernel
def one_sided(words, count, out, constants):
    """Normal, truncated to an interval beyond its mean."""
    number = out.dtype.type
    zero, half, one, two = number(0), number(0.5), number(1), number(2)
    anchor, amplitude, mass, rest = constants[0], constants[1], constants[2], constants[3]
    bend, scale, shift, bottom, top = constants[4], constants[5], constants[6], constants[7], constants[8]
    series = constants[9:]
    forward = amplitude > zero
    z = np.empty(count, out.dtype)
    upper, lowered = np.zeros(count, out.dtype), np.zeros(count, out.dtype)
    for i in range(count):
        x, t = centred(words[i])
        near = (x < zero) == forward
        left = mass * (half * select(near, t, two - t))
        right = rest + mass * (half * select(near, two - t, t))
        y = -log(right)
        gone = one - right
        y = select(left < half, select(gone == zero, left, y * (left / gone)), y)
        s = np.sqrt(one + bend * y)
        z[i] = clamp(scale * s + shift, -one, one)
        out[i] = y / (one + s)
    # The Chebyshev sum by Clenshaw's rule, coefficient by coefficient: the loop over elements is the one to vectorise.
    for k in range(len(series) - 1, 0, -1):
        coefficient = series[k]
        for i in range(count):
            total = coefficient + ((z[i] + z[i]) * upper[i] - lowered[i])
            lowered[i], upper[i] = upper[i], total
    for i in range(count):
        total = series[0] + (z[i] * upper[i] - lowered[i])
        out[i] = clamp(anchor + amplitude * (out[i] * total), bottom, top)


@kernel
def bernoulli(words, count, out, threshold):
    """1 where the word is below the threshold, 0 elsewhere."""
    if threshold > 0xFFFF_FFFF:
        out[:count] = 1
        return
    limit = uint32(threshold)
    for i in range(count):
        out[i] = words[i] < limit
