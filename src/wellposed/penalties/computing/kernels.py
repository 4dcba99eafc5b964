"""Elastic nets (L1, L2 and both) in one pass over CPU memory, beside the torch formulas in ``separable.py``."""

from array import array
from itertools import accumulate, pairwise
from struct import Struct
from typing import NamedTuple

import torch
from torch import Tensor

from wellposed._torch import is_ordinary
from wellposed.penalties.computing.root_step import RootStep
from wellposed.random.native import core

_PROX_BY_NUMBER, _PROX_BY_ROOT, _ACCUMULATE = range(3)
_PIECE = 1 << 18  # elements that are summed by themselves, as PIECE in native/kernels.h says: for any threads the same


def serves(*tensors: Tensor) -> bool:
    """Whether the kernels reach all ``tensors`` in one order: plain, dense, on the CPU, of one dtype that they know."""
    dtype, shape = tensors[0].dtype, tensors[0].shape
    if dtype not in (torch.float32, torch.float64):
        return False
    dense = nhwc = True
    for t in tensors:
        if t.dtype != dtype or t.shape != shape or not t.is_cpu or t.layout != torch.strided:
            return False
        if not is_ordinary(t) or t.is_neg():
            return False
        dense = dense and t.is_contiguous()
        nhwc = nhwc and not dense and t.ndim == 4 and t.is_contiguous(memory_format=torch.channels_last)
    return dense or nhwc


_ROW = Struct("5q5d")


class Job(NamedTuple):
    """The pass over one tensor: which pass, the memory that it goes over, and its numbers.

    Args:
        kind: Which pass.
        changed: The tensor that it changes.
        read: The address of the tensor that it reads besides; 0 for none.
        numbers: What else it takes.
    """

    kind: int
    changed: Tensor
    read: int
    numbers: tuple[float, ...]

    def row(self, before: int) -> bytes:
        """The job as the core reads it, with so many pieces before it."""
        double = self.changed.dtype == torch.float64
        numbers = (*self.numbers, *[0.0] * (5 - len(self.numbers)))
        return _ROW.pack(before, self.changed.numel(), self.changed.data_ptr(), self.read, double, *numbers)


def prox_job(w: Tensor, step: float | RootStep, l1: float, l2: float) -> Job:
    """The elastic net's prox in place; its results say whether there is a NaN among them.

    Args:
        w: The weight, which :func:`serves` accepts (with ``step.second``).
        step: The step size, or step sizes.
        l1: The strength of the absolute values.
        l2: The strength of the squares.
    """
    if isinstance(step, RootStep):
        numbers = (float(step.numerator), float(step.scale), float(step.eps), float(l1), 2.0 * l2)
        return Job(_PROX_BY_ROOT, w, step.second.data_ptr(), numbers)
    return Job(_PROX_BY_NUMBER, w, 0, (float(step * l1), 1 / (1 + 2 * step * l2)))


def accumulate_job(w: Tensor, gradient: Tensor, l1: float, l2: float, factor: float) -> Job:
    """Add ``factor`` times the elastic net's gradient to ``gradient``; its results are parts of the value.

    Args:
        w: The weight, which :func:`serves` accepts with ``gradient``.
        gradient: What is added to.
        l1: The strength of the absolute values.
        l2: The strength of the squares.
        factor: What the gradient, not the value, is multiplied by.
    """
    numbers = (float(l1), float(l2), float(factor * l1), factor * 2.0 * l2)
    return Job(_ACCUMULATE, gradient, w.data_ptr(), numbers)


class Seen(NamedTuple):
    """What came of a job: the penalty's value if the pass gives it, and whether it met a NaN."""

    value: float
    bad: bool


def run(jobs: list[Job]) -> list[Seen]:
    """Do all jobs of a kind in one hand-over to the threads."""
    seen: dict[int, Seen] = {}
    for kind in dict.fromkeys(job.kind for job in jobs):
        of = [i for i, job in enumerate(jobs) if job.kind == kind]
        seen |= zip(of, _run(kind, [jobs[i] for i in of]), strict=True)
    torch.autograd.graph.increment_version([job.changed for job in jobs])
    return [seen[i] for i in range(len(jobs))]


def _run(kind: int, jobs: list[Job]) -> list[Seen]:
    before = [0, *accumulate(-(-job.changed.numel() // _PIECE) for job in jobs)]
    results = array("d", bytes(16 * before[-1]))
    core.elastic(kind, b"".join(map(Job.row, jobs, before)), before[-1], results.buffer_info()[0])
    return [Seen(sum(results[2 * a : 2 * b : 2]), any(results[2 * a + 1 : 2 * b : 2])) for a, b in pairwise(before)]
