"""Jobs for the kernels of elastic nets (L1, L2 and both): what is to be done to which memory, with which numbers.

The torch formulas beside them are in ``separable.py``. There is a module of kernels for each backend that has some.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from wellposed._torch import is_ordinary
from wellposed.arguments import Number
from wellposed.penalties.computing.root_step import RootStep

PROX_BY_NUMBER, PROX_BY_ROOT, ACCUMULATE = range(3)


class Job(NamedTuple):
    """The pass over one tensor: which pass, the memory that it goes over, and its numbers.

    Args:
        kind: Which pass.
        changed: The tensor that it changes.
        read: The tensor that it reads besides, or the changed one again.
        numbers: What else it takes; scalar tensors where reading them would wait for an accelerator.
    """

    kind: int
    changed: Tensor
    read: Tensor
    numbers: tuple[Number, ...]


class Seen(NamedTuple):
    """What came of a job: the penalty's value if the pass gives it, and whether it met a NaN."""

    value: Number
    bad: bool | Tensor


def are_alike(*tensors: Tensor) -> bool:
    """Whether kernels reach all ``tensors`` in one order: plain, dense, of one dtype that they know."""
    dtype, shape, device = tensors[0].dtype, tensors[0].shape, tensors[0].device
    if dtype not in (torch.float32, torch.float64):
        return False
    dense = nhwc = True
    for t in tensors:
        if t.dtype != dtype or t.shape != shape or t.device != device or t.layout != torch.strided:
            return False
        if not is_ordinary(t) or t.is_neg():
            return False
        dense = dense and t.is_contiguous()
        nhwc = nhwc and not dense and t.ndim == 4 and t.is_contiguous(memory_format=torch.channels_last)
    return dense or nhwc


def prox_job(w: Tensor, step: Number | RootStep, l1: float, l2: float) -> Job:
    """The elastic net's prox in place; its results say whether there is a NaN among them.

    Args:
        w: The weight, alike to ``step.second``.
        step: The step size, or step sizes.
        l1: The strength of the absolute values.
        l2: The strength of the squares.
    """
    if isinstance(step, RootStep):
        return Job(PROX_BY_ROOT, w, step.second, (step.numerator, step.scale, step.eps, l1, 2.0 * l2))
    return Job(PROX_BY_NUMBER, w, w, (step * l1, 1 / (1 + 2 * step * l2)))


def accumulate_job(w: Tensor, gradient: Tensor, l1: float, l2: float, factor: Number) -> Job:
    """Add ``factor`` times the elastic net's gradient to ``gradient``; its results are parts of the value.

    Args:
        w: The weight, alike to ``gradient``.
        gradient: What is added to.
        l1: The strength of the absolute values.
        l2: The strength of the squares.
        factor: What the gradient, not the value, is multiplied by.
    """
    return Job(ACCUMULATE, gradient, w, (l1, l2, factor * l1, factor * 2.0 * l2))
