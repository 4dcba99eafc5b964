"""Schemes: the property that each one promises, measured on networks and held to mathematics."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from scipy import integrate, stats
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

import wellposed as wp
from wellposed.init.schemes.named import scheme_of

KEY = wp.Key(11)
DOUBLE = torch.float64


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Small products gain nothing from threads, and lose much where tests run side by side."""
    torch.set_num_threads(1)


def chain(depth: int, width: int, act: Callable[[], nn.Module]) -> nn.Sequential:
    layers = itertools.chain.from_iterable((nn.Linear(width, width, bias=False), act()) for _ in range(depth))
    return nn.Sequential(*layers)


def second_moments(model: nn.Sequential, x: Tensor) -> list[float]:
    """The second moment of what each weight gives, one a layer."""
    moments = []
    with torch.no_grad():
        for layer in model:
            x = layer(x)
            if isinstance(layer, nn.Linear):
                moments.append(float(x.double().square().mean()))
    return moments


def expect(fn: Callable[[Tensor], Tensor], std: float = 1.0) -> float:
    """E[fn(std z)] by scipy's quadrature, kinks at 0 allowed."""

    def integrand(z: float) -> float:
        return float(fn(torch.tensor(std * z, dtype=DOUBLE))) * float(stats.norm.pdf(z))

    return float(sum(integrate.quad(integrand, a, b, epsabs=1e-10)[0] for a, b in itertools.pairwise((-9, 0, 9))))


# What a chain's signal may do, from theory alone. Pre-activations of variance q give the next layer's variance
# V(q) = gain^2 E[fn(sqrt(q) z)^2]. A mean over `width` units instead of the expectation scatters its logarithm by
# sqrt(Var[fn^2] / (width E[fn^2]^2)) a layer; a deviation is multiplied by d log V / d log q on its way through the
# next; the measured second moment is itself a mean, of squares of normal numbers, over `width` units.
def deviation(fn: Callable[[Tensor], Tensor], std: float, depth: int, width: int) -> float:
    """The standard deviation of the logarithm of the last layer's second moment."""
    squared, fourth = expect(lambda z: fn(z) ** 2, std), expect(lambda z: fn(z) ** 4, std)
    step = 1e-3
    wide, narrow = (expect(lambda z: fn(z) ** 2, std * math.exp(sign * step)) for sign in (1, -1))
    growth = (math.log(wide) - math.log(narrow)) / (4 * step)
    noise = (fourth / squared**2 - 1) / width
    return math.sqrt(noise * sum(growth ** (2 * k) for k in range(depth)) + 2 / width)


