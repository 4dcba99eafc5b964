"""Laws that every penalty in the table obeys."""

import copy
import itertools
import math
import pickle
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor

import wellposed as wp
from penalty_cases import CASES, Case, rows
from wellposed.penalties import (
    L0,
    L1,
    L2,
    MCP,
    SCAD,
    AdaptiveL1,
    ElasticNet,
    GroupLasso,
    GroupMCP,
    Huber,
    LHalf,
    NuclearNorm,
    Penalty,
    SoftOrthogonality,
    SparseGroupLasso,
    SpectralNorm,
    Towards,
    constraints,
    conventions,
)
from wellposed.penalties.computing.jobs import are_alike
from wellposed.penalties.computing.passes import Added, ProxStep, Push, add_gradients_, take_steps_
from wellposed.penalties.computing.root_step import RootStep
from wellposed.random import Key, normal, uniform

STEPS = (0.05, 0.4, 1.7)


def objective(penalty: Penalty, x: Tensor, w: Tensor, step: float | Tensor) -> float:
    return float(((x - w).square() / (2 * step)).sum() + penalty.value(x))


@pytest.mark.slow
@rows(prox=True)
@pytest.mark.parametrize("step", STEPS)
def test_prox_is_no_worse_than_a_numeric_argmin(case: Case, step: float) -> None:
    torch.set_num_threads(1)
    w = case.weight(int(100 * step))
    at = case.penalty.prox(w, step)
    best = objective(case.penalty, at, w, step)
    assert best < math.inf
    if isinstance(case.penalty, constraints.Constraint):
        found = min(objective(case.penalty, case.penalty.prox(case.weight(call), step), w, step) for call in range(200))
        assert best <= found + 1e-9
        return

    def numeric(x: np.ndarray) -> float:
        return objective(case.penalty, torch.from_numpy(x).view(w.shape), w, step)

    for start in (w, at):
        found = minimize(numeric, start.numpy().ravel(), method="Powell", options={"xtol": 1e-7, "ftol": 1e-12}).fun
        assert best <= found + 1e-9 * (1 + abs(found))


@rows(diagonal=True, separable=False)
@pytest.mark.parametrize("spread", [1.5, 100.0])
def test_prox_of_groups_takes_a_step_for_each_element(case: Case, spread: float) -> None:
    low, high = math.log(0.4 / spread), math.log(0.4 * spread)
    zeros = 0
    for call in range(12):
        w = case.weight(call, std=(1.5, 0.15)[call % 2])
        steps = uniform(case.shape, Key(22), low, high, call=call, dtype=torch.float64).exp()
        at = case.penalty.prox(w, steps)
        best = objective(case.penalty, at, w, steps)
        zeros += int((at == 0).sum())
        for moved in range(60):
            nudge = steps * case.weight(moved, std=10.0 ** -(moved % 6))
            assert best <= objective(case.penalty, at + nudge * (at != 0), w, steps) + 1e-10
            assert best <= objective(case.penalty, at + nudge, w, steps) + 1e-10
    assert zeros > 0
    same = torch.full(case.shape, 0.4, dtype=torch.float64)
    torch.testing.assert_close(case.penalty.prox(case.weight(), same), case.penalty.prox(case.weight(), 0.4))


@pytest.mark.parametrize("gamma", [0.3, 1.0, 8.0])
def test_group_mcp_with_a_step_for_each_element_is_the_numeric_argmin(gamma: float) -> None:
    torch.set_num_threads(1)
    penalty, landed = GroupMCP(0.8, gamma=gamma, groups="all"), set()
    for call in range(16):
        w = normal(3, Key(23), std=0.3 * 1.3**call, call=call, dtype=torch.float64)
        steps = uniform(3, Key(24), -2.5, 1.5, call=call, dtype=torch.float64).exp()
        at = penalty.prox(w, steps)
        landed.add("zero" if not at.any() else "kept" if at.equal(w) else "shortened")

        def numeric(x: np.ndarray, w: Tensor = w, steps: Tensor = steps) -> float:
            return objective(penalty, torch.from_numpy(x), w, steps)

        best = numeric(at.numpy())
        for q in (0.0, 0.1, 0.3, 1.0, 3.0, 10.0, 1e3):
            start = (w / (1 + q * steps)).numpy()
            found = minimize(numeric, start, method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-13}).fun
            assert best <= found + 1e-9 * (1 + abs(found))
    assert landed == {"zero", "kept"} | ({"shortened"} if gamma >= 1 else set())


