"""Runs of elements that share a word: scaled where it keeps them, 0 where not.

These loops wait for memory, and how they ask for it counts. Two cores took from 0.01 to 0.08 off the time of 2^20 to
2^22 float32 elements, wherever they lay, by moving one cache line a step where LLVM's loops read four lines and then
write four.
"""

from typing import Any

from llvmlite import ir
from numba import carray, int32, int64, types, uint8, uint16
from numba.extending import intrinsic, register_jitable

from wellposed.random.kernels.dtypes import BFLOAT16, from_bfloat16, from_float16, to_bfloat16, to_float16
from wellposed.random.kernels.jit import kernel, pointer

_LONG = 1 << 14  # bytes of a run from which on one that is dropped is cleared unread


@kernel
def clear(address, size):
    """Write 0 to so many bytes."""
    out = carray(pointer(address), size, uint8)
    for i in range(size):
        out[i] = uint8(0)


def _mover(size: int) -> Any:
    """An intrinsic that moves so many bytes of numbers: of the bits of x * scale those that the mask has.

    It takes the addresses that are read and written; the numbers are of the scale's type.
    """

    @intrinsic
    def move(_typing: Any, _source: Any, _address: Any, number: Any, _mask: Any) -> Any:
        width = number.bitwidth
        lanes = max(1, 8 * size // width)
        numbers = ir.VectorType(ir.FloatType() if width == 32 else ir.DoubleType(), lanes)
        bits = ir.VectorType(ir.IntType(width), lanes)

        def every(builder: Any, scalar: Any, vector: Any) -> Any:
            first = builder.insert_element(ir.Constant(vector, ir.Undefined), scalar, ir.IntType(32)(0))
            return builder.shuffle_vector(first, first, ir.Constant(ir.VectorType(ir.IntType(32), lanes), [0] * lanes))

        def generate(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
            source, address, scale, mask = args
            x = builder.load(builder.inttoptr(source, numbers.as_pointer()))
            scaled = builder.bitcast(builder.fmul(x, every(builder, scale, numbers)), bits)
            kept = builder.and_(scaled, every(builder, builder.sext(mask, bits.element), bits))
            written = builder.store(kept, builder.inttoptr(address, bits.as_pointer()))
            x.align = written.align = width // 8
            return context.get_dummy_value()

        return types.void(int64, int64, number, int32), generate

    return move


_move_64, _move_32, _move_16, _move_8, _move_4 = map(_mover, (64, 32, 16, 8, 4))


@register_jitable(forceinline=True)
def _move_lines(source, address, size, scale, mask):
    """Move a run of a line or more; the last move begins where it ends with the run, be it within the one before.

    One that is not needed is left out: the processor would take it for a second stream, and foresee neither. Measured,
    that costs two fifths.
    """
    for i in range(0, size - 63, 64):
        _move_64(source + i, address + i, scale, mask)
    if size % 64 != 0:
        _move_64(source + size - 64, address + size - 64, scale, mask)


@kernel
def mask_runs(source, address, masks, size, scale):
    """The bits of x * scale that each run's mask has: all, or none, which is 0.

    A run has ``size`` bytes, of numbers of the scale's type. Short ones that are dropped are read and scaled too. To
    clear them without would read less, and take longer: measured, a fifth of the whole when one run of 2 KiB in ten is
    left out of the flow of memory. Masks come through memory, where the compiler cannot see that there are but two
    kinds, and would make two loops.
    """
    if size >= _LONG:
        _mask_long_runs(source, address, masks, size, scale)
        return
    for g in range(masks.size):
        x, out, mask = source + size * g, address + size * g, int32(masks[g])
        if size >= 64:
            _move_lines(x, out, size, scale, mask)
        elif size >= 32:
            _move_32(x, out, scale, mask)
            _move_32(x + size - 32, out + size - 32, scale, mask)
        elif size >= 16:
            _move_16(x, out, scale, mask)
            _move_16(x + size - 16, out + size - 16, scale, mask)
        elif size >= 8:
            _move_8(x, out, scale, mask)
            _move_8(x + size - 8, out + size - 8, scale, mask)
        else:
            _move_4(x, out, scale, mask)


@kernel
def _mask_long_runs(source, address, masks, size, scale):
    for g in range(masks.size):
        x, out = source + size * g, address + size * g
        if masks[g] == 0:
            clear(out, size)
        else:
            _move_lines(x, out, size, scale, int32(-1))


@kernel
def mask_half_runs(source, address, masks, size, code, scale):
    """The same in bfloat16 or float16."""
    count = size // 2
    for g in range(masks.size):
        mask = uint16(masks[g])
        if mask == 0 and size >= _LONG:
            clear(address + size * g, size)
            continue
        x, bits = carray(pointer(source + size * g), count, uint16), carray(pointer(address + size * g), count, uint16)
        if code == BFLOAT16:
            for i in range(count):
                bits[i] = to_bfloat16(from_bfloat16(x[i]) * scale) & mask
        else:
            for i in range(count):
                bits[i] = to_float16(from_float16(x[i]) * scale) & mask
