"""Smaller models with the same outputs."""

import copy
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

import wellposed as wp
from wellposed.penalties import GroupLasso, Heads, compact, plan_compact, regularize
from wellposed.penalties.attention import CompactAttention
from wellposed.random import Key, normal, normal_, uniform_


def filled(model: nn.Module) -> nn.Module:
    """Every parameter and statistic drawn, so that no constant hides a mistake."""
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if "running_var" in name:
            uniform_(tensor, Key(1).fold(name), 0.5, 2.0)
        elif tensor.is_floating_point():
            with torch.no_grad():
                normal_(tensor, Key(1).fold(name), std=0.5)
    return model


def weight(model: nn.Module, name: str) -> Tensor:
    """The weight of a layer by its name."""
    found = model.get_submodule(name).weight
    assert isinstance(found, Tensor)
    return found


def zero_rows(model: nn.Module, rows: dict[str, list[int]]) -> nn.Module:
    with torch.no_grad():
        for name, indices in rows.items():
            weight(model, name)[indices] = 0
    return model


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


class Functional(nn.Module):
    """Layers with functions between them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 5, 3)
        self.dense = nn.Linear(5 * 16, 6)
        self.out = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.flatten(torch.relu(self.conv(x)), 1)
        x = nn.functional.dropout(nn.functional.gelu(self.dense(x), approximate="tanh"), 0.3, self.training)
        out: Tensor = self.out(x.tanh())
        return out


class Viewing(nn.Module):
    """The usual small network written with functions: pools, batch sizes read off, views."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.first = nn.Conv2d(2, 5, 3)
        self.second = nn.Conv2d(5, 4, 3)
        self.dense = nn.Linear(4 if how == "mean" else 16, 6)
        self.out = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.max_pool2d(self.first(x).relu(), 2)
        x = nn.functional.avg_pool2d(nn.functional.relu(self.second(x), inplace=True), 2)
        x = {
            "view": lambda: x.view(x.size(0), -1),
            "reshape": lambda: x.reshape((x.shape[0], -1)),
            "shape": lambda: x.view(x.size()[0], -1),
            "flatten": lambda: x.flatten(start_dim=1, end_dim=-1),
            "mean": lambda: x.mean(dim=(-1, -2)),
            "fixed": lambda: x.view(-1, 16),
            "channels": lambda: x.view(-1, x.size(1) * 4),
            "batch first": lambda: x.flatten(0).view(-1, 16),
        }[self.how]()
        out: Tensor = self.out(self.dense(x).tanh())
        return out