@rows(prox=True, separable=True)
@pytest.mark.parametrize("step", STEPS)
def test_prox_of_a_separable_penalty_takes_a_step_for_each_element(case: Case, step: float) -> None:
    w = case.weight()
    steps = step * uniform(case.shape, Key(21), 0.1, 2.0, dtype=torch.float64)
    together = case.penalty.prox(w, steps)
    for index in np.ndindex(*case.shape):
        alone = case.penalty.prox(w, float(steps[index]))
        assert together[index] == pytest.approx(float(alone[index]), abs=1e-12)


@rows(prox=True, convex=True)
@pytest.mark.parametrize("step", STEPS)
def test_prox_is_firmly_nonexpansive(case: Case, step: float) -> None:
    for call in range(20):
        w, v = case.weight(2 * call), case.weight(2 * call + 1)
        p, q = case.penalty.prox(w, step), case.penalty.prox(v, step)
        assert (p - q).square().sum() <= ((p - q) * (w - v)).sum() + 1e-9


@rows(prox=True, convex=True)
@pytest.mark.parametrize("step", STEPS)
def test_moreau_what_the_prox_takes_off_is_a_subgradient_where_it_lands(case: Case, step: float) -> None:
    # w = p + step * y is Moreau's decomposition exactly when y is a subgradient at p.
    w = case.weight()
    p = case.penalty.prox(w, step)
    y = (w - p) / step
    for call in range(20):
        x = p + case.weight(call, std=0.02 * 2**call / 64)
        x = x if case.penalty.traits.gradient else case.penalty.prox(x, step)
        assert case.penalty.value(x) >= case.penalty.value(p) + ((x - p) * y).sum() - 1e-9


@rows(smooth=True)
def test_gradient_is_autograds_and_the_value_passes_gradcheck(case: Case) -> None:
    w = case.weight().requires_grad_()
    assert torch.autograd.gradcheck(case.penalty.value, (w,))
    (wanted,) = torch.autograd.grad(case.penalty.value(w), w)
    torch.testing.assert_close(case.penalty.grad(w), wanted)


@rows(smooth=False, gradient=True)
def test_gradient_of_a_kinked_penalty_is_autograds_away_from_the_kinks(case: Case) -> None:
    w = case.weight().requires_grad_()
    (wanted,) = torch.autograd.grad(case.penalty.value(w), w)
    torch.testing.assert_close(case.penalty.grad(w), wanted)


@rows(gradient=True)
def test_gradient_at_zero_is_finite_and_zero_when_zero_minimises(case: Case) -> None:
    zero = torch.zeros(case.shape, dtype=torch.float64)
    gradient = case.penalty.grad(zero)
    assert gradient.isfinite().all()
    if case.penalty.traits.convex and case.penalty.value(zero) == 0:
        assert (gradient == 0).all()


@rows(gradient=True)
def test_calling_gives_the_pair_without_a_graph(case: Case) -> None:
    w = case.weight().requires_grad_()
    value, gradient = case.penalty(w)
    torch.testing.assert_close(value, case.penalty.value(w.detach()))
    torch.testing.assert_close(gradient, case.penalty.grad(w))
    assert not value.requires_grad
    assert not gradient.requires_grad


@rows(prox=True, gradient=True)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", ["1", "least", "tiny", "huge"])
def test_a_step_of_zero_changes_nothing(case: Case, dtype: torch.dtype, size: str) -> None:
    powers = {"1": 0, "least": -1, "tiny": -0.9, "huge": 0.9}
    # What adds squares up has half the exponents, and singular values are zero below the normal numbers.
    share = powers[size] * (1 if case.penalty.traits.separable else 0.45)
    scale = 10 ** (share * -math.log10(torch.finfo(dtype).smallest_normal))
    w = (scale * case.weight()).to(dtype)
    w.view(-1)[1] = 0
    loose = 0.0 if case.penalty.traits.separable else 8 * torch.finfo(dtype).eps * scale  # singular vectors are rounded
    if isinstance(case.penalty, Towards):
        loose = 4 * torch.finfo(dtype).eps  # what is added is as large as the reference
    for step in (0.0, torch.tensor(0.0, dtype=dtype)):
        torch.testing.assert_close(
            case.penalty.prox(w, step), w, rtol=8 * torch.finfo(dtype).eps, atol=loose, check_dtype=False
        )


