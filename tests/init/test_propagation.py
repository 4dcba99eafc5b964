"""The audit looks at the signal: what is dead or out of scale in a started model is named, and nothing else is."""

import copy
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import wellposed as wp
from wellposed.init import Part

X = wp.random.normal((16, 8), wp.Key(2))


class Scaled(nn.Module):
    """Multiplies by a weight, which a role takes for one that 1 is added to."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(8))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight


class Shrinking(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor, self.layer = factor, nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.factor * self.layer(x)
        return out


class Gated(nn.Module):
    """A residual branch with a gate at its end."""

    def __init__(self, gate: float) -> None:
        super().__init__()
        self.layer, self.gate = nn.Linear(8, 8), Gate(gate)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.gate(self.layer(x))
        return out


class Gate(nn.Module):
    def __init__(self, start: float) -> None:
        super().__init__()
        self.start, self.weight = start, nn.Parameter(torch.ones(8))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight


class Apart(nn.Module):
    """Has a layer that takes part with a weight of nothing, and one that does not take part."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor
        self.main, self.lost, self.unused = (nn.Linear(8, 8) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.main(x) + self.factor * self.lost(x)
        return out


wp.init.role(Scaled)(lambda module: {"weight": Part("scale", start=0.0)})
wp.init.role(Gate)(lambda module: {"weight": Part("gate", start=module.start)})


def among(middle: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Linear(8, 8), middle, nn.Linear(8, 3))


WRONG: dict[str, tuple[Callable[[], nn.Module], list[str]]] = {
    "a scale of nothing": (
        lambda: among(Scaled()),
        ["the output is constant, 0 everywhere", "0.weight gets no gradient", "the output of 1 is 0 times its input"],
    ),
    "not a number": (lambda: among(Shrinking(float("nan"))), ["the output is not a number"]),
    "a block that shrinks": (lambda: among(Shrinking(1e-4)), [r"the output of 1 is .*e-0[45] times its input"]),
    "a block that grows": (lambda: among(Shrinking(1e4)), [r"the output of 1 is .*e\+0[34] times its input"]),
    "the innermost is named": (lambda: nn.Sequential(among(Shrinking(1e-4))), ["the output of 0.1 is"]),
    "a layer without a say": (lambda: Apart(0.0), ["lost.weight gets no gradient"]),
}
RIGHT: dict[str, tuple[Callable[[], nn.Module], dict[str, Any]]] = {
    "layers": (lambda: among(nn.ReLU()), {}),
    "batch norm": (lambda: among(nn.BatchNorm1d(8)), {}),
    "a layer that takes no part": (lambda: Apart(1.0), {}),
    "a gate that is closed": (lambda: among(Gated(0.0)), {}),
    "a gate that is almost closed": (lambda: among(Gated(1e-6)), {}),
    "zero by a rule": (lambda: among(nn.ReLU()), {"rules": {"2.weight": wp.init.Zeros()}}),
    "zero by a scheme": (lambda: among(Gated(1.0)), {"scheme": "zero"}),
    "fixup": (lambda: among(Gated(1.0)), {"scheme": "fixup"}),
    "frozen": (lambda: among(Shrinking(1.0).requires_grad_(False)), {}),
    "weight norm": (lambda: among(nn.utils.parametrizations.weight_norm(nn.Linear(8, 8))), {}),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_named(name: str) -> None:
    make, said = WRONG[name]
    model = make()
    with pytest.raises(wp.WellposedError, match="its signal does not carry") as caught:
        wp.initialize(model, example=X)
    for pattern in said:
        assert re.search(pattern, str(caught.value))
    assert "unused" not in str(caught.value)
    wp.initialize(make())  # without an example nothing is run


@pytest.mark.parametrize("name", RIGHT)
def test_what_is_right_passes_and_the_model_is_left_alone(name: str) -> None:
    make, options = RIGHT[name]
    model = make()
    twin = copy.deepcopy(model)  # what is frozen stays as it was made
    seen: list[Tensor] = []
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.register_hook(seen.append)
    state = torch.get_rng_state()
    plan = wp.initialize(model, example=X, **options)
    wp.init.apply(plan, twin)
    assert not any("signal" in note for note in plan.notes)
    assert all(map(torch.equal, model.state_dict().values(), twin.state_dict().values()))
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not seen
    assert model.training
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize(
    ("example", "reason"),
    [(torch.zeros(16, 8), "the example is constant"), (X.to("meta"), "it is not all in one memory")],
    ids=["constant", "meta"],
)
def test_what_tells_nothing_is_noted(example: Tensor, reason: str) -> None:
    plan = wp.initialize(among(nn.ReLU()), example=example)
    assert plan.notes[-1] == f"the signal was not looked at: {reason}"


def test_an_audit_later_looks_too() -> None:
    model = among(nn.ReLU())
    plan = wp.initialize(model)
    assert wp.init.audit(plan, model, example=X) == plan
    wrong = among(Scaled())
    plan = wp.initialize(wrong)
    with pytest.raises(wp.WellposedError, match="the output is constant"):
        wp.init.audit(plan, wrong, example=X)


def test_batch_norm_that_one_example_is_too_few_for() -> None:
    model = among(nn.BatchNorm1d(8))
    assert not any("signal" in note for note in wp.initialize(model, example=X[:1]).notes)
