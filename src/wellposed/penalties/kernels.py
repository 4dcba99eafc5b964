"""The loops of ``cpu.py``: elastic nets in one pass. The branch on the dtype stands outside them."""
# Numba types kernels itself, from the arguments that they are called with.
# mypy: disallow-untyped-defs=False, disallow-untyped-calls=False, disallow-untyped-decorators=False

import math

import numba
from numba import carray, float32, float64, int32, int64

from wellposed.random.kernels import shares
from wellposed.random.kernels.jit import kernel, pointer, select

_CHUNK = 4096  # elements whose sum is taken in the weight's own precision
PIECE = 1 << 18  # elements that a thread takes at a time: a constant, so that sums do not depend on the threads
ROW = 10  # numbers of a job: the pieces before it, its elements, two addresses, whether it is float64, five of its own


@kernel
def _shrink(x, threshold):
    bounded = select(x <= threshold, x, threshold)  # NaN if the threshold is
    bounded = select(bounded < -threshold, -threshold, bounded)
    return x - bounded


@kernel
def _shrink_by_number(w, threshold, kept):
    bad = int32(0)
    for i in range(w.size):
        x = _shrink(w[i], threshold) * kept
        bad = int32(bad | int32(x != x))
        w[i] = x
    return bad != 0


@kernel
def _shrink_by_root(w, second, numerator, scale, eps, l1, twice_l2):
    bad = int32(0)
    if twice_l2 == 0:
        # Without squares there is one division less, and divisions are what the loop waits for.
        for i in range(w.size):
            x = _shrink(w[i], numerator / (math.sqrt(second[i]) * scale + eps) * l1)
            bad = int32(bad | int32(x != x))
            w[i] = x
        return bad != 0
    one = w.dtype.type(1)
    for i in range(w.size):
        step = numerator / (math.sqrt(second[i]) * scale + eps)
        x = _shrink(w[i], step * l1) / (one + step * twice_l2)
        bad = int32(bad | int32(x != x))
        w[i] = x
    return bad != 0


@numba.njit(nogil=True, error_model="numpy", fastmath={"reassoc", "nsz"})
def _add_slopes(w, gradient, l1, l2, slope1, slope2):
    """Sums in any order, which lets the loop be vectorised; one chunk's sum is short enough for its own precision."""
    total, squares = w.dtype.type(0), w.dtype.type(0)
    zero = w.dtype.type(0)
    bad = int32(0)
    if l2 == 0 and slope2 == 0:
        # Where memory is fast the arithmetic is what takes time, and this is half of it.
        for i in range(w.size):
            x = w[i]
            total += abs(x)
            g = gradient[i] + select(x > zero, slope1, select(x < zero, -slope1, x))
            bad = int32(bad | int32(g != g))
            gradient[i] = g
        return l1 * total, bad
    for i in range(w.size):
        x = w[i]
        total += abs(x)
        squares += x * x
        g = gradient[i] + (select(x > zero, slope1, select(x < zero, -slope1, x)) + slope2 * x)
        bad = int32(bad | int32(g != g))
        gradient[i] = g
    return l1 * total + l2 * squares, bad


@kernel
def _read(row, piece):
    """Where a piece starts, its length, and its job's numbers as integers and as floats."""
    where = carray(pointer(row), ROW, int64)
    first = (piece - where[0]) * PIECE
    return first, min(PIECE, where[1] - first), where, carray(pointer(row), ROW, float64)


@kernel
def prox_by_number(row, piece):
    """Soft-threshold and scale; no value, and whether a NaN came of it."""
    first, count, where, numbers = _read(row, piece)
    address, threshold, kept = where[2], numbers[5], numbers[6]
    if where[4]:
        w = carray(pointer(address + 8 * first), count, float64)
        return 0.0, _shrink_by_number(w, threshold, kept)
    narrow = carray(pointer(address + 4 * first), count, float32)
    return 0.0, _shrink_by_number(narrow, float32(threshold), float32(kept))


@kernel
def prox_by_root(row, piece):
    """The same with step sizes numerator / (scale * sqrt(second) + eps) of their own."""
    first, count, where, numbers = _read(row, piece)
    address, second = where[2], where[3]
    numerator, scale, eps, l1, twice_l2 = numbers[5], numbers[6], numbers[7], numbers[8], numbers[9]
    if where[4]:
        w = carray(pointer(address + 8 * first), count, float64)
        v = carray(pointer(second + 8 * first), count, float64)
        return 0.0, _shrink_by_root(w, v, numerator, scale, eps, l1, twice_l2)
    narrow = carray(pointer(address + 4 * first), count, float32)
    v4 = carray(pointer(second + 4 * first), count, float32)
    singles = float32(numerator), float32(scale), float32(eps), float32(l1), float32(twice_l2)
    return 0.0, _shrink_by_root(narrow, v4, *singles)


@kernel
def accumulate(row, piece):
    """Add slope1 * sign(w) + slope2 * w to the gradient; the sum of l1 * |w| + l2 * w^2, and whether NaN came of it."""
    first, left, where, numbers = _read(row, piece)
    address, gradient = where[2], where[3]
    l1, l2, slope1, slope2 = numbers[5], numbers[6], numbers[7], numbers[8]
    total, bad = 0.0, int32(0)
    while left > 0:
        count = min(_CHUNK, left)
        if where[4]:
            w = carray(pointer(address + 8 * first), count, float64)
            g = carray(pointer(gradient + 8 * first), count, float64)
            part, seen = _add_slopes(w, g, l1, l2, slope1, slope2)
        else:
            narrow = carray(pointer(address + 4 * first), count, float32)
            g4 = carray(pointer(gradient + 4 * first), count, float32)
            part4, seen = _add_slopes(narrow, g4, float32(l1), float32(l2), float32(slope1), float32(slope2))
            part = float64(part4)
        total += part
        bad |= seen
        first += count
        left -= count
    return total, bad != 0


@kernel
def _next(block, row):
    """Take a piece: the row of its job, looked for from ``row`` on, and its number; row 0 if none is left."""
    piece, end = shares.take(block)
    if piece == end:
        return 0, piece
    if row == 0:
        row = carray(pointer(block), 5, int64)[3]
    while piece < carray(pointer(row), 1, int64)[0]:
        row -= 8 * ROW
    while piece >= carray(pointer(row + 8 * ROW), 1, int64)[0]:  # a last row that has no pieces ends the table
        row += 8 * ROW
    return row, piece


@kernel
def _report(block, piece, total, bad):
    """Write what came of a piece."""
    result = carray(pointer(carray(pointer(block), 5, int64)[4] + 16 * piece), 2, float64)
    result[0], result[1] = total, bad


def _prox_by_number(block):
    row, piece = _next(block, 0)
    while row != 0:
        total, bad = prox_by_number(row, piece)
        _report(block, piece, total, bad)
        row, piece = _next(block, row)


def _prox_by_root(block):
    row, piece = _next(block, 0)
    while row != 0:
        total, bad = prox_by_root(row, piece)
        _report(block, piece, total, bad)
        row, piece = _next(block, row)


def _accumulate(block):
    row, piece = _next(block, 0)
    while row != 0:
        total, bad = accumulate(row, piece)
        _report(block, piece, total, bad)
        row, piece = _next(block, row)


shares.BODIES[prox_by_number] = _prox_by_number
shares.BODIES[prox_by_root] = _prox_by_root
shares.BODIES[accumulate] = _accumulate