@rows(prox=True)
def test_prox_in_place_is_prox_and_leaves_strangers_alone(case: Case) -> None:
    w = case.weight()
    wanted = case.penalty.prox(w, 0.4)
    kept = w.clone()
    parameter = torch.nn.Parameter(w)
    assert case.penalty.prox_(parameter, 0.4) is parameter
    torch.testing.assert_close(parameter.detach(), wanted)
    assert not torch.equal(kept, wanted) or case.penalty.prox(kept, 0.4).equal(kept)


@rows(prox=True)
def test_memory_layout_does_not_matter(case: Case) -> None:
    w = case.weight()
    spread = torch.full((*case.shape[:-1], 2 * case.shape[-1]), torch.nan, dtype=w.dtype)[..., ::2]
    spread.copy_(w)
    turned = w.clone().transpose(0, -1).contiguous().transpose(0, -1)
    for other in (spread, turned):
        assert case.penalty.value(other) == pytest.approx(float(case.penalty.value(w)), rel=1e-13)
        torch.testing.assert_close(case.penalty.prox(other, 0.4), case.penalty.prox(w, 0.4))
        torch.testing.assert_close(case.penalty.prox_(other.clone(), 0.4), case.penalty.prox(w, 0.4))
        if case.penalty.traits.gradient:
            torch.testing.assert_close(case.penalty.grad(other), case.penalty.grad(w))
    assert case.penalty.prox_(spread, 0.4).equal(case.penalty.prox(w, 0.4))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="another device than the CPU is needed: CUDA")
@rows()
def test_the_device_does_not_matter(case: Case) -> None:
    w = case.weight()
    moved = {
        f.name: value.cuda() if isinstance(value := getattr(case.penalty, f.name), Tensor) else value
        for f in fields(case.penalty)
    }
    there = type(case.penalty)(**moved)
    torch.testing.assert_close(there.value(w.cuda()).cpu(), case.penalty.value(w))
    if case.penalty.traits.prox:
        torch.testing.assert_close(there.prox(w.cuda(), 0.4).cpu(), case.penalty.prox(w, 0.4))
        torch.testing.assert_close(there.prox_(w.cuda(), 0.4).cpu(), case.penalty.prox(w, 0.4))
    if case.penalty.traits.gradient:
        torch.testing.assert_close(there.grad(w.cuda()).cpu(), case.penalty.grad(w))


@rows(prox=True, gradient=True)
def test_groups_and_elements_of_zero_are_safe(case: Case) -> None:
    w = case.weight()
    w[0] = 0
    if isinstance(case.penalty, Towards):
        pytest.skip("it pulls towards other weights than zero")
    steps: list[float | Tensor] = [0.0, 0.4, torch.tensor(0.4)]
    if case.penalty.traits.separable or case.penalty.traits.diagonal:
        steps.append(uniform(case.shape, Key(25), 0.0, 2.0, dtype=torch.float64))
    for step in steps:
        moved = case.penalty.prox(w, step)
        assert moved.isfinite().all()
        assert moved[0].abs().max() < 1e-15  # singular vectors are rounded
        assert (case.penalty.prox(torch.zeros_like(w), step) == 0).all()


@rows()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_narrow_dtypes_are_computed_in_float32_and_rounded_once(case: Case, dtype: torch.dtype) -> None:
    w = case.weight().to(dtype)
    if any(isinstance(getattr(case.penalty, f.name), Tensor) for f in fields(case.penalty)):
        pytest.skip("the strengths' own dtype takes part")
    assert case.penalty.value(w).dtype == torch.float32
    if case.penalty.traits.gradient:
        assert case.penalty.grad(w).equal(case.penalty.grad(w.float()).to(dtype))
    if case.penalty.traits.prox:
        assert case.penalty.prox(w, 0.4).equal(case.penalty.prox(w.float(), 0.4).to(dtype))


@rows(prox=True)
def test_nan_stays_nan(case: Case) -> None:
    w = case.weight()
    w[(0,) * w.ndim] = torch.nan
    assert case.penalty.prox(w, 0.4)[(0,) * w.ndim].isnan()
    assert case.penalty.prox_(w.clone(), 0.4)[(0,) * w.ndim].isnan()


