"""A proximal step in each optimizer's own metric solves the penalised problem itself."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import Lasso
from torch import nn

import wellposed as wp
from penalty_tools import PEERS, N, X, Y, fit, linear, network, state, step
from wellposed.penalties import L1, L2, Huber, Penalty, regularize
from wellposed.penalties.computing.root_step import RootStep
from wellposed.penalties.optim.step_sizes import METRICS, metric_for
from wellposed.random import Key, normal

SGD = torch.optim.SGD

# Scaled methods take step sizes of the order of the weights.
OPTIMIZERS: dict[str, tuple[type[torch.optim.Optimizer], dict[str, Any]]] = {
    "adam": (torch.optim.Adam, {"lr": 1.0}),
    "adam-amsgrad": (torch.optim.Adam, {"lr": 1.0, "amsgrad": True}),
    "adam-fused": (torch.optim.Adam, {"lr": 1.0, "fused": True}),
    "adam-foreach": (torch.optim.Adam, {"lr": 1.0, "foreach": True}),
    "adamw": (torch.optim.AdamW, {"lr": 1.0, "weight_decay": 0.0}),
    "nadam": (torch.optim.NAdam, {"lr": 0.5}),
    "radam": (torch.optim.RAdam, {"lr": 1.0}),
    "adamax": (torch.optim.Adamax, {"lr": 1.0}),
    "rmsprop": (torch.optim.RMSprop, {"lr": 0.05, "momentum": 0.9}),
    "adagrad": (torch.optim.Adagrad, {"lr": 20.0}),
}


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (kind, name)
        for kind in OPTIMIZERS
        for name in PEERS
        if kind == "adam" or name in ("lasso-strong", "elastic-net")
    ],
)
def test_every_optimizer_reaches_scikit_learns_optimum_and_its_zeros(kind: str, name: str) -> None:
    optimizer, options = OPTIMIZERS[kind]
    penalty, peer = PEERS[name]
    w = fit(penalty, lambda p: optimizer(p, **options), steps=2500).numpy()
    wanted = peer.set_params(fit_intercept=False).fit(X, Y).coef_
    np.testing.assert_allclose(w, wanted, rtol=1e-5, atol=1e-7 * abs(wanted).max())
    if name != "ridge":
        np.testing.assert_array_equal(w == 0, wanted == 0)


def test_every_known_metric_is_tried() -> None:
    assert {optimizer for optimizer, _ in OPTIMIZERS.values()} | {SGD} == set(METRICS)


@pytest.mark.parametrize("options", [{}, {"centered": True}, {"momentum": 0.5}])
def test_rmsprops_step_sizes_are_its_own(options: dict[str, Any]) -> None:
    assert_metric(torch.optim.RMSprop, {"lr": 0.1, **options})


def test_adagrads_step_sizes_follow_its_decay() -> None:
    assert_metric(torch.optim.Adagrad, {"lr": 0.1, "lr_decay": 1.0})


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_step_sizes_are_what_the_optimizer_moves_by(kind: str) -> None:
    assert_metric(*OPTIMIZERS[kind])


def assert_metric(kind: type[torch.optim.Optimizer], options: dict[str, Any]) -> None:
    """Under a gradient that does not change any more, the optimizer settles on moving by D * gradient."""
    g = normal(7, Key(2), dtype=torch.float64)
    # What a centred RMSprop does with a gradient that does not change has no bound.
    wave = 0.5 * g if options.get("centered") else torch.zeros_like(g)
    w = nn.Parameter(torch.zeros(7, dtype=torch.float64))
    optimizer = kind([w], **options)
    metric = metric_for(optimizer, None)
    moved, wanted = torch.zeros_like(g), torch.zeros_like(g)
    for t in range(400):
        before = w.detach().clone()
        loud = 10 if options.get("amsgrad") and t < 20 else 1  # which AMSGrad remembers
        w.grad = loud * (g + wave * (-1) ** t)
        optimizer.step()
        sizes = metric.step(optimizer.param_groups[0], optimizer.state[w], w)
        if t >= 300:
            moved += before - w.detach()
            wanted += (sizes.tensor() if isinstance(sizes, RootStep) else sizes) * g
    torch.testing.assert_close(moved, wanted, rtol=2e-3, atol=0)


def test_a_threshold_of_lr_times_lambda_solves_another_problem() -> None:
    wanted = Lasso(alpha=20.0, fit_intercept=False, tol=1e-14).fit(X, Y).coef_
    x, y = torch.from_numpy(X), torch.from_numpy(Y)

    def train(naive: bool) -> np.ndarray:
        w = nn.Parameter(torch.zeros(10, dtype=torch.float64))
        optimizer = torch.optim.Adam([w], lr=1.0)
        if not naive:
            regularize(optimizer, [("w", w)], L1(20.0), where="all")
        for _ in range(2500):
            w.grad = x.T @ (x @ w.detach() - y) / N
            optimizer.step()
            if naive:
                L1(20.0).prox_(w, optimizer.param_groups[0]["lr"])
        found: np.ndarray = w.detach().numpy()
        return found

    np.testing.assert_allclose(train(naive=False), wanted, rtol=1e-5)
    naive = train(naive=True)
    assert abs(naive - wanted).max() > 0.2 * abs(wanted).max()
    assert ((naive == 0) != (wanted == 0)).any()


def test_decoupled_l2_is_adamws_weight_decay() -> None:
    def groups(model: nn.Sequential) -> list[dict[str, Any]]:
        return [{"params": model[0].parameters(), "lr": 0.02}, {"params": model[1:].parameters()}]

    model, counterpart = network(), network()
    ours = torch.optim.Adam(groups(model), lr=0.05)
    regularize(ours, model, L2(0.1), mode="decoupled", where="all")
    theirs = torch.optim.AdamW(groups(counterpart), lr=0.05, weight_decay=0.2)
    for _ in range(5):
        step(model, ours)
        step(counterpart, theirs)
    torch.testing.assert_close(state(model), state(counterpart))


def test_decoupled_needs_a_smooth_penalty() -> None:
    model = network()
    with pytest.raises(wp.WellposedError, match="not smooth"):
        regularize(SGD(model.parameters(), lr=0.1), model, L1(0.1), mode="decoupled")


class Scaler(torch.amp.GradScaler):
    """A gradient scaler for the CPU whose scale is known."""

    def __init__(self) -> None:
        super().__init__("cpu", init_scale=1024.0, growth_interval=1000)


@pytest.mark.parametrize("mode", ["gradient", "decoupled", "proximal"])
@pytest.mark.parametrize("options", [{}, {"fused": True}, {"foreach": True}])
@pytest.mark.parametrize("unscale", [False, True])
@pytest.mark.parametrize("kind", [SGD, torch.optim.Adam])
def test_a_gradient_scaler_changes_nothing_and_a_skipped_step_skips_the_penalty(
    mode: Any, options: dict[str, Any], unscale: bool, kind: Any
) -> None:
    model, counterpart = network(), network()
    ours, theirs = kind(model.parameters(), lr=0.05, **options), kind(counterpart.parameters(), lr=0.05)
    for optimizer, one in ((ours, model), (theirs, counterpart)):
        regularize(optimizer, one, L2(0.1), mode=mode)
    scaler = Scaler()
    x = torch.linspace(-1, 1, 24).view(6, 4)
    for t in range(4):
        overflow = t == 1
        ours.zero_grad()
        torch.autograd.backward(scaler.scale(model(x).square().mean()))
        if overflow:
            grad = linear(model, 0).weight.grad
            assert grad is not None
            grad[0, 0] = torch.inf
        kept = state(model)
        if unscale:
            scaler.unscale_(ours)
        scaler.step(ours)
        scaler.update()
        if overflow:
            assert all(kept[name].equal(p) for name, p in model.named_parameters())
        else:
            step(counterpart, theirs)
    torch.testing.assert_close(state(model), state(counterpart), rtol=1e-4, atol=1e-6)


def test_gradient_accumulation_penalises_once_a_step() -> None:
    model, counterpart = nn.Linear(4, 2), nn.Linear(4, 2)
    counterpart.load_state_dict(model.state_dict())
    ours, theirs = SGD(model.parameters(), lr=0.1), SGD(counterpart.parameters(), lr=0.1)
    regularize(ours, model, L2(0.3), mode="gradient")
    regularize(theirs, counterpart, L2(0.3), mode="gradient")
    x = torch.linspace(-1, 1, 24).view(6, 4)
    for part in (x[:2], x[2:4], x[4:]):
        torch.autograd.backward(model(part).square().sum() / 12)
    ours.step()
    torch.autograd.backward(counterpart(x).square().mean())
    theirs.step()
    torch.testing.assert_close(state(model), state(counterpart))


@pytest.mark.parametrize("kind", [SGD, torch.optim.Adam])
def test_a_learning_rate_in_a_tensor(kind: Any) -> None:
    model, counterpart = network(), network()
    ours, theirs = kind(model.parameters(), lr=torch.tensor(0.05)), kind(counterpart.parameters(), lr=0.05)
    for optimizer, one in ((ours, model), (theirs, counterpart)):
        regularize(optimizer, one, L1(0.1))
    for _ in range(3):
        step(model, ours)
        step(counterpart, theirs)
    torch.testing.assert_close(state(model), state(counterpart))


def test_a_schedule_in_a_tensor_is_read_at_each_step() -> None:
    model = network()
    optimizer = SGD(model.parameters(), lr=0.1)
    strength = torch.tensor(0.0)
    handle = regularize(optimizer, model, L1(100.0), schedule=strength)
    step(model, optimizer)
    assert handle.sparsity() == 0
    strength.fill_(1.0)
    step(model, optimizer)
    assert handle.sparsity() == 1


def test_nan_gradients_are_counted_and_reported() -> None:
    model = network()
    optimizer = SGD(model.parameters(), lr=0.1)
    handle = regularize(optimizer, model, L1(100.0))
    step(model, optimizer)
    assert handle.nan_steps() == {}
    grad = linear(model, 0).weight.grad
    assert grad is not None
    grad[0, 0] = torch.nan
    with pytest.warns(RuntimeWarning, match=r"'0\.weight' holds NaN after the optimizer's step 2"):
        optimizer.step()
    optimizer.step()
    assert handle.nan_steps() == {"0.weight": 2}
    assert int(linear(model, 0).weight.isnan().sum()) == 1
    report = handle.report()
    assert [(row.name, row.nan_steps) for row in report] == [("0.weight", 2), ("3.weight", 0)]
    assert "19 of 20" in str(report)
    assert report.to_dict()["step"] == 3


@pytest.mark.parametrize("penalty", [L2(0.1), Huber(0.1)], ids=["kernel", "formula"])
@pytest.mark.parametrize("mode", ["gradient", "decoupled"])
def test_nan_gradients_are_counted_where_nothing_is_done_after_the_step(mode: Any, penalty: Penalty) -> None:
    model = network()
    optimizer = SGD(model.parameters(), lr=0.1)
    handle = regularize(optimizer, model, penalty, mode=mode)
    step(model, optimizer)
    assert handle.nan_steps() == {}
    grad = linear(model, 3).weight.grad
    assert grad is not None
    grad[0, 0] = torch.nan
    with pytest.warns(RuntimeWarning, match=r"'3\.weight' has NaN in its gradient at the optimizer's step 2"):
        optimizer.step()
    assert handle.nan_steps() == {"3.weight": 1}
    assert linear(model, 3).weight[0, 0].isnan()


def test_the_report_adds_up_to_the_value() -> None:
    model = network()
    handle = regularize(SGD(model.parameters(), lr=0.1), model, L1(0.3), schedule=0.5)
    assert sum(row.value for row in handle.report()) == pytest.approx(handle.value())
    assert all(str(row.elements) in str(handle.report()) for row in handle.report())


@pytest.mark.parametrize("taken", [SGD, torch.optim.Adam], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize(
    "kind", [torch.optim.ASGD, torch.optim.Rprop, torch.optim.Adadelta, torch.optim.Adafactor], ids=lambda k: k.__name__
)
def test_a_metric_that_reads_what_is_not_there_is_refused_at_once(kind: Any, taken: Any) -> None:
    model = network()
    with pytest.raises(wp.WellposedError, match="reads"):
        regularize(kind(model.parameters()), model, L1(0.1), metric=taken)


@pytest.mark.parametrize("kind", [SGD, torch.optim.RMSprop])
def test_momentum_without_an_end_is_refused_before_anything_moves(kind: Any) -> None:
    model = network()
    optimizer = kind(model.parameters(), lr=0.1, momentum=0.9)
    regularize(optimizer, model, L1(0.1))
    step(model, optimizer)
    before = state(model)
    optimizer.param_groups[0]["momentum"] = 1.0
    with pytest.raises(wp.WellposedError, match="never settle"):
        step(model, optimizer)
    assert all(p.equal(before[name]) for name, p in model.named_parameters())
    with pytest.raises(wp.WellposedError, match="never settle"):
        regularize(kind(model.parameters(), lr=0.1, momentum=1.5), model, L1(0.1))


@pytest.mark.parametrize("kind", [SGD, torch.optim.Adam, torch.optim.AdamW])
@pytest.mark.parametrize("penalty", [L1(0.1), wp.constraints.MaxNorm(0.5), wp.NuclearNorm(0.1)], ids=repr)
def test_a_learning_rate_of_one_element_is_a_number(kind: Any, penalty: Penalty) -> None:
    options = {} if kind is SGD else {"foreach": False}
    models = network(), network()
    for model, lr in zip(models, (0.1, torch.tensor([0.1])), strict=True):
        optimizer = kind(model.parameters(), lr=lr, **options)
        regularize(optimizer, model, penalty, metric=None if isinstance(penalty, L1) else "euclidean")
        for _ in range(2):
            step(model, optimizer)
    torch.testing.assert_close(*map(state, models))


@pytest.mark.parametrize("given", [lambda *_: None, lambda *_: -1.0, lambda _group, _state, p: -torch.ones_like(p)])
def test_step_sizes_that_cannot_be_are_refused(given: Any) -> None:
    model = network()
    optimizer = SGD(model.parameters(), lr=0.1)
    regularize(optimizer, model, L1(0.1), metric=given)
    with pytest.raises(wp.WellposedError, match="step size"):
        step(model, optimizer)


def test_a_threshold_that_is_nan_makes_nan_in_kernels_too() -> None:
    from wellposed.penalties.computing.passes import ProxStep, take_steps_

    w, second = torch.tensor([2.0, -2.0, 0.0]), torch.tensor([math.nan, math.nan, math.nan])
    (bad,) = take_steps_([ProxStep(L1(0.1), w, RootStep(0.1, second, 1.0, 1e-8))])
    assert bad
    assert w.isnan().all()
