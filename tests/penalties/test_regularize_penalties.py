"""Each kind of penalty at work: optima that others compute, starting weights, groups under a diagonal metric."""

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import Lasso, MultiTaskLasso
from torch import nn

import wellposed as wp
from penalty_tools import N, X, Y, fit, linear, network, state, step
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
    Heads,
    LHalf,
    NuclearNorm,
    Penalty,
    SparseGroupLasso,
    Towards,
    constraints,
    regularize,
)
from wellposed.penalties.optim.complexes import as_real
from wellposed.random import Key, normal

SGD, Adam = torch.optim.SGD, torch.optim.Adam
OPTIMIZERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "sgd": (SGD, {"lr": 0.2, "momentum": 0.9, "nesterov": True}),
    "adam": (Adam, {"lr": 0.5}),
}


@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize("alpha", [0.3, 8.0])
def test_group_lasso_over_columns_is_scikit_learns_multi_task_lasso(kind: str, alpha: float) -> None:
    mixing = normal((10, 3), Key(7), dtype=torch.float64).numpy()
    targets = Y[:, None] * [1.0, 0.5, -0.2] + X @ mixing * 3
    targets -= targets.mean(0)
    wanted = MultiTaskLasso(alpha=alpha, fit_intercept=False, tol=1e-14, max_iter=100_000).fit(X, targets).coef_
    x, y = torch.from_numpy(X), torch.from_numpy(targets)
    w = nn.Parameter(torch.zeros(3, 10, dtype=torch.float64))
    torch.set_num_threads(1)
    make, options = OPTIMIZERS[kind]
    optimizer = make([w], **options)
    regularize(optimizer, [("w", w)], GroupLasso(alpha, groups="columns"))
    for _ in range(4000):
        w.grad = (x @ w.detach().T - y).T @ x / N
        optimizer.step()
    found = w.detach().numpy()
    np.testing.assert_array_equal(found == 0, wanted == 0)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-7 * abs(wanted).max())
    assert (wanted == 0).any() == (alpha == 8.0)


@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize("penalty", [MCP(5.0, gamma=3.0), SCAD(5.0, a=3.7), AdaptiveL1(8.0, reference=torch.ones(10))])
def test_stationary_points_satisfy_the_kkt_conditions(kind: str, penalty: Penalty) -> None:
    # Where there are several stationary points, momentum and long steps jump between them.
    if kind == "sgd":
        w = fit(penalty, lambda p: SGD(p, lr=0.2), steps=8000)
    else:
        w = fit(penalty, lambda p: Adam(p, lr=2.0), steps=8000, decay=0.999)
    x, y = torch.from_numpy(X), torch.from_numpy(Y)
    gradient = x.T @ (x @ w - y) / N
    assert float(penalty.kkt(w, gradient, step=0.1)) < 1e-7
    assert (w == 0).any()


@pytest.mark.parametrize("step", [0.3, 1.0, 1.7, 2.5, 6.0])
@pytest.mark.parametrize("penalty", [L0(0.6), LHalf(0.7), MCP(0.8, gamma=1.5), SCAD(0.6, a=2.6)], ids=repr)
def test_the_prox_of_what_is_not_convex_is_the_best_of_all_numbers(penalty: Penalty, step: float) -> None:
    w = torch.linspace(-6, 6, 401, dtype=torch.float64)
    x = torch.linspace(-6.5, 6.5, 5201, dtype=torch.float64)
    at, omega = penalty.prox(w, step), torch.vmap(penalty.value)
    best = (at - w).square() / (2 * step) + omega(at)
    assert (best <= ((x - w[:, None]).square() / (2 * step) + omega(x)).amin(1) + 1e-12).all()


