"""Roles: every module of torch's own is claimed in full, with the fans that its sums have."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

import wellposed as wp
from wellposed.init import Part
from wellposed.models.regions import part_of
from wellposed.models.roles import registry as roles

MODULES: list[nn.Module] = [
    nn.Linear(6, 4),
    nn.Linear(6, 4, bias=False),
    nn.Bilinear(3, 5, 4),
    nn.Conv1d(4, 6, 3),
    nn.Conv2d(4, 6, 3, groups=2),
    nn.Conv3d(4, 6, 3, stride=2),
    nn.ConvTranspose1d(4, 6, 3),
    nn.ConvTranspose2d(4, 6, 4, stride=2, groups=2),
    nn.ConvTranspose3d(4, 6, 2),
    nn.Embedding(9, 4, padding_idx=2),
    nn.EmbeddingBag(9, 4),
    nn.MultiheadAttention(8, 2),
    nn.MultiheadAttention(8, 2, kdim=6, vdim=5, add_bias_kv=True),
    nn.RNN(5, 4, 2, bidirectional=True),
    nn.LSTM(5, 4, 2, proj_size=3),
    nn.GRU(5, 4, bias=False),
    nn.RNNCell(5, 4),
    nn.LSTMCell(5, 4),
    nn.GRUCell(5, 4),
    nn.BatchNorm1d(4),
    nn.BatchNorm2d(4),
    nn.BatchNorm3d(4),
    nn.SyncBatchNorm(4),
    nn.InstanceNorm2d(4, affine=True),
    nn.LayerNorm(4),
    nn.GroupNorm(2, 4),
    nn.RMSNorm(4),
    nn.PReLU(3),
    nn.TransformerEncoderLayer(8, 2, 16),
    nn.TransformerDecoderLayer(8, 2, 16),
    nn.Transformer(8, 2, 1, 1, 16, batch_first=True),
    nn.AdaptiveLogSoftmaxWithLoss(8, 20, [5, 10], div_value=2),
]


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_every_parameter_is_claimed_and_filled(module: nn.Module) -> None:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.fill_(torch.nan)
    plan = wp.init.initialize(nn.ModuleList([module]))
    assert {row.name for row in plan} == {f"0.{name}" for name, _ in module.named_parameters()}
    covered = {name: torch.zeros(p.shape) for name, p in module.named_parameters()}
    for row in plan:
        if row.role != "fixed":
            part_of(covered[row.name[2:]], row.where).add_(1)
    assert all(bool((cover == 1).all()) for cover in covered.values())


FANS: list[tuple[nn.Module, str, tuple[float, float]]] = [
    (nn.Bilinear(3, 5, 4), "weight", (15, 4)),
    (nn.Conv2d(4, 6, 3, groups=2), "weight", (18, 27)),
    (nn.Conv2d(3, 6, 4, stride=4), "weight", (48, 6)),
    (nn.ConvTranspose2d(4, 6, 4, stride=2, groups=2), "weight", (8, 48)),
    (nn.MultiheadAttention(8, 2), "in_proj_weight[k]", (8, 8)),
    (nn.MultiheadAttention(8, 2, kdim=6), "k_proj_weight", (6, 8)),
    (nn.LSTM(5, 4), "weight_ih_l0[f]", (5, 4)),
    (nn.GRU(5, 4), "weight_hh_l0[n]", (4, 4)),
    (nn.Embedding(9, 4), "weight", (1, 4)),
]


@pytest.mark.parametrize(("module", "name", "fans"), FANS, ids=str)
def test_fans(module: nn.Module, name: str, fans: tuple[float, float]) -> None:
    assert wp.plan_initialize(module)[name].fans == fans


def test_the_padding_row_is_zero_and_changes_no_other() -> None:
    plain, padded = nn.Embedding(9, 4), nn.Embedding(9, 4, padding_idx=-2)
    for module in (plain, padded):
        wp.init.initialize(module)
    assert bool((padded.weight[7] == 0).all())
    rest = [i for i in range(9) if i != 7]
    assert torch.equal(padded.weight[rest], plain.weight[rest])
    assert bool((plain.weight[7] != 0).all())


def test_recurrent_blocks_are_orthogonal_each() -> None:
    rnn: Any = nn.LSTM(5, 16, 2)
    wp.init.initialize(rnn)
    for name in ("weight_hh_l0", "weight_hh_l1"):
        for block in getattr(rnn, name).detach().chunk(4):
            torch.testing.assert_close(block @ block.T, torch.eye(16), rtol=0, atol=1e-6)
    assert rnn.bias_ih_l0.detach().chunk(4)[1].tolist() == [1.0] * 16
    assert not rnn.bias_hh_l0.detach().any()


def test_a_forget_bias_of_ones_own() -> None:
    rnn: Any = nn.LSTM(5, 4)
    plan = wp.init.initialize(rnn, rules={"bias_ih_l0.f": wp.init.Constant(3.0)})
    assert rnn.bias_ih_l0.tolist() == [0.0] * 4 + [3.0] * 4 + [0.0] * 8
    assert plan["bias_ih_l0[f]"].note == "by rule"


def test_packed_and_separate_attention_start_bit_equal() -> None:
    packed = nn.MultiheadAttention(16, 4)
    separate = nn.MultiheadAttention(16, 4, kdim=16, vdim=16)
    separate._qkv_same_embed_dim = False
    for name in "qkv":
        separate.register_parameter(f"{name}_proj_weight", nn.Parameter(torch.empty(16, 16)))
    separate.register_parameter("in_proj_weight", None)
    for module in (packed, separate):
        wp.init.initialize(module, seed=3)
    for name, block in zip("qkv", packed.in_proj_weight.chunk(3), strict=True):
        assert torch.equal(block, getattr(separate, f"{name}_proj_weight"))
    x = torch.linspace(-1, 1, 5 * 2 * 16).view(5, 2, 16)
    torch.testing.assert_close(packed(x, x, x)[0], separate(x, x, x)[0])


def test_a_grouped_convolution_equals_its_groups_started_separately() -> None:
    grouped = nn.Conv2d(8, 12, 3, groups=4)
    wp.init.initialize(grouped, seed=5)
    row = wp.plan_initialize(grouped, seed=5)["weight"]
    alone = wp.plan_initialize(nn.Conv2d(2, 3, 3))["weight"]
    assert (row.fans, row.std_wanted) == (alone.fans, alone.std_wanted)
    key = wp.Key(5).fold("weight")
    assert row.initializer is not None
    for group in range(4):
        box = wp.Box((12, 2, 3, 3), (3 * group, 0, 0, 0))
        part = row.initializer.fill_(torch.empty(3, 2, 3, 3), key, axes=row.axes, box=box)
        assert torch.equal(part, grouped.weight[3 * group : 3 * group + 3])


class Own(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.empty(16, 4))
        self.inner = nn.Linear(4, 6, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.inner(torch.relu(x @ self.kernel))
        return out


class Idle(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.empty(16, 4))
        self.inner = nn.Linear(4, 6, bias=False)


def test_what_nothing_claims_is_refused_or_kept() -> None:
    with pytest.raises(wp.WellposedError, match=r"kernel \(16, 4\) of Idle"):
        wp.plan_initialize(Idle())
    model = Idle()
    before = model.kernel.detach().fill_(3.0).clone()
    plan = wp.init.initialize(model, rules={"unclaimed": None})
    assert torch.equal(model.kernel, before)
    assert (plan["kernel"].role, plan["kernel"].initializer, plan["kernel"].note) == ("unclaimed", None, "by rule")
    assert plan["inner.weight"].initializer is not None
    wp.init.initialize(model, rules={"unclaimed": wp.init.Zeros()})
    assert not model.kernel.any()
    wp.plan_initialize(nn.Linear(3, 2), rules={"unclaimed": None})  # where nothing is left over it says nothing
    with torch.device("meta"):
        model = Idle()
    with pytest.raises(wp.WellposedError, match="without memory"):
        wp.init.initialize(model, rules={"unclaimed": None}, device="cpu")


def test_a_module_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roles, "_TABLE", dict(roles._TABLE))

    @wp.init.role(Own)
    def own(module: Own) -> Any:
        return {
            "kernel": Part("weight", wp.init.Axes(out=1, in_=0)),
            "inner.weight": roles.blocks("ab", 3),
            "not there": Part("bias"),
        }

    class Heir(Own):
        pass

    plan = wp.plan_initialize(Heir())
    assert plan["kernel"].fans == (16, 4)
    assert plan["kernel"].follows == "relu"
    assert [row.label for row in plan] == ["kernel", "inner.weight[a]", "inner.weight[b]"]


def test_a_type_may_be_registered_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roles, "_TABLE", dict(roles._TABLE))
    wp.init.role(f"{Own.__module__}.Own")(lambda module: {"kernel": Part("token")})
    row = wp.plan_initialize(Own())["kernel"]
    assert row.role == "token"
    assert "says a token, but it enters the forward pass as a weight of Axes(out=1, in_=0)" in row.note


def test_bad_parts_are_refused() -> None:
    with pytest.raises(wp.WellposedError, match="recurrent"):
        Part("matrix")  # type: ignore[arg-type]
    with pytest.raises(wp.WellposedError, match="start"):
        Part("fixed")


PARAMETRIZED: list[tuple[Any, str]] = [
    (lambda: parametrizations.weight_norm(nn.Linear(12, 8)), "weight_norm"),
    (lambda: parametrizations.spectral_norm(nn.Linear(12, 8)), "spectral_norm"),
    (lambda: parametrizations.orthogonal(nn.Linear(12, 8)), "orthogonal"),
    (lambda: nn.utils.spectral_norm(nn.Linear(12, 8)), "spectral_norm by a hook"),
]


@pytest.mark.parametrize(("make", "kind"), PARAMETRIZED, ids=[kind for _, kind in PARAMETRIZED])
def test_parametrized_weights(make: Any, kind: str) -> None:
    module, plain = make(), nn.Linear(12, 8)
    wp.init.initialize(plain, seed=2)
    plan = wp.init.initialize(module, seed=2)
    assert {row.name for row in plan} == {"weight", "bias"}
    module.eval()(torch.zeros(1, 12))
    weight = module.weight.detach()
    if kind == "weight_norm":
        torch.testing.assert_close(weight, plain.weight.detach())
    elif kind == "orthogonal":
        torch.testing.assert_close(weight @ weight.T, torch.eye(8), rtol=0, atol=1e-5)
    else:
        direction = plain.weight.detach() / torch.linalg.matrix_norm(plain.weight.detach(), 2)
        torch.testing.assert_close(weight, direction, rtol=2e-2, atol=2e-2)


def test_the_old_weight_norm_hook() -> None:
    with pytest.warns(FutureWarning, match="weight_norm"):
        module = nn.utils.weight_norm(nn.Linear(12, 8))
    plain = nn.Linear(12, 8)
    for each in (module, plain):
        wp.init.initialize(each)
    module(torch.zeros(1, 12))
    torch.testing.assert_close(module.weight.detach(), plain.weight.detach())


def test_a_parametrization_that_cannot_be_undone_is_refused() -> None:
    class Squared(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.square()

    module: Any = nn.Linear(3, 2)
    nn.utils.parametrize.register_parametrization(module, "weight", Squared())
    before = module.parametrizations.weight.original.clone()
    with pytest.raises(wp.WellposedError, match="right_inverse"):
        wp.init.initialize(module)
    assert torch.equal(before, module.parametrizations.weight.original)
    wp.init.initialize(module, rules={"weight": None})


def test_decay_rates_and_step_sizes() -> None:
    rates = wp.init.DecayRates()((3, 5), wp.Key(0))
    torch.testing.assert_close(rates.exp(), torch.arange(1.0, 6.0).expand(3, 5))
    steps = nn.functional.softplus(wp.init.StepSizes(1e-3, 0.1)((20_000,), wp.Key(0), dtype=torch.float64))
    assert 1e-3 <= float(steps.min()) < 1.01e-3
    assert 0.099 < float(steps.max()) <= 0.1
    assert float((steps < 1e-2).double().mean()) == pytest.approx(0.5, abs=5 * 0.5 / 20_000**0.5)


@pytest.mark.parametrize(
    ("start", "initializer"),
    [
        (0.0, wp.init.Zeros()),
        (1, wp.init.Ones()),
        (0.25, wp.init.Constant(0.25)),
        (wp.init.Normal(0, 2), wp.init.Normal(0, 2)),
    ],
)
def test_a_role_starts_as_a_number_or_an_initializer(start: Any, initializer: wp.init.Initializer) -> None:
    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate = nn.Parameter(torch.empty(3))

    wp.init.role(Gated)(lambda module: {"gate": Part("gate", start=start)})
    assert wp.plan_initialize(Gated())["gate"].initializer == initializer


def test_a_start_that_is_neither_is_refused() -> None:
    class Closed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate = nn.Parameter(torch.empty(3))

    start: Any = "nothing"
    wp.init.role(Closed)(lambda module: {"gate": Part("gate", start=start)})
    with pytest.raises(wp.WellposedError, match="start='nothing'; expected a number or an initializer"):
        wp.plan_initialize(Closed())


def test_a_rule_fills_what_a_role_fixes_but_not_a_padding_row() -> None:
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.empty(3))
            self.table = nn.Embedding(4, 2, padding_idx=0)

    wp.init.role(Fixed)(lambda module: {"scale": Part("fixed", start=0.5)})
    plan = wp.plan_initialize(Fixed(), rules={"*": wp.init.Ones()})
    assert plan["scale"].initializer == plan["table.weight"].initializer == wp.init.Ones()
    assert plan["table.weight[padding]"].initializer == wp.init.Zeros()
