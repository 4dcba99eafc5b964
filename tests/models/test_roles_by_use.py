"""Roles by use: what a parameter is for is how it enters the forward pass, whatever its name and its module's type."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

import wellposed as wp
from wellposed.init import Axes, Part
from wellposed.init.schemes.named import SCHEMES
from wellposed.models.roles import registry as roles
from wellposed.models.roles.claiming import claimed_weights
from wellposed.models.roles.own_start import own_start

SIGNAL = torch.zeros(2, 5, 8)
IDS = torch.zeros(2, 5, dtype=torch.long)
INDEX = torch.tensor([[0, 1], [2, 0]])


class Using(nn.Module):
    """A module with one parameter, without a row in any table."""

    def __init__(self, shape: tuple[int, ...], use: Callable[[Tensor, Tensor], Tensor], value: float) -> None:
        super().__init__()
        self.mu = nn.Parameter(torch.full(shape, value))
        self.use = use

    def forward(self, x: Tensor) -> Tensor:
        return self.use(x, self.mu)


# what is done -> the parameter's shape, how it is used, an input, the kind, the axes, and what it starts as
WAYS: dict[str, tuple[tuple[int, ...], Callable[[Tensor, Tensor], Tensor], Tensor, str, Axes | None, float | None]] = {
    "added": ((8,), lambda x, p: x + p, SIGNAL, "bias", None, 0.0),
    "added as (1, n, 1, 1)": ((1, 5, 1), lambda x, p: x - p, SIGNAL, "bias", None, 0.0),
    "added at each position": ((1, 5, 8), lambda x, p: x + p, SIGNAL, "token", None, None),
    "multiplied": ((8,), lambda x, p: p.float() * x, SIGNAL, "scale", None, 1.0),
    "divides": ((8,), lambda x, p: x / p, SIGNAL, "scale", None, 1.0),
    "multiplied in place": ((8,), lambda x, p: torch.relu(x).mul_(p.view(1, 1, -1)), SIGNAL, "scale", None, 1.0),
    "one more": ((8,), lambda x, p: x * (1.0 + p.float()), SIGNAL, "scale", None, 0.0),
    "one more in a norm": ((8,), lambda x, p: F.layer_norm(x, (8,), weight=p + 1), SIGNAL, "scale", None, 0.0),
    "a norm's": ((8,), lambda x, p: F.rms_norm(x, (8,), p), SIGNAL, "scale", None, 1.0),
    "a slope": ((1,), lambda x, p: F.prelu(x, p), SIGNAL, "slope", None, None),
    "a function's": ((8,), lambda x, p: x * p.exp(), SIGNAL, "constant", None, 0.7),
    "an exponent": ((1,), lambda x, p: x.abs() ** p, SIGNAL, "constant", None, 0.7),
    "mixing": ((8,), lambda x, p: x * p + x.roll(1, 1) * (1 - p), SIGNAL, "constant", None, 0.7),
    "a gate": ((), lambda x, p: x + p * torch.relu(x), SIGNAL, "gate", None, 0.7),
    "an embedding": ((9, 8), lambda x, p: F.embedding(x, p), IDS, "embedding", Axes(out=1, in_=(), batch=0), None),
    "gathered": ((9, 8), lambda x, p: p[x], IDS, "embedding", Axes(out=1, in_=(), batch=0), None),
    "positions": ((3, 8), lambda x, p: x[:, :2, None] + p[INDEX], SIGNAL, "token", None, None),
    "queries": ((1, 3, 8), lambda x, p: torch.cat([p.expand(2, -1, -1), x], 1), SIGNAL, "token", None, None),
    "queries of a layer": ((3, 8), lambda x, p: F.linear(p, x[0]), SIGNAL, "token", None, None),
    "a sink": ((5,), lambda x, p: torch.cat([x, p.view(1, -1, 1).expand(2, -1, -1)], -1), SIGNAL, "token", None, None),
    "linear": ((4, 8), lambda x, p: F.linear(x, p), SIGNAL, "weight", Axes(), None),
    "a router": ((4, 8), lambda x, p: F.linear(x, p).softmax(-1).topk(2)[0], SIGNAL, "weight", Axes(), None),
    "transposed": ((8, 4), lambda x, p: F.linear(x, p.T), SIGNAL, "weight", Axes(out=1, in_=0), None),
    "on the right": ((8, 4), lambda x, p: x @ p, SIGNAL, "weight", Axes(out=1, in_=0), None),
    "on the left": ((6, 5), lambda x, p: torch.matmul(p, x), SIGNAL, "weight", Axes(), None),
    "a vector": ((8,), lambda x, p: x @ p, SIGNAL, "weight", Axes(out=(), in_=0), None),
    "addmm": ((8, 4), lambda x, p: torch.addmm(x[0, 0, :4], x[0], p), SIGNAL, "weight", Axes(out=1, in_=0), None),
    "einsum": (
        (3, 8, 4),
        lambda x, p: torch.einsum("bsd,hdk->bshk", x, p),
        SIGNAL,
        "weight",
        Axes(out=(0, 2), in_=1),
        None,
    ),
    "einsum of stacked ones": (
        (2, 8, 4),
        lambda x, p: torch.einsum("bsd,bdk->bsk", x, p),
        SIGNAL,
        "weight",
        Axes(out=2, in_=1, batch=0),
        None,
    ),
    "bmm of stacked ones": ((2, 8, 4), lambda x, p: x.bmm(p), SIGNAL, "weight", Axes(out=2, in_=1, batch=0), None),
    "one of a stack": ((3, 8, 4), lambda x, p: x @ p[1], SIGNAL, "weight", Axes(out=2, in_=1, batch=0), None),
    "reshaped": (
        (3, 4, 8),
        lambda x, p: F.linear(x, p.reshape(12, 8)),
        SIGNAL,
        "weight",
        Axes(out=(0, 1), in_=2),
        None,
    ),
    "permuted": (
        (8, 3, 4),
        lambda x, p: torch.einsum("bsd,hkd->bshk", x, p.permute(1, 2, 0)),
        SIGNAL,
        "weight",
        Axes(out=(1, 2), in_=0),
        None,
    ),
    "tensordot": (
        (8, 3, 4),
        lambda x, p: torch.tensordot(x, p, dims=([2], [0])),
        SIGNAL,
        "weight",
        Axes(out=(1, 2), in_=0),
        None,
    ),
    "convolution": (
        (6, 1, 3),
        lambda x, p: F.conv1d(x[:, :3], p, stride=2, groups=3),
        SIGNAL,
        "weight",
        Axes(groups=3, out_stride=2),
        None,
    ),
    "transposed convolution": (
        (5, 2, 4),
        lambda x, p: F.conv_transpose1d(x, p, stride=2),
        SIGNAL,
        "weight",
        Axes(out=1, in_=0, in_stride=2),
        None,
    ),
}


@pytest.mark.parametrize("given", [True, False], ids=["run", "traced"])
@pytest.mark.parametrize("way", WAYS)
def test_a_role_is_how_a_parameter_enters(way: str, given: bool) -> None:
    shape, use, example, kind, axes, start = WAYS[way]
    module = Using(shape, use, 0.7 if kind in ("gate", "constant") else 1.0)
    row = wp.plan_initialize(module, example=example if given else None)["mu"]
    assert row.role == kind
    assert axes is None or row.axes == axes
    if start is not None:
        assert row.initializer == {0.0: wp.init.Zeros(), 1.0: wp.init.Ones()}.get(
            start, wp.init.Constant(float(torch.tensor(start)))
        )


@pytest.mark.parametrize("way", WAYS)
def test_the_same_without_memory(way: str) -> None:
    shape, use, example, kind, _, _ = WAYS[way]
    with torch.device("meta"):
        module = Using(shape, use, 1.0)
    if kind == "constant":  # nobody knows its value
        with pytest.raises(wp.WellposedError, match=r"no role and no rule claims 1 parameter:\n  mu"):
            wp.plan_initialize(module, example=example)
    else:
        assert wp.plan_initialize(module, example=example)["mu"].role == ("scale" if kind == "gate" else kind)


class Tied(nn.Module):
    """A language model whose head is its embedding, tied in one way or another."""

    def __init__(
        self, head: Callable[[Tensor, Tensor], Tensor], scale: float = 1.0, norm: bool = False, gated: bool = False
    ) -> None:
        super().__init__()
        self.wte = nn.Embedding(1000, 512)
        self.scale = scale
        self.first = nn.LayerNorm(512) if norm else nn.Identity()
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(512), nn.Linear(512, 512), nn.GELU(), nn.Linear(512, 512)) for _ in range(2)
        )
        self.gates = nn.ParameterList([nn.Parameter(torch.ones(()))] * 2 if gated else [])
        self.norm = nn.LayerNorm(512)
        self.head = head

    def forward(self, ids: Tensor) -> Tensor:
        x = self.first(self.wte(ids) * self.scale)
        for block, gate in zip(self.blocks, self.gates or (1.0, 1.0), strict=True):
            x = x + gate * block(x)
        return self.head(self.norm(x), self.wte.weight)


HEADS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "F.linear": lambda h, w: F.linear(h, w),
    "h @ w.T": lambda h, w: h @ w.T,
    "matmul": lambda h, w: torch.matmul(h, w.transpose(0, 1)),
    "einsum": lambda h, w: torch.einsum("bsd,vd->bsv", h, w),
    "(w @ h.T).T": lambda h, w: (w @ h.mT).mT,
}
EMBEDDED: dict[str, dict[str, Any]] = {"as it is": {}, "scaled": {"scale": 512**0.5}, "normalised": {"norm": True}}
OWN_NUMBERS = {"torch": 1.0, "gpt2": 0.02, "t_fixup": 512**-0.5 * 9**-0.25}


@pytest.mark.parametrize("given", [True, False], ids=["run", "traced"])
@pytest.mark.parametrize("embedded", EMBEDDED)
@pytest.mark.parametrize("head", HEADS)
def test_a_table_that_is_the_head_too_is_started_as_one(head: str, embedded: str, given: bool) -> None:
    """The first loss is that of guessing, though a token's own logit grows with the width where its row goes on."""
    model = Tied(HEADS[head], **EMBEDDED[embedded])
    ids = torch.arange(256).view(8, 32) * 7 % 1000
    row = wp.init.initialize(model, example=ids if given else None)["wte.weight"]
    assert row.role == "embedding"
    assert "shared with a linear layer" in row.note
    with torch.no_grad():
        loss = F.cross_entropy(model(ids).flatten(0, 1), ids.flatten().roll(1))
    assert 1.0 <= float(loss) / math.log(1000) + 0.01 <= 1.3


