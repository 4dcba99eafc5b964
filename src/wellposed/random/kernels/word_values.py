"""From random words to values in Triton: the formulas of ``reference.py``, operation by operation."""

import triton
from triton import language as tl

from wellposed.random import inverse_normal
from wellposed.random.draw import Kind
from wellposed.random.kernels.numbers import is_below, number, quotient, quotient_of_normals

CONSTANTS = tuple(f"constant{k}" for k in range(9))

_UNIFORM, _NORMAL = tl.constexpr(int(Kind.UNIFORM)), tl.constexpr(int(Kind.NORMAL))
_STRADDLING, _ONE_SIDED = tl.constexpr(int(Kind.STRADDLING)), tl.constexpr(int(Kind.ONE_SIDED))
_BITS, _BERNOULLI = tl.constexpr(int(Kind.BITS)), tl.constexpr(int(Kind.BERNOULLI))
_LOG2 = tl.constexpr(inverse_normal.LOG2)
_NUMERATOR, _DENOMINATOR = tl.constexpr(inverse_normal.NUMERATOR), tl.constexpr(inverse_normal.DENOMINATOR)
_CENTRE_ABOVE, _CENTRE_BELOW = map(tl.constexpr, inverse_normal.CENTRE)
_TAIL_ABOVE, _TAIL_BELOW = map(tl.constexpr, inverse_normal.TAIL)
_FAR_ABOVE, _FAR_BELOW = map(tl.constexpr, inverse_normal.FAR_TAIL)
_LOG = tl.constexpr(inverse_normal.LOG)
_ROOT_HALF_32, _ROOT_HALF_64 = tl.constexpr(inverse_normal.ROOT_HALF_32), tl.constexpr(inverse_normal.ROOT_HALF_64)
_LN2 = tl.constexpr(inverse_normal.LN2)
_LN2_HIGH, _LN2_LOW = tl.constexpr(inverse_normal.LN2_HIGH), tl.constexpr(inverse_normal.LN2_LOW)


@triton.jit
def polynomial(x, coefficients: tl.constexpr, DEGREE: tl.constexpr):
    """The sum of coefficients[k] * x^k, k up to the degree, by Horner's rule."""
    total = tl.full(x.shape, coefficients[DEGREE], x.dtype)
    for k in tl.static_range(DEGREE - 1, -1, -1):
        total = total * x + coefficients[k]
    return total


@triton.jit
def split(x):
    """The exponent e and the fraction f of x = 2^e (1 + f), 1 + f in [sqrt(1/2), sqrt(2)), both floating."""
    if x.dtype == tl.float32:
        bits = x.to(tl.int32, bitcast=True)
        exponent = (bits - _ROOT_HALF_32) >> 23
        return exponent.to(tl.float32), (bits - (exponent << 23)).to(tl.float32, bitcast=True) - 1.0
    else:
        bits = x.to(tl.int64, bitcast=True)
        exponent = (bits - _ROOT_HALF_64) >> 52
        return exponent.to(tl.float64), (bits - (exponent << 52)).to(tl.float64, bitcast=True) - 1.0


@triton.jit
def log(x):
    """The natural logarithm of positive normal numbers."""
    exponent, f = split(x)
    if x.dtype == tl.float32:
        return (exponent + f * polynomial(f, _LOG2, 7)) * _LN2
    else:
        s = f / (2.0 + f)
        z = s * s
        half_square = 0.5 * f * f
        series = z * polynomial(z, _LOG, 6)
        return exponent * _LN2_HIGH - ((half_square - (s * (half_square + series) + exponent * _LN2_LOW)) - f)


@triton.jit
def root(x):
    """The correctly rounded square root of positive numbers."""
    if x.dtype == tl.float32:
        return tl.sqrt_rn(x)
    else:
        return tl.sqrt(x)


@triton.jit
def quantile(x, t, TARGET: tl.constexpr):
    """The normal quantile of F = (1 + x) / 2, where 1 - |x| = t."""
    if x.dtype == tl.float32:
        exponent, g = split(t * (2.0 - t))
        l = -(exponent + g * polynomial(g, _LOG2, 7))  # noqa: E741
        return x * quotient_of_normals(polynomial(l, _NUMERATOR, 6), polynomial(l, _DENOMINATOR, 5), TARGET)
    else:
        half = 0.5 * x
        inner = 0.180625 - half * half
        centre = half * (polynomial(inner, _CENTRE_ABOVE, 7) / polynomial(inner, _CENTRE_BELOW, 7))
        r = root(-log(0.5 * t))
        near, far = r - 1.6, r - 5.0
        tail = tl.where(
            r <= 5.0,
            polynomial(near, _TAIL_ABOVE, 7) / polynomial(near, _TAIL_BELOW, 7),
            polynomial(far, _FAR_ABOVE, 7) / polynomial(far, _FAR_BELOW, 7),
        )
        return tl.where(tl.abs(half) <= 0.425, centre, tl.where(x < 0, -tail, tail))


