"""The loops of ``cpu.py``, for the variants that do more than to clear an element by its word."""
# Numba types kernels itself, from the arguments that they are called with.
# mypy: disallow-untyped-defs=False, disallow-untyped-calls=False, disallow-untyped-decorators=False

import numpy as np
from numba import carray, float32, float64, int32, int64, uint8, uint16, uint32, uint64, void
from numba.types import ExternalFunction

from wellposed.random.kernels import shares
from wellposed.random.kernels.dtypes import (
    BFLOAT16,
    FLOAT32,
    FLOAT64,
    from_bfloat16,
    from_float16,
    to_bfloat16,
    to_float16,
)
from wellposed.random.kernels.jit import fetch_add, int32_bits, int64_bits, kernel, pointer, stack_memory
from wellposed.random.kernels.philox import CHUNK, PADDING, fill_words
from wellposed.random.kernels.plain import NO_MEMORY, STATE
from wellposed.random.kernels.runs import clear


@kernel
def paint_blocks(address, maps, d, h, w, bd, bh, bw, start, k0, k1, call, threshold):
    """Write 1 over every block whose corner's word is below the threshold; return how many elements bear a 1.

    ``address`` has a zeroed byte an element of ``maps`` maps of d x h x w; the corner of the first has word ``start``.
    """
    rows, columns = h - bh + 1, w - bw + 1
    places, size = (d - bd + 1) * rows * columns, d * h * w
    total, limit = maps * places, uint32(threshold)
    painted = carray(pointer(address), maps * size, uint8)
    words = np.empty(min(CHUNK, total) + PADDING, np.uint32)
    first = 0
    while first < total:
        count = min(CHUNK, total - first)
        shift = fill_words(words, start + first, count, k0, k1, call)
        for i in range(count):
            if words[shift + i] < limit:
                where, place = (first + i) // places, (first + i) % places
                plane, row, column = place // (rows * columns), place // columns % rows, place % columns
                corner = where * size + (plane * h + row) * w + column
                for a in range(bd):
                    for b in range(bh):
                        for c in range(bw):
                            painted[corner + (a * h + b) * w + c] = 1
        first += count
    dropped = 0
    for i in range(maps * size):
        dropped += int64(painted[i])
    return dropped


_PATTERN = 4096  # bytes
_pattern = stack_memory(_PATTERN)


