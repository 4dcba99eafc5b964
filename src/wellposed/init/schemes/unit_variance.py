"""Layer-sequential unit variance: weights scaled, one after the other, until each layer's output has variance 1."""

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from wellposed.errors import WellposedError
from wellposed.init.initializers.orthogonal import Orthogonal
from wellposed.init.plan import Bound, Plan, Row
from wellposed.models.example import arguments, copied
from wellposed.models.roles import CONVOLUTIONS
from wellposed.models.weights import Weight

_TOLERANCE = 0.02  # of the variance
_TRIALS = 10


def fit(bound: Bound, example: Any) -> Plan:
    """Scale the weights of a model that starts orthogonal until each layer's output on the example has variance 1.

    Layers are taken in the order in which they run, in evaluation mode. Only layers whose output is their weight's,
    linear and convolution layers of any kind, are scaled; the others stay orthogonal.

    Args:
        bound: The plan that was applied, bound to the model.
        example: An input.

    Returns:
        The plan with the gains that were found.

    Raises:
        WellposedError: If a layer's output is constant or not finite.

    Source: Mishkin & Matas (2016).
    """
    model = bound.model
    layers = {
        weight.module: (weight, row)
        for weight, rows in bound.weights
        for row in rows
        if isinstance(row.initializer, Orthogonal) and row.role == "weight" and _makes_output(weight, row)
    }
    changes: dict[str, dict[str, Any]] = {}
    with _evaluating(model), torch.no_grad(), torch.random.fork_rng(devices=[]):
        for module in _order(model, list(layers), example):
            weight, row = layers[module]
            gain = _unit_variance(model, weight, example)
            assert isinstance(row.initializer, Orthogonal)
            initializer = Orthogonal(gain * row.initializer.gain)
            changes[row.label] = {
                "initializer": initializer,
                "gain": initializer.gain,
                "std_wanted": initializer.std_for(row.shape, row.axes),
                "note": "scaled until the layer's output has variance 1",
            }
    return bound.plan.with_rows(changes)


def _makes_output(weight: Weight, row: Row) -> bool:
    """Whether a layer's output is the product with this weight, and whatever is written is what it uses."""
    layers = (nn.Linear, nn.Bilinear, *CONVOLUTIONS)
    free = weight.computed is None or (weight.computed.linear and not weight.computed.orthogonal)
    return isinstance(weight.module, layers) and weight.attribute == "weight" and free and row.where is None


@contextlib.contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def _order(model: nn.Module, layers: list[nn.Module], example: Any) -> list[nn.Module]:
    """The layers in the order in which they first run."""
    order: dict[nn.Module, None] = {}
    with _hooked(layers, lambda module, output: order.setdefault(module)):
        _run(model, example)
    return list(order)


def _unit_variance(model: nn.Module, weight: Weight, example: Any) -> float:
    total = 1.0
    outputs: list[Tensor] = []
    for _ in range(_TRIALS):
        outputs.clear()
        with _hooked([weight.module], lambda _, output: outputs.append(output)):
            _run(model, example)
        variance = float(outputs[0].to(torch.float64).var(correction=0))
        if not 0 < variance < math.inf:
            raise WellposedError(
                f"the output of {weight.name.rpartition('.')[0]} on the example has variance {variance:g}, which no "
                "weight can make 1; give an example that is not constant"
            )
        if abs(variance - 1) < _TOLERANCE:
            break
        weight.write(weight.read() / math.sqrt(variance))
        total /= math.sqrt(variance)
    return total


@contextlib.contextmanager
def _hooked(modules: list[nn.Module], see: Callable[[nn.Module, Tensor], Any]) -> Iterator[None]:
    def hook(module: nn.Module, _: Any, output: Tensor) -> None:
        see(module, output)

    handles = [module.register_forward_hook(hook) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _run(model: nn.Module, example: Any) -> None:
    args, kwargs = copied(arguments(example))
    model(*args, **kwargs)
