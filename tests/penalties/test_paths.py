"""Paths of fits over strengths, against scikit-learn's."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import Lasso, Ridge, lasso_path
from torch import Tensor, nn

import wellposed as wp
from penalty_tools import SCALED, N, X, Y, filled
from wellposed.penalties import L1, L2, ElasticNet, GroupLasso

DATA = torch.from_numpy(X), torch.from_numpy(Y)[:, None] + 152.0


def half_mean_square(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs - targets).square().mean() / 2


def linear(bias: bool) -> Callable[[], nn.Module]:
    return lambda: nn.Linear(10, 1, bias=bias, dtype=torch.float64)


def nesterov(parameters: Any) -> torch.optim.Optimizer:
    torch.set_num_threads(1)
    return torch.optim.SGD(parameters, lr=0.2, momentum=0.9, nesterov=True)


@pytest.mark.parametrize("bias", [True, False])
def test_the_path_of_the_lasso_is_scikit_learns_from_the_first_weight_on(bias: bool) -> None:
    # A column that is not centred makes the greatest strength depend on the bias.
    data = (DATA[0] + 0.5 * torch.eye(10)[3], DATA[1]) if bias else (DATA[0], torch.from_numpy(Y)[:, None])
    fits = wp.regularization_path(
        linear(bias), data, L1(1.0), 8, loss=half_mean_square, optimizer=nesterov, validation=data, tolerance=1e-10
    )
    assert fits.lambdas[0] == pytest.approx(abs(X.T @ Y).max() / len(Y), rel=1e-6)
    assert fits.zeros[0] == 10
    for i, lam in enumerate(fits.lambdas):
        peer = Lasso(alpha=lam, fit_intercept=bias, tol=1e-14, max_iter=100_000)
        peer.fit(data[0].numpy(), data[1].numpy()[:, 0])
        found = fits.coefficients["weight"][i, 0].numpy()
        np.testing.assert_array_equal(found == 0, peer.coef_ == 0)
        np.testing.assert_allclose(found, peer.coef_, rtol=1e-5)
        assert fits.zeros[i] == (peer.coef_ == 0).sum()
        if bias:
            assert float(fits.states[i]["bias"]) == pytest.approx(peer.intercept_, rel=1e-6)
    assert fits.zeros == sorted(fits.zeros, reverse=True)
    assert max(fits.kkt) <= 1e-8 * fits.lambdas[0]
    assert fits.validation == fits.train
    assert fits.best == len(fits.lambdas) - 1


def shifted(columns: Tensor, by: float) -> Tensor:
    columns = columns.clone()
    columns[:, 3] += by
    return columns


RAW = torch.from_numpy(SCALED[0])
TARGETS = torch.from_numpy(SCALED[1])[:, None]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(
    ("inputs", "targets"),
    [
        (DATA[0], TARGETS),
        (RAW, TARGETS),
        (shifted(DATA[0], 5.0), TARGETS),
        (DATA[0], 1e5 * TARGETS),
        (1e4 * DATA[0], TARGETS),
        (1e-2 * DATA[0], TARGETS),
    ],
    ids=["standardised", "raw", "one-column-not-centred", "large-targets", "large-inputs", "small-inputs"],
)
def test_a_path_by_its_own_steps_is_scikit_learns(inputs: Tensor, targets: Tensor, dtype: torch.dtype) -> None:
    torch.set_num_threads(1)
    narrow = dtype == torch.float32
    data = inputs.to(dtype), targets.to(dtype)
    fits = wp.regularization_path(lambda: nn.Linear(10, 1, dtype=dtype), data, L1(1.0), 8)
    x, y = (inputs - inputs.mean(0)).numpy(), (targets - targets.mean()).numpy()[:, 0]
    slack = 200 * torch.finfo(dtype).eps if narrow else 1e-8
    assert fits.lambdas[0] == pytest.approx(2 * abs(x.T @ y).max() / len(y), rel=slack)
    # The first strength is a hair more than the least that holds all at zero.
    _, wanted, _ = lasso_path(x, y, alphas=np.array(fits.lambdas) / 2, tol=1e-14, max_iter=100_000)
    found = fits.coefficients["weight"][:, 0].double().numpy()
    np.testing.assert_array_equal(found == 0, wanted.T == 0)
    assert fits.zeros[0] == 10
    # In float32 a residual of 64 eps counts as 0, which moves the weights by as much over the least curvature.
    least = float(np.linalg.eigvalsh(2 * x.T @ x / len(y))[0])
    off = 64 * torch.finfo(dtype).eps * fits.lambdas[0] / least if narrow else 0.0
    np.testing.assert_allclose(found, wanted.T, rtol=1e-5, atol=off)
    means = inputs.mean(0).numpy()
    biases = [float(state["bias"]) for state in fits.states]
    np.testing.assert_allclose(biases, float(targets.mean()) - means @ wanted, rtol=1e-5, atol=abs(means).sum() * off)


def test_a_path_by_its_own_steps_fits_logistic_regression() -> None:
    torch.set_num_threads(1)
    columns, labels = load_breast_cancer(return_X_y=True)
    columns = (columns - columns.mean(0)) / columns.std(0)
    data = torch.from_numpy(columns), torch.from_numpy(labels).double()[:, None]
    fits = wp.regularization_path(
        lambda: nn.Linear(30, 1, dtype=torch.float64),
        data,
        L1(1.0),
        4,
        loss=nn.functional.binary_cross_entropy_with_logits,
        smallest=0.02,
    )
    odd = labels - labels.mean()
    assert fits.lambdas[0] == pytest.approx(abs(columns.T @ odd).max() / len(labels), rel=1e-8)
    assert fits.zeros[0] == 30
    for lam, weight, state in zip(fits.lambdas, fits.coefficients["weight"], fits.states, strict=True):
        # The conditions of optimality, computed by hand.
        scores = columns @ weight[0].numpy() + float(state["bias"])
        off = 1 / (1 + np.exp(-scores)) - labels
        pull = columns.T @ off / len(labels)
        alive = weight[0].numpy() != 0
        assert abs(off.mean()) <= 1e-8
        np.testing.assert_allclose(pull[alive], -lam * np.sign(weight[0].numpy()[alive]), rtol=1e-6)
        assert (abs(pull[~alive]) <= lam).all()


class Net(nn.Module):
    """Two layers, which no convex solver serves; the second stays, else it could grow while the first shrinks."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(10, 6, dtype=torch.float64), nn.Linear(6, 1, dtype=torch.float64)
        filled(self)
        self.second.weight.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.second(torch.tanh(self.first(x)))
        return out


