"""What all integrations have in common: their arguments, and what they do with a model and its optimizers."""

import contextlib
import weakref
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from wellposed.dropouts import keyed
from wellposed.init import Scheme, initialize
from wellposed.init.planning import Rules
from wellposed.penalties import Handle, regularize
from wellposed.penalties.optim.factors import Factors
from wellposed.penalties.optim.regularizing import ModeName
from wellposed.penalties.optim.selection import Penalties, Where, plan_entries
from wellposed.random.key import Key

Optimizer = torch.optim.Optimizer


@dataclass(kw_only=True, eq=False, repr=False)
class Verbs:
    """The arguments of every integration.

    Args:
        scheme: What the weights start as before the first step, as for ``wp.initialize``; ``None`` leaves them as they
            are. A run that is resumed keeps the weights of its checkpoint.
        rules: As for ``wp.initialize``.
        example: As for ``wp.initialize``: an input, which some schemes need.
        penalty: What is put on the optimizer, as for ``wp.regularize``; ``None`` for nothing.
        where: As for ``wp.regularize``.
        mode: As for ``wp.regularize``.
        schedule: As for ``wp.regularize``.
        keyed: Whether dropout masks depend on the seed, the module, the step and the micro-batch alone, as in
            ``wp.keyed``.
        seed: Where initial values and masks come from.
    """

    scheme: str | Scheme | None = None
    rules: Rules | None = None
    example: Any = None
    penalty: Penalties | None = None
    where: Where | Iterable[Where] = "weights"
    mode: ModeName = "proximal"
    schedule: Factors = 1.0
    keyed: bool = True
    seed: int | Key = 0

    def __post_init__(self) -> None:
        """What a subclass has before it begins."""

    def start(self, model: nn.Module) -> None:
        """Initialize a model, if a scheme was given."""
        if self.scheme is not None:
            initialize(model, self.scheme, seed=self.seed, rules=self.rules, example=self.example)

    def put_on(self, optimizers: Sequence[Optimizer], model: nn.Module) -> tuple[Handle, ...]:
        """Put the penalty on the optimizers, on each for the parameters that it holds."""
        if self.penalty is None:
            return ()
        options: dict[str, Any] = {"where": self.where, "mode": self.mode, "schedule": self.schedule}
        if len(optimizers) == 1:
            return (regularize(optimizers[0], model, self.penalty, **options),)
        rules = self.penalty if isinstance(self.penalty, Mapping) else {"*": self.penalty}
        entries = plan_entries(model, self.penalty, self.where)
        chosen = {entry.row.name: entry.parameter for entry in entries if entry.row.penalty is not None}
        held = [{id(p) for group in each.param_groups for p in group["params"]} for each in optimizers]
        handles = []
        for optimizer, own in zip(optimizers, held, strict=True):
            # What no optimizer holds is left in, for regularize to refuse it.
            others = {
                name: None for name, p in chosen.items() if id(p) not in own and any(id(p) in each for each in held)
            }
            if len(others) < len(chosen):
                handles.append(regularize(optimizer, model, {**rules, **others}, **options))
        return tuple(handles)

    def masks(self, step: int, microbatch: int = 0, row: int = 0) -> contextlib.AbstractContextManager[None]:
        """The block in which a micro-batch's masks are drawn."""
        return keyed(self.seed, step, microbatch, row=row) if self.keyed else contextlib.nullcontext()


def figures(handles: Sequence[Handle]) -> dict[str, float]:
    """What is logged of penalties at work: their value, the share of zeros, and how often weights met NaN."""
    if not handles:
        return {}
    sizes = [sum(p.numel() for p in handle.parameters) for handle in handles]
    zeros = sum(handle.sparsity() * size for handle, size in zip(handles, sizes, strict=True))
    return {
        "wellposed/penalty": sum(handle.value() for handle in handles),
        "wellposed/sparsity": zeros / max(1, sum(sizes)),
        "wellposed/nan_steps": float(sum(sum(handle.nan_steps().values()) for handle in handles)),
    }


def states(handles: Sequence[Handle]) -> list[dict[str, Any]]:
    """What a checkpoint holds of penalties at work."""
    return [handle.state_dict() for handle in handles]


def load_states(handles: Sequence[Handle], saved: Sequence[dict[str, Any]]) -> None:
    """Take up what a checkpoint holds."""
    for handle, state in zip(handles, saved, strict=True):
        handle.load_state_dict(state)


def first_row(batch: Any, rank: int) -> int:
    """Where a process's batch begins in the batch of all processes, which have as many rows each."""
    return rank * _rows(batch) if rank else 0


def data_rank(accelerator: Any) -> int:
    """Which of the data parallel processes this one is, by Accelerate; several that share a model are one."""
    config = accelerator.parallelism_config
    rank: int = accelerator.process_index // (1 if config is None else config.non_data_parallel_size)
    return rank


def _rows(batch: Any) -> int:
    """The size of the first tensor's first dimension."""
    if isinstance(batch, Tensor):
        return len(batch) if batch.dim() else 0
    if isinstance(batch, Mapping):
        batch = list(batch.values())
    found = map(_rows, batch) if isinstance(batch, list | tuple) else iter(())
    return next(filter(None, found), 0)


class Started:
    """Which model was initialized last; copies and pickles do not know."""

    def __init__(self) -> None:
        self._model: weakref.ref[nn.Module] | None = None

    def note(self, model: nn.Module) -> bool:
        """Whether it is another one than the last time."""
        is_new = self._model is None or self._model() is not model
        self._model = weakref.ref(model)
        return is_new

    @property
    def any(self) -> bool:
        """Whether there was one."""
        return self._model is not None

    def __reduce__(self) -> tuple[type["Started"], tuple[()]]:
        return Started, ()
