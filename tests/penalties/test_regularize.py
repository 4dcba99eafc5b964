"""Penalties at work on an optimizer."""

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import Lasso, Ridge
from torch import Tensor, nn

import wellposed as wp
from penalty_tools import PEERS, N, X, Y, fit, linear, network, state, step
from wellposed.penalties import L1, L2, GroupLasso, Heads, regularize

SGD = torch.optim.SGD


def test_gradient_mode_is_the_chapters_update() -> None:
    # w <- w - alpha * (dL/dw + lambda * dOmega/dw)
    model, alpha, lam = network(), 0.3, 0.05
    before = state(model)
    optimizer = SGD(model.parameters(), lr=alpha)
    regularize(optimizer, model, L2(lam), mode="gradient")
    counterpart = network()
    step(counterpart, SGD(counterpart.parameters(), lr=0.0))
    step(model, optimizer)
    for (name, w), (_, t) in zip(model.named_parameters(), counterpart.named_parameters(), strict=True):
        assert t.grad is not None
        push = lam * 2 * before[name] if name in ("0.weight", "3.weight") else torch.zeros_like(w)
        torch.testing.assert_close(w.detach(), before[name] - alpha * (t.grad + push))


@pytest.mark.parametrize("options", [{}, {"momentum": 0.9}, {"momentum": 0.9, "nesterov": True}, {"maximize": True}])
def test_gradient_mode_with_l2_is_the_optimizers_weight_decay(options: dict[str, Any]) -> None:
    model, counterpart = network(), network()
    ours = SGD(model.parameters(), lr=0.1, **options)
    regularize(ours, model, L2(0.02), mode="gradient", where="all")
    theirs = SGD(counterpart.parameters(), lr=0.1, weight_decay=0.04, **options)
    for _ in range(5):
        step(model, ours)
        step(counterpart, theirs)
    torch.testing.assert_close(state(model), state(counterpart))


def test_proximal_mode_is_the_prox_after_the_optimizers_own_step() -> None:
    model, counterpart = network(), network()
    ours = SGD([{"params": model[0].parameters(), "lr": 0.5}, {"params": model[1:].parameters(), "lr": 0.1}])
    theirs = SGD(
        [{"params": counterpart[0].parameters(), "lr": 0.5}, {"params": counterpart[1:].parameters(), "lr": 0.1}]
    )
    regularize(ours, model, L1(0.2))
    schedules = [torch.optim.lr_scheduler.ExponentialLR(o, 0.5) for o in (ours, theirs)]
    for t in range(4):
        step(model, ours)
        step(counterpart, theirs)
        with torch.no_grad():
            for layer, lr in ((linear(counterpart, 0), 0.5), (linear(counterpart, 3), 0.1)):
                layer.weight.copy_(L1(0.2).prox(layer.weight, lr * 0.5**t))
        for schedule in schedules:
            schedule.step()
    torch.testing.assert_close(state(model), state(counterpart))
    assert (linear(model, 0).weight == 0).any()


@pytest.mark.parametrize("name", PEERS)
@pytest.mark.parametrize("options", [{"momentum": 0.9, "nesterov": True}, {"momentum": 0.8, "dampening": 0.3}])
def test_proximal_sgd_reaches_scikit_learns_optimum_and_its_zeros(name: str, options: dict[str, Any]) -> None:
    penalty, peer = PEERS[name]
    w = fit(penalty, lambda p: SGD(p, lr=0.2, **options), steps=6000).numpy()
    wanted = peer.set_params(fit_intercept=False).fit(X, Y).coef_
    np.testing.assert_allclose(w, wanted, rtol=1e-6, atol=1e-6 * abs(wanted).max())
    if name != "ridge":
        np.testing.assert_array_equal(w == 0, wanted == 0)
        assert (w == 0).any()