@pytest.mark.parametrize("embedded", EMBEDDED)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_head_is_seen_under_every_scheme(scheme: str, embedded: str) -> None:
    """Those that promise a library's or a paper's number keep it, and the row says what that does to the head."""
    model = Tied(HEADS["F.linear"], **EMBEDDED[embedded], gated=scheme == "rezero")
    ids = torch.arange(256).view(8, 32) * 7 % 1000
    plan = wp.plan_initialize(model, scheme, example=ids)
    row = plan["wte.weight"]
    if scheme in OWN_NUMBERS:
        assert row.std_wanted == pytest.approx(OWN_NUMBERS[scheme])
        assert f"which multiplies signals by {OWN_NUMBERS[scheme] * 512**0.5:.3g} then" in row.note
        return
    wp.init.apply(plan, model)
    with torch.no_grad():
        loss = F.cross_entropy(model(ids).flatten(0, 1), ids.flatten().roll(1))
    assert 1.0 <= float(loss) / math.log(1000) + 0.01 <= 1.3


class OffsetRMSNorm(nn.Module):
    """By its name a normalisation, which multiplies by 1 + weight."""

    def __init__(self, offset: float) -> None:
        super().__init__()
        self.offset = offset
        self.weight = nn.Parameter(torch.empty(8))

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * (self.offset + self.weight.float())


