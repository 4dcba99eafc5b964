"""The loop over chunks: words, values, memory. The branches on distribution and dtype stand here, outside the loops."""

import numpy as np
from numba import carray, float32, float64, int32, int64, uint8, uint16, uint32

from wellposed.random.draw import Kind
from wellposed.random.kernels import formulas, fused
from wellposed.random.kernels.dtypes import (
    BFLOAT16,
    BYTE,
    FLOAT16,
    FLOAT32,
    FLOAT64,
    from_bfloat16,
    from_float16,
    load_half,
    store_half,
    to_bfloat16,
    to_float16,
)
from wellposed.random.kernels.jit import int32_bits, int64_bits, kernel, pointer, select, stack_memory
from wellposed.random.kernels.philox import CHUNK, PADDING, fill_words, layout_words

_UNIFORM, _NORMAL, _STRADDLING, _BERNOULLI = (
    int(kind) for kind in (Kind.UNIFORM, Kind.NORMAL, Kind.STRADDLING, Kind.BERNOULLI)
)

_words, _double_words = stack_memory(4 * (CHUNK + PADDING)), stack_memory(4 * (2 * CHUNK + PADDING))
_values = stack_memory(4 * CHUNK)
_LONG = 1 << 14  # elements of a run from which on one that is dropped is cleared unread


@kernel
def draw(kind, words, count, out, constants):
    """The values of one chunk of a continuous distribution."""
    if kind == _UNIFORM:
        formulas.uniform(words, count, out, constants)
    elif kind == _NORMAL:
        formulas.normal_(words, count, out, constants)
    elif kind == _STRADDLING:
        formulas.straddling(words, count, out, constants)
    else:
        formulas.one_sided(words, count, out, constants)


@kernel
def fill(address, first, last, start, rank, table, k0, k1, call, code, kind, parameters, parameter_count):
    """Fill elements first to last of the contiguous tensor at ``address`` with values of a distribution.

    Addresses are integers: taking a tensor apart into arrays would cost more than filling a small one. Draws in float64
    are ``fill_double``'s, so that a program without any need not wait for their compilation.
    """
    constants = carray(pointer(parameters), parameter_count, float32)
    threshold = int64(carray(pointer(parameters), 1, float64)[0]) if kind == _BERNOULLI else 0
    if code == FLOAT32 and rank == 0 and kind == _UNIFORM:
        first += fused.uniform(address, first, last, start + first, k0, k1, call, constants)
    elif code == FLOAT32 and rank == 0 and kind == _BERNOULLI and threshold <= 0xFFFF_FFFF:
        first += fused.bernoulli(address, first, last, start + first, k0, k1, call, threshold)
    if first == last:
        return
    buffer, scratch = carray(pointer(_words()), CHUNK + PADDING, uint32), carray(pointer(_values()), CHUNK, float32)
    while first < last:
        count = min(CHUNK, last - first)
        shift = layout_words(buffer, first, count, 1, start, rank, table, k0, k1, call)
        words = buffer[shift : shift + count]
        if code == FLOAT32:
            out = carray(pointer(address + 4 * first), count, float32)
            if kind == _BERNOULLI:
                formulas.bernoulli(words, count, out, threshold)
            else:
                draw(kind, words, count, out, constants)
        elif code == FLOAT64:
            formulas.bernoulli(words, count, carray(pointer(address + 8 * first), count, float64), threshold)
        elif code == BYTE:
            formulas.bernoulli(words, count, carray(pointer(address + first), count, uint8), threshold)
        elif code in (BFLOAT16, FLOAT16):
            if kind == _BERNOULLI:
                formulas.bernoulli(words, count, scratch, threshold)
            else:
                draw(kind, words, count, scratch, constants)
            store_half(scratch, count, carray(pointer(address + 2 * first), count, uint16), code)
        else:
            bits = carray(pointer(address + 4 * first), count, uint32)
            for i in range(count):
                bits[i] = words[i]
        first += count


@kernel
def fill_double(address, first, last, start, rank, table, k0, k1, call, _code, kind, parameters, parameter_count):
    """``fill`` in float64, two words an element."""
    constants = carray(pointer(parameters), parameter_count, float64)
    buffer = carray(pointer(_double_words()), 2 * CHUNK + PADDING, uint32)
    while first < last:
        count = min(CHUNK, last - first)
        shift = layout_words(buffer, first, count, 2, start, rank, table, k0, k1, call)
        words = buffer[shift : shift + 2 * count].view(np.uint64)
        draw(kind, words, count, carray(pointer(address + 8 * first), count, float64), constants)
        first += count


@kernel
def thin_chunk(words, count, threshold, scale, x, out):
    """0 where the word is below the threshold, elsewhere x * scale."""
    zero = out.dtype.type(0)
    limit = uint32(threshold)
    for i in range(count):
        value = x[i] * scale
        out[i] = zero if words[i] < limit else value


