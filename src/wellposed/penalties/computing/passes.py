"""Proximal steps and gradients in place: by a fused kernel where there is one, by torch's formulas elsewhere."""

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from wellposed.arguments import Number
from wellposed.penalties.computing import operands
from wellposed.penalties.computing.root_step import RootStep
from wellposed.random.backend import cpu_for


class Proximal(Protocol):
    """What is computed: a penalty, of which this file needs to know no more."""

    @property
    def elastic(self) -> tuple[float, float] | None:
        """The strengths of sum |w| and sum w^2, if the penalty is their sum: kernels know these."""

    def grad(self, w: Tensor) -> Tensor:
        """Its gradient at a weight."""

    def prox(self, w: Tensor, step: Number) -> Tensor:
        """Its proximal map."""


class ProxStep(NamedTuple):
    """A prox to take in place: of which penalty, of which weight, with which step size or sizes."""

    penalty: Proximal
    w: Tensor
    size: Number | RootStep


class Push(NamedTuple):
    """A gradient to add: of which penalty, at which weight, to which tensor, times which number."""

    penalty: Proximal
    w: Tensor
    gradient: Tensor
    factor: Number


class Added(NamedTuple):
    """What came of a gradient: the penalty's value, times nothing, if the pass gives it; whether NaN is in the sum."""

    value: float | None
    bad: bool | Tensor


def take_steps_(steps: list[ProxStep]) -> list[bool | Tensor]:
    """Take proxes in place, all that have kernels in one pass.

    Args:
        steps: The proxes.

    Returns:
        For each whether there is a NaN among its results: a tensor where reading it would wait for an accelerator.
    """
    results: list[bool | Tensor] = [False] * len(steps)
    jobs, of = [], []
    for i, (penalty, w, size) in enumerate(steps):
        ready = size if isinstance(size, RootStep) else _on_host(size)
        elastic = penalty.elastic
        if elastic is not None and not isinstance(ready, Tensor) and isinstance(w, Tensor) and cpu_for(w) is not None:
            from wellposed.penalties.computing import kernels  # which need the native core

            if not isinstance(ready, RootStep):
                operands.step_size(ready, w, penalty, elementwise=True)
            if kernels.serves(w, *([ready.second] if isinstance(ready, RootStep) else [])):
                jobs.append(kernels.prox_job(w, ready, *elastic))
                of.append(i)
                continue
        with torch.no_grad():
            w.copy_(penalty.prox(w, ready.tensor() if isinstance(ready, RootStep) else ready))
            results[i] = has_nan(w)
    if jobs:
        for i, seen in zip(of, kernels.run(jobs), strict=True):
            results[i] = seen.bad
    return results


def add_gradients_(pushes: list[Push]) -> list[Added]:
    """Add penalties' gradients in place, all that have kernels in one pass.

    Args:
        pushes: The gradients.

    Returns:
        What came of each: in tensors where reading them would wait for an accelerator.
    """
    results: list[Added] = [Added(None, False)] * len(pushes)
    jobs, of = [], []
    for i, (penalty, w, gradient, factor) in enumerate(pushes):
        number, elastic = _on_host(factor), penalty.elastic
        if elastic is not None and not isinstance(number, Tensor) and isinstance(w, Tensor) and cpu_for(w) is not None:
            from wellposed.penalties.computing import kernels  # which need the native core

            if kernels.serves(w, gradient):
                jobs.append(kernels.accumulate_job(w, gradient, *elastic, number))
                of.append(i)
                continue
        with torch.no_grad():
            gradient.add_((number * penalty.grad(w)).to(gradient.dtype))
            results[i] = Added(None, has_nan(gradient))
    if jobs:
        for i, seen in zip(of, kernels.run(jobs), strict=True):
            results[i] = Added(seen.value, seen.bad)
    return results


def has_nan(tensor: Tensor) -> bool | Tensor:
    """Whether there is a NaN in a tensor: in a tensor where reading it would wait for an accelerator."""
    bad = (tensor._values() if tensor.is_sparse else tensor).isnan().any()
    return bool(bad) if bad.is_cpu else bad


def _on_host(value: Number) -> Number:
    """``value`` as a number, if reading it costs no waiting."""
    return float(value) if isinstance(value, Tensor) and value.is_cpu and value.ndim == 0 else value