@rows()
def test_scaling_scales_value_gradient_and_the_step_of_the_prox(case: Case) -> None:
    w = case.weight()
    tripled = 3.0 * case.penalty
    assert tripled == case.penalty * 3.0
    torch.testing.assert_close(tripled.value(w), 3.0 * case.penalty.value(w))
    if case.penalty.traits.gradient:
        torch.testing.assert_close(tripled.grad(w), 3.0 * case.penalty.grad(w))
    if case.penalty.traits.prox:
        torch.testing.assert_close(tripled.prox(w, 0.2), case.penalty.prox(w, 0.6))


@rows()
def test_adding_adds_values_and_gradients_in_any_order(case: Case) -> None:
    w = case.weight()
    for other in (L1(0.2), L2(0.1), case.penalty):
        total = case.penalty + other
        assert total == other + case.penalty
        torch.testing.assert_close(total.value(w), case.penalty.value(w) + other.value(w))
        if total.traits.gradient:
            torch.testing.assert_close(total.grad(w), case.penalty.grad(w) + other.grad(w))


# Numbers whose sums are exact.
EXACT = torch.tensor([[0.25, 0.0, 1.0], [3.0, 0.5, 0.125]], dtype=torch.float64)
SUMMANDS: dict[str, Penalty] = {
    "l1": L1(0.25),
    "l1-weighted": L1(EXACT),
    "l2": L2(0.5),
    "elastic-net": ElasticNet(0.75, 0.125),
    "group-lasso": GroupLasso(0.5),
    "group-lasso-columns": GroupLasso(0.25, groups="columns"),
    "sparse-group-lasso": SparseGroupLasso(0.375, 0.625),
    "huber": Huber(0.5),
    "mcp-weighted": MCP(EXACT),
    "mcp-weighted-otherwise": MCP(EXACT.flip(0)),
    "scad-scaled": 0.5 * SCAD(1.0),
    "towards": Towards(ElasticNet(0.5, 0.25), EXACT),
    "max-norm": constraints.MaxNorm(8.0),
}


@pytest.mark.parametrize("names", list(itertools.combinations_with_replacement(SUMMANDS, 3)), ids="+".join)
def test_a_sum_is_the_same_whatever_the_order_that_it_is_taken_in(names: tuple[str, ...]) -> None:
    w = normal((2, 3), Key(26), dtype=torch.float64)
    first, *others = (
        total
        for a, b, c in itertools.permutations(SUMMANDS[name] for name in names)
        for total in (a + b + c, a + (b + c))
    )
    torch.testing.assert_close(first.value(w), torch.stack([SUMMANDS[name].value(w) for name in names]).sum())
    for other in others:
        assert other == first
        assert hash(other) == hash(first)
        assert other.traits == first.traits
        if first.traits.prox:
            torch.testing.assert_close(other.prox(w, 0.4), first.prox(w, 0.4))


@pytest.mark.parametrize("names", list(itertools.combinations_with_replacement(SUMMANDS, 2)), ids="+".join)
def test_the_sum_of_two_is_the_same_in_either_order(names: tuple[str, str]) -> None:
    a, b = (SUMMANDS[name] for name in names)
    assert a + b == b + a
    assert a + b != a + L1(1.0)


@pytest.mark.parametrize(
    "total",
    [
        L1(0.5) + L2(0.25) + GroupLasso(1.0),
        ElasticNet(0.5, 0.25) + GroupLasso(1.0),
        SparseGroupLasso(0.25, 1.0) + ElasticNet(0.25, 0.25),
    ],
)
def test_an_elastic_net_and_a_group_lasso_have_a_prox_together(total: Penalty) -> None:
    assert total == SparseGroupLasso(0.5, 1.0) + L2(0.25)
    w = normal((2, 3), Key(26), dtype=torch.float64)
    at = total.prox(w, 0.4)
    for call in range(40):
        moved = at + normal((2, 3), Key(27), std=10.0 ** -(call % 5), call=call, dtype=torch.float64)
        assert objective(total, at, w, 0.4) <= objective(total, moved, w, 0.4) + 1e-12