@pytest.mark.parametrize(("offset", "value"), [(1.0, 0.0), (0.0, 1.0)])
def test_the_forward_pass_goes_before_the_table(offset: float, value: float) -> None:
    model = nn.Sequential(nn.Linear(8, 8), OffsetRMSNorm(offset))
    plan = wp.init.initialize(model)
    assert model[1].weight.tolist() == [value] * 8  # type: ignore[operator]
    note = "the table of types says a scale, but it enters the forward pass as an offset scale"
    assert plan["1.weight"].note == (note if offset else "")


def test_the_row_of_a_user_stands_and_the_plan_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roles, "_TABLE", dict(roles._TABLE))
    wp.init.role(OffsetRMSNorm)(lambda module: {"weight": Part("scale", start=0.5)})
    row = wp.plan_initialize(OffsetRMSNorm(1.0))["weight"]
    assert row.initializer == wp.init.Constant(0.5)
    assert row.note.endswith("but it enters the forward pass as an offset scale")


@pytest.mark.parametrize("scheme", ["rezero", "auto"])
def test_an_offset_scale_that_closes_a_branch_takes_the_one_off(scheme: str) -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.norm = nn.Linear(8, 8), nn.Linear(8, 8), OffsetRMSNorm(1.0)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = x + self.norm(self.b(torch.relu(self.a(x))))
            return out

    model, x = Block(), torch.linspace(-1, 1, 24).view(3, 8)
    wp.init.initialize(model, scheme)
    assert torch.equal(model(x), x) == (scheme == "rezero")


