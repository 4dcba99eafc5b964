"""Checks of the weights and step sizes that a penalty is computed on."""

import torch
from torch import Tensor

from wellposed.arguments import Number, described, plain_nonnegative
from wellposed.errors import WellposedError


def step_size(step: object, weight: Tensor, owner: object, *, elementwise: bool) -> Number:
    """``step`` as the step size of a prox on ``weight``.

    Args:
        step: A number >= 0, or a tensor that broadcasts against the weight (its values are not read, so that a step on
            an accelerator costs no synchronisation).
        weight: The weight that it belongs to.
        owner: The penalty, for the message.
        elementwise: Whether the penalty's prox can take one step size an element.

    Raises:
        WellposedError: If it is not such a number or tensor.
    """
    if not isinstance(step, Tensor):
        # A penalty's text holds its numbers, and to read them at each step would wait for an accelerator.
        return plain_nonnegative(step, lambda: f"the step of {owner!r}.prox")
    fits = step.ndim <= weight.ndim and all(
        s in (1, w) for s, w in zip(reversed(step.shape), reversed(weight.shape), strict=False)
    )
    if not fits or step.is_complex():
        raise WellposedError(
            f"{owner!r}.prox was given a step {described(step)} for a weight {described(weight)}; "
            "expected a number or a real tensor that broadcasts against the weight"
        )
    if step.ndim and not elementwise:
        raise WellposedError(
            f"{owner!r}.prox was given a step for each element; its prox is known for one step size only"
        )
    return step


def weight(w: object, owner: object) -> Tensor:
    """``w`` as something a penalty can be computed on: a tensor with values, of a floating-point or complex dtype.

    Raises:
        WellposedError: If it is not.
    """
    if not isinstance(w, Tensor):
        raise WellposedError(f"{owner!r} was given {type(w).__name__}; expected a torch.Tensor")
    if w.is_meta:
        raise WellposedError(f"{owner!r} was given a tensor on the meta device, without values; materialise it first")
    if not (w.is_floating_point() or w.is_complex()):
        raise WellposedError(f"{owner!r} was given a tensor {described(w)}; expected a floating-point or complex dtype")
    return w


def at_least_float32(w: Tensor) -> Tensor:
    """``w`` in float32 if it is of a floating-point dtype of fewer bits, as it is otherwise."""
    return w.float() if w.is_floating_point() and torch.finfo(w.dtype).bits < 32 else w