@rows(prox=True)
@pytest.mark.parametrize("step", STEPS)
def test_the_prox_of_a_sum_with_a_square_is_exact(case: Case, step: float) -> None:
    total = case.penalty + L2(0.6)
    assert total.traits.prox
    w = case.weight()
    at = total.prox(w, step)
    best = objective(total, at, w, step)
    for call in range(40):
        moved = at + case.weight(call, std=10.0 ** -(call % 5))
        assert best <= objective(total, moved, w, step) + 1e-12


@rows()
def test_a_penalty_is_a_value(case: Case) -> None:
    penalty = case.penalty
    for counterpart in (copy.copy(penalty), copy.deepcopy(penalty), pickle.loads(pickle.dumps(penalty))):
        assert counterpart == penalty
        assert hash(counterpart) == hash(penalty)
        assert repr(counterpart) == repr(penalty)
    assert penalty != object()
    assert all(penalty != other.penalty or repr(penalty) == repr(other.penalty) for other in CASES.values())
    with pytest.raises(AttributeError):
        penalty.lam = 1.0  # type: ignore[attr-defined]


@rows()
def test_what_is_no_weight_is_refused(case: Case) -> None:
    with pytest.raises(wp.WellposedError, match="floating-point"):
        case.penalty.value(torch.ones(case.shape, dtype=torch.int64))
    with pytest.raises(wp.WellposedError, match="meta"):
        case.penalty.prox(torch.ones(case.shape, device="meta"), 0.1)
    with pytest.raises(wp.WellposedError, match=r"expected a torch\.Tensor"):
        case.penalty.value([1.0])  # type: ignore[arg-type]


@rows(prox=True)
@pytest.mark.parametrize("step", [-0.1, float("nan"), float("inf"), "1", True, torch.ones(7, 1, 1, 1, 1)])
def test_what_is_no_step_is_refused(case: Case, step: object) -> None:
    with pytest.raises(wp.WellposedError, match="step"):
        case.penalty.prox(case.weight(), step)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [L1, L2, lambda lam: ElasticNet(lam, 1.0), lambda lam: ElasticNet(1.0, lam)])
@pytest.mark.parametrize(
    "lam", [-1e-9, float("nan"), float("inf"), "1", None, True, torch.tensor([0.1, -0.1]), torch.tensor(1)]
)
def test_what_is_no_strength_is_refused(kind: type[L1], lam: float) -> None:
    with pytest.raises(wp.WellposedError, match=r"lam|l1|l2"):
        kind(lam)


@pytest.mark.parametrize(
    ("penalty", "shape"),
    [
        (L1(torch.ones(3, 5, 4)), (5, 4)),
        (L1(torch.ones(5, 1)), (5,)),
        (L1(torch.ones(1, 5, 4)), (5, 4)),
        (L2(torch.ones(5)), (5, 4)),
        (L0(torch.ones(4, 5)), (5, 4)),
        (LHalf(torch.ones(4, 4)), (1, 4)),
        (MCP(torch.ones(3, 5, 4)), (5, 4)),
        (SCAD(torch.ones(3, 5, 4)), (5, 4)),
        (Huber(torch.ones(2, 4)), (5, 4)),
        (ElasticNet(1.0, torch.ones(3, 5, 4)), (5, 4)),
        (GroupLasso(torch.ones(5, 4)), (5, 4)),
        (GroupLasso(torch.ones(5)), (5, 4)),
        (GroupMCP(torch.ones(4)), (5, 4)),
        (SparseGroupLasso(torch.ones(3, 5, 4), 1.0), (5, 4)),
        (SparseGroupLasso(1.0, torch.ones(5, 4)), (5, 4)),
        (NuclearNorm(torch.ones(5)), (5, 4)),
        (SpectralNorm(torch.ones(1)), (5, 4)),
        (SoftOrthogonality(torch.ones(5, 4)), (5, 4)),
        (AdaptiveL1(torch.ones(3, 5, 4), reference=torch.ones(5, 4)), (5, 4)),
        (Towards(L1(torch.ones(3, 5, 4)), torch.ones(5, 4)), (5, 4)),
        (L2(0.1) + MCP(torch.ones(3, 5, 4)), (5, 4)),
        (2.0 * MCP(torch.ones(3, 5, 4)), (5, 4)),
    ],
    ids=repr,
)
def test_a_strength_that_is_wider_than_the_weight_is_refused(penalty: Penalty, shape: tuple[int, ...]) -> None:
    w = torch.ones(shape)
    uses: list[Callable[[Tensor], object]] = [
        penalty.value,
        penalty.grad,
        lambda w: penalty.prox(w, 0.1),
        lambda w: penalty.prox_(w, 0.1),
    ]
    for use in uses:
        with pytest.raises(wp.WellposedError, match=r"(lam|l1|l2) of shape .* broadcasts to"):
            use(w)
    assert w.equal(torch.ones(shape))