def test_a_threshold_that_ignores_momentum_would_land_elsewhere() -> None:
    wanted = Lasso(alpha=20.0, fit_intercept=False, tol=1e-14).fit(X, Y).coef_
    x, y = torch.from_numpy(X), torch.from_numpy(Y)
    w = nn.Parameter(torch.zeros(10, dtype=torch.float64))
    optimizer = SGD([w], lr=0.1, momentum=0.9)
    regularize(optimizer, [("w", w)], L1(20.0), where="all", metric=lambda group, state, p: float(group["lr"]))
    for _ in range(6000):
        w.grad = x.T @ (x @ w.detach() - y) / N
        optimizer.step()
    assert abs(w.detach().numpy() - wanted).max() > 1


def test_at_lambda_max_every_weight_is_exactly_zero() -> None:
    greatest = float(abs(X.T @ Y).max() / N)
    assert (fit(L1(greatest), lambda p: SGD(p, lr=0.2, momentum=0.9), 2000) == 0).all()
    assert (fit(L1(greatest * 0.999), lambda p: SGD(p, lr=0.2, momentum=0.9), 2000) != 0).sum() == 1


class Tied(nn.Module):
    """An embedding whose weight is the output layer's too."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(6, 4)
        self.norm = nn.LayerNorm(4)
        self.head = nn.Linear(4, 6)
        self.head.weight = self.embedding.weight
        self.mix = nn.Parameter(torch.ones(4))


def test_plan_says_what_is_in_and_why() -> None:
    model = Tied()
    model.head.bias.requires_grad_(False)
    handle = regularize(SGD(model.parameters(), lr=0.1), model, L1(0.5))
    found = {row.name: (row.role, row.penalty, row.reason) for row in handle.plan}
    left_out = "not selected by where='weights'"
    assert found == {
        "mix": ("vector", None, f"{left_out}; no role claims it: by its name and dimensions"),
        "embedding.weight": (
            "embedding, weight",
            L1(0.5),
            "where='weights'; a table of vectors that multiplies signals too; tied: head.weight",
        ),
        "norm.weight": ("normalisation", None, left_out),
        "norm.bias": ("normalisation", None, left_out),
        "head.bias": ("bias", None, left_out),
    }
    printed = handle.plan.table().text(width=0)
    assert all(row.name in printed and row.reason in printed for row in handle.plan)
    assert "proximal" in printed
    assert handle.plan == copy.deepcopy(handle.plan)
    assert len(handle.plan) == 5


def test_tied_weights_count_once() -> None:
    model = Tied()
    optimizer = SGD(model.parameters(), lr=0.1)
    handle = regularize(optimizer, model, L2(0.5), mode="gradient")
    weight = model.embedding.weight
    assert handle.value() == pytest.approx(0.5 * float(weight.detach().square().sum()))
    weight.grad = torch.zeros_like(weight)
    optimizer.step()
    torch.testing.assert_close(weight.grad, weight.detach() / (1 - 0.1))


@pytest.mark.parametrize(
    ("where", "wanted"),
    [
        ("weights", {"0.weight", "3.weight"}),
        ("biases", {"0.bias", "3.bias"}),
        ("norms", {"1.weight", "1.bias"}),
        ("all", {"0.weight", "0.bias", "1.weight", "1.bias", "3.weight", "3.bias"}),
        ("3.*", {"3.weight", "3.bias"}),
        (nn.LayerNorm, {"1.weight", "1.bias"}),
        (lambda name, parameter: parameter.shape == (2, 5), {"3.weight"}),
        (["biases", "0.*"], {"0.weight", "0.bias", "3.bias"}),
    ],
)
def test_where_selects(where: Any, wanted: set[str]) -> None:
    model = network()
    handle = regularize(SGD(model.parameters(), lr=0.1), model, L1(0.1), where=where)
    assert {row.name for row in handle.plan if row.penalty is not None} == wanted


class ScaleNorm(nn.Linear):
    """A normalisation that torch does not know."""


@pytest.mark.parametrize(
    "layer", [nn.BatchNorm2d(4), nn.LayerNorm((4, 2)), nn.InstanceNorm1d(4, affine=True), ScaleNorm(4, 4)]
)
def test_normalisation_of_any_shape_is_told_by_its_module(layer: nn.Module) -> None:
    model = nn.Sequential(nn.Linear(4, 4), layer)
    handle = regularize(SGD(model.parameters(), lr=0.1), model, L1(0.1))
    assert {row.name: row.role for row in handle.plan if row.name != "0.bias"} == {
        "0.weight": "weight",
        "1.weight": "normalisation",
        "1.bias": "normalisation",
    }


def test_penalties_differ_by_parameter_and_the_last_rule_that_matches_counts() -> None:
    model = network()
    rules = {"0.*": L1(0.1), "3.*": L2(0.2), "3.bias": None}
    handle = regularize(SGD(model.parameters(), lr=0.1), model, rules, where="all")
    found = {row.name: row.penalty for row in handle.plan}
    assert found["0.weight"] == found["0.bias"] == L1(0.1)
    assert found["3.weight"] == L2(0.2)
    assert found["3.bias"] is None
    assert found["1.weight"] is None


def test_a_schedule_multiplies_the_penalty() -> None:
    model, counterpart = network(), network()
    ours, theirs = (SGD(m.parameters(), lr=0.1) for m in (model, counterpart))
    handle = regularize(ours, model, L1(0.4), schedule=lambda t: 0.5 * t)
    for t in range(3):
        step(model, ours)
        step(counterpart, theirs)
        with torch.no_grad():
            for layer in (linear(counterpart, 0), linear(counterpart, 3)):
                L1(0.2 * t).prox_(layer.weight, 0.1)
    torch.testing.assert_close(state(model), state(counterpart))
    total = sum(float(L1(0.6).value(linear(model, k).weight.detach())) for k in (0, 3))
    assert handle.value() == pytest.approx(total)


def test_parameters_without_a_gradient_are_left_alone() -> None:
    model = network()
    before = state(model)
    optimizer = SGD(model.parameters(), lr=0.1)
    regularize(optimizer, model, L1(1.0))
    linear(model, 0).weight.grad = torch.zeros(5, 4)
    optimizer.step()
    assert not linear(model, 0).weight.equal(before["0.weight"])
    assert linear(model, 3).weight.equal(before["3.weight"])


@pytest.mark.parametrize("mode", ["gradient", "proximal"])
def test_closures_see_the_penalty(mode: Any) -> None:
    model, counterpart = network(), network()
    ours, theirs = (SGD(m.parameters(), lr=0.1, momentum=0.5) for m in (model, counterpart))
    regularize(ours, model, L2(0.1), mode=mode)
    regularize(theirs, counterpart, L2(0.1), mode=mode)
    x = torch.linspace(-1, 1, 24).view(6, 4)

    def closure() -> Tensor:
        ours.zero_grad()
        loss: Tensor = model(x).square().mean()
        torch.autograd.backward(loss)
        return loss

    for _ in range(3):
        plain = float(closure().detach())
        assert float(ours.step(closure).detach()) == pytest.approx(plain, rel=1e-6)
        step(counterpart, theirs)
    for k in (0, 3):
        torch.testing.assert_close(linear(model, k).weight, linear(counterpart, k).weight)


def test_lbfgs_in_gradient_mode_reaches_ridge() -> None:
    x, y = torch.from_numpy(X), torch.from_numpy(Y)
    w = nn.Parameter(torch.zeros(10, dtype=torch.float64))
    optimizer = torch.optim.LBFGS([w], max_iter=200, line_search_fn="strong_wolfe", tolerance_grad=1e-9)
    regularize(optimizer, [("w", w)], L2(0.05), mode="gradient", where="all")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss: Tensor = (x @ w - y).square().mean() / 2
        torch.autograd.backward(loss)
        return loss

    optimizer.step(closure)
    wanted = Ridge(alpha=0.05 * 2 * N, fit_intercept=False).fit(X, Y).coef_
    np.testing.assert_allclose(w.detach().numpy(), wanted, rtol=1e-5)


def test_exact_zeros_come_from_proximal_and_not_from_gradient() -> None:
    shares = {}
    for mode in ("gradient", "proximal"):
        model = network()
        optimizer = SGD(model.parameters(), lr=0.1)
        handle = regularize(optimizer, model, L1(0.1), mode=mode)
        for _ in range(50):
            step(model, optimizer)
        shares[mode] = handle.sparsity()
        assert (linear(model, 0).bias != 0).all()
    assert shares["gradient"] == 0
    assert shares["proximal"] > 0.5


def test_remove_takes_it_off() -> None:
    model, counterpart = network(), network()
    ours, theirs = (SGD(m.parameters(), lr=0.1) for m in (model, counterpart))
    handle = regularize(ours, model, L1(1.0))
    handle.remove()
    handle.remove()
    step(model, ours)
    step(counterpart, theirs)
    assert all(a.equal(b) for a, b in zip(model.parameters(), counterpart.parameters(), strict=True))
    regularize(ours, model, L1(1.0))


def test_state_round_trip_continues_bit_for_bit() -> None:
    def train(model: nn.Module, first: int, last: int, saved: Any = None) -> Any:
        optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
        handle = regularize(optimizer, model, L1(0.05), schedule=lambda t: math.sin(t) ** 2)
        if saved is not None:
            model.load_state_dict(saved[0])
            optimizer.load_state_dict(saved[1])
            handle.load_state_dict(saved[2])
        for _ in range(first, last):
            step(model, optimizer)
        return copy.deepcopy((model.state_dict(), optimizer.state_dict(), handle.state_dict()))

    whole = train(network(), 0, 9)
    halves = train(network(), 4, 9, train(network(), 0, 4))
    assert whole[2]["step"] == halves[2]["step"] == 9
    assert all(whole[0][k].equal(halves[0][k]) for k in whole[0])


class Unknown(SGD):
    """An optimizer that the table of metrics does not hold."""


def test_an_unknown_optimizer_is_refused_until_its_metric_is_named() -> None:
    model = network()
    optimizer = Unknown(model.parameters(), lr=0.1)
    with pytest.raises(wp.WellposedError, match="metric of Unknown is not known"):
        regularize(optimizer, model, L1(0.1))
    regularize(optimizer, model, L1(0.1), metric=SGD)
    counterpart = network()
    known = SGD(counterpart.parameters(), lr=0.1)
    regularize(known, counterpart, L1(0.1))
    step(model, optimizer)
    step(counterpart, known)
    assert all(a.equal(b) for a, b in zip(model.parameters(), counterpart.parameters(), strict=True))


def attach(**given: Any) -> Any:
    model = given.pop("model", None) or network()
    parameters = given.pop("parameters", None) or model.parameters()
    options = given.pop("options", {})
    return regularize(SGD(parameters, lr=0.1, **options), model, given.pop("penalty", L1(0.1)), **given)


def meta() -> nn.Module:
    return nn.Linear(2, 2, device="meta")


def integers() -> list[tuple[str, Tensor]]:
    return [("count", torch.ones(2, 2, dtype=torch.int64))]


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"mode": "sideways"}, "mode was given 'sideways'"),
        ({"where": "decoder.*"}, r"where='decoder\.\*' matches no parameter.*0\.weight"),
        ({"where": 3}, "where"),
        ({"where": []}, "no conditions"),
        ({"where": lambda name, parameter: False}, "matches no parameter"),
        ({"penalty": {"decoder.*": L1(0.1)}}, "matches no parameter"),
        ({"penalty": {"0.*": 0.1}}, "penalty 0.1"),
        ({"penalty": {"*": None}}, "no parameter is left"),
        ({"penalty": 0.1}, "penalty 0.1"),
        ({"model": nn.Linear(3, 3), "parameters": [nn.Parameter(torch.ones(1))]}, "does not hold weight"),
        ({"schedule": -1.0}, "schedule"),
        ({"penalty": GroupLasso(0.1, groups=Heads(3))}, r"Heads.* cannot be computed on '0\.weight'.*multiple of 3"),
        ({"penalty": L1(torch.ones(7))}, r"L1.* cannot be computed on '0\.weight'.*broadcasts to"),
        ({"options": {"differentiable": True}}, "differentiable"),
        ({"model": meta()}, "'weight' is on the meta device"),
        (
            {"model": integers(), "where": "all", "parameters": [nn.Parameter(torch.ones(1))]},
            r"'count' has dtype torch\.int64.*leave it out",
        ),
        (
            {"model": nn.Linear(2, 2).requires_grad_(False), "parameters": [nn.Parameter(torch.ones(1))]},
            "no parameter is left",
        ),
        ({"model": [1], "parameters": [nn.Parameter(torch.ones(1))]}, "pairs"),
        ({"model": nn.Tanh(), "parameters": [nn.Parameter(torch.ones(1))]}, "without parameters"),
    ],
)
def test_what_makes_no_sense_is_refused(given: dict[str, Any], match: str) -> None:
    with pytest.raises(wp.WellposedError, match=match):
        attach(**given)


def test_a_second_prox_on_the_same_parameter_is_refused() -> None:
    model = network()
    optimizer = SGD(model.parameters(), lr=0.1)
    regularize(optimizer, model, L1(0.1), where="0.weight")
    regularize(optimizer, model, L1(0.1), where="3.weight")
    regularize(optimizer, model, L2(0.1), mode="gradient")
    with pytest.raises(wp.WellposedError, match="proximal penalty already"):
        regularize(optimizer, model, L2(0.1))


def test_a_bad_schedule_or_state_is_refused() -> None:
    model = network()
    optimizer = SGD(model.parameters(), lr=0.1)
    handle = regularize(optimizer, model, L1(0.1), schedule=lambda t: -1.0)
    before = state(model)
    with pytest.raises(wp.WellposedError, match="schedule at step 0"):
        step(model, optimizer)
    assert all(p.equal(before[name]) for name, p in model.named_parameters())
    with pytest.raises(wp.WellposedError, match="load_state_dict"):
        handle.load_state_dict({"steps": 3})
    with pytest.raises(wp.WellposedError, match="starting weights of"):
        handle.load_state_dict({"step": 3, "nan_steps": {}, "references": {"0.weight": torch.ones(5, 4)}})


def test_an_optimizer_is_not_kept_alive() -> None:
    import gc
    import weakref

    model = network()
    optimizer = SGD(model.parameters(), lr=0.1)
    regularize(optimizer, model, L1(0.1))
    watched = weakref.ref(optimizer)
    del optimizer
    gc.collect()
    assert watched() is None


MODES = ["gradient", "decoupled", "proximal"]


class Clipped(torch.optim.SGD):
    """An optimizer that does something of its own and then its parent's step: torch hooks both."""

    def step(self, closure: Any = None) -> Any:
        return super().step(closure)