ACTIVATIONS: dict[str, tuple[Callable[[], nn.Module], Callable[[Tensor], Tensor]]] = {
    "relu": (nn.ReLU, F.relu),
    "gelu": (nn.GELU, F.gelu),
    "silu": (nn.SiLU, F.silu),
    "selu": (nn.SELU, F.selu),
    "tanh": (nn.Tanh, F.tanh),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_auto_keeps_the_second_moment_over_a_hundred_layers(name: str) -> None:
    """Within four standard deviations of the logarithm: missed by chance once in 15,000 keys."""
    make, fn = ACTIVATIONS[name]
    depth, width = 100, 1024
    model = chain(depth, width, make)
    plan = wp.init.initialize(model)
    # The scale at which the chain works: 1, or the one that the plan names for activations that are unstable there.
    std = plan["0.weight"].gain if "worked at" in plan["0.weight"].note else 1.0
    x = wp.random.normal((8, width), KEY.fold(name))
    moments = second_moments(model, x)
    settled = moments[5] if name == "tanh" else moments[0]
    allowed = 4 * deviation(fn, std, depth, width)
    assert allowed < 4.5
    assert max(abs(math.log(m / settled)) for m in moments[6:-1]) < allowed
    if std != 1:  # the last weight of a chain that works at another scale brings the signal back to scale 1
        assert abs(math.log(moments[-1] * settled / moments[-2])) < 0.5


@pytest.mark.parametrize("name", ["gelu", "silu"])
def test_why_a_long_chain_is_worked_at_a_larger_scale(name: str) -> None:
    """At unit scale these activations blow a deviation of one hundredth up a thousandfold over a hundred layers."""
    make, fn = ACTIVATIONS[name]
    assert 0.01 * deviation(fn, 1.0, 100, 1) / deviation(fn, 1.0, 1, 1) > 1000
    short, long = (wp.plan_initialize(chain(depth, 4, make)) for depth in (3, 100))
    assert short["2.weight"].gain == pytest.approx(wp.init.gain(fn), rel=1e-9)
    assert "worked at standard deviation" in long["2.weight"].note


@pytest.mark.slow
@pytest.mark.parametrize(("scheme", "factor"), [("he", 1.0), ("chapter", 1 / 3)])
def test_he_keeps_and_the_chapters_bound_thirds_the_signal_of_relu_layers(scheme: str, factor: float) -> None:
    depth, width = 30, 512
    model = chain(depth, width, nn.ReLU).double()
    wp.init.initialize(model, scheme)
    moments = second_moments(model, wp.random.normal((8, width), KEY, dtype=DOUBLE))
    ratio = math.log(moments[-1] / moments[0]) / (depth - 1)
    assert ratio == pytest.approx(math.log(factor), abs=4 * deviation(F.relu, 1.0, depth, width) / (depth - 1))


def test_lecun_normalises_selu_and_glorot_keeps_linear_layers_both_ways() -> None:
    model = chain(60, 256, nn.SELU)
    wp.init.initialize(model, "lecun")
    moments = second_moments(model, wp.random.normal((64, 256), KEY))
    assert moments[-1] == pytest.approx(1, abs=5 * deviation(F.selu, 1.0, 60, 256))
    linear = chain(20, 256, nn.Identity)
    wp.init.initialize(linear, "glorot")
    x = wp.random.normal((64, 256), KEY).requires_grad_()
    y = linear(x)
    (slope,) = torch.autograd.grad(y, x, wp.random.normal((64, 256), KEY.fold("slope")))
    for value in (y.detach(), slope):
        assert abs(math.log(float(value.square().mean()))) < 5 * deviation(lambda z: z, 1.0, 20, 256)


def test_orthogonal_keeps_norms() -> None:
    model = chain(50, 64, nn.Identity).double()
    wp.init.initialize(model, "orthogonal")
    x = wp.random.normal((4, 64), KEY, dtype=DOUBLE)
    torch.testing.assert_close(model(x).norm(dim=1), x.norm(dim=1), rtol=1e-12, atol=0)


TORCH: list[Callable[[], nn.Module]] = [
    lambda: nn.Linear(60, 50),
    lambda: nn.Bilinear(10, 12, 40),
    lambda: nn.Conv2d(16, 32, 3, groups=2),
    lambda: nn.ConvTranspose2d(16, 32, 4, stride=2),
    lambda: nn.Embedding(80, 30),
    lambda: nn.LSTM(30, 40),
    lambda: nn.GRUCell(30, 40),
    lambda: nn.MultiheadAttention(32, 4, add_bias_kv=True),
    lambda: nn.MultiheadAttention(32, 4, kdim=20, vdim=24),
    lambda: nn.BatchNorm2d(7),
    lambda: nn.LayerNorm(9),
    lambda: nn.PReLU(5),
]


@pytest.mark.parametrize("make", TORCH, ids=lambda make: type(make()).__name__)
def test_torch_has_the_distributions_of_reset_parameters(make: Callable[[], nn.Module]) -> None:
    """Two-sample Kolmogorov-Smirnov at fixed keys, p-value above 1e-4, over each parameter."""
    torch.manual_seed(3)
    theirs = []
    for _ in range(20):
        theirs.append([p.detach().clone() for p in make().parameters()])
    module, ours = make(), []
    for seed in range(20):
        wp.init.initialize(module, "torch", seed=seed)
        ours.append([p.detach().clone() for p in module.parameters()])
    for a, b in zip(zip(*ours, strict=True), zip(*theirs, strict=True), strict=True):
        assert stats.ks_2samp(torch.stack(a).flatten(), torch.stack(b).flatten()).pvalue > 1e-4


class Block(nn.Module):
    def __init__(self, width: int, gate: bool = False, norm: bool = False) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(width, width), nn.Linear(width, width)
        self.norm = nn.LayerNorm(width) if norm else nn.Identity()
        self.gate = nn.Parameter(torch.ones(1)) if gate else None

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.second(torch.relu(self.first(x))))
        return x + (y if self.gate is None else self.gate * y)