@pytest.mark.parametrize(
    "penalty",
    [
        L1(torch.ones(4)),
        MCP(torch.ones(5, 1)),
        GroupLasso(torch.ones(5, 1)),
        GroupLasso(torch.ones(2), groups=torch.arange(20).view(5, 4) % 2),
        Towards(GroupLasso(1.0), torch.ones(5, 4)),
        NuclearNorm(torch.tensor(1.0)),
    ],
    ids=repr,
)
def test_a_strength_that_broadcasts_to_what_it_multiplies_is_taken(penalty: Penalty) -> None:
    w = normal((5, 4), Key(28))
    assert penalty.value(w).ndim == 0
    assert penalty.grad(w).shape == penalty.prox(w, 0.1).shape == w.shape


@rows(gradient=False)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [None, (120, 80), (4, 20_000)])
@pytest.mark.parametrize("std", [1.5, 1e-6])
def test_a_constraint_holds_after_its_own_projection_in_every_dtype(
    case: Case, dtype: torch.dtype, shape: tuple[int, ...] | None, std: float
) -> None:
    if not isinstance(case.penalty, constraints.Constraint):
        pytest.skip("it is finite everywhere")
    w = normal(shape or case.shape, Key(29), std=std, dtype=torch.float64).to(dtype)
    at = case.penalty.prox(w, 1.0)
    assert case.penalty.value(at) == 0
    assert (case.penalty + L2(0.5)).value(at) == L2(0.5).value(at)
    if std > 1:
        beyond = 1.2 * at
        if isinstance(case.penalty, constraints.NonNegative | constraints.L0Ball):  # which are cones
            beyond = -w.abs()
        assert case.penalty.value(beyond) == math.inf


def test_a_small_ball_holds_what_is_rounded_below_the_normal_numbers() -> None:
    ball = constraints.L2Ball(40 * torch.finfo(torch.float16).smallest_normal * torch.finfo(torch.float16).eps)
    w = normal(1000, Key(29)).half()
    at = ball.prox(w, 1.0)
    assert at.any()
    assert ball.value(at) == 0
    assert ball.value(4 * at) == math.inf


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: constraints.MaxNorm(torch.ones(2)), r"MaxNorm\(limit\)"),  # type: ignore[arg-type]
        (lambda: constraints.L1Ball(torch.ones(2)), r"L1Ball\(radius\)"),  # type: ignore[arg-type]
        (lambda: constraints.L2Ball(torch.ones(1)), r"L2Ball\(radius\)"),  # type: ignore[arg-type]
        (lambda: constraints.LinfBall(torch.ones(2, 3)), r"LinfBall\(radius\)"),  # type: ignore[arg-type]
        (lambda: constraints.Simplex(torch.ones(2)), r"Simplex\(total\)"),  # type: ignore[arg-type]
        (lambda: constraints.Interval("a", "b"), "expected numbers low <= high"),  # type: ignore[arg-type]
        (lambda: constraints.Interval(0.0, torch.ones(2)), "expected numbers low <= high"),  # type: ignore[arg-type]
        (lambda: Towards(3), "expected a penalty"),  # type: ignore[arg-type]
        (lambda: torch.tensor([1.0, 2.0]) * MCP(1.0), "multiplied by a tensor of shape"),
        (lambda: SCAD(1.0) * torch.ones(1), "multiplied by a tensor of shape"),
        (lambda: conventions.from_weight_decay(torch.tensor(0.1)), "weight_decay was given a tensor"),  # type: ignore[arg-type]
        (lambda: conventions.from_keras(l2=torch.ones(2)), "l2 was given a tensor"),  # type: ignore[arg-type]
        (lambda: conventions.from_lasso(torch.ones(2)), "alpha was given a tensor"),  # type: ignore[arg-type]
        (lambda: conventions.from_logistic_c(torch.ones(2), 10), "c was given a tensor"),  # type: ignore[arg-type]
    ],
)
def test_what_a_penalty_cannot_be_made_of_is_refused(make: Callable[[], object], match: str) -> None:
    with pytest.raises(wp.WellposedError, match=match):
        make()