@pytest.mark.parametrize("mode", MODES)
def test_a_step_that_calls_its_parents_step_takes_the_penalty_once(mode: Any) -> None:
    model, counterpart = network(), network()
    ours, theirs = Clipped(model.parameters(), lr=0.1), SGD(counterpart.parameters(), lr=0.1)
    handle = regularize(ours, model, L2(0.5), mode=mode, metric=SGD)
    regularize(theirs, counterpart, L2(0.5), mode=mode)
    for _ in range(3):
        step(model, ours)
        step(counterpart, theirs)
    assert handle.step == 3
    torch.testing.assert_close(state(model), state(counterpart), rtol=0, atol=0)


@pytest.mark.parametrize("mode", MODES)
def test_a_step_that_raised_leaves_nothing_open(mode: Any) -> None:
    model = network()
    optimizer = Clipped(model.parameters(), lr=0.1)
    handle = regularize(optimizer, model, L2(0.5), mode=mode, metric=SGD)

    def closure() -> Any:
        raise ArithmeticError

    with pytest.raises(ArithmeticError):
        optimizer.step(closure)
    before = state(model)
    step(model, optimizer)
    assert handle.step == 1
    assert not state(model)["0.weight"].equal(before["0.weight"])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", [SGD, torch.optim.Adam])