class Branching(nn.Module):
    """A sum of two ways, as in a residual network."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 6)
        self.second = nn.Linear(6, 6)
        self.out = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu()
        out: Tensor = self.out(x + self.second(x))
        return out


# name: (model, shape of the inputs, zero rows, what each named layer keeps)
CHAINS: dict[str, tuple[nn.Module, tuple[int, ...], dict[str, list[int]], dict[str, int]]] = {
    "dense": (
        nn.Sequential(nn.Linear(4, 6), nn.Sigmoid(), nn.Dropout(0.5), nn.Linear(6, 5), nn.GELU(), nn.Linear(5, 2)),
        (7, 4),
        {"0": [1, 4], "3": [0, 3, 4]},
        {"0": 4, "3": 2, "5": 2},
    ),
    "dense-batch-norm": (
        nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3, bias=False)),
        (7, 4),
        {"0": [0, 5]},
        {"0": 4, "3": 3},
    ),
    "conv": (
        nn.Sequential(
            nn.Conv2d(2, 6, 3),
            nn.BatchNorm2d(6),
            nn.SiLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 5, 3),
            nn.ELU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(20, 3),
        ),
        (3, 2, 12, 12),
        {"0": [2], "4": [0, 1]},
        {"0": 5, "4": 3, "8": 3},
    ),
    "conv-padded-without-constants": (
        nn.Sequential(nn.Conv2d(2, 6, 3, padding=1, bias=False), nn.ReLU(), nn.Conv2d(6, 4, 3, padding="same")),
        (2, 2, 8, 8),
        {"0": [1, 2]},
        {"0": 4, "2": 4},
    ),
    "conv1d-average-pool": (
        nn.Sequential(nn.Conv1d(2, 6, 3), nn.AvgPool1d(2), nn.ReLU(), nn.Conv1d(6, 4, 1)),
        (2, 2, 12),
        {"0": [0, 2]},
        {"0": 4, "3": 4},
    ),
    "functional": (Functional(), (3, 2, 6, 6), {"conv": [1], "dense": [2, 5]}, {"conv": 4, "dense": 4}),
    **{
        how: (Viewing(how), (3, 2, 14, 14), {"first": [0, 3], "second": [1]}, {"first": 3, "second": 3, "dense": 6})
        for how in ("view", "reshape", "shape", "flatten", "mean")
    },
}


@pytest.mark.parametrize("name", CHAINS)
def test_outputs_stay_and_the_model_shrinks(name: str) -> None:
    model, shape, rows, wanted = copy.deepcopy(CHAINS[name])
    zero_rows(filled(model), rows).eval()
    x = normal(shape, Key(9))
    kept = copy.deepcopy(model.state_dict())
    small = compact(model, example=x)
    torch.testing.assert_close(small(x), model(x), rtol=1e-5, atol=1e-6)
    assert {layer: weight(small, layer).shape[0] for layer in wanted} == wanted
    assert parameters(small) < parameters(model)
    assert all(kept[k].equal(v) for k, v in model.state_dict().items())
    plan = plan_compact(model)
    assert plan.parameters == (parameters(model), parameters(small))
    assert {row.name: row.after for row in plan if row.name in wanted} == wanted
    assert "parameters:" in str(plan)
    again = copy.deepcopy(small)
    again.load_state_dict(small.state_dict())
    torch.testing.assert_close(again(x), small(x))
    torch.autograd.backward(small.train()(x).square().sum())
    assert compact(small) is not small
    assert parameters(compact(small)) == parameters(small)


def test_channels_that_nobody_uses_go_and_so_do_those_that_only_they_used() -> None:
    model = filled(nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 2)))
    with torch.no_grad():
        weight(model, "4")[:, [0, 2]] = 0
        weight(model, "2")[[1, 3, 4], 5] = 0
    small = compact(model)
    assert [weight(small, k).shape for k in ("0", "2", "4")] == [(5, 4), (3, 5), (2, 3)]
    x = normal((7, 4), Key(9))
    torch.testing.assert_close(small(x), model(x), rtol=1e-5, atol=1e-6)


def tied() -> nn.Sequential:
    first, second = nn.Linear(4, 4), nn.Linear(4, 4)
    second.weight = first.weight
    return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), nn.Linear(4, 2))


class Twice(nn.Module):
    """A layer that is called on its own output."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.out = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.out(self.first(self.first(x)))
        return out


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 4))
        self.out = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 1e6:  # cannot be traced
            return x
        out: Tensor = self.out(x + self.inner(x))
        return out


