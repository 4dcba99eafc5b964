"""The loop over chunks: words, values, memory. The branches on distribution and dtype stand here, outside the loops."""

import numpy as np
from numba import carray, float32, float64, int64, uint8, uint16, uint32

from wellposed.random.draw import Kind
from wellposed.random.kernels import formulas, fused
from wellposed.random.kernels.dtypes import (
    BFLOAT16,
    BYTE,
    FLOAT16,
    FLOAT32,
    FLOAT64,
    load_half,
    store_half,
)
from wellposed.random.kernels.jit import kernel, pointer, select, stack_memory
from wellposed.random.kernels.philox import CHUNK, PADDING, fill_words, layout_words
from wellposed.random.kernels.runs import mask_half_runs, mask_runs

_UNIFORM, _NORMAL, _STRADDLING, _BERNOULLI = (
    int(kind) for kind in (Kind.UNIFORM, Kind.NORMAL, Kind.STRADDLING, Kind.BERNOULLI)
)

_words, _double_words = stack_memory(4 * (CHUNK + PADDING)), stack_memory(4 * (2 * CHUNK + PADDING))
_values = stack_memory(4 * CHUNK)


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
    size = 8 if code == FLOAT64 else 4 if code == FLOAT32 else 2
    while first < last:
        group, before = first // inner, first % inner
        count = min((last - first) // inner, CHUNK) if before == 0 else 0
        length = inner
        if count == 0:  # a share may begin and end within a run
            count, length = 1, min(inner - before, last - first)
        shift = fill_words(words, group, count, k0, k1, call)
        masks = words[shift : shift + count]
        for g in range(count):
            masks[g] = select(masks[g] < limit, none, every)
        x, out = source + size * first, address + size * first
        if code == FLOAT32:
            mask_runs(x, out, masks, size * length, float32(scale))
        elif code == FLOAT64:
            mask_runs(x, out, masks, size * length, scale)
        else:
            mask_half_runs(x, out, masks, size * length, code, float32(scale))
        first += count * length
