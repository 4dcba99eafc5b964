"""The loops of ``cpu.py``: elastic nets in one pass. The branch on the dtype stands outside them."""
# Numba types kernels itself, from the arguments that they are called with.
# mypy: disallow-untyped-defs=False, disallow-untyped-calls=False, disallow-untyped-decorators=False

import math

import numba
from numba import carray, float32, float64, int32

from wellposed.random.kernels.jit import kernel, pointer, select

_CHUNK = 4096  # elements whose sum is taken in the weight's own precision


@kernel
def _shrink(x, threshold):
    bounded = select(x > threshold, threshold, x)
    bounded = select(bounded < -threshold, -threshold, bounded)
    return x - bounded


@kernel
def _shrink_by_number(w, threshold, kept):
    bad = int32(0)
    for i in range(w.size):
        x = _shrink(w[i], threshold) * kept
        bad |= int32(x != x)
        w[i] = x
    return bad != 0


@kernel
def _shrink_by_root(w, second, numerator, scale, eps, l1, twice_l2):
    bad = int32(0)
    if twice_l2 == 0:
        # Without squares there is one division less, and divisions are what the loop waits for.
        for i in range(w.size):
            x = _shrink(w[i], numerator / (math.sqrt(second[i]) * scale + eps) * l1)
            bad |= int32(x != x)
            w[i] = x
        return bad != 0
    one = w.dtype.type(1)
    for i in range(w.size):
        step = numerator / (math.sqrt(second[i]) * scale + eps)
        x = _shrink(w[i], step * l1) / (one + step * twice_l2)
        bad |= int32(x != x)
        w[i] = x
    return bad != 0


@numba.njit(nogil=True, error_model="numpy", fastmath={"reassoc", "nsz"})
def _add_slopes(w, gradient, l1, l2, slope1, slope2):
    """Sums in any order, which lets the loop be vectorised; one chunk's sum is short enough for its own precision."""
    total = w.dtype.type(0)
    zero = w.dtype.type(0)
    bad = int32(0)
    for i in range(w.size):
        x = w[i]
        total += l1 * abs(x) + l2 * (x * x)
        g = gradient[i] + (select(x > zero, slope1, select(x < zero, -slope1, zero * x)) + slope2 * x)
        bad |= int32(g != g)
        gradient[i] = g
    return total, bad


@kernel
def prox_by_number(first, last, address, double, threshold, kept):
    """Soft-threshold and scale elements first to last of the tensor at ``address``; whether a NaN is among them."""
    count = last - first
    if double:
        w = carray(pointer(address + 8 * first), count, float64)
        return _shrink_by_number(w, float64(threshold), float64(kept))
    narrow = carray(pointer(address + 4 * first), count, float32)
    return _shrink_by_number(narrow, float32(threshold), float32(kept))


@kernel
def prox_by_root(first, last, address, second, double, numerator, scale, eps, l1, twice_l2):
    """The same with step sizes numerator / (scale * sqrt(second) + eps) of their own."""
    count = last - first
    if double:
        w = carray(pointer(address + 8 * first), count, float64)
        v = carray(pointer(second + 8 * first), count, float64)
        return _shrink_by_root(w, v, numerator, scale, eps, l1, twice_l2)
    narrow = carray(pointer(address + 4 * first), count, float32)
    v4 = carray(pointer(second + 4 * first), count, float32)
    return _shrink_by_root(narrow, v4, float32(numerator), float32(scale), float32(eps), float32(l1), float32(twice_l2))


@kernel
def accumulate(first, last, address, gradient, double, l1, l2, slope1, slope2):
    """Add slope1 * sign(w) + slope2 * w to the gradient; the sum of l1 * |w| + l2 * w^2, and whether NaN came of it."""
    total, bad = 0.0, int32(0)
    while first < last:
        count = min(_CHUNK, last - first)
        if double:
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
    return total, bad != 0