class Residual(nn.Module):
    def __init__(self, blocks: int, width: int, **options: bool) -> None:
        super().__init__()
        self.stem = nn.Linear(width, width)
        self.blocks: Any = nn.ModuleList(Block(width, **options) for _ in range(blocks))
        self.head = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.body(x))
        return out

    def body(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return x


@pytest.mark.parametrize("scheme", ["auto", "gpt2", "deepnorm", "t_fixup", "fixup"])
def test_two_hundred_residual_blocks_stay_bounded(scheme: str) -> None:
    """With branches of variance 1/n each the sum grows by e at most; without scaling it would grow by 2^200."""
    model = Residual(200, 32)
    wp.init.initialize(model, scheme)
    x = wp.random.normal((32, 32), KEY)
    with torch.no_grad():
        grown = float((model.body(x).square().mean() / model.stem(x).square().mean()).log())
    assert -0.5 < grown < 4
    wp.init.initialize(model, "he")
    with torch.no_grad():
        assert float((model.body(x).square().mean() / model.stem(x).square().mean()).log()) > 100 or not bool(
            torch.isfinite(model.body(x)).all()
        )


@pytest.mark.parametrize("options", [{"gate": True}, {"norm": True}])
def test_rezero_starts_as_the_identity(options: dict[str, bool]) -> None:
    model = Residual(5, 16, **options)
    wp.init.role("Block")(lambda module: {"gate": wp.init.Part("gate", start=wp.init.Ones())})
    wp.init.initialize(model, "rezero")
    x = wp.random.normal((3, 16), KEY)
    assert torch.equal(model.body(x), model.stem(x))
    loss = model(x).square().sum()
    loss.backward()
    moved = [b.gate if options.get("gate") else b.norm.weight for b in model.blocks]
    assert all(bool(p.grad.abs().sum() > 0) for p in moved)


def test_rezero_needs_something_to_close_a_branch_by() -> None:
    with pytest.raises(wp.WellposedError, match=r"blocks\.0\.second\.weight ends one that has neither"):
        wp.plan_initialize(Residual(2, 8), "rezero")


def test_fixup_updates_by_the_learning_rate_whatever_the_depth() -> None:
    """A step of gradient descent changes the output by an amount that does not grow with the number of blocks."""
    changes = []
    for blocks in (4, 16, 64):
        model = Residual(blocks, 32)
        plan = wp.init.initialize(
            model, "fixup", rules={"head.*": wp.init.LeCun(distribution="normal"), "*.bias": wp.init.Zeros()}
        )
        assert plan["blocks.0.second.weight"].initializer == wp.init.Zeros()
        assert plan["blocks.0.first.weight"].gain == pytest.approx(math.sqrt(2) * blocks**-0.5)
        x = wp.random.normal((16, 32), KEY)
        before = model(x)
        before.square().mean().backward()
        with torch.no_grad():
            for parameter in model.parameters():
                assert parameter.grad is not None
                parameter.sub_(0.1 * parameter.grad)
            changes.append(float((model(x) - before).square().mean().sqrt()))
    assert max(changes) < 3 * min(changes)
    assert wp.plan_initialize(Residual(4, 8), "fixup")["head.weight"].initializer == wp.init.Zeros()


def encoder(layers: int) -> nn.Module:
    return nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 64), layers, enable_nested_tensor=False)