@pytest.mark.parametrize("wrong", [math.nan, math.inf, -5.0])
def test_a_schedule_in_a_tensor_that_turns_wrong_is_refused_before_anything_moves(
    wrong: float, kind: Any, mode: Any
) -> None:
    model = network()
    optimizer = kind(model.parameters(), lr=0.1)
    schedule = torch.tensor(1.0)
    regularize(optimizer, model, L2(0.1), schedule=schedule, mode=mode)
    step(model, optimizer)
    before = state(model)
    schedule.fill_(wrong)
    with pytest.raises(wp.WellposedError, match="schedule at step 1"):
        step(model, optimizer)
    assert all(p.equal(before[name]) for name, p in model.named_parameters())


@pytest.mark.parametrize("schedule", [torch.ones(3), torch.tensor(math.nan), -1.0, "fast", {"*.bias": 1.0}])
def test_schedules_that_cannot_be_are_refused_at_once(schedule: Any) -> None:
    model = network()
    with pytest.raises(wp.WellposedError, match="schedule"):
        regularize(SGD(model.parameters(), lr=0.1), model, L1(0.1), schedule=schedule)


def test_schedules_differ_by_parameter() -> None:
    model, counterpart = network(), network()
    ours, theirs = SGD(model.parameters(), lr=0.1), SGD(counterpart.parameters(), lr=0.1)
    handle = regularize(ours, model, L1(0.5), schedule={"*": 0.5, "3.*": lambda t: float(t)})
    regularize(theirs, counterpart, L1(0.25), where="0.weight")
    regularize(theirs, counterpart, L1(0.5), where="3.weight", schedule=lambda t: float(t))
    for _ in range(3):
        step(model, ours)
        step(counterpart, theirs)
    torch.testing.assert_close(state(model), state(counterpart), rtol=0, atol=0)
    expected = 0.25 * linear(model, 0).weight.detach().abs().sum() + 1.5 * linear(model, 3).weight.detach().abs().sum()
    assert handle.value() == pytest.approx(float(expected))


