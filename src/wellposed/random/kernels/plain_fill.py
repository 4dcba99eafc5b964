"""Filling a plain tensor: from the arguments in Python to the kernel's memory in one builtin."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numba.extending import register_jitable

from wellposed.random.draw import Draw
from wellposed.random.kernels import engine
from wellposed.random.kernels.builtin import (
    DATA,
    DTYPE,
    SIZE,
    attribute,
    builtin,
    call,
    call_with_list,
    forget,
    is_exactly,
    item,
    load,
    natural,
    raised,
    raised_is,
    release,
    retain,
    retained,
    stack,
    store,
    to_int,
)
from wellposed.random.kernels.plain import OWN, PLAIN, is_plain, run, threads_for
from wellposed.random.kernels.shares import address_of, block_memory
from wellposed.random.key import Key
from wellposed.random.pool import SMALLEST_SHARE

_FEW = 2 * SMALLEST_SHARE  # elements: fewer are one thread's work
_FALSE, _TRUE, _KEY, _INT, _FLOAT, _DTYPE, _RECIPE, _WORDS, _BUMP, _LIST, _MEMO, _ERROR = range(OWN, OWN + 12)
_LEAD = 3  # arguments before the distribution
_RECALLED = 9  # where in the memo its result stands, after a count and up to 6 objects


@functools.lru_cache(maxsize=4096)
def _recipe(distribution: Callable[..., Draw], *rest: Any) -> tuple[int, object, object]:
    """The address of a kernel's own and of what it takes of a draw, and what must live as long as these do."""
    draw = distribution(*rest)
    numbers = np.array((address_of(engine.fill_double if draw.wide else engine.fill), *draw.parameters), np.int64)
    return numbers.ctypes.data, numbers, draw


@register_jitable
def _find_recipe(context, slot, arguments, count):
    """The recipe for the arguments from the distribution on and the dtype; 0 if there is none. Not retained.

    The last one is looked up without a call: in a loop over tensors it is mostly the next one, too.
    """
    memo = to_int(item(context, _MEMO))
    known = load(memo, 0) == count and load(memo, count) == load(slot, DTYPE)
    for i in range(_LEAD, count):
        known &= load(memo, i) == load(arguments, i)
    if known:
        return load(memo, _RECALLED)
    dtype, asked = attribute(load(arguments, 0), item(context, _DTYPE)), stack()
    for i in range(_LEAD, count):
        store(asked, i - _LEAD, load(arguments, i))
    store(asked, count - _LEAD, dtype)
    found = call(item(context, _RECIPE), asked, count - _LEAD + 1)
    release(dtype)
    if found == 0:
        if raised_is(item(context, _ERROR)):  # no interrupt: the general way raises it again, or serves
            forget()
        return 0
    for i in range(_LEAD, count):
        retain(load(arguments, i))
    for i in range(_LEAD, load(memo, 0)):
        release(load(memo, i))
    if load(memo, 0) > 0:
        release(load(memo, _RECALLED))
    store(memo, 0, count)
    for i in range(_LEAD, count):
        store(memo, i, load(arguments, i))
    store(memo, count, load(slot, DTYPE))
    store(memo, _RECALLED, found)
    return found


def _fill(context, arguments, count):
    slot, block = stack(), block_memory()
    tensor, key, number = load(arguments, 0), load(arguments, 1), load(arguments, 2)
    plain = is_exactly(key, item(context, _KEY)) and is_exactly(number, item(context, _INT))
    for i in range(_LEAD + 1, count):
        plain &= is_exactly(load(arguments, i), item(context, _FLOAT))
    position = natural(number) if plain else -1
    plain = position >= 0 and is_plain(context, tensor, slot)
    threads = threads_for(context, load(slot, SIZE), _FEW, block) if plain else 0
    recipe = _find_recipe(context, slot, arguments, count) if threads > 0 else 0
    if recipe == 0 and raised() != 0:
        return 0
    numbers = to_int(item(recipe, 0)) if recipe != 0 else 0
    if numbers == 0 or load(numbers, 1) < 0:  # the kernels know no such dtype
        return retained(item(context, _FALSE))
    retain(recipe)  # others may recall another meanwhile
    store(block, 3, load(slot, DATA))
    for i in range(4, 7):
        store(block, i, 0)
    words = attribute(key, item(context, _WORDS))
    store(block, 7, to_int(item(words, 0)))
    store(block, 8, to_int(item(words, 1)))
    release(words)
    store(block, 9, position)
    for i in range(4):
        store(block, 10 + i, load(numbers, 1 + i))
    run(context, load(numbers, 0), block, load(slot, SIZE), threads)
    release(recipe)
    seen = call_with_list(item(context, _BUMP), slot, item(context, _LIST), tensor)
    if seen != 0:
        release(seen)
        return retained(item(context, _TRUE))
    return 0


_memo = np.zeros(_RECALLED + 1, np.int64)
_own = (False, True, Key, int, float, "dtype", _recipe, "words", torch._C._increment_version, [None], _memo.ctypes.data)
fill = builtin(_fill, (*PLAIN, *_own, Exception), otherwise=False)
