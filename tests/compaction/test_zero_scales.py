"""Channels that a normalisation multiplies by exactly zero are constants, and go."""

import re
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import wellposed as wp
from wellposed.compaction import compact, plan_compact
from wellposed.random import Key, normal, normal_, uniform_

IMAGES = (4, 2, 9, 9)


def drawn(model: nn.Module, zeros: dict[str, list[int]]) -> nn.Module:
    """A model in evaluation mode with every number drawn, and the scales that are named zero."""
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if "running_var" in name:
                uniform_(tensor, Key(1).fold(name), 0.5, 2.0)
            elif tensor.is_floating_point():
                normal_(tensor, Key(1).fold(name), std=0.5)
        for name, indices in zeros.items():
            model.get_parameter(f"{name}.weight")[indices] = 0.0
    return model.eval()


def slim(norm: Callable[[int], nn.Module], padding: int = 0) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(2, 8, 3), norm(8), nn.Sigmoid(), nn.Conv2d(8, 3, 3, padding=padding))


SLIM: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], dict[str, list[int]], dict[str, int]]] = {
    "batch norm": (
        lambda: nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2)), (5, 3),
        {"1": [0, 2, 3, 7]}, {"0": 4},
    ),
    "convolution": (lambda: slim(nn.BatchNorm2d), IMAGES, {"1": [1, 4]}, {"0": 6}),
    "no bias in what follows": (
        lambda: nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Linear(8, 2, bias=False)), (5, 3),
        {"1": [5]}, {"0": 7},
    ),
    "a chain": (
        lambda: nn.Sequential(*slim(nn.BatchNorm2d), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(75, 4)),
        IMAGES, {"1": [0], "4": [2]}, {"0": 7, "3": 2},
    ),
    "flattened first": (
        lambda: nn.Sequential(nn.Conv2d(2, 4, 7), nn.Flatten(), nn.BatchNorm1d(36), nn.Tanh(), nn.Linear(36, 3)),
        IMAGES, {"2": [*range(9, 18), 35]}, {"0": 3},
    ),
    "after a padded pool": (
        lambda: nn.Sequential(nn.Conv2d(2, 4, 3), nn.AvgPool2d(2, padding=1), nn.BatchNorm2d(4), nn.Conv2d(4, 3, 2)),
        IMAGES, {"2": [3]}, {"0": 3},
    ),
    "instance norm": (lambda: slim(lambda n: nn.InstanceNorm2d(n, affine=True)), IMAGES, {"1": [1, 4]}, {"0": 6}),
    "tracking instance norm": (
        lambda: slim(lambda n: nn.InstanceNorm2d(n, affine=True, track_running_stats=True)), IMAGES,
        {"1": [1, 4]}, {"0": 6},
    ),
    "a whole group": (lambda: slim(lambda n: nn.GroupNorm(4, n)), IMAGES, {"1": [2, 3, 4]}, {"0": 6}),
    "groups of one": (lambda: slim(lambda n: nn.GroupNorm(n, n)), IMAGES, {"1": [2, 3, 4]}, {"0": 5}),
}  # fmt: skip


@pytest.mark.parametrize("name", SLIM)
@pytest.mark.filterwarnings("ignore:1 zero channels of '0' stay:UserWarning")
def test_channels_of_zero_scale_go_and_outputs_stay(name: str) -> None:
    make, shape, zeros, kept = SLIM[name]
    model = drawn(make(), zeros).double()
    x = normal(shape, Key(2), dtype=torch.float64)
    small = compact(model, example=x)
    torch.testing.assert_close(small(x), model(x), rtol=1e-9, atol=1e-9)
    for layer, width in kept.items():
        assert small.get_parameter(f"{layer}.weight").shape[0] == width
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in model.parameters())
    small.train()
    small(x)  # no statistic was left behind


class Residual(nn.Module):
    """A block whose last scale is in a sum."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.last = nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2), nn.Conv2d(2, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(x + self.norm(self.conv(x)))
        return out


STAY: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], dict[str, list[int]], str]] = {
    "layer norm": (
        lambda: nn.Sequential(nn.Linear(3, 8), nn.LayerNorm(8), nn.Linear(8, 2)), (5, 3), {"1": [1, 2]},
        "2 zero channels of '1' stay: their scale is zero, but they count in statistics",
    ),
    "part of a group": (
        lambda: slim(lambda n: nn.GroupNorm(4, n)), IMAGES, {"1": [1, 4]},
        "2 zero channels of '0' stay: channels that are normalized together go together or not at all",
    ),
    "before padding": (
        lambda: slim(nn.BatchNorm2d, padding=1), IMAGES, {"1": [1]},
        "1 zero channels of '0' stay: a constant would not survive the padding on the way",
    ),
    "a sum": (Residual, IMAGES, {"norm": [1]}, "1 zero channels of 'conv' stay: it goes into add, which cannot"),
    "all": (
        lambda: nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)), (5, 3), {"1": [0, 1, 2, 3]},
        "1 zero channels of '0' stay: one channel has to stay",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", STAY)
def test_scales_of_zero_that_stay_are_said(name: str) -> None:
    make, shape, zeros, reason = STAY[name]
    model = drawn(make(), zeros)
    x = normal(shape, Key(2))
    with pytest.warns(UserWarning, match=re.escape(reason)):
        small = compact(model, example=x)
    torch.testing.assert_close(small(x), model(x))
    assert sum(row.left for row in plan_compact(model)) == int(reason[0])


def test_network_slimming_ends_in_a_smaller_network() -> None:
    model = drawn(nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2)), {}).train()
    with torch.no_grad():
        model.get_parameter("1.weight")[:4] = 1e-3
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    wp.regularize(optimizer, model, wp.L1(0.1), where="norms")
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        small = compact(model)
    assert small.get_submodule("0").weight.shape == (4, 3)
    x = normal((5, 3), Key(3))
    torch.testing.assert_close(small.eval()(x), model.eval()(x))