def test_a_module_type_selects_all_but_biases() -> None:
    model = network()
    handle = regularize(SGD(model.parameters(), lr=0.1), model, L1(0.1), where=nn.Linear)
    assert [row.name for row in handle.plan if row.penalty is not None] == ["0.weight", "3.weight"]


@pytest.mark.parametrize(
    ("name", "role"),
    [("bias", "bias"), ("bias_ih_l0", "bias"), ("in_proj_bias", "bias"), ("debias_weight", "weight")],
)
def test_a_bias_is_known_by_a_word_of_its_name(name: str, role: str) -> None:
    model = nn.Module()
    model.register_parameter(name, nn.Parameter(torch.ones(2, 2)))
    handle = regularize(SGD(model.parameters(), lr=0.1), model, L1(0.1), where="all")
    assert [row.role for row in handle.plan] == [role]


def test_counts_of_nan_are_saved() -> None:
    model = network()
    optimizer = SGD(model.parameters(), lr=0.1)
    handle = regularize(optimizer, model, L1(0.1))
    with pytest.warns(RuntimeWarning, match="holds NaN"):
        step(model, optimizer, scale=math.nan)
    resumed = regularize(SGD(model.parameters(), lr=0.1), model, L1(0.1))
    resumed.load_state_dict(handle.state_dict())
    assert resumed.nan_steps() == handle.nan_steps() == {"0.weight": 1, "3.weight": 1}


def test_a_line_search_is_not_decoupled() -> None:
    model = network()
    with pytest.raises(wp.WellposedError, match="mode='gradient'"):
        regularize(torch.optim.LBFGS(model.parameters()), model, L2(0.1), mode="decoupled")


def test_a_closure_that_is_called_twice_decays_once() -> None:
    class Twice(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            closure()
            return super().step(closure)

    model, counterpart = network(), network()
    ours, theirs = Twice(model.parameters(), lr=0.1), SGD(counterpart.parameters(), lr=0.1)
    for m, optimizer in ((model, ours), (counterpart, theirs)):
        regularize(optimizer, m, L2(0.5), mode="decoupled")

        def closure(m: nn.Module = m) -> Any:
            for p in m.parameters():
                p.grad = torch.ones_like(p)
            return 0.0

        optimizer.step(closure)
    torch.testing.assert_close(state(model), state(counterpart), rtol=0, atol=0)