def test_a_number_in_a_tensor_is_a_number() -> None:
    half: Any = torch.tensor(0.5)
    w = torch.tensor([3.0, 4.0])
    torch.testing.assert_close(constraints.L2Ball(half).prox(w, 1.0), torch.tensor([0.3, 0.4]))
    assert (half * MCP(1.0)).value(w) == 0.5 * MCP(1.0).value(w)


@pytest.mark.parametrize("factor", [-1.0, float("nan")])
def test_what_is_no_factor_is_refused(factor: float) -> None:
    with pytest.raises(wp.WellposedError, match="factor"):
        factor * L1(0.1)
    with pytest.raises(TypeError):
        "2" * L1(0.1)


def test_sums_take_their_simplest_form() -> None:
    assert L1(0.1) + L2(0.2) == ElasticNet(0.1, 0.2)
    assert L2(0.25) + L1(0.5) + L1(0.25) + L2(0.5) == ElasticNet(0.75, 0.75)
    assert ElasticNet(0.5, 0.25) + ElasticNet(0.25, 0.5) == ElasticNet(0.75, 0.75)
    assert sum([L1(0.5), L1(0.25)]) == L1(0.75)
    assert L1(0.5) + L2(0.25) != L1(0.5)
    assert {L1(0.5): "a"}[L1(0.5)] == "a"


def test_complex_weights_shrink_in_modulus_and_keep_their_phase() -> None:
    w = torch.complex(normal(6, Key(3), dtype=torch.float64), normal(6, Key(4), dtype=torch.float64)).requires_grad_()
    moved = L1(0.5).prox(w, 1.0)
    torch.testing.assert_close(moved.abs(), (w.detach().abs() - 0.5).clamp(min=0))
    alive = moved.abs() > 0
    assert alive.any()
    assert not alive.all()
    torch.testing.assert_close(moved[alive].angle(), w.detach()[alive].angle())
    for penalty in (L1(0.5), L2(0.5), ElasticNet(0.5, 0.25)):
        value = penalty.value(w)
        assert not value.is_complex()
        (wanted,) = torch.autograd.grad(value, w)
        torch.testing.assert_close(penalty.grad(w), wanted)


@rows(prox=True, gradient=True)
def test_kkt_is_zero_at_the_optimum_and_only_there(case: Case) -> None:
    # For the loss 1/2 ||w - a||^2, the prox of a is the optimum.
    a = case.weight()
    w = case.penalty.prox(a, 1.0)
    assert float(case.penalty.kkt(w, w - a)) < 1e-9
    assert float(case.penalty.kkt(w + 0.1, w + 0.1 - a)) > 1e-3


@pytest.mark.parametrize("shape", [(2, 3), (3, 2)])
def test_kkt_of_a_smooth_penalty_without_a_prox_is_the_gradient_of_the_whole(shape: tuple[int, int]) -> None:
    w = normal(shape, Key(30), dtype=torch.float64)
    for penalty in (SoftOrthogonality(0.3), SoftOrthogonality(0.3) + Huber(0.2)):
        assert float(penalty.kkt(w, -penalty.grad(w))) == 0
        assert float(penalty.kkt(w, 1 - penalty.grad(w), 0.1)) == pytest.approx(1.0)


@pytest.mark.parametrize("step", [0.1, 1.0])
def test_kkt_is_the_distance_of_the_gradient_from_the_subgradients(step: float) -> None:
    for w, grad, wanted in ((2.0, 0.5, 0.8), (-2.0, 0.5, 0.2), (0.0, 0.5, 0.2), (0.0, -0.3, 0.0)):
        at, slope = torch.tensor([[w, 0.0], [grad, 0.1]], dtype=torch.float64)
        assert float(L1(0.3).kkt(at, slope, step)) == pytest.approx(wanted)


KERNELS = {"l1": L1(0.3), "l2": L2(0.2), "elastic-net": ElasticNet(0.3, 0.2), "none": L1(0.0)}