@pytest.mark.parametrize("penalty", [L1(1.0), GroupLasso(1.0), wp.penalties.MCP(1.0), wp.penalties.NuclearNorm(1.0)])
def test_a_path_by_its_own_steps_serves_other_models_and_penalties(penalty: Any) -> None:
    torch.set_num_threads(1)
    data = DATA[0], (TARGETS - TARGETS.mean()) / TARGETS.std()
    fits = wp.regularization_path(Net, data, penalty, 4, where="first.weight", tolerance=1e-5, smallest=0.1)
    assert fits.zeros[0] == 60
    assert fits.train[-1] < 0.7 * fits.train[0]
    assert max(fits.kkt) <= 1e-4 * fits.lambdas[0]


def test_what_stays_at_zero_throughout_is_refused() -> None:
    def net() -> nn.Module:
        return filled(nn.Sequential(nn.Linear(10, 6), nn.Tanh(), nn.Linear(6, 1)).double())

    with pytest.raises(wp.WellposedError, match="first layer"):
        wp.regularization_path(net, DATA, L1(1.0), 4)


def test_a_fit_that_is_not_stationary_is_named() -> None:
    with pytest.warns(
        RuntimeWarning, match=r"at strengths 1000 \(residual .*, 5 \(residual .*, 1 \(residual"
    ) as caught:
        fits = wp.regularization_path(linear(True), DATA, L1(1.0), [1e3, 5.0, 1.0], steps=1)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert max(fits.kkt) > 1e-3


def test_each_fit_starts_where_the_last_one_ended() -> None:
    steps: list[int] = []

    def counted(parameters: Any) -> torch.optim.Optimizer:
        optimizer = nesterov(parameters)
        at = len(steps)
        steps.append(0)
        optimizer.register_step_post_hook(lambda *_: steps.__setitem__(at, steps[at] + 1))
        return optimizer

    wp.regularization_path(linear(False), DATA, L1(1.0), [10.0, 10.0], optimizer=counted)
    assert steps[-2] > 0
    assert steps[-1] == 0


def test_what_is_not_penalised_counts_in_the_residual() -> None:
    with pytest.warns(RuntimeWarning, match=r"not stationary.*at strengths 1e\+06 \(residual"):
        fits = wp.regularization_path(
            linear(True), DATA, L1(1.0), [1e6], loss=half_mean_square, optimizer=nesterov, steps=3
        )
    assert fits.zeros == [10]
    assert fits.kkt[0] == pytest.approx(abs(float(fits.states[0]["bias"]) - 152.0), rel=1e-6)


def test_a_path_draws_and_writes_itself() -> None:
    fits = wp.regularization_path(linear(True), DATA, ElasticNet(1.0, 0.1), [10.0, 30.0, 1.0])
    assert fits.lambdas == [30.0, 10.0, 1.0]
    drawn = fits.plot(most=4)
    assert len(drawn.axes[0].lines) == 4
    assert json.loads(json.dumps(fits.to_dict()))["zeros"] == fits.zeros
    with pytest.raises(wp.WellposedError, match="without validation"):
        _ = fits.best


class Shift(nn.Module):
    """Adds 1 in training, as dropout adds noise."""

    def forward(self, x: Tensor) -> Tensor:
        return x + 1 if self.training else x