@triton.jit
def centred(word):
    """The centred uniform x in [-1, 1], twice the smaller tail t in (0, 1], and whether it is the lower one.

    Args:
        word: uint32, or uint64 for float64. (w + 1/2) 2^-k rounds as one fused operation does: the scale is a power
            of 2.
    """
    if word.dtype == tl.uint32:
        signed = word.to(tl.int32, bitcast=True)
        from_centre, from_end = signed ^ -2147483648, signed ^ (signed >> 31)
        x = tl.fma(from_centre.to(tl.float32), 4.656612873077393e-10, 2.3283064365386963e-10)
        t = tl.fma(from_end.to(tl.float32), 4.656612873077393e-10, 2.3283064365386963e-10)
    else:
        signed = word.to(tl.int64, bitcast=True)
        from_centre, from_end = signed ^ -9223372036854775808, signed ^ (signed >> 63)
        x = (from_centre.to(tl.float64) + 0.5) * 1.0842021724855044e-19
        t = (from_end.to(tl.float64) + 0.5) * 1.0842021724855044e-19
    return x, t, signed >= 0


@triton.jit
def clamp(value, bottom, top):
    """The value, or the end that it lies beyond."""
    value = tl.where(value < bottom, bottom, value)
    return tl.where(value > top, top, value)


@triton.jit
def uniform(word, c):
    """Low + span * u, with u of the upper bits of the word, within [bottom, top]; ``c`` are these four."""
    if word.dtype == tl.uint32:
        u = (word >> 8).to(tl.int32, bitcast=True).to(tl.float32) * 5.960464477539063e-08
    else:
        u = (word >> 11).to(tl.int64, bitcast=True).to(tl.float64) * 1.1102230246251565e-16
    return clamp(c[0] + c[1] * u, c[2], c[3])


@triton.jit
def straddling(word, c, TARGET: tl.constexpr):
    """The normal distribution between two ends on either side of its mean.

    Args:
        word: The words.
        c: The mean, the standard deviation, middle, half, the lower and the upper tail, bottom and top.
        TARGET: What is compiled for.
    """
    x, t, lower = centred(word)
    x = c[2] + c[3] * x
    below = x < 0
    t = tl.where(below == lower, t, 2.0 - t)
    t = tl.where(below, c[4], c[5]) + c[3] * t
    return clamp(c[0] + c[1] * quantile(x, t, TARGET), c[6], c[7])


@triton.jit
def one_sided(word, c, series, TERMS: tl.constexpr):
    """The normal distribution between two ends on one side of its mean.

    Args:
        word: The words.
        c: Anchor, amplitude, mass, rest, bend, scale, shift, bottom and top.
        series: The coefficients in memory.
        TERMS: How many.
    """
    _, t, lower = centred(word)
    near = lower == (c[1] > 0)
    left = c[2] * (0.5 * tl.where(near, t, 2.0 - t))
    right = c[3] + c[2] * (0.5 * tl.where(near, 2.0 - t, t))
    y = -log(right)
    gone = 1.0 - right
    ratio = quotient(left, tl.where(gone == 0, 1.0, gone))
    y = tl.where(left < 0.5, tl.where(gone == 0, left, y * ratio), y)
    s = root(1.0 + c[4] * y)
    z = clamp(c[5] * s + c[6], -1.0, 1.0)
    upper, lowered = tl.zeros_like(z), tl.zeros_like(z)
    for k in tl.static_range(TERMS - 1, 0, -1):
        upper, lowered = tl.load(series + k) + ((z + z) * upper - lowered), upper
    total = tl.load(series) + (z * upper - lowered)
    return clamp(c[0] + c[1] * (quotient(y, 1.0 + s) * total), c[7], c[8])


@triton.jit
def value(word, constants, series, KIND: tl.constexpr, TERMS: tl.constexpr, TARGET: tl.constexpr):
    """The values of random words: float32 of uint32, float64 of uint64; for bits the words, for Bernoulli truth.

    Args:
        word: The words.
        constants: The bits of up to nine constants of the draw.
        series: Those beyond, in memory.
        KIND: The kind of the draw.
        TERMS: How many constants lie in memory.
        TARGET: What is compiled for.
    """
    IS_FLOAT64: tl.constexpr = word.dtype == tl.uint64
    c = (
        number(constants[0], IS_FLOAT64),
        number(constants[1], IS_FLOAT64),
        number(constants[2], IS_FLOAT64),
        number(constants[3], IS_FLOAT64),
        number(constants[4], IS_FLOAT64),
        number(constants[5], IS_FLOAT64),
        number(constants[6], IS_FLOAT64),
        number(constants[7], IS_FLOAT64),
        number(constants[8], IS_FLOAT64),
    )
    if KIND == _BITS:
        return word
    elif KIND == _BERNOULLI:
        return is_below(word, constants[0])
    elif KIND == _UNIFORM:
        return uniform(word, c)
    elif KIND == _NORMAL:
        x, t, _ = centred(word)
        return c[0] + c[1] * quantile(x, t, TARGET)
    elif KIND == _STRADDLING:
        return straddling(word, c, TARGET)
    else:
        return one_sided(word, c, series, TERMS)