class Reaching(nn.Module):
    """Stops half-way, and has two modules of a kind, one of them after the stop."""

    def __init__(self) -> None:
        super().__init__()
        self.first = Using((8,), lambda x, p: x * (1 + p), 0.0)
        self.second = Using((8,), lambda x, p: x * (1 + p), 0.0)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        raise RuntimeError("no further")


def test_what_one_module_of_a_type_does_with_its_parameters_all_do() -> None:
    parts = {weight.name: weight.parts for weight in claimed_weights(Reaching(), SIGNAL)}
    assert parts["second.mu"] == parts["first.mu"] == (Part("scale", start=0.0),)


def test_a_name_is_believed_where_nothing_is_seen() -> None:
    class Unused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mask_token = nn.Parameter(torch.empty(1, 1, 8))
            self.relative_bias = nn.Parameter(torch.empty(8))
            self.image_newline = nn.Parameter(torch.empty(8))

    plan = wp.plan_initialize(Unused())
    assert [(row.role, row.note) for row in plan] == [
        ("token", "a token by its name alone"),
        ("bias", "a bias by its name alone"),
        ("token", "a token by its name alone"),
    ]


def test_the_start_that_a_module_gives_its_own() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gamma = nn.Parameter(torch.empty(8))
            self.reset_parameters()

        def reset_parameters(self) -> None:
            nn.init.constant_(self.gamma, 0.1)

        def forward(self, x: Tensor) -> Tensor:
            return x * self.gamma

    module = Scaled()
    with torch.no_grad():
        module.gamma.normal_()  # what it has become does not count
    state = torch.get_rng_state()
    assert own_start(module, "gamma") == pytest.approx(0.1)
    assert torch.equal(state, torch.get_rng_state())
    row = wp.plan_initialize(module)["gamma"]
    assert (row.role, row.std_wanted) == ("gate", 0.0)
    with torch.device("meta"):
        module = Scaled()
    wp.init.initialize(module, device="cpu")
    torch.testing.assert_close(module.gamma.detach(), torch.full((8,), 0.1))


