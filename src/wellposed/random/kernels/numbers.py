"""Arithmetic in Triton that gives the same bits on every target: scalars from their bits, rounding, division."""

import triton
from triton import language as tl


@triton.jit
def number(bits, IS_FLOAT64: tl.constexpr):
    """A float32 or float64 scalar from its bits, which an int64 holds, so that no launcher rounds it."""
    if IS_FLOAT64:
        return bits.to(tl.int64).to(tl.float64, bitcast=True)
    else:
        return bits.to(tl.uint32).to(tl.float32, bitcast=True)


@triton.jit
def is_below(word, threshold):
    """Whether words are below a threshold in [0, 2^32], an int64 scalar: by 32 bits, and one question for all."""
    threshold = threshold.to(tl.int64)
    return tl.where(threshold > 0xFFFFFFFF, word == word, word < threshold.to(tl.uint32))


@triton.jit
def bfloat16_bits(x):
    """The bits of float32 numbers rounded to bfloat16, by integers: the interpreter's conversion truncates."""
    bits = x.to(tl.uint32, bitcast=True)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return tl.where(x != x, 0x7FC0, rounded)


@triton.jit
def rounded(x, dtype: tl.constexpr, TARGET: tl.constexpr):
    """Numbers rounded once to ``dtype``."""
    if dtype == tl.bfloat16 and TARGET == "interpreter":
        return bfloat16_bits(x.to(tl.float32)).to(tl.uint16).to(tl.bfloat16, bitcast=True)
    else:
        return x.to(dtype)


@triton.jit
def from16(bits, dtype: tl.constexpr):
    """float32 numbers from the lower 16 bits of uint32, the bits of ``dtype``."""
    if dtype == tl.bfloat16:
        return (bits << 16).to(tl.float32, bitcast=True)
    else:
        return bits.to(tl.uint16).to(dtype, bitcast=True).to(tl.float32)


@triton.jit
def exact(x, EXACT: tl.constexpr, TARGET: tl.constexpr):
    """Numbers in float32 or float64, in which they are computed with; the interpreter's conversion loses small ones."""
    if x.dtype == tl.bfloat16 and TARGET == "interpreter":
        return from16(x.to(tl.uint16, bitcast=True).to(tl.uint32), tl.bfloat16)
    else:
        return x.to(EXACT)


@triton.jit
def bits16(x, dtype: tl.constexpr, TARGET: tl.constexpr):
    """The bits of numbers rounded to a dtype of 16 bits, in uint32."""
    return rounded(x, dtype, TARGET).to(tl.uint16, bitcast=True).to(tl.uint32)


@triton.jit
def pair16(x, y, dtype: tl.constexpr, TARGET: tl.constexpr):
    """The bits of two numbers rounded to a dtype of 16 bits, x in the lower half of a uint32."""
    if TARGET == "cuda":  # one instruction, which the compiler does not find
        BFLOAT16: tl.constexpr = "cvt.rn.bf16x2.f32 $0, $2, $1;"
        FLOAT16: tl.constexpr = "cvt.rn.f16x2.f32 $0, $2, $1;"
        return tl.inline_asm_elementwise(
            BFLOAT16 if dtype == tl.bfloat16 else FLOAT16,
            "=r,f,f",
            [x.to(tl.float32), y.to(tl.float32)],
            dtype=tl.uint32,
            is_pure=True,
            pack=1,
        )
    else:
        return bits16(x, dtype, TARGET) | (bits16(y, dtype, TARGET) << 16)


@triton.jit
def four16(a, b, c, d, dtype: tl.constexpr, TARGET: tl.constexpr):
    """Four numbers rounded to a dtype of 16 bits, as they lie in 8 bytes of memory."""
    low, high = pair16(a, b, dtype, TARGET), pair16(c, d, dtype, TARGET)
    return low.to(tl.uint64) | (high.to(tl.uint64) << 32)


@triton.jit
def quotient(x, y):
    """X / y, correctly rounded."""
    if x.dtype == tl.float64:
        return x / y
    else:
        return tl.div_rn(x, y)


@triton.jit
def quotient_of_normals(x, y, TARGET: tl.constexpr):
    """X / y, correctly rounded, where these and the quotient are normal numbers."""
    if TARGET == "cuda" and x.dtype == tl.float32:  # without the look for others, a third of the work (Markstein, 1990)
        r = tl.inline_asm_elementwise("rcp.approx.ftz.f32 $0, $1;", "=f,f", [y], dtype=tl.float32, is_pure=True, pack=1)
        r = tl.fma(r, tl.fma(-y, r, 1.0), r)
        q = x * r
        return tl.fma(tl.fma(-y, q, x), r, q)
    else:
        return quotient(x, y)
