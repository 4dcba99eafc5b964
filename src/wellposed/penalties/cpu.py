"""Elastic nets (L1, L2 and both) in one pass over CPU memory, beside the torch formulas in ``separable.py``."""

import sys
from array import array
from collections.abc import Callable
from itertools import accumulate, pairwise
from struct import Struct
from typing import Any, NamedTuple

import torch
from torch import Tensor

from wellposed.penalties import kernels
from wellposed.penalties.steps import RootStep
from wellposed.random import pool
from wellposed.random.kernels import shares
from wellposed.random.memory import PLAIN_TYPES


def serves(*tensors: Tensor) -> bool:
    """Whether the kernels reach all ``tensors`` in one order: plain, dense, on the CPU, of one dtype that they know."""
    dtype, shape = tensors[0].dtype, tensors[0].shape
    if dtype not in (torch.float32, torch.float64) or torch.compiler.is_compiling():
        return False
    dense = nhwc = True
    for t in tensors:
        if type(t) not in PLAIN_TYPES or t.dtype != dtype or t.shape != shape or t.layout != torch.strided:
            return False
        if not t.is_cpu or t.is_neg() or torch._C._functorch.is_functorch_wrapped_tensor(t):
            return False
        dense = dense and t.is_contiguous()
        nhwc = nhwc and not dense and t.ndim == 4 and t.is_contiguous(memory_format=torch.channels_last)
    return dense or nhwc


_ROW = Struct("5q5d")


class Job(NamedTuple):
    """One tensor's share of a pass: a kernel, the memory that it goes over, and its own numbers.

    Args:
        kernel: Which pass.
        changed: The tensor that it changes.
        addresses: Of the tensors that it goes over.
        numbers: What else it takes.
    """

    kernel: Callable[..., Any]
    changed: Tensor
    addresses: tuple[int, int]
    numbers: tuple[float, ...]

    def row(self, before: int) -> bytes:
        """The job as ``kernels.py`` reads it, with so many pieces before it."""
        double = self.changed.dtype == torch.float64
        unused = [0.0] * (5 - len(self.numbers))
        return _ROW.pack(before, self.changed.numel(), *self.addresses, double, *self.numbers, *unused)


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
        return Job(kernels.prox_by_root, w, (w.data_ptr(), step.second.data_ptr()), numbers)
    return Job(kernels.prox_by_number, w, (w.data_ptr(), 0), (float(step * l1), 1 / (1 + 2 * step * l2)))


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
    return Job(kernels.accumulate, gradient, (w.data_ptr(), gradient.data_ptr()), numbers)


class Seen(NamedTuple):
    """What came of a job: the penalty's value if the pass gives it, and whether it met a NaN."""

    value: float
    bad: bool


def run(jobs: list[Job]) -> list[Seen]:
    """Do all jobs of a kernel in one hand-over to the threads, which take pieces as they get to them.

    A thread that wakes late leaves its pieces to the others, instead of making them wait for its half.
    """
    seen: dict[int, Seen] = {}
    for kernel in dict.fromkeys(job.kernel for job in jobs):
        of = [i for i, job in enumerate(jobs) if job.kernel is kernel]
        seen |= zip(of, _run(kernel, [jobs[i] for i in of]), strict=True)
    torch.autograd.graph.increment_version([job.changed for job in jobs])
    return [seen[i] for i in range(len(jobs))]


def _run(kernel: Callable[..., Any], jobs: list[Job]) -> list[Seen]:
    sizes = [job.changed.numel() for job in jobs]
    before = [0, *accumulate(-(-size // kernels.PIECE) for size in sizes)]
    table = array("q", b"".join(map(Job.row, jobs, before)) + before[-1].to_bytes(8, sys.byteorder))
    results = array("d", bytes(16 * before[-1]))
    pieces, threads = before[-1], pool.threads_for(sum(sizes))
    # One part for all threads: torch's operators split each tensor, not a list of them.
    block = shares.block_of(pieces, pieces, 1, table.buffer_info()[0], results.buffer_info()[0], threads=threads)
    pool.run(shares.body(kernel), block.buffer_info()[0], threads)
    return [Seen(sum(results[2 * a : 2 * b : 2]), any(results[2 * a + 1 : 2 * b : 2])) for a, b in pairwise(before)]
