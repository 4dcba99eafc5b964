"""Thinning a plain tensor: from the arguments in Python to a new tensor, known to autograd, in one builtin."""

import functools
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import torch
from numba.extending import register_jitable
from torch import Tensor
from torch.autograd import forward_ad

from wellposed.random.kernels import engine
from wellposed.random.kernels.builtin import (
    DATA,
    DTYPE,
    SIZE,
    attribute,
    attribute_is,
    builtin,
    builtin_method,
    call,
    call_with,
    describe,
    inner_size,
    is_exactly,
    item,
    list_size,
    load,
    new_int,
    new_like,
    new_tuple,
    raise_no_memory,
    release,
    retained,
    returns,
    returns_for,
    set_item,
    stack,
    store,
    to_float,
    to_int,
    tuple_size,
    variable_is,
)
from wellposed.random.kernels.dtypes import BFLOAT16, FLOAT16, FLOAT32, FLOAT64
from wellposed.random.kernels.jit import int64_bits
from wellposed.random.kernels.plain import CDATA, NO_MEMORY, OWN, PLAIN, STATE, TENSOR, is_plain, run, threads_for
from wellposed.random.kernels.results import LARGE, large_like, our_memory
from wellposed.random.kernels.shares import address_of, block_memory
from wellposed.random.pool import SMALLEST_SHARE

_FEW = 2 * SMALLEST_SHARE  # elements: fewer are one thread's work


def _slots(first: int, things: tuple[object, ...]) -> range:
    """Where things stand in a context, the first of them at ``first``."""
    return range(first, first + len(things))


_VALUES = (None, False, True, 0, -1)
_NONE, _NO, _YES, _ZERO, _MINUS_ONE = _slots(OWN, _VALUES)
_WATCHERS = (
    torch._C._are_functorch_transforms_active,
    torch._C._len_torch_dispatch_stack,
    torch._C._len_torch_function_stack,
    torch._C._get_tracing_state,
)
_TRANSFORMS, _DISPATCH, _FUNCTION, _TRACER = _slots(_MINUS_ONE + 1, _WATCHERS)
_GRADIENTS = ("requires_grad", torch.is_grad_enabled, forward_ad, "_current_level")
_REQUIRES_GRAD, _IS_ENABLED, _FORWARD_AD, _LEVEL = _slots(_TRACER + 1, _GRADIENTS)
_ACTS = (Tensor.is_neg, torch.empty_like, Tensor.random_)
_IS_NEGATED, _EMPTY_LIKE, _RANDOM = _slots(_LEVEL + 1, _ACTS)
_RESULTS = _RANDOM + 1  # of ``large_like``, and the last of them of ``new_like``
_WRAP, _ELEMENTS, _GROUPS, _APPLY = range(_RESULTS + 2, _RESULTS + 6)
_MASK, _GENERAL = range(_APPLY + 1, _APPLY + 3)  # of the backward builtin alone, and these of the one that draws:
_DRAWING = ("_p", "_rates", torch._C._current_graph_task_id)
_P, _RATES, _BACKWARD_PASS = _slots(_APPLY + 1, _DRAWING)
_SCOPE, _ENTERED, _OWN_KEY, _SOURCE = range(_BACKWARD_PASS + 1, _BACKWARD_PASS + 5)


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
def _is_unwatched(context, slot):
    """Whether no functorch, mode or tracer watches; compilers are the caller's to look for."""
    return (
        returns(item(context, _TRANSFORMS), slot, item(context, _NO))
        and returns(item(context, _DISPATCH), slot, item(context, _ZERO))
        and returns(item(context, _FUNCTION), slot, item(context, _ZERO))
        and returns(item(context, _TRACER), slot, item(context, _NONE))
    )


@register_jitable(forceinline=True)
def _is_recorded(context, x, slot):
    """Whether autograd is to know what is done to ``x``."""
    requires_grad = attribute_is(x, item(context, _REQUIRES_GRAD), item(context, _YES))
    return (requires_grad and returns(item(context, _IS_ENABLED), slot, item(context, _YES))) or not attribute_is(
        item(context, _FORWARD_AD), item(context, _LEVEL), item(context, _MINUS_ONE)
    )