@kernel
def clear_painted(source, address, painted, code, first, last, size, shared, scale):
    """Elements ``first`` to ``last`` of maps of ``size``, times the scale, or 0 where a byte is 1.

    ``shared`` maps in a row have the same bytes. These are repeated, so that one loop does many small maps.
    """
    width = 8 if code == FLOAT64 else 4 if code == FLOAT32 else 2
    pattern = _pattern()
    while first < last:
        group, place = first // (size * shared), first % size
        end, together, bytes_ = min(last, (group + 1) * size * shared), size - place, painted + group * size
        if shared == 1:
            end, together, bytes_ = last, last - first, painted + first
        elif 2 * size > _PATTERN:
            end, bytes_ = min(end, first + together), bytes_ + place
        else:
            _copy(bytes_ + place, pattern, size - place)
            _copy(bytes_, pattern + size - place, place)
            together = min(_PATTERN // size * size, end - first)
            for i in range(size, together, size):
                _copy(pattern, pattern + i, size)
            bytes_ = pattern
        while first < end:
            count = min(together, end - first)
            _clear_bytes(source + width * first, address + width * first, bytes_, code, count, scale)
            first += count


@kernel
def _copy(source, address, size):
    x, out = carray(pointer(source), size, uint8), carray(pointer(address), size, uint8)
    for i in range(size):
        out[i] = x[i]


@kernel
def _clear_bytes(source, address, bytes_, code, size, scale):
    """So many elements, times the scale, or 0 where a byte is 1.

    A byte less 1 is a mask of all bits or none. Of a choice between 0 and a product the compiler makes a load that
    leaves out what is dropped; measured, memory flows at 0.4 of its rate then.
    """
    single, painted = float32(scale), carray(pointer(bytes_), size, uint8)
    if code == FLOAT32:
        x, y = carray(pointer(source), size, float32), carray(pointer(address), size, int32)
        for i in range(size):
            y[i] = int32_bits(x[i] * single) & (int32(painted[i]) - int32(1))
    elif code == FLOAT64:
        wide, out = carray(pointer(source), size, float64), carray(pointer(address), size, int64)
        for i in range(size):
            out[i] = int64_bits(wide[i] * scale) & (int64(painted[i]) - 1)
    else:
        bits, half = carray(pointer(source), size, uint16), carray(pointer(address), size, uint16)
        if code == BFLOAT16:
            for i in range(size):
                half[i] = to_bfloat16(from_bfloat16(bits[i]) * single) & uint16(uint16(painted[i]) - uint16(1))
        else:
            for i in range(size):
                half[i] = to_float16(from_float16(bits[i]) * single) & uint16(uint16(painted[i]) - uint16(1))


@kernel
def move_tokens(source, address, back, size, first, last, prefix, count, kept, start, k0, k1, call):
    """Of each row the ``prefix`` first tokens and ``kept`` of the other ``count``, in order: those of smallest words.

    Words count by their upper 24 bits, and the earlier token first. A token has ``size`` bytes. The transpose puts
    tokens back to where they were taken from, and 0 where none was.
    """
    words = np.empty(count + PADDING, np.uint32)
    ranks = np.empty(count, np.uint64)
    for row in range(first, last):
        whole, part = row * (prefix + count) * size, row * (prefix + kept) * size
        if back:
            whole, part = address + whole, source + part
            _copy(part, whole, prefix * size)
        else:
            whole, part = source + whole, address + part
            _copy(whole, part, prefix * size)
        shift = fill_words(words, start + row * count, count, k0, k1, call)
        for i in range(count):
            ranks[i] = _rank(words[shift + i], i)
        _sort(ranks)
        part += prefix * size
        for i in range(count):
            token = whole + (prefix + i) * size
            if _rank(words[shift + i], i) <= ranks[kept - 1]:
                if back:
                    _copy(part, token, size)
                else:
                    _copy(token, part, size)
                part += size
            elif back:
                clear(token, size)


@kernel
def _rank(word, i):
    """Where a token comes in the order that ``move_tokens`` goes by."""
    return (uint64(word) >> uint64(8)) << uint64(32) | uint64(i)


_FEW = 32  # numbers that are put in order by insertion


@kernel
def _sort(numbers):
    """Put numbers in order; a few by insertion, since the general way first makes room for its stack."""
    if numbers.size > _FEW:
        numbers.sort()
        return
    for i in range(1, numbers.size):
        number, j = numbers[i], i
        while j > 0 and numbers[j - 1] > number:
            numbers[j] = numbers[j - 1]
            j -= 1
        numbers[j] = number


@kernel
def thin_to_floor(source, address, code, first, last, inner, k0, k1, call, threshold, scale, shift, floor):
    """Write the floor where the word that ``inner`` elements share is below the threshold, else x * scale + shift."""
    limit, a, b, c = uint32(threshold), float32(scale), float32(shift), float32(floor)
    words = np.empty(min(CHUNK, last - first) + PADDING, np.uint32)
    while first < last:
        group = first // inner
        count = min((last - 1) // inner - group + 1, CHUNK)
        start = fill_words(words, group, count, k0, k1, call)
        for g in range(1 if inner == 1 else count):
            length = count if inner == 1 else min(last, (group + g + 1) * inner) - first
            dropped = words[start + g] < limit
            if code == FLOAT32:
                x = carray(pointer(source + 4 * first), length, float32)
                y = carray(pointer(address + 4 * first), length, float32)
                if inner == 1:
                    for i in range(length):
                        value = x[i] * a + b
                        y[i] = c if words[start + i] < limit else value
                else:
                    for i in range(length):
                        value = x[i] * a + b
                        y[i] = c if dropped else value
            elif code == FLOAT64:
                wide = carray(pointer(source + 8 * first), length, float64)
                out = carray(pointer(address + 8 * first), length, float64)
                if inner == 1:
                    for i in range(length):
                        double = wide[i] * scale + shift
                        out[i] = floor if words[start + i] < limit else double
                else:
                    for i in range(length):
                        double = wide[i] * scale + shift
                        out[i] = floor if dropped else double
            else:
                bits = carray(pointer(source + 2 * first), length, uint16)
                half = carray(pointer(address + 2 * first), length, uint16)
                if code == BFLOAT16:
                    if inner == 1:
                        for i in range(length):
                            value = from_bfloat16(bits[i]) * a + b
                            half[i] = to_bfloat16(c if words[start + i] < limit else value)
                    else:
                        for i in range(length):
                            value = from_bfloat16(bits[i]) * a + b
                            half[i] = to_bfloat16(c if dropped else value)
                else:
                    if inner == 1:
                        for i in range(length):
                            value = from_float16(bits[i]) * a + b
                            half[i] = to_float16(c if words[start + i] < limit else value)
                    else:
                        for i in range(length):
                            value = from_float16(bits[i]) * a + b
                            half[i] = to_float16(c if dropped else value)
            first += length


_new_zeros = ExternalFunction("calloc", int64(int64, int64))
_release = ExternalFunction("free", void(int64))


def _clear_painted(block):
    """Its arguments are as those of ``thin``; for the scale stands the address of eight numbers, then the first word.

    The numbers are how many maps there are, how many in a row have the same blocks, and the sides of a map and a block.
    The first thread to come paints for all. It leaves when all is done, since the others read its memory. Where no
    memory is to be had, nothing is done, and ``NO_MEMORY`` stands at ``STATE``.
    """
    n, x = carray(pointer(block), 16, int64), carray(pointer(block), 16, float64)
    come, paint, done = block + 8 * 6, block + 8 * STATE, block + 8 * 8
    maps, shared, d, h, w, bd, bh, bw = carray(pointer(int64(x[13])), 8, int64)
    size, memory = d * h * w, 0
    count = maps // shared * size
    if fetch_add(come, 1) == 0:
        memory, start = _new_zeros(8 + count, 1), (int64(x[14]) << 32) + int64(x[15])
        if memory != 0:
            dropped = carray(pointer(memory), 1, int64)
            dropped[0] = paint_blocks(memory + 8, maps // shared, d, h, w, bd, bh, bw, start, n[9], n[10], n[11], n[12])
        fetch_add(paint, memory if memory != 0 else NO_MEMORY)
    first, last = shares.take(block)
    while first < last:
        painted = fetch_add(paint, 0)
        while painted == 0:
            painted = fetch_add(paint, 0)
        if painted == NO_MEMORY:
            return
        scale = count / max(1, count - carray(pointer(painted), 1, int64)[0])
        clear_painted(n[3], n[4], painted + 8, n[5], first, last, size, shared, scale)
        fetch_add(done, last - first)
        first, last = shares.take(block)
    if memory != 0:
        while fetch_add(done, 0) < n[0]:
            pass
        _release(memory)


def _thin_to_floor(block):
    n, x = carray(pointer(block), 16, int64), carray(pointer(block), 16, float64)
    first, last = shares.take(block)
    while first < last:
        inner = max(n[6], 1)
        thin_to_floor(n[3], n[4], n[5], first, last, inner, n[9], n[10], n[11], n[12], x[13], x[14], x[15])
        first, last = shares.take(block)


def _move_tokens(block):
    n = carray(pointer(block), 14, int64)
    first, last = shares.take(block)
    while first < last:
        move_tokens(n[3], n[4], n[5], n[6], first, last, n[7], n[8], n[9], n[10], n[11], n[12], n[13])
        first, last = shares.take(block)


shares.BODIES |= {
    clear_painted: _clear_painted,
    thin_to_floor: _thin_to_floor,
    move_tokens: _move_tokens,
}
