"""Thinning a small tensor: from the arguments in Python to a new tensor in one builtin."""

from collections.abc import Callable

import torch
from numba.extending import register_jitable
from torch import Tensor

from wellposed.random.kernels import engine
from wellposed.random.kernels.builtin import (
    DATA,
    DTYPE,
    SIZE,
    builtin,
    call_with,
    describe,
    forget,
    is_exactly,
    item,
    jump,
    load,
    release,
    retain,
    returns,
    returns_for,
    stack,
    store,
    to_float,
    to_int,
)
from wellposed.random.kernels.dtypes import BFLOAT16, FLOAT16, FLOAT32, FLOAT64
from wellposed.random.kernels.jit import int64_bits
from wellposed.random.kernels.shares import address_of
from wellposed.random.kernels.small import CDATA, OWN, PLAIN, TENSOR, is_small

_watchers = (
    torch._C._are_functorch_transforms_active,
    torch._C._len_torch_dispatch_stack,
    torch._C._len_torch_function_stack,
    torch._C._get_tracing_state,
)
_CONTEXT = (*PLAIN, None, False, 0, *_watchers, Tensor.is_neg, torch.empty_like, Tensor.random_)
_NONE, _NO, _ZERO, _TRANSFORMS, _DISPATCH, _FUNCTION, _TRACER, _IS_NEGATED, _EMPTY_LIKE, _RANDOM = range(OWN, OWN + 10)
_KERNEL = len(_CONTEXT)  # which differs


@register_jitable(forceinline=True)
def _code(dtype):
    """What kernels call a dtype to which torch's C interface gives this number; -1 for one that is not scaled."""
    if dtype == 6:
        return FLOAT32
    if dtype == 7:
        return FLOAT64
    if dtype == 15:
        return BFLOAT16
    return FLOAT16 if dtype == 5 else -1


@register_jitable(forceinline=True)
def _prepare(context, x, block, words, at):
    """A new tensor like a small plain ``x`` that nothing but autograd watches; 0 for any other.

    Functorch, modes, tracers and lazy negation watch; compilers are the caller's to look for. The block gets the
    addresses, the code of the dtype and, from ``at`` on, the mask's name: the key's two words, the call, the threshold,
    which must be below 2^32, and the scale.
    """
    slot, new = stack(), stack()
    store(block, at + 3, to_int(item(words, 3)))
    if (
        load(block, at + 3) > 0xFFFF_FFFF
        or not returns(item(context, _TRANSFORMS), slot, item(context, _NO))
        or not returns(item(context, _DISPATCH), slot, item(context, _ZERO))
        or not returns(item(context, _FUNCTION), slot, item(context, _ZERO))
        or not returns(item(context, _TRACER), slot, item(context, _NONE))
        or not is_small(context, x, slot)
        or _code(load(slot, DTYPE)) < 0
        or not returns_for(item(context, _IS_NEGATED), new, x, item(context, _NO))
    ):
        return 0
    result = call_with(item(context, _EMPTY_LIKE), new, x)
    if result == 0:
        forget()
        return 0
    if not describe(result, item(context, CDATA), new):
        release(result)
        return 0
    if not _name(context, block, at, words):
        forget()
        release(result)
        return 0
    store(block, 0, 0)
    store(block, 1, load(slot, SIZE))
    store(block, 2, load(slot, SIZE))
    store(block, 3, load(slot, DATA))
    store(block, 4, load(new, DATA))
    store(block, 5, _code(load(slot, DTYPE)))
    return result


@register_jitable(forceinline=True)
def _name(context, block, at, words):
    """Write the rest of a mask's name; where a tensor stands for the key, draw one into its memory."""
    key = item(words, 0)
    if is_exactly(key, item(context, TENSOR)):
        drawn = call_with(item(context, _RANDOM), block, key)
        if drawn == 0:
            return False
        release(drawn)
        number = load(to_int(item(words, 1)), 0)
        store(block, at, number & 0xFFFF_FFFF)
        store(block, at + 1, (number >> 32) & 0xFFFF_FFFF)
    else:
        store(block, at, to_int(key))
        store(block, at + 1, to_int(item(words, 1)))
    store(block, at + 2, to_int(item(words, 2)))
    store(block, at + 4, int64_bits(to_float(item(words, 4))))
    return True


@register_jitable(forceinline=True)
def _finish(context, block, result):
    """Run the kernel where there is a result; else return ``None``."""
    if result == 0:
        retain(item(context, _NONE))
        return item(context, _NONE)
    jump(to_int(item(context, _KERNEL)), block)
    return result


def _thin(context, arguments, _count):
    block = stack()
    for i in range(6, 9):
        store(block, i, 0)
    return _finish(context, block, _prepare(context, load(arguments, 0), block, load(arguments, 1), 9))


def _thin_groups(context, arguments, _count):
    block = stack()
    store(block, 6, to_int(load(arguments, 2)))
    return _finish(context, block, _prepare(context, load(arguments, 0), block, load(arguments, 1), 7))


def element_thinner() -> Callable[..., Tensor | None]:
    """A builtin of (x, words): a thinned copy of a small plain tensor; ``None`` for any other.

    The words are the key's two, the call, the threshold and the scale. For the key may stand an int64 tensor of one
    number and the address of its memory: a key is drawn into it then.
    """
    return builtin(_thin, (*_CONTEXT, address_of(engine.thin)), otherwise=None)


def group_thinner() -> Callable[..., Tensor | None]:
    """The same of (x, words, inner), where so many elements in a row share a word."""
    return builtin(_thin_groups, (*_CONTEXT, address_of(engine.thin_groups)), otherwise=None)