def test_groups_count_alike_or_with_the_root_of_their_size() -> None:
    w = torch.tensor([[3.0, 1.0], [4.0, 0.0]])
    labels = torch.tensor([[0, 1], [0, 0]])
    for groups, alike, root in (
        ("columns", 6.0, 6 * 2**0.5),
        ("all", 26**0.5, 2 * 26**0.5),
        (labels, 6.0, 1 + 5 * 3**0.5),
    ):
        assert float(GroupLasso(0.5, groups).value(w)) == pytest.approx(0.5 * alike)
        assert float(GroupLasso(0.5, groups, root_size=True).value(w)) == pytest.approx(0.5 * root)
        assert float(SparseGroupLasso(0.1, 0.5, groups, root_size=True).value(w)) == pytest.approx(0.8 + 0.5 * root)
        assert float(GroupMCP(0.5, 1e9, groups, root_size=True).value(w)) == pytest.approx(0.5 * root)


def test_heads_are_blocks_of_every_stack() -> None:
    w = torch.tensor([[1.0], [2.0], [3.0], [4.0]])
    for groups, at, wanted in (
        (Heads(2, packed=2), w, 10**0.5 + 20**0.5),
        (Heads(2), w, 5**0.5 + 25**0.5),
        (Heads(4, dim=1), w.T, 10.0),
    ):
        assert float(GroupLasso(1.0, groups).value(at)) == pytest.approx(wanted)


def test_labels_that_change_are_counted_again() -> None:
    labels, w = torch.tensor([0, 0]), torch.tensor([3.0, 4.0])
    assert float(GroupLasso(1.0, labels).value(w)) == 5
    labels[1] = 1
    assert float(GroupLasso(1.0, labels).value(w)) == 7


@pytest.mark.parametrize("penalty", [L1(0.3), L2(0.2), ElasticNet(0.3, 0.2)], ids=["l1", "l2", "elastic-net"])
def test_complex_weights_cost_the_same_as_pairs_of_real_ones(penalty: Penalty) -> None:
    w = torch.complex(normal((2, 3), Key(1)), normal((2, 3), Key(2)))
    pairs = as_real(penalty, w.ndim)
    assert pairs is not None
    torch.testing.assert_close(pairs.value(torch.view_as_real(w)), penalty.value(w))
    moved = pairs.prox(torch.view_as_real(w), 0.5)
    torch.testing.assert_close(moved, torch.view_as_real(penalty.prox(w, 0.5)))


@pytest.mark.parametrize("power", [1.0, 0.5])
def test_adaptive_l1_is_the_lasso_of_rescaled_columns(power: float) -> None:
    pilot = torch.from_numpy(np.linalg.lstsq(X, Y)[0])
    w = fit(AdaptiveL1(40.0, power, reference=pilot, eps=1e-3), lambda p: Adam(p, lr=0.5), 4000).numpy()
    scale = (pilot.abs() + 1e-3).numpy() ** power
    wanted = Lasso(alpha=40.0, fit_intercept=False, tol=1e-14, max_iter=100_000).fit(X * scale, Y).coef_ * scale
    np.testing.assert_array_equal(w == 0, wanted == 0)
    np.testing.assert_allclose(w, wanted, rtol=1e-5)


def test_towards_takes_the_starting_weights_and_keeps_them_in_its_state() -> None:
    model = network()
    start = state(model)
    optimizer = SGD(model.parameters(), lr=0.1)
    handle = regularize(optimizer, model, Towards(L2(0.5)))
    assert handle.value() == 0
    for _ in range(3):
        step(model, optimizer)
    moved = sum(0.5 * float((linear(model, k).weight.detach() - start[f"{k}.weight"]).square().sum()) for k in (0, 3))
    assert handle.value() == pytest.approx(moved)
    saved = copy.deepcopy((model.state_dict(), handle.state_dict()))

    later = network()
    later.load_state_dict(saved[0])
    again = regularize(SGD(later.parameters(), lr=0.1), later, Towards(L2(0.5)))
    assert again.value() == 0
    again.load_state_dict(saved[1])
    assert again.value() == handle.value()


def test_towards_without_a_reference_is_refused() -> None:
    with pytest.raises(wp.WellposedError, match="no reference"):
        Towards(L2(0.1)).value(torch.ones(2))
    with pytest.raises(wp.WellposedError, match="same shape"):
        Towards(L2(0.1), torch.ones(3)).value(torch.ones(2))


