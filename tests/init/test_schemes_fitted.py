"""Schemes without chance: LSUV, fitted to an example, and ZerO, made of identities and Hadamard matrices."""

import itertools
from typing import Any

import pytest
import scipy.linalg
import torch
from torch import Tensor, nn

import wellposed as wp
from wellposed.init import Axes

KEY = wp.Key(17)


class Convolutional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.later = nn.Linear(24, 10)
        self.first = nn.Conv2d(3, 12, 3, stride=2)
        self.norm = nn.BatchNorm2d(12)
        self.up = nn.utils.parametrizations.weight_norm(nn.ConvTranspose2d(12, 24, 2, stride=2))
        self.frozen = nn.Linear(10, 10).requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.up(torch.tanh(self.norm(self.first(x))))
        out: Tensor = self.frozen(torch.relu(self.later(x.mean((2, 3)))))
        return out


def test_lsuv_gives_every_layer_unit_variance() -> None:
    model = Convolutional()
    example = 3 * wp.random.normal((16, 3, 9, 9), KEY) + 1
    model.norm.eval()
    state = {name: buffer.clone() for name, buffer in model.named_buffers()}
    plan = wp.init.initialize(model, "lsuv", example=example, rules={"frozen.weight": wp.init.Orthogonal()})
    assert all(torch.equal(state[name], buffer) for name, buffer in model.named_buffers())
    assert model.training
    assert not model.norm.training
    assert not any(module._forward_hooks for module in model.modules())
    seen = {}
    layers = {"first": model.first, "up": model.up, "later": model.later, "frozen": model.frozen}
    for name, layer in layers.items():
        layer.register_forward_hook(lambda _, __, out, name=name: seen.update({name: float(out.detach().var())}))
    model.eval()(example)
    assert set(seen) == set(layers)
    assert all(variance == pytest.approx(1, abs=0.03) for variance in seen.values())
    for name in layers:
        row = plan[f"{name}.weight"]
        assert row.initializer == wp.init.Orthogonal(row.gain)
        assert "variance 1" in row.note
    assert plan["frozen.bias"].initializer is None
    assert not model.frozen.weight.requires_grad


def test_lsuv_refuses_and_leaves_the_model_as_it_was() -> None:
    model = Convolutional()
    before = [p.detach().clone() for p in model.parameters()]
    for options, message in (
        ({}, "example=batch"),
        ({"example": torch.zeros(2, 5)}, "does not fit"),
        ({"example": torch.zeros(2, 3, 9, 9)}, "output of first on the example has variance 0"),
    ):
        with pytest.raises(wp.WellposedError, match=message):
            wp.init.initialize(model, "lsuv", **options)  # type: ignore[arg-type]
        assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


@pytest.mark.parametrize(("rows", "columns"), [(8, 8), (5, 8), (8, 3), (13, 6), (100, 64)])
def test_hadamard_is_scipys(rows: int, columns: int) -> None:
    ours = wp.init.Hadamard()((rows, columns), KEY, dtype=torch.float64)
    size = 1 << (rows - 1).bit_length()
    theirs = torch.eye(rows, columns) if rows <= columns else torch.tensor(scipy.linalg.hadamard(size) / size**0.5)
    torch.testing.assert_close(ours, theirs[:rows, :columns].double(), rtol=0, atol=1e-15)
    if rows > columns and rows == size:
        torch.testing.assert_close(ours.T @ ours, torch.eye(columns, dtype=torch.float64), rtol=0, atol=1e-12)


def test_zero_keeps_the_signal_and_holds_no_chance() -> None:
    """Through layers that widen by powers of two and keep their width, norms are kept exactly."""
    layers = [nn.Linear(a, b, bias=False) for a, b in itertools.pairwise((8, 16, 16, 64, 64))]
    a, b = (
        nn.Sequential(*layers),
        nn.Sequential(*(nn.Linear(m.in_features, m.out_features, bias=False) for m in layers)),
    )
    wp.init.initialize(a, "zero", seed=1)
    wp.init.initialize(b, "zero", seed=2)
    assert all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))
    x = wp.random.normal((5, 8), KEY)
    torch.testing.assert_close(a(x).norm(dim=1), x.norm(dim=1))


def test_zero_hands_the_stream_of_a_residual_network_on() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = x + self.b(torch.relu(self.a(x)))
            return out

    model = nn.Sequential(*(Block() for _ in range(3)))
    plan = wp.init.initialize(model, "zero")
    x = wp.random.normal((2, 4, 5, 5), KEY)
    assert torch.equal(model(x), x)
    assert torch.equal(model[0].a(x), x)  # type: ignore[operator]
    assert plan["1.b.weight"].initializer == wp.init.Zeros()


def test_hadamard_of_groups() -> None:
    made: Any = wp.init.Hadamard()((8, 2, 3), KEY, axes=Axes(groups=2))
    assert torch.equal(made[:4], made[4:])
    assert torch.equal(made[:4, :, 1], wp.init.Hadamard()((4, 2), KEY))
    assert not made[:, :, (0, 2)].any()
