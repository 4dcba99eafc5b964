"""Proximal steps and gradients in place: by a fused kernel where there is one, by torch's formulas elsewhere."""

import importlib
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from wellposed.arguments import Number
from wellposed.errors import WellposedError
from wellposed.penalties.computing import operands
from wellposed.penalties.computing.jobs import Job, Seen, accumulate_job, are_alike, prox_job
from wellposed.penalties.computing.root_step import RootStep
from wellposed.penalties.computing.shard import Shard, local
from wellposed.random.backend import kernels_for
from wellposed.random.shards import is_sharded


class Proximal(Protocol):
    """What is computed: a penalty, of which this file needs to know no more."""

    @property
    def elastic(self) -> tuple[float, float] | None:
        """The strengths of ``sum |w|`` and ``sum w^2``, if the penalty is their sum: kernels know these."""

    def grad(self, w: Tensor) -> Tensor:
        """Its gradient at a weight."""

    def prox(self, w: Tensor, step: Number) -> Tensor:
        """Its proximal map."""

    def here(self, w: Tensor) -> tuple["Proximal", Tensor, Shard | None]:
        """It and a weight as this process holds them."""


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

    value: Number | None
    bad: bool | Tensor


def take_steps_(steps: list[ProxStep]) -> list[bool | Tensor]:
    """Take proxes in place, all that have kernels in one pass.

    Args:
        steps: The proxes.

    Returns:
        For each whether there is a NaN among its results: a tensor where reading it would wait for an accelerator.
    """
    results: list[bool | Tensor] = [False] * len(steps)
    jobs = _Jobs()
    for i, (penalty, w, size) in enumerate(map(_step_here, steps)):
        ready = size if isinstance(size, RootStep) else _on_host(size)
        if penalty.elastic is not None and not _is_elementwise(ready):
            if not isinstance(ready, RootStep):
                operands.step_size(ready, w, penalty, elementwise=True)
            if jobs.take(i, (w, ready.second) if isinstance(ready, RootStep) else (w,)):
                jobs.add(prox_job(w, ready, *penalty.elastic))
                continue
        with torch.no_grad():
            w.copy_(penalty.prox(w, ready.tensor() if isinstance(ready, RootStep) else ready))
            results[i] = has_nan(w)
    for i, seen in jobs.run():
        results[i] = seen.bad
    _mark_changed([step.w for step in steps])
    return results


def add_gradients_(pushes: list[Push]) -> list[Added]:
    """Add penalties' gradients in place, all that have kernels in one pass.

    Args:
        pushes: The gradients.

    Returns:
        What came of each: in tensors where reading them would wait for an accelerator.
    """
    results: list[Added] = [Added(None, False)] * len(pushes)
    jobs = _Jobs()
    for i, (penalty, w, gradient, factor) in enumerate(map(_push_here, pushes)):
        number = _on_host(factor)
        if penalty.elastic is not None and not _is_elementwise(number) and jobs.take(i, (w, gradient)):
            jobs.add(accumulate_job(w, gradient, *penalty.elastic, number))
            continue
        with torch.no_grad():
            gradient.add_((number * penalty.grad(w)).to(gradient.dtype))
            results[i] = Added(None, has_nan(gradient))
    for i, seen in jobs.run():
        results[i] = Added(seen.value, seen.bad)
    _mark_changed([push.gradient for push in pushes])
    return results


def _step_here(step: ProxStep) -> ProxStep:
    """The step of what this process holds of a sharded weight."""
    if not is_sharded(step.w):
        return step
    penalty, w, shard = step.penalty.here(step.w)
    assert shard is not None
    size = step.size
    size = size._replace(second=shard.part(size.second)) if isinstance(size, RootStep) else shard.part(size)
    return ProxStep(penalty, w.detach(), size)


def _push_here(push: Push) -> Push:
    """The gradient at what this process holds of a sharded weight."""
    if not is_sharded(push.w):
        return push
    penalty, w, shard = push.penalty.here(push.w)
    whole: Any = push.w
    given: Any = push.gradient
    if shard is None or not is_sharded(given) or given.placements != whole.placements or given.shape != whole.shape:
        kind = f"with placements {given.placements}" if is_sharded(given) else "that is not sharded"
        raise WellposedError(
            f"{push.penalty!r} was given a gradient {kind} for a weight with placements {whole.placements}; expected "
            "the weight's (gradient.redistribute(placements=weight.placements))"
        )
    return Push(penalty, w.detach(), local(given.detach()), push.factor)


def _mark_changed(tensors: list[Tensor]) -> None:
    """Let autograd know of DTensors whose shards were changed."""
    torch.autograd.graph.increment_version([tensor for tensor in tensors if is_sharded(tensor)])


class _Jobs:
    """Jobs for the kernels of each backend, in the order in which they were asked for."""

    def __init__(self) -> None:
        self._of: dict[tuple[str, int], list[tuple[int, Job]]] = {}
        self._next = ("", 0)

    def take(self, number: int, tensors: tuple[Tensor, ...]) -> bool:
        """Whether a backend has kernels for such tensors; if so, they expect a job of this number."""
        backend = kernels_for(tensors[0]) if isinstance(tensors[0], Tensor) else None
        self._next = (backend.NAME if backend is not None else "", number)
        return backend is not None and are_alike(*tensors)

    def add(self, job: Job) -> None:
        """Add the job that was taken."""
        name, number = self._next
        self._of.setdefault((name, job.kind), []).append((number, job))

    def run(self) -> Iterator[tuple[int, Seen]]:
        """Do all jobs, those of a kind and backend in one go; give what came of each with its number."""
        for (name, kind), numbered in self._of.items():
            kernels = importlib.import_module(_KERNELS[name])  # when it is needed, since it needs the backend
            numbers, jobs = zip(*numbered, strict=True)
            yield from zip(numbers, kernels.run(kind, list(jobs)), strict=True)
            torch.autograd.graph.increment_version([job.changed for job in jobs])


_KERNELS = {"cpu": "wellposed.penalties.computing.kernels", "gpu": "wellposed.penalties.computing.gpu_kernels"}


def _is_elementwise(size: Number | RootStep) -> bool:
    """Whether there is a number for each element, of which kernels know only those of a ``RootStep``."""
    return isinstance(size, Tensor) and size.ndim > 0


def has_nan(tensor: Tensor) -> bool | Tensor:
    """Whether there is a NaN in what is here of a tensor: in a tensor where reading it would wait."""
    tensor = local(tensor.detach())
    bad = (tensor._values() if tensor.is_sparse else tensor).isnan().any()
    return bool(bad) if bad.is_cpu else bad


def _on_host(value: Number) -> Number:
    """``value`` as a number, if reading it costs no waiting."""
    return float(value) if isinstance(value, Tensor) and value.is_cpu and value.ndim == 0 else value