def test_l2_towards_given_weights_has_its_closed_form() -> None:
    prior = torch.linspace(-3, 3, 10, dtype=torch.float64)
    w = fit(Towards(L2(0.2), prior), lambda p: SGD(p, lr=0.2, momentum=0.9), 3000)
    x, y = torch.from_numpy(X), torch.from_numpy(Y)
    wanted = torch.linalg.solve(x.T @ x / N + 0.4 * torch.eye(10), x.T @ y / N + 0.4 * prior)
    torch.testing.assert_close(w, wanted)


@pytest.mark.parametrize(
    ("penalty", "holds"),
    [
        (constraints.MaxNorm(0.4), lambda w: (w.norm(dim=1) <= 0.4 + 1e-6).all()),
        (constraints.UnitNorm(), lambda w: (w.norm(dim=1) - 1).abs().max() < 1e-6),
        (constraints.NonNegative(), lambda w: (w >= 0).all()),
        (constraints.Simplex(), lambda w: (w >= 0).all() and (w.sum(1) - 1).abs().max() < 1e-6),
        (constraints.Stiefel(), lambda w: (w.T @ w if w.shape[0] > w.shape[1] else w @ w.T).std() < 0.6),
    ],
)
def test_constraints_hold_after_every_step(penalty: Penalty, holds: Any) -> None:
    model = network()
    optimizer = SGD(model.parameters(), lr=0.3, momentum=0.5)
    handle = regularize(optimizer, model, penalty)
    for _ in range(5):
        step(model, optimizer)
        assert all(holds(linear(model, k).weight.detach()) for k in (0, 3))
    assert handle.value() == 0


def test_unit_norm_makes_equal_weights_of_a_group_of_zeros() -> None:
    assert constraints.UnitNorm().prox(torch.zeros(2, 4), 1.0).equal(torch.full((2, 4), 0.5))


def test_non_negative_least_squares_under_adam() -> None:
    from scipy.optimize import nnls

    w = fit(constraints.NonNegative(), lambda p: Adam(p, lr=0.5), 4000).numpy()
    np.testing.assert_allclose(w, nnls(X, Y)[0], rtol=1e-5, atol=1e-8)


def test_a_prox_for_one_step_size_is_refused_under_a_diagonal_metric_unless_the_metric_is_named() -> None:
    model = network()
    optimizer = Adam(model.parameters(), lr=0.1)
    for penalty, other in ((NuclearNorm(0.1), ", or mode='gradient'"), (constraints.MaxNorm(1.0), "")):
        ways = f"one step size only.*use SGD, or metric='euclidean' for one step size{other}$"
        with pytest.raises(wp.WellposedError, match=ways):
            regularize(optimizer, model, penalty)
    regularize(optimizer, model, constraints.MaxNorm(0.1), metric="euclidean")
    step(model, optimizer)
    assert (linear(model, 0).weight.detach().norm(dim=1) <= 0.1 + 1e-6).all()


def test_constraints_are_refused_in_gradient_mode() -> None:
    model = network()
    with pytest.raises(wp.WellposedError, match="no gradient"):
        regularize(SGD(model.parameters(), lr=0.1), model, constraints.NonNegative(), mode="gradient")


@pytest.mark.parametrize(
    ("make", "lr"),
    [
        (SGD, 0.02),
        (Adam, 0.02),
        (torch.optim.AdamW, 0.02),
        (torch.optim.NAdam, 0.02),
        (torch.optim.RAdam, 0.02),
        (torch.optim.Adamax, 0.02),
        (torch.optim.RMSprop, 0.005),
        (torch.optim.Adagrad, 0.5),
    ],
)
def test_complex_weights(make: Any, lr: float) -> None:
    w = nn.Parameter(torch.complex(normal(8, Key(1)), normal(8, Key(2))))
    target = torch.where(torch.arange(8) < 4, 0.05, 3.0) * torch.exp(1j * torch.arange(8.0))
    optimizer = make([w], lr=lr, **({"weight_decay": 0.0} if make is torch.optim.AdamW else {}))
    regularize(optimizer, [("w", w)], L1(0.5), where="all")
    for _ in range(1500):
        w.grad = w.detach() - target
        optimizer.step()
    # The optimum of 1/2 |w - target|^2 + 0.5 |w| is the prox of the target.
    torch.testing.assert_close(w.detach(), L1(0.5).prox(target, 1.0), rtol=1e-3, atol=1e-4)
    assert (w.detach()[:4] == 0).all()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["mcp", "scad"])
