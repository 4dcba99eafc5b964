"""Values to memory and back: the third loop. Numba knows neither bfloat16 nor float16, so their bits are made here."""

import numpy as np
from numba import float32, int32, uint16, uint32

from wellposed.random.draw import CODES
from wellposed.random.kernels.jit import float32_from_bits, int32_bits, kernel

FLOAT32, FLOAT64, BFLOAT16, FLOAT16, BYTE, WORD = sorted(set(CODES.values()))

_UNIT_HALF = np.float32(2.0**-24)  # the smallest positive float16
_ONE_HALF = np.float32(0.5)


@kernel
def to_bfloat16(value):
    """The bits of the nearest bfloat16, ties to even."""
    bits = uint32(int32_bits(value))
    rounded = uint32(bits + uint32(0x7FFF) + ((bits >> uint32(16)) & uint32(1)))
    quiet = bits | uint32(0x0040_0000)  # a NaN must not round to infinity
    return uint16((quiet if value != value else rounded) >> uint32(16))


@kernel
def from_bfloat16(bits):
    """The float32 of a bfloat16's bits."""
    return float32_from_bits(int32(uint32(bits) << uint32(16)))


@kernel
def to_float16(value):
    """The bits of the nearest float16, ties to even.

    Below 2^-14, where float16 has a fixed unit of 2^-24, adding 0.5 makes float32 round at that very unit.
    """
    bits = uint32(int32_bits(value))
    sign = (bits >> uint32(16)) & uint32(0x8000)
    size = bits & uint32(0x7FFF_FFFF)
    small = uint32(int32_bits(float32_from_bits(int32(size)) + _ONE_HALF)) - uint32(0x3F00_0000)
    usual = uint32(size - uint32(0x3800_0000) + uint32(0xFFF) + ((size >> uint32(13)) & uint32(1))) >> uint32(13)
    large = uint32(0x7E00) if size > uint32(0x7F80_0000) else uint32(0x7C00)
    result = small if size < uint32(0x3880_0000) else usual
    result = large if size >= uint32(0x4780_0000) else result
    return uint16(sign | result)


@kernel
def from_float16(bits):
    """The float32 of a float16's bits."""
    size = int32(bits) & int32(0x7FFF)
    usual = float32_from_bits(int32((size << int32(13)) + int32(0x3800_0000)))
    special = float32_from_bits(int32((size << int32(13)) | int32(0x7F80_0000)))
    small = float32(size) * _UNIT_HALF
    value = small if size < int32(0x0400) else usual
    value = special if size >= int32(0x7C00) else value
    return -value if int32(bits) & int32(0x8000) else value


@kernel
def store_half(values, count, out, code):
    """Round float32 values into the bits of a bfloat16 or float16 tensor."""
    if code == BFLOAT16:
        for i in range(count):
            out[i] = to_bfloat16(values[i])
    else:
        for i in range(count):
            out[i] = to_float16(values[i])


@kernel
def load_half(bits, count, out, code):
    """The float32 values of a bfloat16 or float16 tensor's bits."""
    if code == BFLOAT16:
        for i in range(count):
            out[i] = from_bfloat16(bits[i])
    else:
        for i in range(count):
            out[i] = from_float16(bits[i])
