"""Small tensors: what a builtin that works on one on this thread has to know of it.

Whatever is not the plain case a builtin leaves alone: it says so, and the general way does the work or refuses it.
"""

import torch
from numba.extending import register_jitable
from torch import Tensor

from wellposed.random.backend import _chosen
from wellposed.random.kernels.builtin import describe, is_exactly, item, variable_is

# What every builtin's context begins with, and where in it.
PLAIN = (Tensor, torch.nn.Parameter, _chosen, "auto", "_cdata")
TENSOR, _PARAMETER, _CHOSEN, _AUTO, CDATA = range(5)
OWN = len(PLAIN)


@register_jitable(forceinline=True)
def is_plain(context, tensor, slot):
    """Whether the backend is nobody's choice and a tensor in order in the CPU's memory; ``describe`` fills the slot."""
    return (
        (is_exactly(tensor, item(context, TENSOR)) or is_exactly(tensor, item(context, _PARAMETER)))
        and variable_is(item(context, _CHOSEN), slot, item(context, _AUTO))
        and describe(tensor, item(context, CDATA), slot)
    )