@pytest.mark.parametrize("alpha", [5.0, 15.0])
def test_mcp_and_scad_equal_skglms_solutions(name: str, alpha: float) -> None:
    skglm = pytest.importorskip("skglm", exc_type=ImportError)
    peer, ours = {
        "mcp": (skglm.penalties.MCPenalty(alpha, 3.0), MCP(alpha, gamma=3.0)),
        "scad": (skglm.penalties.SCAD(alpha, 3.7), SCAD(alpha, a=3.7)),
    }[name]
    solver = skglm.solvers.AndersonCD(fit_intercept=False, tol=1e-12, max_iter=1000)
    wanted = skglm.GeneralizedLinearEstimator(skglm.datafits.Quadratic(), peer, solver).fit(X, Y).coef_.ravel()
    w = fit(ours, lambda p: SGD(p, lr=0.2), steps=8000).numpy()
    np.testing.assert_array_equal(w == 0, wanted == 0)
    np.testing.assert_allclose(w, wanted, rtol=1e-5)


@pytest.mark.parametrize("ends", [(1.0, 0.0), (float("nan"), 1.0), (0.0, float("nan")), ("low", "high")])
def test_an_interval_without_numbers_in_it_is_refused_by_its_name(ends: Any) -> None:
    with pytest.raises(
        wp.WellposedError, match=r"^Interval\(low=.*, high=.*\) was given; expected numbers low <= high"
    ):
        constraints.Interval(*ends)


def test_an_interval_may_be_open_on_a_side() -> None:
    w = torch.tensor([-5.0, 0.5, 7.0])
    assert constraints.Interval(-float("inf"), 1.0).prox(w, 1.0).tolist() == [-5.0, 0.5, 1.0]
    assert constraints.Interval(0.0, float("inf")).prox(w, 1.0).tolist() == [0.0, 0.5, 7.0]
    assert repr(constraints.Interval(-1.0, 1.0)) == "Interval(low=-1.0, high=1.0)"
    assert wp.constraints.Interval is constraints.Interval
    assert not hasattr(constraints, "Box")


@dataclass(frozen=True, eq=False, repr=False)
class Unfinished(Penalty):
    """A penalty of a user's that has a value alone."""

    def _value(self, w: torch.Tensor) -> torch.Tensor:
        return w.abs().sum()


@pytest.mark.parametrize(("mode", "missing"), [("proximal", "_prox"), ("gradient", "_grad")])
@pytest.mark.parametrize("penalty", [Unfinished(), Unfinished() + L2(0.1)], ids=repr)
def test_a_penalty_without_what_a_mode_takes_is_refused_before_anything_moves(
    penalty: Penalty, mode: Any, missing: str
) -> None:
    model = network()
    before = state(model)
    optimizer = SGD(model.parameters(), lr=0.1)
    with pytest.raises(wp.WellposedError, match=f"Unfinished has no {missing}; a penalty has to have one"):
        regularize(optimizer, model, penalty, mode=mode)
    step(model, optimizer, scale=0.0)
    assert all(p.equal(before[name]) for name, p in model.named_parameters())
    with pytest.raises(wp.WellposedError, match="Unfinished has no _prox"):
        Unfinished().prox(torch.ones(2), 1.0)


def test_what_is_no_penalty_is_told_how_to_be_one() -> None:
    class Alike:
        lam = 0.1

    model = network()
    with pytest.raises(wp.WellposedError, match=r"or one of your own that extends wp\.Penalty"):
        regularize(SGD(model.parameters(), lr=0.1), model, Alike())  # type: ignore[arg-type]