@pytest.mark.parametrize("penalty", KERNELS.values(), ids=KERNELS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [0, 1, 7, 4097, 2**18, 300_001])
@pytest.mark.parametrize("threads", [1, 3])
def test_kernels_do_what_the_formulas_do(penalty: Penalty, dtype: torch.dtype, size: int, threads: int) -> None:
    torch.set_num_threads(threads)
    w, g = normal(size, Key(1), dtype=dtype), normal(size, Key(2), dtype=dtype)
    second = normal(size, Key(3), dtype=dtype).square()
    close: Any = {"rtol": 4 * torch.finfo(dtype).eps, "atol": 4 * torch.finfo(dtype).eps}
    assert are_alike(w, g, second)
    for step in (0.7, RootStep(0.05, second, 1.3, 1e-8)):
        wanted = penalty.prox(w, step.tensor() if isinstance(step, RootStep) else step)
        moved = w.clone()
        version = moved._version
        assert take_steps_([ProxStep(penalty, moved, step)]) == [False]
        assert moved._version > version
        torch.testing.assert_close(moved, wanted, **close)
        if size:
            moved = w.clone()
            moved[-1] = torch.nan
            assert take_steps_([ProxStep(penalty, moved, step)]) == [True]
            assert moved[-1].isnan()
            torch.testing.assert_close(moved[:-1], wanted[:-1], **close)
    total = g.clone()
    value = penalty.accumulate_(w, total, -0.5)
    torch.testing.assert_close(value, penalty.value(w.double()).to(dtype), rtol=1e-6, atol=0)
    torch.testing.assert_close(total, g - 0.5 * penalty.grad(w), **close)
    assert not add_gradients_([Push(penalty, w, g.clone(), 1.0)])[0].bad
    for spoilt in (w, g) if size else ():
        spoilt[size // 2] = torch.nan
        assert add_gradients_([Push(penalty, w, g.clone(), 1.0)])[0].bad
        spoilt[size // 2] = 0.5


@rows(gradient=True)
def test_accumulating_adds_the_gradient_and_returns_the_value(case: Case) -> None:
    w, g = case.weight(), case.weight(1)
    total = g.clone()
    value = case.penalty.accumulate_(w, total, 3.0)
    torch.testing.assert_close(value, case.penalty.value(w))
    torch.testing.assert_close(total, g + 3 * case.penalty.grad(w))


def test_kernels_take_channels_last_and_leave_other_layouts_to_the_formulas() -> None:
    w = normal((2, 3, 4, 5), Key(1))
    last = w.to(memory_format=torch.channels_last)
    assert are_alike(last)
    assert not are_alike(last, w)
    assert not are_alike(w[..., ::2])
    assert not are_alike(torch._neg_view(w))
    assert L1(0.3).prox_(last.clone(memory_format=torch.preserve_format), 1.0).equal(L1(0.3).prox(w, 1.0))


def test_sums_do_not_depend_on_the_threads() -> None:
    weights = [normal(n, Key(n)) for n in (600_001, 1, 2**18, 300_000)]

    def added(threads: int) -> list[Added]:
        torch.set_num_threads(threads)
        return add_gradients_([Push(ElasticNet(0.3, 0.1), w, torch.zeros_like(w), 1.0) for w in weights])

    assert len({tuple(added(threads)) for threads in (1, 2, 3, 4)}) == 1


def test_many_tensors_in_one_pass_are_each_done_alone() -> None:
    torch.set_num_threads(3)
    sizes = (5, 0, 200_000, 70_001, 1, 130_000)
    weights = [normal(n, Key(n), dtype=torch.float64 if n % 2 else torch.float32) for n in sizes]
    weights.append(normal((4, 6), Key(1))[:, ::2])
    moved = [w.clone() for w in weights]
    moved[3][7] = torch.nan
    seen = take_steps_([ProxStep(ElasticNet(0.3, 0.1), w, 0.1 * (i + 1)) for i, w in enumerate(moved)])
    assert seen == [False, False, False, True, False, False, False]
    for i, (w, m) in enumerate(zip(weights, moved, strict=True)):
        wanted = ElasticNet(0.3, 0.1).prox(w, 0.1 * (i + 1))
        alive = ~m.isnan()
        torch.testing.assert_close(m[alive], wanted[alive])
        assert int((~alive).sum()) == (i == 3)
    assert take_steps_([]) == []
