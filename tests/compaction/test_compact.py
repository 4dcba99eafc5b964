"""Smaller models with the same outputs."""

import copy
import pickle
import re
import warnings
from collections.abc import Callable
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune, spectral_norm, weight_norm

import wellposed as wp
from peers import peer
from wellposed.compaction import compact, plan_compact, removal
from wellposed.compaction.heads import CompactAttention
from wellposed.penalties import GroupLasso, Heads, regularize
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
        if x.sum() > 1e6:
            return x
        out: Tensor = self.out(x + self.inner(x))
        return out


def test_every_way_of_a_forward_pass_is_followed() -> None:
    model = zero_rows(filled(Residual()), {"inner.0": [0, 1], "inner.2": [3]})
    with pytest.warns(UserWarning, match=r"1 zero channels of 'inner\.2' stay: it goes into add"):
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


class Asking(nn.Module):
    """A model that treats tensors otherwise than the symbols that stand for them."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(4, 6)
        self.b = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.a(x)
        return x.sum(), self.b(h.softmax(-1) if type(h) is Tensor else h)


def test_an_example_shows_when_the_graph_was_not_the_whole_story() -> None:
    model = zero_rows(filled(Asking()), {"a": [0]})
    with pytest.raises(wp.WellposedError, match=r"gives other outputs .* on the example"):
        compact(model, example=torch.ones(2, 4))
    with pytest.raises(wp.WellposedError, match="does not take the example"):
        compact(model, example=torch.ones(2, 5))


def test_a_model_without_values_is_refused() -> None:
    for model in (nn.Sequential(nn.LazyLinear(3)), nn.Linear(3, 2, device="meta")):
        with pytest.raises(wp.WellposedError, match="weight has no values yet"):
            compact(model)
    with pytest.raises(wp.WellposedError, match=r"expected a torch\.nn\.Module"):
        compact(3)  # type: ignore[arg-type]


class Attending(nn.Module):
    """Attention whose weights nobody uses."""

    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self.attention = attention

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out: Tensor
        out, _ = self.attention(q, k, v)
        return out


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
    small = compact(Attending(attention)).get_submodule("attention")
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
        {"attn_mask": normal((12, 3, 3), Key(8))},
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
        fewer = compact(Attending(attention)).get_submodule("attention")
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


class Written(nn.Module):
    """Two dense layers, and a forward pass written out."""

    def __init__(self, forward: Callable[..., Any], **modules: nn.Module) -> None:
        super().__init__()
        for name, module in {"a": nn.Linear(4, 8), "b": nn.Linear(8, 2), **modules}.items():
            setattr(self, name, module)
        self.written = forward

    def forward(self, x: Tensor, scale: Tensor | None = None) -> Any:
        return self.written(self, x, scale)


def written(forward: Callable[..., Any], **modules: nn.Module) -> Callable[[], nn.Module]:
    return lambda: Written(forward, **modules)


def hooked(name: str, hook: Callable[..., Any], before: bool = False) -> Callable[[], nn.Module]:
    def made() -> nn.Module:
        model = Written(lambda m, x, _: m.b(m.act(m.a(x))), act=nn.ReLU())
        layer = model.get_submodule(name)
        _ = layer.register_forward_pre_hook(hook) if before else layer.register_forward_hook(hook)
        return model

    return made


def changed(name: str, change: Callable[[nn.Module], Any], make: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    """A model with a change to one of its layers, after it has been filled."""

    def made() -> nn.Module:
        model = filled(make())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            change(model.get_submodule(name))
        return model

    return made


def dense() -> nn.Module:
    return Written(lambda m, x, _: m.b(m.a(x).relu()))


def softmax_unless(condition: Callable[[nn.Module, Tensor, Tensor | None], Any]) -> Callable[[], nn.Module]:
    return written(lambda m, x, s: m.b(m.a(x) if condition(m, x, s) else m.a(x).softmax(-1)))


def storing(model: nn.Module, x: Tensor, scale: Tensor | None) -> Any:
    model.last, model.count = x, getattr(model, "count", 0) + 1  # type: ignore[assignment]
    return model.get_submodule("b")(model.get_submodule("a")(x).relu())


def weighing(model: nn.Module, x: Tensor, scale: Tensor | None) -> Any:
    return model.get_submodule("m")(x, x, x)[1]


def first_head_idle(attention: nn.Module) -> None:
    with torch.no_grad():
        cast(nn.MultiheadAttention, attention).out_proj.weight[:, :2] = 0


def idle_and_hooked(attention: nn.Module) -> None:
    first_head_idle(attention)
    attention.register_forward_hook(lambda m, i, o: None)


def parametrized_with_zeros(layer: nn.Module) -> None:
    with torch.no_grad():
        cast(nn.Linear, layer).weight[1] = 0
    parametrize.register_parametrization(layer, "weight", nn.Tanh())


def heads() -> nn.MultiheadAttention:
    return nn.MultiheadAttention(8, 4, batch_first=True)


def encoder_layer() -> nn.TransformerEncoderLayer:
    return nn.TransformerEncoderLayer(8, 4, 12, dropout=0.0, batch_first=True)


def shared_heads() -> nn.Module:
    attention = heads()
    return written(lambda m, x, _: m.n(*(m.m(x, x, x)[0],) * 3)[0], m=attention, n=attention)()


block = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 4))
act = nn.ReLU()

# name: (a way to make the model, shape of the inputs, zero rows, the layer that shrinks and to what, or why it stays)
CORNERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], dict[str, list[int]], str | dict[str, int]]] = {
    "a pool over units": (
        lambda: nn.Sequential(nn.Linear(4, 8), nn.MaxPool1d(3, 1, 1), nn.Linear(8, 2)),
        (5, 4),
        {"0": [1, 2]},
        r"goes into 1 \(MaxPool1d\)",
    ),
    "an adaptive pool over units": (
        lambda: nn.Sequential(nn.Linear(4, 8), nn.AdaptiveAvgPool1d(8), nn.Linear(8, 2)),
        (5, 4),
        {"0": [1, 2]},
        r"goes into 1 \(AdaptiveAvgPool1d\)",
    ),
    "a pool over flattened filters": (
        lambda: nn.Sequential(nn.Conv1d(2, 4, 3), nn.Flatten(), nn.MaxPool1d(3, 1, 1), nn.Linear(24, 3)),
        (5, 2, 8),
        {"0": [1, 2]},
        r"goes into 2 \(MaxPool1d\)",
    ),
    "a pool of other dimensions": (
        lambda: nn.Sequential(nn.Conv1d(2, 4, 3), nn.MaxPool2d(3, 1, 1), nn.Conv1d(4, 3, 1)),
        (5, 2, 8),
        {"0": [1, 2]},
        r"goes into 1 \(MaxPool2d\)",
    ),
    "a function that pools units": (
        written(lambda m, x, _: m.b(nn.functional.max_pool1d(m.a(x), 3, 1, 1))),
        (5, 4),
        {"a": [1]},
        "goes into max_pool1d",
    ),
    "other in evaluation": (softmax_unless(lambda m, x, s: m.training), (5, 4), {"a": [1]}, "goes into softmax"),
    "other without an argument": (
        softmax_unless(lambda m, x, s: s is not None),
        (5, 4),
        {"a": [1]},
        "goes into softmax",
    ),
    "other with an argument": (softmax_unless(lambda m, x, s: s is None), (5, 4), {"a": [1]}, "goes into softmax"),
    "other for some inputs": (softmax_unless(lambda m, x, s: x.sum() > 0), (5, 4), {"a": [1]}, "goes into softmax"),
    "one consumer, either producer": (
        written(lambda m, x, _: m.b(m.a(x) if x.sum() > 0 else m.c(x)), c=nn.Linear(4, 8)),
        (5, 4),
        {"a": [1], "c": [1]},
        "not always used together",
    ),
    "a hook after the producer": (hooked("a", lambda m, i, o: o.softmax(-1)), (5, 4), {"a": [1]}, "a has hooks"),
    "a hook before the consumer": (
        hooked("b", lambda m, i: (i[0].flip(-1),), before=True),
        (5, 4),
        {"a": [1]},
        "b has hooks",
    ),
    "a hook between": (hooked("act", lambda m, i, o: o.softmax(-1)), (5, 4), {"a": [1]}, "act has hooks"),
    "a forward of its own": (
        changed("a", lambda m: setattr(m, "forward", lambda x: x.repeat(1, 2)), dense),
        (5, 4),
        {"a": [1]},
        "a has hooks",
    ),
    "tied by a transpose": (
        written(lambda m, x, _: nn.functional.linear(m.b(m.a(x).relu()), m.b.weight.t())),
        (5, 4),
        {"a": [1]},
        "reads the weights or sizes of b itself",
    ),
    "a weight read": (
        written(lambda m, x, _: m.b(m.a(x).relu()) + (x @ m.a.weight.t())[:, :2]),
        (5, 4),
        {"a": [1]},
        "reads the weights or sizes of a itself",
    ),
    "all weights read": (
        written(lambda m, x, _: m.b(m.a(x).relu()) + sum(p.square().sum() for p in m.parameters())),
        (5, 4),
        {"a": [1]},
        "reads the weights or sizes of a itself",
    ),
    "a size read": (
        written(lambda m, x, _: m.b(m.a(x).relu()) / m.a.out_features**0.5),
        (5, 4),
        {"a": [1]},
        "reads the weights or sizes of a itself",
    ),
    "a layer of a block called alone": (
        written(lambda m, x, _: x if x.sum() > 1e9 else m.b(m.c[0](x)) + m.c(x).sum(), c=block),
        (5, 4),
        {"c.0": [1]},
        "used more than once",
    ),
    "a part of what cannot be traced": (
        written(lambda m, x, _: torch.stack([m.c[0](r).sum() + m.c(r).sum() for r in x]), c=block),
        (5, 4),
        {"c.0": [1]},
        "forward pass around it cannot be followed",
    ),
    "norm over positions": (
        lambda: nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(6), nn.Linear(8, 2)),
        (5, 6, 4),
        {"0": [1]},
        "1 does not normalize its 8 channels",
    ),
    "norm over flattened filters": (
        lambda: nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.BatchNorm1d(36), nn.Linear(36, 3)),
        (5, 2, 5, 5),
        {"0": [1, 2]},
        {"0": 2, "3": 18},
    ),
    "norm over flattened filters and a function": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.BatchNorm1d(36), nn.Sigmoid(), nn.Linear(36, 3)
        ),
        (5, 2, 5, 5),
        {"0": [1, 2]},
        {"0": 2, "1": 2, "3": 18},
    ),
    "old spectral norm": (changed("b", spectral_norm, dense), (5, 4), {"a": [1]}, "Linear with hooks"),
    "old weight norm": (changed("b", weight_norm, dense), (5, 4), {"a": [1]}, "Linear with hooks"),
    "pruned": (
        changed("a", lambda m: prune.ln_structured(m, "weight", 0.5, n=2, dim=0), dense),
        (5, 4),
        {},
        "Linear with hooks",
    ),
    "a parametrized transformer layer": (
        changed("linear1", parametrized_with_zeros, encoder_layer),
        (2, 3, 8),
        {},
        "not a plain Linear",
    ),
    "attention alone": (changed("", first_head_idle, heads), (3, 5, 8), {}, "1 zero heads of '' stay"),
    "attention weights used": (
        changed("m", first_head_idle, written(weighing, m=heads())),
        (3, 5, 8),
        {},
        "its attention weights, in which every head counts, are used",
    ),
    "attention under two names": (changed("m", first_head_idle, shared_heads), (3, 5, 8), {}, "m is tied"),
    "attention with hooks": (
        changed(
            "m",
            idle_and_hooked,
            written(lambda m, x, _: m.m(x, x, x)[0], m=heads()),
        ),
        (3, 5, 8),
        {},
        "m has hooks",
    ),
    "what a forward pass stores": (written(storing), (5, 4), {"a": [1]}, {"a": 7}),
    "one activation used twice": (
        lambda: nn.Sequential(nn.Linear(4, 8), act, nn.Linear(8, 8), act, nn.Linear(8, 2)),
        (5, 4),
        {"0": [1, 2], "2": [3]},
        {"0": 6, "2": 7},
    ),
    "a norm used twice": (
        written(lambda m, x, _: m.b(m.n(m.c(m.n(m.a(x))))), n=nn.BatchNorm1d(8), c=nn.Linear(8, 8)),
        (5, 4),
        {"a": [1], "c": [2]},
        "n is used more than once",
    ),
    "a wrapper": (lambda: nn.DataParallel(dense()), (5, 4), {"module.a": [1]}, {"module.a": 7}),
}


@pytest.mark.parametrize("name", CORNERS)
def test_corners_shrink_with_the_same_outputs_or_are_left_alone_and_said(name: str) -> None:
    make, shape, rows, wanted = CORNERS[name]
    model = make()
    zero_rows(filled(model) if rows else model, rows).train()
    kept, attributes = {k: v.clone() for k, v in model.state_dict().items()}, vars(model).copy()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        small = compact(model)
    assert vars(model) == attributes
    assert all(kept[k].equal(v) for k, v in model.state_dict().items())
    pickle.dumps(small.state_dict())
    model.eval()
    small.eval()
    inputs = (normal(shape, Key(9)),) * (3 if isinstance(model, nn.MultiheadAttention) else 1)
    for gradients in (False, True):
        with torch.set_grad_enabled(gradients):
            torch.testing.assert_close(small(*inputs), model(*inputs), rtol=1e-6, atol=2e-6)
    if isinstance(wanted, str):
        assert parameters(small) == parameters(model)
        assert re.search(wanted, "; ".join(str(warning.message) for warning in said))
    else:
        assert {layer: weight(small, layer).shape[0] for layer in wanted} == wanted


def test_a_compact_model_stores_no_symbols() -> None:
    model = zero_rows(filled(Written(storing)), {"a": [1]})
    model(torch.ones(2, 4))
    small = compact(model)
    assert small.count == 1
    assert type(small.last) is Tensor
    copy.deepcopy(small)


def test_an_example_shows_how_many_dimensions_there_are() -> None:
    model = zero_rows(filled(nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 2))), {"0": [1]})
    assert parameters(compact(model, example=torch.ones(5, 4))) < parameters(model)
    with pytest.warns(UserWarning, match="its output has 3 dimensions"):
        small = compact(model, example=torch.ones(5, 8, 4))
    assert parameters(small) == parameters(model)


def test_parts_of_what_cannot_be_traced_are_tried_with_an_example() -> None:
    x = normal((5, 4), Key(9))
    for alone in (False, True):
        model = Written(
            lambda m, x, _: torch.stack([m.c(r) + m.c[0](r)[:4] * m.flag for r in x]), c=copy.deepcopy(block)
        )
        model.flag = alone  # type: ignore[assignment]
        zero_rows(filled(model), {"c.0": [1]})
        if alone:
            with pytest.warns(UserWarning, match="'c.0' stay: the forward pass around it"):
                small = compact(model, example=x)
        else:
            small = compact(model, example=x)
        assert weight(small, "c.0").shape[0] == 7 + alone
        torch.testing.assert_close(small(x), model(x), rtol=1e-6, atol=2e-6)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")  # which the whole model uses
@pytest.mark.parametrize("layer", [0, 1])
def test_an_encoder_that_lost_heads_takes_padding(layer: int) -> None:
    model = filled(nn.TransformerEncoder(encoder_layer(), 2)).eval()
    first_head_idle(model.get_submodule(f"layers.{layer}.self_attn"))
    small = compact(model)
    assert model.use_nested_tensor
    assert small.get_submodule(f"layers.{layer}.self_attn").num_heads == 3
    x, padding = normal((3, 5, 8), Key(9)), torch.zeros(3, 5, dtype=torch.bool)
    padding[0, 3:] = True
    for gradients in (False, True):
        with torch.set_grad_enabled(gradients):
            found, expected = (m(x, src_key_padding_mask=padding)[~padding] for m in (small, model))
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=2e-6)
    assert parameters(compact(model, example=(x, None, padding))) == parameters(small)


def test_a_residual_network_loses_the_filters_inside_its_blocks() -> None:
    model = peer("torchvision").models.resnet18(num_classes=3)
    zero = {"layer1.0.conv1": [1, 2, 3], "layer2.0.conv1": [5], "layer4.1.conv1": [0, 7]}
    for name, module in model.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            uniform_(cast(Tensor, module.running_var), Key(1).fold(name), 0.5, 2.0)
            normal_(cast(Tensor, module.running_mean), Key(2).fold(name), std=0.1)
    zero_rows(model, zero)
    for name, filters in zero.items():  # the padding of the next layer keeps constants: so without one
        norm = model.get_submodule(name.replace("conv", "bn"))
        with torch.no_grad():
            norm.weight[filters] = norm.bias[filters] = 0
    x = normal((2, 3, 32, 32), Key(9))
    small = compact(model.eval(), example=x)
    assert {n: weight(model, n).shape[0] - weight(small, n).shape[0] for n in zero} == {n: len(zero[n]) for n in zero}
    with torch.no_grad():
        expected, found = model.double()(x.double()), small.double()(x.double())
    assert float((found - expected).abs().max()) <= 1e-6 * float(expected.abs().max())


def test_every_output_is_compared_closely(monkeypatch: pytest.MonkeyPatch) -> None:
    model = zero_rows(filled(Written(lambda m, x, _: {"x": x, "out": (m.b(m.a(x).relu()),)})), {"a": [1]})
    compact(model, example=torch.ones(2, 4))
    fold = removal._fold

    def loose(consumer: nn.Linear, value: Tensor, gone: Tensor) -> None:
        fold(consumer, value, gone)
        consumer.bias.mul_(1 + 1e-4)

    monkeypatch.setattr(removal, "_fold", loose)
    with pytest.raises(wp.WellposedError, match="gives other outputs"):
        compact(model, example=torch.ones(2, 4))


class Nested(nn.Module):
    """A model whose inputs are nested in each other, some of them passed by name."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 2)

    def forward(self, pair: tuple[Tensor, dict[str, Tensor]], *, scale: Tensor | None = None) -> dict[str, Tensor]:
        x, more = pair
        out: Tensor = self.b(self.a(x + more["shift"]).relu())
        return {"out": out if scale is None else out * scale}


