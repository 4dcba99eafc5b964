"""The maximal update parametrization: its table, and the coordinate check that it is there for."""

import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import wellposed as wp

KEY = wp.Key(31)
WIDTHS = (64, 128, 256, 512)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Small products gain nothing from threads, and lose much where tests run side by side."""
    torch.set_num_threads(1)


def net(width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(8, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width), nn.Linear(width, 1)
    )


# A weight's gain over its gain at the base width, and its learning rate, at four times the width.
TABLE: dict[str, Mapping[str, tuple[float, float]]] = {
    "adam": {
        "0.weight": (1, 1),
        "0.bias": (1, 1),
        "2.weight": (1, 1 / 4),
        "5.weight": (1 / 2, 1 / 4),
        "5.bias": (1, 1),
    },
    "sgd": {"0.weight": (1, 4), "0.bias": (1, 4), "2.weight": (1, 1), "5.weight": (1 / 2, 1 / 4), "5.bias": (1, 1)},
}


@pytest.mark.parametrize("optimizer", TABLE)
def test_the_papers_table(optimizer: Any) -> None:
    base, wide = net(16), net(64)
    narrow, plan = (wp.plan_initialize(model, wp.init.mup(base, optimizer)) for model in (base, wide))
    plain = wp.plan_initialize(base)
    assert [row.std_wanted for row in narrow] == [row.std_wanted for row in plain]
    assert {row.lr for row in narrow} == {1.0}
    for name, (gain, lr) in TABLE[optimizer].items():
        assert plan[name].gain == pytest.approx(gain * narrow[name].gain)
        assert plan[name].lr == lr
    shapes = {name: tuple(p.shape) for name, p in base.named_parameters()}
    assert wp.plan_initialize(wide, wp.init.mup(shapes, optimizer)) == plan


def test_groups_carry_the_learning_rates() -> None:
    model = net(64)
    plan = wp.plan_initialize(model, wp.init.mup(net(16)))
    groups = {group["lr"]: group["params"] for group in plan.groups(model, 0.1)}
    assert set(groups) == {0.1, 0.025}
    assert [id(p) for p in groups[0.025]] == [id(model[i].weight) for i in (2, 4, 5)]
    assert "plan.groups" in plan.notes[0]


def test_blocks_of_packed_weights_are_compared_block_by_block() -> None:
    def attention(width: int) -> nn.Module:
        return nn.MultiheadAttention(width, 4)

    plan = wp.plan_initialize(attention(64), wp.init.mup(attention(16)))
    assert plan["in_proj_weight[q]"].lr == plan["out_proj.weight"].lr == 1 / 4


SEEDS = 3


def updates(width: int, scheme: Any) -> list[float]:
    """By how much a few steps of Adam move each layer's output, in the root mean square, over a few seeds."""
    runs = [updates_of_one(width, scheme, seed) for seed in range(SEEDS)]
    return [sum(layer) / SEEDS for layer in zip(*runs, strict=True)]


def updates_of_one(width: int, scheme: Any, seed: int) -> list[float]:
    model = net(width)
    plan = wp.init.initialize(model, scheme, seed=seed)
    optimizer = torch.optim.Adam(plan.groups(model, 0.005))
    x = wp.random.normal((64, 8), KEY)
    y = x[:, :1] * x[:, 1:2]
    outputs: list[Tensor] = []
    handles = [m.register_forward_hook(lambda _, __, out: outputs.append(out.detach())) for m in model]
    first: list[Tensor] = []
    for step in range(5):
        outputs.clear()
        loss = (model(x) - y).square().mean()
        if step == 0:
            first = list(outputs)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for handle in handles:
        handle.remove()
    return [float((a - b).square().mean().sqrt()) for a, b in zip(outputs, first, strict=True)]


def slope(values: list[float]) -> float:
    """Of the logarithm of values over the logarithm of the widths, by least squares."""
    x = torch.tensor([math.log(width) for width in WIDTHS])
    y = torch.tensor([math.log(value) for value in values])
    return float(((x - x.mean()) * y).sum() / (x - x.mean()).square().sum())


@pytest.mark.slow
def test_the_coordinate_check_is_flat_in_width() -> None:
    """Moved outputs neither grow nor fade with width, in any layer; with plain learning rates the last one's grow."""
    by_layer = list(zip(*(updates(width, wp.init.mup(net(WIDTHS[0]))) for width in WIDTHS), strict=True))
    assert max(abs(slope(list(layer))) for layer in by_layer) < 0.1
    plain = [updates(width, "auto")[-1] for width in WIDTHS]
    assert slope(plain) > 0.4


BAD: list[tuple[Any, str]] = [
    (lambda: wp.init.mup(net(4), "adamw"), "'sgd'"),  # type: ignore[arg-type]
    (lambda: wp.plan_initialize(net(8), "mup"), r"scheme=wp\.init\.mup\(base\)"),
    (lambda: wp.plan_initialize(net(8), wp.init.mup(nn.Linear(3, 2))), "has no parameter 0.weight"),
    (lambda: wp.plan_initialize(Tied(8), wp.init.mup(Tied(4))), "untie"),
]


class Tied(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(9, width), nn.Linear(width, 9, bias=False)
        self.head.weight = self.embed.weight


@pytest.mark.parametrize(("make", "message"), BAD, ids=[message for _, message in BAD])
def test_refused(make: Any, message: str) -> None:
    with pytest.raises(wp.WellposedError, match=message):
        make()
