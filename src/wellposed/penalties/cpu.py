"""Elastic nets (L1, L2 and both) in one pass over CPU memory, beside the torch formulas in ``separable.py``."""

from collections.abc import Callable
from typing import Any

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


def prox_(w: Tensor, step: float | RootStep, l1: float, l2: float) -> bool:
    """The elastic net's prox in place.

    Args:
        w: The weight, which :func:`serves` accepts (with ``step.second``).
        step: The step size, or step sizes.
        l1: The strength of the absolute values.
        l2: The strength of the squares.

    Returns:
        Whether there is a NaN among the results.
    """
    double = w.dtype == torch.float64
    if isinstance(step, RootStep):
        scales = (float(step.numerator), float(step.scale), float(step.eps), l1, 2 * l2)
        seen = _shares(kernels.prox_by_root, w.numel(), w.data_ptr(), step.second.data_ptr(), double, *scales)
    else:
        seen = _shares(
            kernels.prox_by_number, w.numel(), w.data_ptr(), double, float(step * l1), 1 / (1 + 2 * step * l2)
        )
    torch.autograd.graph.increment_version(w)
    return any(seen)


def accumulate_(w: Tensor, gradient: Tensor, l1: float, l2: float, factor: float) -> float:
    """Add ``factor`` times the elastic net's gradient to ``gradient``, and take the value on the way.

    Args:
        w: The weight, which :func:`serves` accepts with ``gradient``.
        gradient: What is added to.
        l1: The strength of the absolute values.
        l2: The strength of the squares.
        factor: What the gradient, not the value, is multiplied by.

    Returns:
        The value.
    """
    double = w.dtype == torch.float64
    where = (w.data_ptr(), gradient.data_ptr(), double)
    total: float = sum(_shares(kernels.accumulate, w.numel(), *where, l1, l2, factor * l1, factor * 2 * l2))
    torch.autograd.graph.increment_version(gradient)
    return total


def _shares(work: Callable[..., Any], count: int, *arguments: float) -> list[Any]:
    """What ``work(first, last, *arguments)`` returns for the shares of ``range(count)``, in their order."""
    seen: dict[int, Any] = {}

    def share(first: int, last: int) -> None:
        seen[first] = work(first, last, *arguments)

    pool.split(share, count, (), ())
    return [seen[first] for first in sorted(seen)]