def test_scores_are_taken_in_evaluation_mode() -> None:
    data = DATA[0], torch.from_numpy(Y)[:, None]
    fits = wp.regularization_path(
        lambda: nn.Sequential(linear(False)(), Shift()), data, L1(1.0), [1e3], optimizer=nesterov, steps=9
    )
    assert fits.zeros == [10]
    assert fits.train[0] == pytest.approx((Y**2).mean())


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"penalty": L2(1.0)}, "no lambda_max"),
        ({"lambdas": 1}, "at least 2"),
        ({"lambdas": True}, "at least 2"),
        ({"lambdas": []}, "at least 2, or the strengths in a list"),
        ({"lambdas": 3.5}, "at least 2, or the strengths in a list"),
        ({"lambdas": "12"}, "at least 2, or the strengths in a list"),
        ({"tolerance": 0.0}, r"tolerance=0\.0"),
        ({"model_fn": lambda: nn.Sequential(linear(False)(), nn.Dropout(0.5)), "optimizer": None}, "without chance"),
        ({"lambdas": [-1.0]}, "lambdas"),
        ({"steps": 0}, "steps=0"),
        ({"loss": lambda outputs, targets: (outputs - targets).square()}, "scalar"),
        ({"data": (DATA[0], torch.zeros_like(DATA[1]))}, "no gradient"),
    ],
)
def test_what_makes_no_sense_is_refused(given: dict[str, Any], match: str) -> None:
    arguments = {"model_fn": linear(False), "data": DATA, "penalty": L1(1.0), "optimizer": nesterov, **given}
    with pytest.raises(wp.WellposedError, match=match):
        wp.regularization_path(**arguments)


@pytest.mark.parametrize(
    ("penalty", "wanted"),
    [
        (L1(0.5), 6.0),
        (ElasticNet(0.5, 3.0), 6.0),
        (GroupLasso(2.0, groups="columns"), 1.5),
        (wp.penalties.MCP(1.5), 2.0),
        (wp.penalties.NuclearNorm(1.0), 3.0),
    ],
)
def test_lambda_max_is_where_zero_stops_being_stationary(penalty: Any, wanted: float) -> None:
    gradient = torch.tensor([[3.0, 0.0], [0.0, -1.0]])
    found = penalty.lambda_max(gradient)
    assert found == pytest.approx(wanted, rel=1e-9)
    assert not penalty.prox(-gradient.double() / 1024, found / 1024).any()
    assert penalty.lambda_max(torch.zeros(2, 2)) == 0


@pytest.mark.parametrize(
    ("penalty", "slope"),
    [
        (wp.penalties.MCP(1.0), 1.0),
        (wp.penalties.MCP(1.0, gamma=1e-4), 1.0),
        (wp.penalties.SCAD(2.0), 2.0),
        (wp.penalties.MCP(torch.tensor([1.0, 0.5])), 1.0),
        (wp.penalties.GroupMCP(1.0, groups="all"), 1.0),
        (3.0 * wp.penalties.MCP(1.0), 3.0),
        (wp.penalties.MCP(1.0) + L2(0.5), 1.0),
        (wp.penalties.MCP(1.0) + wp.penalties.GroupMCP(2.0, groups="all"), 3.0),
        (L1(0.5), 0.5),
    ],
)
@pytest.mark.parametrize("size", [1e-8, 1.0, 100.0, 1e3, 1e4, 1e12])
def test_lambda_max_counts_the_slope_at_zero_alone(penalty: Any, slope: float, size: float) -> None:
    assert penalty.lambda_max(torch.tensor([size, 0.0])) == pytest.approx(size / slope, rel=1e-6)


@pytest.mark.parametrize(
    ("penalty", "gradient", "match"),
    [
        (wp.penalties.LHalf(1.0), 1.0, "finite slope"),
        (wp.penalties.LHalf(1.0) + L1(1.0), 1.0, "finite slope"),
        (wp.penalties.L0(1.0), 1.0, "finite slope"),
        (wp.constraints.Interval(-1.0, 1.0), 1.0, "finite slope"),
        (L1(1.0), float("nan"), "NaN or infinity"),
        (L1(1.0), float("inf"), "NaN or infinity"),
    ],
)
def test_lambda_max_that_there_is_not_is_refused(penalty: Any, gradient: float, match: str) -> None:
    with pytest.raises(wp.WellposedError, match=match):
        penalty.lambda_max(torch.tensor([gradient, 0.0]))


def test_strengths_that_are_given_need_no_largest_one() -> None:
    """A ridge holds nothing at zero, and so has no strength to start from."""
    x, y = torch.from_numpy(X), torch.from_numpy(Y)[:, None]
    strengths = [10.0, 1.0, 0.1]
    fits = wp.regularization_path(linear(True), (x, y), L2(1.0), strengths)
    for lam, w in zip(strengths, fits.coefficients["weight"], strict=True):
        np.testing.assert_allclose(w[0].numpy(), Ridge(alpha=lam * N).fit(X, Y).coef_, rtol=1e-6)
    with pytest.raises(wp.WellposedError, match="no multiple"):
        wp.regularization_path(linear(True), (x, y), L2(1.0), 3)
