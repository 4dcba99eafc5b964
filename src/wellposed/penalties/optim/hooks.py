"""The hooks of penalties on an optimizer, which its copies and pickles keep.

Torch's optimizers leave hooks out when they are copied or pickled. An optimizer with a penalty has a ``__getstate__``
of its own that puts these hooks, and with them the handles, into what is copied: the copies lead to each other as the
originals do, and handles find parameters by identity, as optimizers find their state.
"""

import pickle
from collections.abc import Callable
from typing import Any, Protocol

import torch

from wellposed._torch import STEP_HOOKS, step_hooks
from wellposed.errors import WellposedError

Optimizer = torch.optim.Optimizer
_GETSTATE = "__getstate__"


class Stepper(Protocol):
    """What acts before and after each step of an optimizer."""

    def before_step(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Act before it; may return other arguments for the step."""

    def after_step(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Act after it."""


class StepHook:
    """One method of a stepper as a hook.

    A compiled step leaves its graph for it: traced, it would be compiled anew as the step number grows.
    """

    def __init__(self, stepper: Any, method: str) -> None:
        self.stepper, self._method = stepper, method
        self._call = torch.compiler.disable(getattr(stepper, method))

    def __call__(self, *given: Any) -> Any:
        """Call the method."""
        return self._call(*given)

    def __reduce__(self) -> tuple[type["StepHook"], tuple[Any, str]]:
        return StepHook, (self.stepper, self._method)


class _State:
    """An optimizer's ``__getstate__`` while it has penalties: what its class keeps, and their hooks."""

    def __init__(self, optimizer: Optimizer) -> None:
        self._optimizer = optimizer

    def __call__(self) -> dict[str, Any]:
        optimizer = self._optimizer
        kept: dict[str, Any] = dict(type(optimizer).__getstate__(optimizer))
        for name, hooks in zip(STEP_HOOKS, step_hooks(optimizer), strict=True):
            # Under themselves, since torch counts from 0 in each process and would give a number a second time.
            kept[name] = type(hooks)((hook, hook) for hook in hooks.values() if isinstance(hook, StepHook))
        return kept | {_GETSTATE: self}


def innermost(optimizer: Optimizer) -> Optimizer:
    """The optimizer that steps, inside wrappers that hand it their steps: those of accelerate and Lightning.

    A wrapper shows the optimizer inside as ``optimizer``, and has the same groups of parameters.
    """
    inner = getattr(optimizer, "optimizer", None)
    while isinstance(inner, Optimizer) and inner is not optimizer and inner.param_groups is optimizer.param_groups:
        optimizer, inner = inner, getattr(inner, "optimizer", None)
    return optimizer


def attach(stepper: Stepper, optimizer: Optimizer) -> None:
    """Have a stepper act at each step of an optimizer, and of its copies."""
    optimizer.register_step_pre_hook(StepHook(stepper, "before_step"))
    optimizer.register_step_post_hook(StepHook(stepper, "after_step"))
    vars(optimizer)[_GETSTATE] = _State(optimizer)


def detach(stepper: Stepper, optimizer: Optimizer) -> None:
    """Have it act no more; harmless if it does not."""
    for hooks in step_hooks(optimizer):
        for key in [key for key, hook in hooks.items() if isinstance(hook, StepHook) and hook.stepper is stepper]:
            del hooks[key]
    if not attached(optimizer):
        vars(optimizer).pop(_GETSTATE, None)


def attached(optimizer: Optimizer) -> list[Any]:
    """The steppers of an optimizer, in the order in which they act."""
    return [hook.stepper for hook in step_hooks(optimizer)[0].values() if isinstance(hook, StepHook)]


def refuse_unpicklable(name: str, given: Callable[..., Any]) -> None:
    """Refuse what pickle cannot take, in words that lead to it: pickle's own name neither the handle nor the option."""
    try:
        pickle.dumps(given)
    except Exception as error:
        raise WellposedError(
            f"the penalty cannot be pickled, because its {name}= is {given!r} ({error}); give a function at the top of "
            "a module, or a schedule of wellposed.schedules, or save handle.state_dict() instead"
        ) from error