class Curved(nn.Module):
    """Has constants whose start its constructor alone says, some of them by arguments that are not kept."""

    def __init__(self, width: int, share: float = 0.25, drop: float = 0.1) -> None:
        super().__init__()
        self.width = width
        self.drop = nn.Dropout(drop)
        self.share = nn.Identity()
        self.power = nn.Parameter(torch.full((width,), 3.0))
        self.rate = nn.Parameter(torch.full((width,), share))
        self.drawn = nn.Parameter(torch.rand(width))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.drop(x.abs() ** self.power * (self.rate.exp() + self.drawn.exp()))
        return out


@pytest.mark.parametrize("others", [1, 5000])
def test_a_constant_without_memory_is_what_its_module_alone_makes_it(others: int) -> None:
    """Not what an argument that is not kept decides, nor what is drawn; large modules are not given memory for it."""
    with torch.device("meta"):
        model = nn.Sequential(Curved(8))
        model[0].other = nn.Linear(others, others)
    assert own_start(model, "0.power") == 3.0
    assert own_start(model, "0.rate") is own_start(model, "0.drawn") is None
    plan = wp.init.initialize(model, device="cpu", rules={"0.[rd]*": wp.init.Zeros()})
    assert (plan["0.power"].role, plan["0.power"].initializer) == ("constant", wp.init.Constant(3.0))


def test_joined_to_what_was_joined() -> None:
    class Framed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.down = (nn.Parameter(torch.empty(1, 2, 8)) for _ in range(2))
            self.left, self.right = (nn.Parameter(torch.empty(1, 2, 2)) for _ in range(2))

        def forward(self, x: Tensor) -> Tensor:
            middle = torch.cat([self.left, torch.zeros(1, 2, 4), self.right], 2)
            return x + torch.cat([self.up, middle, self.down], 1)

    plan = wp.plan_initialize(Framed(), example=torch.zeros(3, 6, 8))
    assert {row.name: row.role for row in plan} == dict.fromkeys(("up", "down", "left", "right"), "token")


def test_there_may_be_no_tokens_at_all() -> None:
    class Registers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_tokens = nn.Parameter(torch.empty(1, 0, 8))

        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([x, self.register_tokens.expand(len(x), -1, -1)], 1)

    with torch.device("meta"):
        model = Registers()
    assert wp.init.initialize(model, device="cpu", example=SIGNAL)["register_tokens"].role == "token"
    assert model.register_tokens.shape == (1, 0, 8)


def test_looking_changes_nothing() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(8)
            self.mu = nn.Parameter(torch.full((8,), 2.0))
            self.calls = 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            out: Tensor = self.norm(x.mul_(self.mu))
            return out

    model, x = Counting().train(), torch.ones(4, 8)
    wp.plan_initialize(model, example=x)
    assert (model.calls, model.training, int(model.norm.num_batches_tracked)) == (0, True, 0)  # type: ignore[arg-type]
    assert bool((x == 1).all())
    assert "forward" not in vars(model.norm)


class BothWays(nn.Module):
    """A projection that is used transposed on the way back, as of factorised embeddings and tied autoencoders."""

    def __init__(self, inner: int, outer: int) -> None:
        super().__init__()
        self.up = nn.Linear(inner, outer, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        back: Tensor = torch.tanh(self.up(x)) @ self.up.weight
        return back


@pytest.mark.parametrize(("inner", "outer"), [(16, 256), (256, 16), (64, 64)])
def test_a_weight_that_is_used_both_ways_enlarges_no_signal(inner: int, outer: int) -> None:
    model = BothWays(inner, outer)
    row = wp.initialize(model, "lecun")["up.weight"]
    assert row.std_wanted == pytest.approx(max(inner, outer) ** -0.5)
    assert ("also contracted" in row.note) == (outer > inner)
