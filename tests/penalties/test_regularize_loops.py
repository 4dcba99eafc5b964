"""Penalties in the ways that people train: schedules, compiled models and steps, float32 copies of bfloat16 weights."""

import io
import os
import pickle
import shutil
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import ElasticNet as SklearnElasticNet
from sklearn.linear_model import Lasso, LogisticRegression, Ridge
from torch import nn

import wellposed as wp
from penalty_tools import N, X, Y, filled, linear, network, state, step
from wellposed import schedules
from wellposed.penalties import (
    L1,
    L2,
    MCP,
    ElasticNet,
    GroupLasso,
    Penalty,
    Towards,
    conventions,
    regularize,
)
from wellposed.penalties.computing.root_step import RootStep

SGD, Adam = torch.optim.SGD, torch.optim.Adam


@pytest.mark.parametrize(
    "schedule", [schedules.Linear(0.2, 1.0, 3), schedules.Cosine(1.0, 0.0, 4), schedules.WarmUp(2, wait=1)]
)
def test_schedules_are_values_that_training_follows(schedule: Any) -> None:
    assert pickle.loads(pickle.dumps(schedule)) == schedule
    model, counterpart = network(), network()
    ours, theirs = (SGD(m.parameters(), lr=0.1) for m in (model, counterpart))
    regularize(ours, model, L1(0.3), schedule=schedule)
    for t in range(6):
        step(model, ours)
        step(counterpart, theirs)
        for k in (0, 3):
            L1(0.3).prox_(linear(counterpart, k).weight, 0.1 * schedule(t))
    torch.testing.assert_close(state(model), state(counterpart))


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: schedules.Linear(-1.0, 1.0, 3),
        lambda: schedules.Cosine(0.0, float("nan"), 3),
        lambda: schedules.Linear(0.0, 1.0, 0),
        lambda: schedules.WarmUp(2, wait=-1),
        lambda: schedules.WarmUp(0),
    ],
)
def test_schedules_out_of_range_are_refused(wrong: Callable[[], object]) -> None:
    with pytest.raises(wp.WellposedError, match="was given"):
        wrong()


@pytest.mark.parametrize("kind", [SGD, Adam])
@pytest.mark.parametrize("mode", ["gradient", "proximal"])
def test_narrow_weights_with_wide_masters(kind: Any, mode: Any) -> None:
    model, wide = network().to(torch.bfloat16), network()
    wide.load_state_dict(model.state_dict())
    masters = {name: p.detach().float() for name, p in model.named_parameters()}
    ours, theirs = kind(masters.values(), lr=0.05), kind(wide.parameters(), lr=0.05)
    handle = regularize(ours, model, L1(0.2), mode=mode, masters=masters)
    regularize(theirs, wide, L1(0.2), mode=mode)
    for t in range(8):
        for master, w in zip(masters.values(), wide.parameters(), strict=True):
            w.grad = torch.full_like(w, 0.1 * (-1) ** t)
            master.grad = w.grad.clone()
        ours.step()
        theirs.step()
        with torch.no_grad():
            for name, p in model.named_parameters():
                p.copy_(masters[name])
    torch.testing.assert_close(masters, state(wide))
    zeros = masters["0.weight"] == 0
    assert zeros.any() == (mode == "proximal")
    assert (linear(model, 0).weight[zeros] == 0).all()
    assert (handle.sparsity() > 0) == (mode == "proximal")


def test_masters_that_fit_no_parameter_are_refused() -> None:
    model = network()
    with pytest.raises(wp.WellposedError, match="masters was given"):
        regularize(SGD(model.parameters(), lr=0.1), model, L1(0.1), masters={"0.weight": torch.ones(3)})


def compiler() -> str | None:
    """The C++ compiler that Inductor would call, if there is one."""
    wanted = os.environ.get("CXX", "")
    return next((found for name in (wanted, "g++", "clang++", "cl") if name and (found := shutil.which(name))), None)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("mode", ["gradient", "proximal"])
@pytest.mark.parametrize(
    "backend",
    [
        "eager",
        "aot_eager",
        pytest.param("inductor", marks=pytest.mark.skipif(not compiler(), reason="Inductor needs a C++ compiler")),
    ],
)
def test_compiled_models_and_compiled_steps(backend: str, mode: Any) -> None:
    torch._dynamo.reset()
    model, counterpart = network(), network()
    compiled = torch.compile(model, backend=backend)
    ours, theirs = (Adam(m.parameters(), lr=0.05) for m in (model, counterpart))
    handle = regularize(ours, compiled, L1(0.2), mode=mode)  # type: ignore[arg-type]
    assert {row.name for row in handle.plan} == {name for name, _ in model.named_parameters()}
    regularize(theirs, counterpart, L1(0.2), mode=mode)
    x = torch.linspace(-1, 1, 24).view(6, 4)

    def update() -> None:
        ours.step()

    compiled_update = torch.compile(update, backend=backend)
    for _ in range(12):
        ours.zero_grad()
        torch.autograd.backward(compiled(x).square().mean())
        compiled_update()
        step(counterpart, theirs)
    torch.testing.assert_close(state(model), state(counterpart), rtol=1e-3, atol=1e-4)
    assert handle.step == 12
    assert (handle.sparsity() > 0) == (mode == "proximal")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="capturable and accelerator-fused steps need CUDA")