@register_jitable(forceinline=True)
def _write_key(context, block, slot, words):
    """Write a key's two words into a block; where a tensor stands for the key, draw one into its memory."""
    key = item(words, 0)
    if is_exactly(key, item(context, TENSOR)):
        drawn = call_with(item(context, _RANDOM), slot, key)
        if drawn == 0:
            return False
        release(drawn)
        number = load(to_int(item(words, 1)), 0)
        store(block, 9, number & 0xFFFF_FFFF)
        store(block, 10, (number >> 32) & 0xFFFF_FFFF)
    else:
        store(block, 9, to_int(key))
        store(block, 10, to_int(item(words, 1)))
    return True


@register_jitable
def _drawn_mask(mask, block):
    """A mask with the key that was drawn for it."""
    given = item(mask, 3)
    words, drawn = new_tuple(tuple_size(given)), new_tuple(4)
    set_item(words, 0, new_int(load(block, 9)))
    set_item(words, 1, new_int(load(block, 10)))
    for i in range(2, tuple_size(given)):
        set_item(words, i, retained(item(given, i)))
    for i in range(3):
        set_item(drawn, i, retained(item(mask, i)))
    set_item(drawn, 3, words)
    return drawn


@register_jitable
def _thin_plain(context, x, mask):
    """A thinned copy; ``None`` if ``x`` is not plain; 0 if something raises."""
    slot, new, block = stack(), stack(), block_memory()
    dims, words, none = item(mask, 1), item(mask, 3), item(context, _NONE)
    threshold = to_int(item(words, 3))
    fits = item(mask, 2) == none and threshold <= 0xFFFF_FFFF and _is_unwatched(context, slot)
    inner = -1
    if fits and is_plain(context, x, slot) and _code(load(slot, DTYPE)) >= 0:
        inner = 1 if dims == none else inner_size(dims, slot)
    threads = threads_for(context, load(slot, SIZE), _FEW, new) if inner >= 0 else 0
    if threads == 0 or not returns_for(item(context, _IS_NEGATED), new, x, item(context, _NO)):
        return retained(none)
    code = _code(load(slot, DTYPE))
    size = load(slot, SIZE) * (8 if code == FLOAT64 else 4 if code == FLOAT32 else 2)
    wrap, result = to_int(item(context, _WRAP)), 0
    if size >= LARGE:
        result = large_like(context, _RESULTS, slot, new, size)
    elif wrap != 0:
        result = new_like(wrap, slot, new)
    if result == 0:
        result = call_with(item(context, _EMPTY_LIKE), new, x)
        if result == 0:
            return 0
        if not describe(result, item(context, CDATA), new):
            release(result)
            return retained(none)
    store(block, 3, load(slot, DATA))
    store(block, 4, load(new, DATA))
    store(block, 5, code)
    store(block, 6, inner if inner > 1 else 0)
    store(block, 7, 0)
    store(block, 8, 0)
    store(block, 11, to_int(item(words, 2)))
    store(block, 12, threshold)
    for i in range(4, tuple_size(words)):
        store(block, 9 + i, int64_bits(to_float(item(words, i))))
    kernel = call(item(context, _GROUPS if inner > 1 else _ELEMENTS), new, 0)
    if kernel == 0 or not _write_key(context, block, new, words):
        release(result)
        return 0
    run(context, to_int(kernel), block, load(slot, SIZE), threads)
    release(kernel)
    if load(block, STATE) == NO_MEMORY:
        release(result)
        return raise_no_memory()
    if not _is_recorded(context, x, new):
        return result
    done = new_tuple(2)
    is_drawn = is_exactly(item(words, 0), item(context, TENSOR))
    set_item(done, 0, _drawn_mask(mask, block) if is_drawn else retained(mask))
    set_item(done, 1, result)
    store(new, 0, x)
    store(new, 1, done)
    recorded = call(item(context, _APPLY), new, 2)
    release(done)
    return recorded


def _thin(context, arguments, _count):
    return _thin_plain(context, load(arguments, 0), load(arguments, 1))


