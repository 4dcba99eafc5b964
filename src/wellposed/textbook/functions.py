"""Activation functions and losses with their derivatives."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from wellposed.errors import WellposedError


class Activation(NamedTuple):
    """An activation function a = f(z) and its derivative.

    Args:
        f: The function.
        slope: f'(z), from the pair (z, a).
    """

    f: Callable[[Tensor], Tensor]
    slope: Callable[[Tensor, Tensor], Tensor]


ACTIVATIONS = {
    "identity": Activation(lambda z: z, lambda z, a: torch.ones_like(z)),
    "relu": Activation(lambda z: z.clamp(min=0), lambda z, a: (z > 0).to(z.dtype)),
    "sigmoid": Activation(lambda z: 1 / (1 + (-z).exp()), lambda z, a: a * (1 - a)),
    "tanh": Activation(torch.tanh, lambda z, a: 1 - a * a),
}


class Loss(NamedTuple):
    """A loss and its gradient.

    Args:
        value: (outputs, targets) -> L, a scalar.
        slope: (outputs, targets) -> dL/d(outputs).
        check: Raises for targets that do not fit the outputs.
    """

    value: Callable[[Tensor, Tensor], Tensor]
    slope: Callable[[Tensor, Tensor], Tensor]
    check: Callable[[Tensor, Tensor], None]


def _softmax(out: Tensor) -> Tensor:
    e = (out - out.amax(1, keepdim=True)).exp()
    return e / e.sum(1, keepdim=True)


def _one_hot(out: Tensor, y: Tensor) -> Tensor:
    return (y[:, None] == torch.arange(out.shape[1], device=y.device)).to(out.dtype)


def _cross_entropy(out: Tensor, y: Tensor) -> Tensor:
    return (out.logsumexp(1) - (out * _one_hot(out, y)).sum(1)).mean()


def _check_values(out: Tensor, y: Tensor) -> None:
    if y.shape != out.shape:
        raise WellposedError(f"the targets have shape {tuple(y.shape)}; expected the outputs' shape {tuple(out.shape)}")


def _check_classes(out: Tensor, y: Tensor) -> None:
    if y.shape != out.shape[:1] or y.is_floating_point() or not ((y >= 0) & (y < out.shape[1])).all():
        raise WellposedError(
            f"the targets have shape {tuple(y.shape)} and dtype {y.dtype}; expected {len(out)} class numbers, integers "
            f"in [0, {out.shape[1]})"
        )


LOSSES = {
    "squared error": Loss(
        lambda out, y: (out - y).square().mean(), lambda out, y: 2 * (out - y) / out.numel(), _check_values
    ),
    "cross entropy": Loss(_cross_entropy, lambda out, y: (_softmax(out) - _one_hot(out, y)) / len(out), _check_classes),
}


def check_choice(given: str, table: dict[str, Activation] | dict[str, Loss], name: str) -> None:
    """Refuse a name that a table does not have."""
    if given not in table:
        raise WellposedError(f"{name} was given {given!r}; expected one of {', '.join(map(repr, table))}")