@pytest.mark.parametrize("options", [{}, {"foreach": True}, {"fused": True}, {"capturable": True}])
@pytest.mark.parametrize("mode", ["gradient", "proximal"])
def test_steps_on_an_accelerator_wait_for_nothing(options: dict[str, Any], mode: Any) -> None:
    model, counterpart = network().cuda(), network()
    ours, theirs = Adam(model.parameters(), lr=0.05, **options), Adam(counterpart.parameters(), lr=0.05)
    rules: dict[str, Penalty] = {"0.*": L1(0.2), "3.*": GroupLasso(0.2)}
    handle = regularize(ours, model, rules, mode=mode)
    regularize(theirs, counterpart, rules, mode=mode)
    x = torch.linspace(-1, 1, 24).view(6, 4)
    for _ in range(8):
        ours.zero_grad()
        torch.autograd.backward(model(x.cuda()).square().mean())
        torch.cuda.set_sync_debug_mode("error")
        try:
            ours.step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
        step(counterpart, theirs)
    moved = {name: p.cpu() for name, p in state(model).items()}
    torch.testing.assert_close(moved, state(counterpart), rtol=1e-3, atol=1e-4)
    assert handle.nan_steps() == {}


@pytest.mark.parametrize("kind", [SGD, Adam])
@pytest.mark.parametrize("mode", ["gradient", "proximal"])
def test_a_run_goes_on_from_saved_state_bit_for_bit(kind: Any, mode: Any) -> None:
    rules: dict[str, Penalty] = {"0.*": Towards(L1(0.1)), "3.*": GroupLasso(0.05)}

    def train(first: int, last: int, saved: io.BytesIO | None = None) -> tuple[io.BytesIO, dict[str, Any]]:
        model = network()
        optimizer = kind(model.parameters(), lr=0.05)
        handle = regularize(optimizer, model, rules, mode=mode, schedule=schedules.Cosine(0.2, 1.0, 7))
        parts: dict[str, Any] = {"model": model, "optimizer": optimizer, "handle": handle}
        if saved is not None:
            saved.seek(0)
            for name, part in torch.load(saved, weights_only=True).items():
                parts[name].load_state_dict(part)
        for _ in range(first, last):
            step(model, optimizer)
        file = io.BytesIO()
        torch.save({name: part.state_dict() for name, part in parts.items()}, file)
        return file, model.state_dict()

    middle, _ = train(0, 4)
    _, halves = train(4, 9, middle)
    _, whole = train(0, 9)
    assert all(whole[name].equal(halves[name]) for name in whole)


def test_strengths_that_differ_by_parameter_act_each_on_its_own() -> None:
    model, counterpart = network(), network()
    ours, theirs = (Adam(m.parameters(), lr=0.05) for m in (model, counterpart))
    strengths = torch.linspace(0, 0.5, 20).view(5, 4)
    regularize(ours, model, {"0.*": L1(strengths), "3.*": L1(0.3)}, schedule=torch.tensor(0.5))
    regularize(theirs, counterpart, L1(0.5 * strengths), where="0.weight")
    regularize(theirs, counterpart, L1(0.15), where="3.weight")
    for _ in range(5):
        step(model, ours)
        step(counterpart, theirs)
    torch.testing.assert_close(state(model), state(counterpart))


SAMPLES = torch.from_numpy(X), torch.from_numpy(Y)


def minimum(penalty: Penalty) -> np.ndarray:
    """The minimiser of half the mean squared error and the penalty, by proximal gradient descent."""
    x, y = SAMPLES
    w = nn.Parameter(torch.zeros(10, dtype=torch.float64))
    optimizer = SGD([w], lr=0.2, momentum=0.9)
    regularize(optimizer, [("w", w)], penalty, where="all")
    for _ in range(3000):
        w.grad = x.T @ (x @ w.detach() - y) / N
        optimizer.step()
    found: np.ndarray = w.detach().numpy()
    return found


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (conventions.from_lasso(3.0), Lasso(alpha=3.0, tol=1e-14)),
        (conventions.from_elastic_net(0.8, l1_ratio=0.3), SklearnElasticNet(alpha=0.8, l1_ratio=0.3, tol=1e-14)),
        (conventions.from_ridge(25.0, samples=N), Ridge(alpha=25.0)),
    ],
)
def test_scikit_learns_strengths_in_our_convention(ours: Penalty, theirs: Any) -> None:
    np.testing.assert_allclose(minimum(ours), theirs.set_params(fit_intercept=False).fit(X, Y).coef_, rtol=1e-6)