def _draw_and_thin(context, arguments, _count):
    slot, none = stack(), item(context, _NONE)
    module, x, dims = load(arguments, 0), load(arguments, 1), load(arguments, 2)
    if (
        not returns(item(context, _BACKWARD_PASS), slot, item(context, _MINUS_ONE))
        or not variable_is(item(context, _SCOPE), slot, none)
        or list_size(item(context, _ENTERED)) > 0
    ):
        return retained(none)
    p, rates = attribute(module, item(context, _P)), attribute(module, item(context, _RATES))
    source = attribute(item(context, _OWN_KEY), item(context, _SOURCE))
    if p == 0 or rates == 0 or source == 0:
        return 0
    mask, words = new_tuple(4), new_tuple(3 + tuple_size(rates))
    set_item(mask, 0, p)
    set_item(mask, 1, retained(dims))
    set_item(mask, 2, retained(none))
    set_item(mask, 3, words)
    set_item(words, 0, retained(item(source, 0)))
    set_item(words, 1, retained(item(source, 1)))
    set_item(words, 2, retained(item(context, _ZERO)))
    for i in range(tuple_size(rates)):
        set_item(words, 3 + i, retained(item(rates, i)))
    thinned = retained(none) if to_int(item(rates, 0)) == 0 else _thin_plain(context, x, mask)
    release(mask)
    release(rates)
    release(source)
    return thinned


def _backward(context, arguments, _count):
    graph, grad, none = load(arguments, 0), load(arguments, 1), item(context, _NONE)
    mask = attribute(graph, item(context, _MASK))
    thinned = _thin_plain(context, grad, mask)
    release(mask)
    if thinned == none:
        release(none)
        return call(item(context, _GENERAL), arguments, 2)
    if thinned == 0:
        return 0
    gradients = new_tuple(2)
    set_item(gradients, 0, thinned)
    set_item(gradients, 1, retained(none))
    return gradients


Kernels = tuple[Callable[..., object], Callable[..., object]]
_KERNELS = engine.thin, engine.thin_groups


def thinner(apply: Callable[..., Tensor], kernels: Kernels = _KERNELS) -> Callable[..., Tensor | None]:
    """A builtin of (x, mask): a thinned copy of a plain tensor; ``None``, and nothing done, for any other.

    A mask is a p, the dimensions that it varies over or ``None``, the whole or ``None``, and the words: the key's two,
    the call, the threshold, the scale, and what else the kernels take. For the key may stand an int64 tensor of one
    number and the address of its memory: a key is drawn into it then. What autograd is to know is told by
    ``apply(x, (mask, result))``. The second of the kernels serves elements that share words.
    """
    return builtin(_thin, _context(apply, kernels), otherwise=None)


def drawing_thinner(
    apply: Callable[..., Tensor],
    scope: ContextVar[Any],
    entered: list[Any],
    own_key: object,
    kernels: Kernels = _KERNELS,
) -> Callable[..., Tensor | None]:
    """A builtin of (module, x, dims): the same with a key that is drawn for the call, outside of all scopes.

    Of the module it takes ``_p`` and ``_rates``; a backward pass, which may run modules again, it leaves alone.
    ``own_key.source`` is the tensor that the key is drawn into and the address of its memory.
    """
    own = (*_DRAWING, scope, entered, own_key, "source")
    return builtin(_draw_and_thin, (*_context(apply, kernels), *own), otherwise=None)


def backward(apply: Callable[..., Tensor], general: Callable[..., Any], kernels: Kernels = _KERNELS) -> Any:
    """A builtin method of the graph's nodes: the gradient's thinned copy; what ``general`` makes of one not plain."""
    return builtin_method(_backward, (*_context(apply, kernels), "mask", general), otherwise=general)


def _context(apply: Callable[..., Tensor], kernels: Kernels) -> tuple[object, ...]:
    # A kernel's address when it is first needed, since it takes long to compile.
    addresses = (functools.cache(functools.partial(address_of, work)) for work in kernels)
    return *PLAIN, *_VALUES, *_WATCHERS, *_GRADIENTS, *_ACTS, *our_memory(), *addresses, apply