@kernel
def thin(source, address, code, first, last, start, rank, table, k0, k1, call, threshold, scale):
    """Copy elements first to last of one contiguous tensor to another, dropping and scaling; see ``reference.thin``.

    ``threshold`` is below 2^32.
    """
    if code == FLOAT32 and rank == 0:
        first += fused.thin(source, address, first, last, start + first, k0, k1, call, threshold, float32(scale))
    if first == last:
        return
    buffer, scratch = carray(pointer(_words()), CHUNK + PADDING, uint32), carray(pointer(_values()), CHUNK, float32)
    while first < last:
        count = min(CHUNK, last - first)
        shift = layout_words(buffer, first, count, 1, start, rank, table, k0, k1, call)
        words = buffer[shift : shift + count]
        if code == FLOAT32:
            x = carray(pointer(source + 4 * first), count, float32)
            thin_chunk(words, count, threshold, float32(scale), x, carray(pointer(address + 4 * first), count, float32))
        elif code == FLOAT64:
            wide = carray(pointer(source + 8 * first), count, float64)
            thin_chunk(words, count, threshold, scale, wide, carray(pointer(address + 8 * first), count, float64))
        else:
            load_half(carray(pointer(source + 2 * first), count, uint16), count, scratch, code)
            thin_chunk(words, count, threshold, float32(scale), scratch, scratch)
            store_half(scratch, count, carray(pointer(address + 2 * first), count, uint16), code)
        first += count


@kernel
def thin_groups(source, address, code, first, last, inner, k0, k1, call, threshold, scale):
    """``thin`` where ``inner`` elements in a row share a word: element i has word i // inner."""
    words = carray(pointer(_words()), CHUNK + PADDING, uint32)
    limit, none, every = uint32(threshold), uint32(0), uint32(0xFFFF_FFFF)
    most = CHUNK if inner < _LONG else 1
    size = 8 if code == FLOAT64 else 4 if code == FLOAT32 else 2
    while first < last:
        group, before = first // inner, first % inner
        count = min((last - first) // inner, most) if before == 0 else 0
        length = inner
        if count == 0:  # a share may begin and end within a run
            count, length = 1, min(inner - before, last - first)
        shift = fill_words(words, group, count, k0, k1, call)
        masks = words[shift : shift + count]
        for g in range(count):
            masks[g] = select(masks[g] < limit, none, every)
        if count == 1 and masks[0] == 0:
            clear(address + size * first, size * length)
        elif count == 1 and code == FLOAT32:
            scale_run(source + 4 * first, address + 4 * first, length, float32(scale))
        elif code == FLOAT32:
            mask_runs(source + 4 * first, address + 4 * first, masks, length, float32(scale))
        elif code == FLOAT64:
            mask_runs_double(source + 8 * first, address + 8 * first, masks, length, scale)
        elif code == BFLOAT16:
            mask_runs_bfloat16(source + 2 * first, address + 2 * first, masks, length, float32(scale))
        else:
            mask_runs_float16(source + 2 * first, address + 2 * first, masks, length, float32(scale))
        first += count * length


@kernel
def clear(address, size):
    """Write 0 to so many bytes."""
    out = carray(pointer(address), size, uint8)
    for i in range(size):
        out[i] = uint8(0)


@kernel
def scale_run(source, address, length, scale):
    """Scale one run that is kept.

    Beyond the caches a mask, though it costs the processor nothing, slows the flow of memory: measured, by 0.12 of 2^23
    elements.
    """
    x, out = carray(pointer(source), length, float32), carray(pointer(address), length, float32)
    for i in range(length):
        out[i] = x[i] * scale


@kernel
def mask_runs(source, address, masks, length, scale):
    """The bits of x * scale that each run's mask has: all, or none, which is 0.

    Runs that are dropped are read and scaled too, if they are short. To clear them without would read less, and take
    longer: measured, a fifth of the whole when one run of 2 KiB in ten is left out of the flow of memory. Masks come
    through memory, where the compiler cannot see that there are but two kinds, and would make two loops; and all runs
    have one length, which spares each the counting of vectors.
    """
    for g in range(masks.size):
        mask = masks[g]
        x = carray(pointer(source + 4 * g * length), length, float32)
        bits = carray(pointer(address + 4 * g * length), length, uint32)
        for i in range(length):
            bits[i] = uint32(int32_bits(x[i] * scale)) & mask


@kernel
def mask_runs_double(source, address, masks, length, scale):
    """The same in float64."""
    for g in range(masks.size):
        mask = int64(int32(masks[g]))
        x = carray(pointer(source + 8 * g * length), length, float64)
        bits = carray(pointer(address + 8 * g * length), length, int64)
        for i in range(length):
            bits[i] = int64_bits(x[i] * scale) & mask


@kernel
def mask_runs_bfloat16(source, address, masks, length, scale):
    """The same in bfloat16."""
    for g in range(masks.size):
        mask = uint16(masks[g])
        x = carray(pointer(source + 2 * g * length), length, uint16)
        bits = carray(pointer(address + 2 * g * length), length, uint16)
        for i in range(length):
            bits[i] = to_bfloat16(from_bfloat16(x[i]) * scale) & mask


@kernel
def mask_runs_float16(source, address, masks, length, scale):
    """The same in float16."""
    for g in range(masks.size):
        mask = uint16(masks[g])
        x = carray(pointer(source + 2 * g * length), length, uint16)
        bits = carray(pointer(address + 2 * g * length), length, uint16)
        for i in range(length):
            bits[i] = to_float16(from_float16(x[i]) * scale) & mask