X, SHIFT = normal((5, 4), Key(9)), normal((5, 4), Key(10))
# name: (a way to make the model, an example)
EXAMPLES: dict[str, tuple[Callable[[], nn.Module], Any]] = {
    "a tensor": (dense, X),
    "a tuple": (dense, (X, SHIFT)),
    "names": (dense, {"x": X, "scale": SHIFT}),
    "names in another order": (dense, {"scale": SHIFT, "x": X}),
    "nested": (Nested, ((X, {"shift": SHIFT}),)),
    "nested and named": (Nested, {"pair": (X, {"shift": SHIFT}), "scale": torch.tensor(2.0)}),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_a_tensor_a_tuple_or_a_mapping_and_may_be_nested(name: str) -> None:
    make, example = EXAMPLES[name]
    model = zero_rows(filled(make()), {"a": [1, 2]})
    kept = copy.deepcopy(example)
    small = compact(model, example=example)
    assert weight(small, "a").shape == (6, 4)
    plan = plan_compact(model, example=example)
    assert {row.name: row.after for row in plan} == {"a": 6, "b": 2}
    torch.testing.assert_close(example, kept, rtol=0, atol=0)  # which is never changed


@pytest.mark.parametrize("example", [{"y": X}, {"x": X, "more": X}, {"x": X[:, :3]}, ((X, X, X),)])
def test_an_example_that_the_model_does_not_take_is_refused(example: Any) -> None:
    for verb in (compact, plan_compact):
        with pytest.raises(wp.WellposedError, match="does not take the example"):
            verb(filled(dense()), example=example)


def test_a_mapping_is_compared_as_any_other_example() -> None:
    model = zero_rows(filled(Asking()), {"a": [0]})
    with pytest.raises(wp.WellposedError, match="gives other outputs"):
        compact(model, example={"x": torch.ones(2, 4)})


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch was built without distributed")
@pytest.mark.parametrize("verb", [compact, plan_compact])
def test_a_sharded_model_is_refused(verb: Callable[[nn.Module], object]) -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    store = torch._C._distributed_c10d.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
        fully_shard(model, mesh=init_device_mesh("cpu", (1,)))
        with pytest.raises(wp.WellposedError, match=r"0\.weight is sharded.* full_state_dict=True"):
            verb(model)
    finally:
        torch.distributed.destroy_process_group()
