"""Penalties on the outputs (activations) of layers, to be added to the loss."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from wellposed.errors import WellposedError
from wellposed.models.globs import matches
from wellposed.penalties.penalty import Penalty

Layers = str | type[nn.Module] | Callable[[str, nn.Module], bool]
"""A glob on the module's name, a module type, or a callable of name and module."""


def penalize_activity(model: nn.Module, penalty: Penalty, where: Layers) -> "ActivityPenalty":
    """Watch the outputs of some of a model's layers, so that a penalty on them can be added to the loss.

    ``loss = criterion(model(x), y) + activity.loss()``: the penalty then passes through backward, gradient scaling and
    accumulation as the loss does. Outputs are watched in training mode and where gradients are recorded only.

    Args:
        model: The model.
        penalty: What is made of each output; it needs a gradient.
        where: Which modules.

    Returns:
        What holds the penalty of the model's latest forward pass.

    Raises:
        WellposedError: If no module matches or the penalty has no gradient; in a forward pass, if a module's output is
            not one floating-point tensor.

    Example:
        >>> from wellposed.penalties import L1
        >>> model = torch.nn.Sequential(torch.nn.Identity(), torch.nn.ReLU())
        >>> activity = penalize_activity(model, L1(0.5), torch.nn.ReLU)
        >>> _ = model(torch.tensor([[-1.0, 2.0], [4.0, 2.0]], requires_grad=True))
        >>> activity.loss()
        tensor(2., grad_fn=<AddBackward0>)

    Source: Glorot, Bordes and Bengio (2011) for L1 on the outputs of rectifiers.
    """
    if not isinstance(penalty, Penalty) or not penalty.traits.gradient:
        raise WellposedError(
            f"penalize_activity was given {penalty!r}; expected a penalty with a gradient, like wp.L1(1e-4)"
        )
    chosen = {name: module for name, module in model.named_modules() if _matches(where, name, module)}
    if not chosen:
        known = ", ".join(f"{name or '(the model)'}: {type(m).__name__}" for name, m in list(model.named_modules())[:8])
        raise WellposedError(f"where={where!r} matches no module; the model has {known}")
    return ActivityPenalty(model, penalty, chosen)


class _Terms(list[Tensor]):
    """The penalties of a forward pass, which belong to it: a copy, or what is loaded, starts without any."""

    def __reduce__(self) -> tuple[type["_Terms"], tuple[()]]:
        return _Terms, ()


@dataclass(frozen=True)
class _Begin:
    """The hook that starts a forward pass afresh."""

    terms: _Terms
    only_watches: ClassVar[bool] = True

    def __call__(self, module: nn.Module, inputs: Any) -> None:
        self.terms.clear()


@dataclass(frozen=True)
class _Watch:
    """The hook of one module; picklable with the model that it hangs on."""

    name: str
    penalty: Penalty
    terms: _Terms
    only_watches: ClassVar[bool] = True

    def __call__(self, module: nn.Module, inputs: Any, output: Any) -> None:
        if not (module.training and torch.is_grad_enabled()):
            return
        if not isinstance(output, Tensor) or not output.is_floating_point():
            raise WellposedError(
                f"the output of {self.name!r} is {type(output).__name__}; an activity penalty needs one "
                "floating-point tensor"
            )
        rows = output.shape[0] if output.ndim > 1 else 1
        self.terms.append(self.penalty.value(output) / max(1, rows))


class ActivityPenalty:
    """A penalty on outputs, at work on a model.

    Attributes:
        penalty: What is made of each output.
        names: The modules that are watched.
    """

    def __init__(self, model: nn.Module, penalty: Penalty, chosen: dict[str, nn.Module]) -> None:
        self.penalty = penalty
        self.names = tuple(chosen)
        self._terms = _Terms()
        self._hooks = [model.register_forward_pre_hook(_Begin(self._terms))]
        self._hooks += [m.register_forward_hook(_Watch(name, penalty, self._terms)) for name, m in chosen.items()]

    def loss(self) -> Tensor:
        """The penalty of the model's latest forward pass: summed over modules and calls, divided by the number of rows.

        Returns:
            A scalar tensor that autograd can differentiate.

        Raises:
            WellposedError: If there was no forward pass in training mode with gradients.
        """
        if not self._terms:
            raise WellposedError(
                "there is no activity to penalise: run the model's forward pass in training mode, with gradients, first"
            )
        total = torch.zeros((), dtype=self._terms[0].dtype, device=self._terms[0].device)
        for term in self._terms:
            total = total + term.to(total.device)
        return total

    def remove(self) -> None:
        """Stop watching. Doing it twice is harmless."""
        for hook in self._hooks:
            hook.remove()
        self._terms.clear()


def _matches(where: Layers, name: str, module: nn.Module) -> bool:
    if isinstance(where, str):
        return matches(name, where)
    if isinstance(where, type):
        return isinstance(module, where)
    return bool(where(name, module))
