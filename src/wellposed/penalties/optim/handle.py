"""The handle that ``regularize`` returns: what a penalty does at each step, its report, and its state."""

import copy
import itertools
from collections.abc import Iterator
from typing import Any, Self

import torch
from torch import Tensor

from wellposed._torch import steps_being_taken
from wellposed.arguments import Number
from wellposed.errors import WellposedError
from wellposed.penalties.computing.nan_counts import NanCounts
from wellposed.penalties.computing.shard import Shard, local, placed_like
from wellposed.penalties.optim.factors import Factor, factor_at
from wellposed.penalties.optim.hooks import attach, detach, refuse_unpicklable
from wellposed.penalties.optim.modes import Mode, Update
from wellposed.penalties.optim.reporting import PenaltyReport, ReportRow
from wellposed.penalties.optim.selection import Entry, PenaltyPlan, PlanRow
from wellposed.penalties.optim.step_sizes import Metric
from wellposed.penalties.penalty import Penalty
from wellposed.random.shards import is_sharded

Optimizer = torch.optim.Optimizer


class Handle:
    """A penalty at work on an optimizer.

    A handle, its optimizer and the model that are copied or pickled together work together afterwards, as in
    ``copy.deepcopy((model, optimizer, handle))``. An optimizer that is copied or pickled keeps its penalties, and a
    handle its optimizer.

    Attributes:
        plan: Which parameters are in or out, and why.
        step: How many steps the optimizer has been asked for with it; one that a gradient scaler skips counts if the
            optimizer is fused, which is called all the same.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        plan: PenaltyPlan,
        entries: list[Entry],
        mode: Mode,
        metric: Metric | None,
        factors: dict[str, Factor],
    ) -> None:
        self.plan = plan
        self.step = 0
        self._optimizer, self._mode, self._metric = optimizer, mode, metric
        # Penalties that refer to weights and have none take the parameter's present ones.
        self._references = {
            row.name: p.detach().clone() for row, p in entries if row.penalty is not None and row.penalty.unbound
        }
        # By identity, as torch keys an optimizer's state: tensors are hashed so, and copies by the copied tensors.
        self._rows: dict[Tensor, PlanRow] = {entry.parameter: entry.row for entry in entries}
        self._factors = {entry.parameter: factors[entry.row.name] for entry in entries}
        self._now: dict[Tensor, Number] = {}
        self._nans = NanCounts({p: row.name for p, row in self._rows.items()}, {})
        self._bind()
        attach(self, optimizer)

    @property
    def mode(self) -> Mode:
        """How the penalty acts."""
        return self._mode

    @property
    def parameters(self) -> tuple[Tensor, ...]:
        """The penalised parameters, or their master copies."""
        return tuple(self._rows)

    def value(self) -> float:
        """The penalty's present value, over all its parameters, times the schedule's present factor.

        Of sharded parameters it is that of the whole, as are :meth:`sparsity`, :meth:`nan_steps`, :meth:`report` and
        :meth:`state_dict`: the same in each process, and all processes have to ask.
        """
        return float(sum(self._values().values()))

    def sparsity(self) -> float:
        """The fraction of exact zeros among the penalised parameters' elements, in [0, 1]."""
        return sum(map(_zeros, self._rows)) / max(1, sum(p.numel() for p in self._rows))

    def nan_steps(self) -> dict[str, int]:
        """For each penalised parameter that ever met NaN at how many steps it did.

        A NaN gradient makes NaN of weights that were zero. What is looked at is the weights after a proximal step, and
        the gradients in the other modes. On a CPU the first NaN is a warning too, in the processes that hold it; on an
        accelerator nothing is read until this method or :meth:`report` asks.
        """
        return self._nans.read()

    def report(self) -> PenaltyReport:
        """What the penalty has come to, parameter by parameter; prints as a table."""
        seen, values = self.nan_steps(), self._values()
        rows = (
            ReportRow(
                row.name,
                tuple(parameter.shape),
                repr(row.penalty),
                values[parameter],
                _zeros(parameter),
                parameter.numel(),
                seen.get(row.name, 0),
            )
            for parameter, row in self._rows.items()
        )
        return PenaltyReport(tuple(rows), self.step)

    def remove(self) -> None:
        """Take the penalty off the optimizer. Doing it twice is harmless."""
        detach(self, self._optimizer)

    def state_dict(self) -> dict[str, Any]:
        """What a run needs to go on where it stopped: counts of steps, and starting weights that penalties refer to."""
        return {"step": self.step, "nan_steps": self.nan_steps(), "references": dict(self._references)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a saved state.

        Args:
            state: What :meth:`state_dict` returned.

        Raises:
            WellposedError: If it is something else.
        """
        wanted = {"step": int, "nan_steps": dict, "references": dict}
        if not isinstance(state, dict) or {name: type(value) for name, value in state.items()} != wanted:
            raise WellposedError(f"load_state_dict was given {state!r}; expected what state_dict() returned")
        saved: dict[str, Tensor] = state["references"]
        if {k: v.shape for k, v in saved.items()} != {k: v.shape for k, v in self._references.items()}:
            raise WellposedError(
                f"load_state_dict was given starting weights of {sorted(saved)}; expected those of "
                f"{sorted(self._references)}, in the parameters' shapes"
            )
        self.step = state["step"]
        self._nans = NanCounts({p: row.name for p, row in self._rows.items()}, state["nan_steps"])
        for name, reference in saved.items():
            self._references[name] = placed_like(self._references[name], reference)
        self._bind()

    def __repr__(self) -> str:
        return f"<{len(self._rows)} penalised parameters, mode {self._mode.name}, step {self.step}>"

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        other = memo[id(self)] = object.__new__(type(self))
        vars(other).update(copy.deepcopy(vars(self), memo))
        return other

    def __getstate__(self) -> dict[str, Any]:
        given: dict[str, Any] = {"schedule": list(self._factors.values())}
        if self._metric is not None:
            given["metric"] = [self._metric.step]
        for name, values in given.items():
            for value in filter(callable, values):
                refuse_unpicklable(name, value)
        return vars(self) | {"_now": {}}

    def _bind(self) -> None:
        """Give penalties the weights that they refer to."""
        self._penalties: dict[Tensor, Penalty] = {}
        for parameter, row in self._rows.items():
            assert row.penalty is not None
            reference = self._references.get(row.name)
            self._penalties[parameter] = row.penalty if reference is None else row.penalty.bind(reference)

    def _factors_now(self) -> dict[Tensor, Number]:
        """What multiplies each parameter's penalty now; a schedule of several parameters is asked once."""
        now = {id(factor): factor_at(factor, self.step) for factor in self._factors.values()}
        return {parameter: now[id(factor)] for parameter, factor in self._factors.items()}

    @torch.no_grad()
    def _values(self) -> dict[Tensor, float]:
        factors = self._factors_now()
        return {p: float(factors[p]) * float(penalty.value(p)) for p, penalty in self._penalties.items()}

    def before_step(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The hook before an optimizer's step."""
        if _is_within_step(optimizer):
            return None
        # Asked before the optimizer moves anything, so that what is refused leaves the weights as they were.
        self._now = self._factors_now()
        if self._metric is not None:
            self._metric.refuse_misfits(optimizer)
        if self._mode.after:
            return None
        closure = kwargs.get("closure", args[1] if len(args) > 1 else None)
        if closure is None:
            self._act(optimizer)
            return None
        calls = itertools.count()

        def penalised_closure() -> Any:
            loss = closure()
            if next(calls) == 0 or self._mode.repeats:
                self._act(optimizer)
            # A line search compares losses, so it has to see the function whose gradient it is given.
            return loss + self.value() if isinstance(optimizer, torch.optim.LBFGS) else loss

        return args[:1], {**kwargs, "closure": penalised_closure}

    def after_step(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """The hook after an optimizer's step."""
        if _is_within_step(optimizer):
            return
        if self._mode.after:
            self._act(optimizer)
        self.step += 1

    @torch.no_grad()
    def _act(self, optimizer: Optimizer) -> None:
        scale = getattr(optimizer, "grad_scale", None)
        # A fused optimizer under a gradient scaler is called even when it will skip the step inside its kernel.
        skipped = getattr(optimizer, "found_inf", None)
        if skipped is not None:
            skipped = skipped.squeeze() > 0
            if skipped.is_cpu and skipped.item():
                return
            skipped = None if skipped.is_cpu else skipped
        live = list(self._live(optimizer))
        updates = [
            Update(
                parameter,
                self._penalties[parameter],
                self._now[parameter],
                group,
                optimizer.state.get(parameter, {}),
                self._metric,
                scale,
                skipped,
            )
            for parameter, group in live
        ]
        met = "holds NaN after" if self._mode.after else "has NaN in its gradient at"
        seen = zip((parameter for parameter, _ in live), self._mode.act(updates), strict=True)
        self._nans.add(seen, f"{met} the optimizer's step {self.step + 1}")

    def _live(self, optimizer: Optimizer) -> Iterator[tuple[Tensor, dict[str, Any]]]:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if parameter in self._rows and parameter.grad is not None:
                    yield parameter, group


def _is_within_step(optimizer: Optimizer) -> bool:
    """Whether a hook is that of a step within a step: torch hooks a class's step and the one that it calls above it."""
    return steps_being_taken(optimizer) == 2


def _zeros(parameter: Tensor) -> int:
    zeros = (local(parameter.detach()) == 0).sum()
    return int(Shard.of(parameter).total(zeros) if is_sharded(parameter) else zeros)
