"""Elastic nets (L1, L2 and both) in one pass over CPU memory, beside the torch formulas in ``separable.py``."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from wellposed.penalties import kernels
from wellposed.penalties.steps import RootStep
from wellposed.random import pool


def serves(*tensors: Tensor) -> bool:
    """Whether the kernels reach all ``tensors`` in one order: plain, dense, on the CPU, of one dtype that they know."""
    first = tensors[0]
    return (
        first.dtype in (torch.float32, torch.float64)
        and not torch.compiler.is_compiling()
        and all(
            t.is_cpu
            and t.dtype == first.dtype
            and type(t) in (Tensor, torch.nn.Parameter)
            and t.layout == torch.strided
            and t.shape == first.shape
            and not torch._C._functorch.is_functorch_wrapped_tensor(t)
            for t in tensors
        )
        and (
            all(t.is_contiguous() for t in tensors)
            or (first.ndim == 4 and all(t.is_contiguous(memory_format=torch.channels_last) for t in tensors))
        )
    )


class Job(NamedTuple):
    """One tensor's share of a pass: ``kernel(first, last, *arguments)`` on any part of ``range(elements)``."""

    kernel: Callable[..., Any]
    elements: int
    arguments: tuple[float, ...]
    changed: Tensor


def prox_job(w: Tensor, step: float | RootStep, l1: float, l2: float) -> Job:
    """The elastic net's prox in place; its results say whether there is a NaN among them.

    Args:
        w: The weight, which :func:`serves` accepts (with ``step.second``).
        step: The step size, or step sizes.
        l1: The strength of the absolute values.
        l2: The strength of the squares.
    """
    double = w.dtype == torch.float64
    if isinstance(step, RootStep):
        scales = (float(step.numerator), float(step.scale), float(step.eps), float(l1), 2.0 * l2)
        where = (w.data_ptr(), step.second.data_ptr(), double)
        return Job(kernels.prox_by_root, w.numel(), (*where, *scales), w)
    numbers = (float(step * l1), 1 / (1 + 2 * step * l2))
    return Job(kernels.prox_by_number, w.numel(), (w.data_ptr(), double, *numbers), w)


def accumulate_job(w: Tensor, gradient: Tensor, l1: float, l2: float, factor: float) -> Job:
    """Add ``factor`` times the elastic net's gradient to ``gradient``; its results are parts of the value.

    Args:
        w: The weight, which :func:`serves` accepts with ``gradient``.
        gradient: What is added to.
        l1: The strength of the absolute values.
        l2: The strength of the squares.
        factor: What the gradient, not the value, is multiplied by.
    """
    where = (w.data_ptr(), gradient.data_ptr(), w.dtype == torch.float64)
    numbers = (float(l1), float(l2), float(factor * l1), factor * 2.0 * l2)
    return Job(kernels.accumulate, w.numel(), (*where, *numbers), gradient)


_PIECE = 1 << 18  # elements that a thread takes at a time


def run(jobs: list[Job]) -> list[list[Any]]:
    """Do all jobs in one hand-over to the threads, which take pieces as they get to them.

    A thread that wakes late leaves its pieces to the others, instead of making them wait for its half.

    Returns:
        For each job what its kernel returned for its pieces, in their order.
    """
    seen: list[list[Any]] = [[None] * -(-job.elements // _PIECE) for job in jobs]
    pieces = iter([(job, results, at) for job, results in zip(jobs, seen, strict=True) for at in range(len(results))])

    def work() -> None:
        for job, results, at in pieces:  # a list's iterator gives each piece to one thread
            results[at] = job.kernel(at * _PIECE, min((at + 1) * _PIECE, job.elements), *job.arguments)

    pool.run_python(work, pool.threads_for(sum(job.elements for job in jobs)))
    torch.autograd.graph.increment_version([job.changed for job in jobs])
    return seen
