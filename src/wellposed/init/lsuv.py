"""Layer-sequential unit variance: weights scaled, one after the other, until each layer's output has variance 1."""

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from wellposed.errors import WellposedError
from wellposed.init.orthogonal import Orthogonal
from wellposed.init.plan import Plan, Row
from wellposed.init.roles import CONVOLUTIONS
from wellposed.init.targets import find
from wellposed.init.trace import arguments

_TOLERANCE = 0.02  # of the variance
_TRIALS = 10


def fit(plan: Plan, model: nn.Module, example: Any) -> Plan:
    """Scale the weights of a model that starts orthogonal until each layer's output on the example has variance 1.

    Layers are taken in the order in which they run, in evaluation mode. Only layers whose output is their weight's,
    linear and convolution layers of any kind, are scaled; the others stay orthogonal.

    Args:
        plan: The plan that was applied.
        model: The model.
        example: An input.

    Returns:
        The plan with the gains that were found.

    Raises:
        WellposedError: If a layer's output is constant or not finite.

    Source: Mishkin & Matas (2016).
    """
    rows = {row.name: row for row in plan if isinstance(row.initializer, Orthogonal) and row.role == "weight"}
    layers = {module: name for name, row in rows.items() if (module := _layer(model, row)) is not None}
    changes: dict[str, dict[str, Any]] = {}
    with _evaluating(model), torch.no_grad(), torch.random.fork_rng(devices=[]):
        for module in _order(model, list(layers), example):
            row = rows[layers[module]]
            gain = _unit_variance(model, module, row, example)
            assert isinstance(row.initializer, Orthogonal)
            initializer = Orthogonal(gain * row.initializer.gain)
            changes[row.label] = {
                "initializer": initializer,
                "gain": initializer.gain,
                "std_wanted": initializer.std_for(row.shape, row.axes),
                "note": "scaled until the layer's output has variance 1",
            }
    return plan.with_rows(changes)


def _layer(model: nn.Module, row: Row) -> nn.Module | None:
    module, attribute, stored = find(model, row.name)
    layers = (nn.Linear, nn.Bilinear, *CONVOLUTIONS)
    linear = stored is None or (stored.linear and stored.only is None)
    return module if isinstance(module, layers) and attribute == "weight" and linear and row.where is None else None


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


def _unit_variance(model: nn.Module, module: nn.Module, row: Row, example: Any) -> float:
    total = 1.0
    outputs: list[Tensor] = []
    _, _, stored = find(model, row.name)
    for _ in range(_TRIALS):
        outputs.clear()
        with _hooked([module], lambda _, output: outputs.append(output)):
            _run(model, example)
        variance = float(outputs[0].to(torch.float64).var(correction=0))
        if not 0 < variance < math.inf:
            raise WellposedError(
                f"the output of {row.name.rpartition('.')[0]} on the example has variance {variance:g}, which no "
                "weight can make 1; give an example that is not constant"
            )
        if abs(variance - 1) < _TOLERANCE:
            break
        weight: Tensor = module.weight  # type: ignore[assignment]
        scaled = weight / math.sqrt(variance)
        weight.copy_(scaled) if stored is None else stored.write(scaled)
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
    args, kwargs = arguments(example)
    model(*args, **kwargs)