def test_what_can_be_followed_within_what_cannot_is_done() -> None:
    model = zero_rows(filled(Residual()), {"inner.0": [0, 1], "inner.2": [3]})
    with pytest.warns(UserWarning, match=r"1 zero channels of 'inner\.2' stay: its output is"):
        small = compact(model)
    assert weight(small, "inner.0").shape == (4, 4)
    x = normal((7, 4), Key(9))
    torch.testing.assert_close(small(x), model(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("model", "shape", "rows", "reason"),
    [
        (nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.Linear(6, 2)), (3, 4), {"0": [1]}, "LayerNorm"),
        (nn.Sequential(nn.Linear(4, 6), nn.Softmax(-1), nn.Linear(6, 2)), (3, 4), {"0": [1]}, "Softmax"),
        (
            nn.Sequential(nn.Conv2d(2, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 4, 3, padding=1)),
            (2, 2, 8, 8),
            {"0": [1]},
            "padding",
        ),
        (nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2)), (3, 4), {"2": [1]}, "output is the model's"),
        (nn.Sequential(*[nn.Linear(4, 4)] * 2, nn.Linear(4, 2)), (3, 4), {"0": [1]}, "more than once|tied"),
        (Twice(), (3, 4), {"first": [1]}, "'first' stay: it is used more than once"),
        (
            nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6, track_running_stats=False), nn.Linear(6, 2)),
            (3, 4),
            {"0": [1]},
            r"BatchNorm1d\), which cannot",
        ),
        (tied(), (3, 4), {"0": [1]}, r"stay: \d is tied"),
        (Viewing("fixed"), (3, 2, 14, 14), {"second": [1]}, r"'second' stay: it goes into view"),
        (Viewing("channels"), (3, 2, 14, 14), {"second": [1]}, "'second' stay: its output is used in several places"),
        (Viewing("batch first"), (3, 2, 14, 14), {"second": [1]}, "'second' stay: it goes into flatten"),
        (Branching(), (3, 4), {"first": [1]}, "'first' stay: its output is used in several places"),
        (Branching(), (3, 4), {"second": [1]}, r"'second' stay: it goes into add"),
        (
            nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3, groups=2), nn.Conv2d(4, 1, 3)),
            (2, 2, 9, 9),
            {"0": [1]},
            r"'0' stay: it goes into 2 \(grouped Conv2d\)",
        ),
        (
            nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 1, 3)),
            (2, 2, 9, 9),
            {"2": [1]},
            "'2' stay: it is a grouped Conv2d",
        ),
        (
            nn.Sequential(nn.Conv2d(2, 4, 3), nn.AvgPool2d(2, divisor_override=3), nn.Conv2d(4, 1, 1)),
            (2, 2, 8, 8),
            {"0": [1]},
            "a constant would not survive",
        ),
        (
            nn.TransformerEncoderLayer(4, 2, 6, dropout=0.0, batch_first=True),
            (2, 3, 4),
            {"linear2": [1]},
            "'linear2' stay: the forward pass around it cannot be followed",
        ),
    ],
)
def test_what_cannot_be_followed_is_left_alone_and_said(
    model: nn.Module, shape: tuple[int, ...], rows: dict[str, list[int]], reason: str
) -> None:
    zero_rows(filled(model), rows)
    with torch.no_grad():
        for layer in rows:
            nn.init.constant_(cast(Tensor, model.get_submodule(layer).bias), 0.5)
    with pytest.warns(UserWarning, match=reason):
        small = compact(model)
    x = normal(shape, Key(9))
    torch.testing.assert_close(small(x), model(x))
    assert parameters(small) == parameters(model)


