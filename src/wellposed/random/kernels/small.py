"""Small tensors: what a builtin that works on one on this thread has to know of it.

Whatever is not the plain case a builtin leaves alone: it says so, and the general way does the work or refuses it.
"""

import torch
from numba.extending import register_jitable
from torch import Tensor

from wellposed.random.backend import _chosen
from wellposed.random.kernels.builtin import SIZE, describe, is_exactly, item, load, variable_is
from wellposed.random.pool import SMALLEST_SHARE

_SMALL = 2 * SMALLEST_SHARE  # elements: fewer are one thread's work

# What every builtin's context begins with, and where in it.
PLAIN = (Tensor, torch.nn.Parameter, _chosen, "auto", "_cdata")
TENSOR, _PARAMETER, _CHOSEN, _AUTO, CDATA = range(5)
OWN = len(PLAIN)


@register_jitable(forceinline=True)
def is_small(context, tensor, slot):
    """Whether a tensor is small, and in order in the CPU's memory; if so the slot is full of what ``describe`` says."""
    return (
        (is_exactly(tensor, item(context, TENSOR)) or is_exactly(tensor, item(context, _PARAMETER)))
        and variable_is(item(context, _CHOSEN), slot, item(context, _AUTO))
        and describe(tensor, item(context, CDATA), slot)
        and load(slot, SIZE) < _SMALL
    )
