"""Gains against closed forms and against scipy's quadrature."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from scipy import integrate, special, stats
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

import wellposed as wp
from wellposed.init import gain

Fn = Callable[[Tensor], Tensor]
PI = math.pi

# fn, E[fn(z)^2], E[fn'(z)^2]
CLOSED: dict[str, tuple[Fn, float, float]] = {
    "identity": (lambda z: z, 1.0, 1.0),
    "relu": (torch.relu, 0.5, 0.5),
    "relu in place": (nn.ReLU(inplace=True), 0.5, 0.5),
    "leaky_relu": (lambda z: F.leaky_relu(z, 0.2), 0.52, 0.52),
    "prelu": (nn.PReLU(init=0.25), (1 + 0.25**2) / 2, (1 + 0.25**2) / 2),
    "abs": (torch.abs, 1.0, 1.0),
    "square": (torch.square, 3.0, 4.0),
    "cube": (lambda z: z**3, 15.0, 27.0),
    "erf": (torch.erf, 2 / PI * math.asin(2 / 3), 4 / PI / math.sqrt(5)),
    "sin": (torch.sin, (1 - math.exp(-2)) / 2, (1 + math.exp(-2)) / 2),
    "fast sin": (lambda z: torch.sin(300 * z), 0.5, 45000.0),
    "exp": (torch.exp, math.exp(2), math.exp(2)),
    "wide exp": (lambda z: torch.exp(z**2 / 5), math.sqrt(5), 4 / 25 * 5 * math.sqrt(5)),
    "step": (lambda z: (z > 0.123).double(), float(stats.norm.sf(0.123)), 0.0),
    "shifted relu": (
        lambda z: torch.relu(z - 1 / 3),
        float((1 + 1 / 9) * stats.norm.sf(1 / 3) - stats.norm.pdf(1 / 3) / 3),
        float(stats.norm.sf(1 / 3)),
    ),
    "log": (lambda z: z.abs().log(), PI**2 / 8 + ((0.5772156649015329 + math.log(2)) / 2) ** 2, math.inf),
}


def wanted(moments: tuple[float, ...]) -> float:
    return math.sqrt(len(moments) / sum(moments))


@pytest.mark.parametrize("name", CLOSED)
def test_closed_forms(name: str) -> None:
    fn, forward, backward = CLOSED[name]
    assert gain(fn) == pytest.approx(wanted((forward,)), rel=1e-9)
    if 0 < backward < math.inf:
        assert gain(fn, moment="backward") == pytest.approx(wanted((backward,)), rel=1e-9)
        assert gain(fn, moment="compromise") == pytest.approx(wanted((forward, backward)), rel=1e-9)
    else:
        for moment in ("backward", "compromise"):
            with pytest.raises(wp.WellposedError, match=r"no gain|singular"):
                gain(fn, moment=moment)


def test_relu_to_rounding() -> None:
    assert abs(gain(torch.relu) - math.sqrt(2)) < 1e-14


# fn as torch has it, fn as numpy has it, its kinks
QUAD: dict[str, tuple[Fn, Callable[[float], float], tuple[float, ...]]] = {
    "gelu": (F.gelu, lambda z: z * float(special.ndtr(z)), ()),
    "silu": (F.silu, lambda z: z * float(special.expit(z)), ()),
    "selu": (
        F.selu,
        lambda z: 1.0507009873554805 * (z if z > 0 else 1.6732632423543772 * math.expm1(z)),
        (0.0,),
    ),
    "tanh": (torch.tanh, math.tanh, ()),
    "sigmoid": (torch.sigmoid, lambda z: float(special.expit(z)), ()),
    "hardtanh": (lambda z: F.hardtanh(z, -0.3, 0.7), lambda z: min(max(z, -0.3), 0.7), (-0.3, 0.7)),
    "relu6": (F.relu6, lambda z: min(max(z, 0.0), 6.0), (0.0, 6.0)),
    "elu": (F.elu, lambda z: z if z > 0 else math.expm1(z), (0.0,)),
    "mish": (F.mish, lambda z: z * math.tanh(math.log1p(math.exp(z))), ()),
    "softplus": (F.softplus, lambda z: math.log1p(math.exp(z)), ()),
    "hardswish": (F.hardswish, lambda z: z * min(max(z + 3, 0.0), 6.0) / 6, (-3.0, 3.0)),
    "softsign": (F.softsign, lambda z: z / (1 + abs(z)), (0.0,)),
}


@pytest.mark.parametrize("name", QUAD)
def test_against_scipys_quadrature(name: str) -> None:
    ours, theirs, kinks = QUAD[name]
    edges = [-12.0, *kinks, 12.0]
    moment = sum(
        integrate.quad(lambda z: theirs(z) ** 2 * float(stats.norm.pdf(z)), a, b, epsabs=0, epsrel=1e-12, limit=200)[0]
        for a, b in itertools.pairwise(edges)
    )
    assert gain(ours) == pytest.approx(1 / math.sqrt(moment), rel=1e-9)


def test_selu_has_gain_one() -> None:
    assert gain(F.selu) == pytest.approx(1.0, abs=1e-12)


def test_gain_keeps_a_signal() -> None:
    """The second moment of a scaled sample is 1 within 5 standard errors, missed by chance once in a million keys."""
    z = wp.random.normal((200_000,), wp.Key(5), dtype=torch.float64)
    for fn in (F.gelu, F.silu, torch.tanh):
        y = (gain(fn) * fn(z)) ** 2
        assert abs(float(y.mean()) - 1) < 5 * float(y.std()) / math.sqrt(len(y))


def test_surroundings_do_not_matter() -> None:
    wanted = gain(F.gelu, moment="compromise")
    with torch.no_grad():
        assert gain(F.gelu, moment="compromise") == wanted
    with torch.inference_mode():
        assert gain(F.gelu, moment="compromise") == wanted
    with torch.device("meta"):
        assert gain(F.gelu, moment="compromise") == wanted
    torch.set_default_dtype(torch.float16)
    try:
        assert gain(F.gelu, moment="compromise") == wanted
    finally:
        torch.set_default_dtype(torch.float32)


def test_a_module_is_left_as_it_was() -> None:
    module = nn.PReLU().train()
    gain(module, moment="backward")
    assert module.training
    assert module.weight.dtype == torch.float32
    assert module.weight.grad is None


def test_a_function_that_rounds_to_float32_inside() -> None:
    assert gain(lambda z: F.gelu(z.float()).double()) == pytest.approx(gain(F.gelu), rel=1e-6)


REFUSED: dict[str, tuple[Any, str]] = {
    "zero": (torch.zeros_like, "zero"),
    "infinite": (lambda z: torch.exp(z**2 / 4), "infinite"),
    "very infinite": (lambda z: torch.exp(z**4), "infinite"),
    "not a number": (torch.log, "not a number"),
    "singular": (torch.reciprocal, "singular"),
    "too fast": (lambda z: torch.sin(1e6 * z), "too fast"),
    "softmax": (lambda z: F.softmax(z, 0), "other elements"),
    "chance": (F.dropout, "chance"),
    "halves": (nn.GLU(), "elementwise"),
    "sum": (torch.sum, "shape"),
    "a name": ("relu", "torch.relu"),
    "fails": (lambda z: z @ z.T @ torch.ones(3), "fails"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    fn, message = REFUSED[name]
    with pytest.raises(wp.WellposedError, match=message):
        gain(fn)


def test_an_unknown_moment_is_refused() -> None:
    with pytest.raises(wp.WellposedError, match="'compromise'"):
        gain(torch.relu, moment="both")  # type: ignore[arg-type]