class Reader(nn.Module):
    """A model that reads its own layer's weight, which no graph of modules shows as a use of its channels."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 4))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.inner(x)
        return out + float(weight(self, "inner.0").shape[0])


def test_an_example_shows_when_the_graph_was_not_the_whole_story() -> None:
    model = zero_rows(filled(Reader()), {"inner.0": [0]})
    with pytest.raises(wp.WellposedError, match="other outputs"):
        compact(model, example=torch.ones(2, 4))


@pytest.mark.parametrize("options", [{}, {"kdim": 6, "vdim": 5}, {"bias": False}, {"batch_first": True}])
@pytest.mark.parametrize("how", ["values", "output"])
def test_attention_loses_idle_heads(options: dict[str, Any], how: str) -> None:
    torch.manual_seed(0)
    attention = nn.MultiheadAttention(8, 4, **options)
    filled(attention)
    with torch.no_grad():
        if how == "output":
            attention.out_proj.weight[:, 2:4] = 0
        elif attention.in_proj_weight is not None:
            attention.in_proj_weight[16 + 2 : 16 + 4] = 0
        else:
            attention.v_proj_weight[2:4] = 0
    attention.eval()
    small = compact(nn.ModuleDict({"attention": attention})).get_submodule("attention")
    assert isinstance(small, CompactAttention)
    assert small.num_heads == 3
    q, k, v = (normal((3, 3, n), Key(n)) for n in (8, options.get("kdim", 8), options.get("vdim", 8)))
    causal = torch.ones(3, 3, dtype=torch.bool).triu(1)
    padding = torch.tensor([[False, False, True], [False, False, False], [False, True, False]])
    calls: tuple[dict[str, Any], ...] = (
        {},
        {"need_weights": False},
        {"attn_mask": causal, "need_weights": False},
        {"attn_mask": causal.float() * -3, "key_padding_mask": padding.float() * -2},
        {"key_padding_mask": padding, "need_weights": False},
    )
    for arguments in calls:
        torch.testing.assert_close(
            small(q, k, v, **arguments)[0], attention(q, k, v, **arguments)[0], rtol=1e-5, atol=1e-6
        )
    torch.testing.assert_close(small(q[0], k[0], v[0])[0], attention(q[0], k[0], v[0])[0], rtol=1e-5, atol=1e-6)
    assert small(q, k, v)[1].shape == (3, 3, 3)
    assert small(q, k, v, average_attn_weights=False)[1].shape == (3, 3, 3, 3)


def test_one_channel_and_one_head_stay() -> None:
    model = zero_rows(filled(nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2))), {"0": [0, 1, 2]})
    with pytest.warns(UserWarning, match="one channel has to stay"):
        small = compact(model)
    assert weight(small, "0").shape == (1, 4)
    x = normal((3, 4), Key(9))
    torch.testing.assert_close(small(x), model(x), rtol=1e-5, atol=1e-6)
    attention = nn.MultiheadAttention(8, 4)
    filled(attention)
    with torch.no_grad():
        attention.in_proj_weight[16:] = 0
    with pytest.warns(UserWarning, match="one head has to stay"):
        fewer = compact(nn.ModuleDict({"attention": attention})).get_submodule("attention")
    assert fewer.num_heads == 1
    q = normal((3, 2, 8), Key(9))
    torch.testing.assert_close(fewer(q, q, q)[0], attention(q, q, q)[0], rtol=1e-5, atol=1e-6)


def test_a_transformer_layer_loses_heads_and_hidden_units() -> None:
    layer = filled(nn.TransformerEncoderLayer(8, 4, 12, dropout=0.0, batch_first=True))
    with torch.no_grad():
        weight(layer, "self_attn.out_proj")[:, :2] = 0
        weight(layer, "linear1")[[1, 2, 3]] = 0
    layer.eval()
    small = compact(layer)
    assert weight(small, "linear1").shape == (9, 8)
    assert small.get_submodule("self_attn").num_heads == 3
    x = normal((2, 5, 8), Key(3))
    torch.testing.assert_close(small(x), layer(x), rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(small(x), layer(x), rtol=1e-5, atol=1e-5)


def test_what_a_group_penalty_zeroes_compact_removes() -> None:
    model = filled(nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 1)))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    regularize(optimizer, model, GroupLasso(0.05), where="0.weight")
    x = normal((64, 4), Key(5))
    y = x[:, :1].tanh()
    for _ in range(400):
        optimizer.zero_grad()
        torch.autograd.backward((model(x) - y).square().mean())
        optimizer.step()
    small = compact(model, example=x)
    assert weight(small, "0").shape[0] == int((weight(model, "0") != 0).any(1).sum()) < 16


def test_heads_are_groups_that_compact_can_remove() -> None:
    attention = filled(nn.MultiheadAttention(8, 4))
    with torch.no_grad():
        weight(attention, "out_proj")[:, 4:6] *= 1e-3
    moved = GroupLasso(0.5, groups=Heads(4, dim=1)).prox(weight(attention, "out_proj").detach(), 1.0)
    assert (moved[:, 4:6] == 0).all()
    assert (moved != 0).sum() == 8 * 6