def test_transformers_under_the_depth_schemes() -> None:
    """The papers' factors: DeepNorm (8N)^-1/4, T-Fixup 0.67 N^-1/4, GPT-2 0.02 / sqrt(2N)."""
    layers = 6
    deep = wp.plan_initialize(encoder(layers), "deepnorm")
    beta = (8 * layers) ** -0.25
    xavier = math.sqrt(2 / (16 + 16))
    assert deep["layers.0.self_attn.in_proj_weight[q]"].std_wanted == pytest.approx(xavier)
    assert deep["layers.0.self_attn.in_proj_weight[v]"].std_wanted == pytest.approx(beta * xavier)
    assert deep["layers.0.linear1.weight"].std_wanted == pytest.approx(beta * math.sqrt(2 / (16 + 64)))
    assert f"{(2 * layers) ** 0.25:.4g}" in deep.notes[0]
    fixed = wp.plan_initialize(encoder(layers), "t_fixup")
    assert fixed["layers.3.self_attn.out_proj.weight"].gain == pytest.approx(0.67 * layers**-0.25)
    assert fixed["layers.3.self_attn.in_proj_weight[k]"].gain == 1
    gpt2 = wp.plan_initialize(encoder(layers), "gpt2")
    assert gpt2["layers.5.linear2.weight"].std_wanted == pytest.approx(0.02 / math.sqrt(2 * layers))
    assert gpt2["layers.5.linear1.weight"].std_wanted == 0.02
    with pytest.warns(UserWarning, match="nested"):
        both = nn.Transformer(16, 2, 3, 6, 32)
    deep = wp.plan_initialize(both, "deepnorm")
    assert deep["encoder.layers.0.linear1.weight"].gain == pytest.approx(0.87 * (3**4 * 6) ** (-1 / 16))
    assert deep["decoder.layers.0.linear1.weight"].gain == pytest.approx((12 * 6) ** -0.25)
    fixed = wp.plan_initialize(both, "t_fixup")
    assert fixed["decoder.layers.0.multihead_attn.out_proj.weight"].gain == pytest.approx((9 * 6) ** -0.25)


@pytest.mark.parametrize("scheme", ["gpt2", "deepnorm", "t_fixup", "fixup", "rezero"])
def test_depth_schemes_need_branches(scheme: str) -> None:
    with pytest.raises(wp.WellposedError, match="residual branches"):
        wp.plan_initialize(chain(2, 4, nn.ReLU), scheme)


def test_a_scheme_of_ones_own() -> None:
    scheme = wp.init.Scheme("ones", "nobody", {"bias": lambda site: wp.init.Ones()})
    plan = wp.plan_initialize(nn.Linear(3, 2), scheme)
    assert (plan.scheme, plan["bias"].initializer) == ("ones", wp.init.Ones())
    assert plan["weight"].initializer == wp.init.VarianceScaling(1.0)


@pytest.mark.parametrize("scheme", [s for s in wp.init.SCHEMES.values() if not s.needs], ids=lambda s: s.name)
def test_every_scheme_fills_every_kind_of_part(scheme: wp.init.Scheme) -> None:
    model = nn.ModuleList([encoder(1), nn.LSTM(4, 5), nn.Embedding(6, 4), nn.Conv2d(2, 3, 3), nn.PReLU()])
    assert all(row.initializer is not None for row in wp.init.initialize(model, scheme))


@pytest.mark.parametrize(
    ("name", "scheme"),
    [
        ("Kaiming", "he"),
        ("HE", "he"),
        ("xavier", "glorot"),
        ("T-Fixup", "t_fixup"),
        ("GPT-2", "gpt2"),
        ("LeCun", "lecun"),
        ("PyTorch", "torch"),
        ("LSUV ", "lsuv"),
    ],
)
def test_a_scheme_goes_by_any_of_its_names(name: str, scheme: str) -> None:
    assert scheme_of(name) is wp.init.SCHEMES[scheme]
