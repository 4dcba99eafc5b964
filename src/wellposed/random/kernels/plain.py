"""Plain tensors: what a builtin has to know of one, and how it has the work done.

Whatever is not the plain case a builtin leaves alone: it says so, and the general way does the work or refuses it.
"""

import ctypes

import torch
from numba.extending import register_jitable
from torch import Tensor

from wellposed import forks
from wellposed.random import pool
from wellposed.random.backend import _chosen
from wellposed.random.kernels import shares
from wellposed.random.kernels.builtin import (
    attribute_is,
    call,
    describe,
    is_exactly,
    item,
    jump,
    jump_together,
    release,
    restore_thread,
    save_thread,
    store,
    to_int,
    variable_is,
)
from wellposed.random.libtorch import c_function

_team = c_function("GOMP_parallel")
_TEAM = 0 if _team is None else ctypes.cast(_team, ctypes.c_void_p).value

# What every builtin's context begins with, and where in it.
_TYPES = (Tensor, torch.nn.Parameter, _chosen, "auto", "_cdata")
_TEAMS = (forks, "is_forked", False, torch.get_num_threads, _TEAM, shares.THREAD_NUMBER)
PLAIN = (*_TYPES, *_TEAMS)
TENSOR, _PARAMETER, _CHOSEN, _AUTO, CDATA = range(len(_TYPES))
_FORKS, _IS_FORKED, _FALSE, _THREADS, _OPENMP, _NUMBER = range(len(_TYPES), len(PLAIN))
OWN = len(PLAIN)

STATE, NO_MEMORY = (
    7,
    -1,
)  # where in a block a kernel that needs memory of its own says that it found none, and so failed


@register_jitable(forceinline=True)
def is_plain(context, tensor, slot):
    """Whether the backend is nobody's choice and a tensor in order in the CPU's memory; ``describe`` fills the slot."""
    return (
        (is_exactly(tensor, item(context, TENSOR)) or is_exactly(tensor, item(context, _PARAMETER)))
        and variable_is(item(context, _CHOSEN), slot, item(context, _AUTO))
        and describe(tensor, item(context, CDATA), slot)
    )


@register_jitable(forceinline=True)
def threads_for(context, count, few, slot):
    """How many threads ``count`` elements are worth, if from ``few`` on more than one; 0 if they cannot be had here."""
    if count < few:
        return 1
    team = to_int(item(context, _OPENMP))
    if team == 0 or not attribute_is(item(context, _FORKS), item(context, _IS_FORKED), item(context, _FALSE)):
        return 0
    number = call(item(context, _THREADS), slot, 0)
    threads = to_int(number)
    release(number)
    return min(threads, count // pool.SMALLEST_SHARE)


@register_jitable(forceinline=True)
def run(context, kernel, block, count, threads):
    """Run the C function of ``shares.address_of`` on a block, without the interpreter where it takes long."""
    part, share = shares.lengths(count, threads, 1)
    store(block, 0, count)
    store(block, 1, part)
    store(block, 2, share)
    store(block, shares.THREAD, to_int(item(context, _NUMBER)))
    for i in range(min(threads, shares.MOST_PARTS)):
        store(block, shares.TAKEN + i, 0)
    if count < 2 * pool.SMALLEST_SHARE:
        jump(kernel, block)
        return
    state = save_thread()
    if threads == 1:
        jump(kernel, block)
    else:
        jump_together(to_int(item(context, _OPENMP)), kernel, block, threads)
    restore_thread(state)