@pytest.mark.parametrize("ratio", [0.0, 1.0])
def test_the_logistic_c_in_our_convention(ratio: float) -> None:
    y = 2.0 * (Y > 0) - 1
    peer = LogisticRegression(
        C=0.02,
        l1_ratio=ratio,
        fit_intercept=False,
        solver="liblinear" if ratio else "lbfgs",
        tol=1e-12,
        max_iter=10_000,
        random_state=0,
    )
    wanted = peer.fit(X, y).coef_[0]
    x, sign = torch.from_numpy(X), torch.from_numpy(y)
    gradient = -x.T @ (sign * torch.sigmoid(-sign * (x @ torch.from_numpy(wanted)))) / N
    penalty = conventions.from_logistic_c(0.02, N, l1_ratio=ratio)
    assert float(penalty.kkt(torch.from_numpy(wanted), gradient)) < 1e-6


@pytest.mark.parametrize("penalty", [ElasticNet(0.25, 0.5), L1(0.5), L2(0.125)])
def test_strengths_go_there_and_come_back(penalty: Penalty) -> None:
    same = penalty + ElasticNet(0.0, 0.0)
    assert conventions.from_keras(**conventions.to_keras(penalty)) == same
    assert conventions.from_elastic_net(**conventions.to_elastic_net(penalty)) == same
    given = conventions.to_logistic_c(penalty, 128)
    assert conventions.from_logistic_c(given["C"], 128, l1_ratio=given["l1_ratio"]) == same


def test_a_ridge_goes_there_and_comes_back() -> None:
    assert conventions.from_ridge(**conventions.to_ridge(L2(0.125), 128), samples=128) == L2(0.125)
    with pytest.raises(wp.WellposedError, match="no absolute values"):
        conventions.to_ridge(L1(0.1), 128)


@pytest.mark.parametrize("convert", [conventions.to_keras, conventions.to_elastic_net])
@pytest.mark.parametrize("penalty", [MCP(0.1), L1(torch.ones(2)), 0.1])
def test_what_others_do_not_have_is_refused(convert: Callable[[Any], object], penalty: Any) -> None:
    with pytest.raises(wp.WellposedError, match="expected L1, L2 or ElasticNet"):
        convert(penalty)


def test_no_penalty_has_no_c() -> None:
    with pytest.raises(wp.WellposedError, match="C is its inverse"):
        conventions.to_logistic_c(L1(0.0), 10)


def test_torchs_weight_decay_and_kerass_regularizer_in_our_convention() -> None:
    assert conventions.from_weight_decay(0.02) == L2(0.01)
    assert conventions.to_weight_decay(conventions.from_weight_decay(0.3)) == 0.3
    assert conventions.from_keras(l1=0.1, l2=0.2) == ElasticNet(0.1, 0.2)
    with pytest.raises(wp.WellposedError, match="L2 with a number"):
        conventions.to_weight_decay(L1(0.1))
    with pytest.raises(wp.WellposedError, match="samples"):
        conventions.from_ridge(1.0, samples=0)
    with pytest.raises(wp.WellposedError, match="l1_ratio"):
        conventions.from_elastic_net(1.0, l1_ratio=1.5)


def embedding_step(sparse: bool, mode: Any, scale: float = 1.0) -> tuple[torch.Tensor, Any]:
    embedding = nn.Embedding(5, 3, sparse=sparse)
    filled(embedding)
    optimizer = SGD(embedding.parameters(), lr=0.1)
    handle = regularize(optimizer, embedding, L2(0.5), where="embeddings", mode=mode)
    torch.autograd.backward(scale * embedding(torch.tensor([1, 3, 3])).square().sum())
    optimizer.step()
    return embedding.weight.detach(), handle


@pytest.mark.parametrize("mode", ["decoupled", "proximal"])
def test_sparse_gradients_do_what_dense_ones_do(mode: Any) -> None:
    torch.testing.assert_close(embedding_step(True, mode)[0], embedding_step(False, mode)[0])
    with pytest.warns(RuntimeWarning, match="'weight' h"):
        _, handle = embedding_step(True, mode, scale=torch.nan)
    assert handle.nan_steps() == {"weight": 1}


def test_sparse_gradients_are_refused_where_they_would_have_to_be_added_to() -> None:
    with pytest.raises(wp.WellposedError, match="sparse gradient"):
        embedding_step(True, "gradient")


def test_data_parallel_names_are_the_models() -> None:
    model = network()
    handle = regularize(SGD(model.parameters(), lr=0.1), nn.DataParallel(model), L1(0.1))
    assert {row.name for row in handle.plan} == {name for name, _ in model.named_parameters()}


def test_narrow_second_moments_are_read_in_float32() -> None:
    dtype = torch.bfloat16
    w = nn.Parameter(torch.tensor([[0.0, 0.5], [1e-3, 2.0]], dtype=dtype))
    optimizer = torch.optim.RMSprop([w], lr=0.01)
    regularize(optimizer, [("w", w)], L1(0.1))
    w.grad = torch.tensor([[0.0, 0.0], [0.3, 0.3]], dtype=dtype)
    optimizer.step()
    assert w.isfinite().all()
    assert w.detach().flatten()[:2].eq(0).all()
    three = torch.tensor([3.0], dtype=dtype)
    torch.testing.assert_close(RootStep(0.1, three, 1.0, 1e-8).tensor(), torch.tensor([0.1 / 3**0.5]))
