"""Penalties on a device that nobody waits for: a stand-in for CUDA that computes on the CPU and refuses to wait."""

from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import wellposed as wp
from accelerator import Accelerator, ElsewhereError, WaitError, here, there
from penalty_cases import Case, rows
from wellposed import schedules
from wellposed.penalties import (
    L1,
    L2,
    MCP,
    ElasticNet,
    GroupLasso,
    Handle,
    NuclearNorm,
    Penalty,
    SpectralNorm,
    constraints,
    regularize,
)
from wellposed.random import Key, normal

optim = torch.optim


REFUSED: dict[str, tuple[Callable[[Tensor], object], type[Exception] | tuple[type[Exception], ...]]] = {
    "read": (lambda w: float(w.sum()), WaitError),
    "decide": (lambda w: bool((w > 0).all()), WaitError),
    "choose": (lambda w: w[w > 0], WaitError),
    "compare": (lambda w: torch.equal(w, w), WaitError),
    "count": (lambda w: w.flatten().unique(), WaitError),
    "fetch": (lambda w: w.cpu(), WaitError),
    "fetch into": (lambda w: torch.ones(2, 3).copy_(w), WaitError),
    "bring into": (lambda w: w.copy_(torch.ones(2, 3)), WaitError),
    # Torch may ask for CUDA itself here before the stand-in is asked.
    "bring": (lambda w: torch.ones(2, 3).to(w.device), (WaitError, RuntimeError)),
    "bring a number": (lambda w: torch.as_tensor(0.5, device=w.device), (WaitError, RuntimeError)),
    "list": (lambda w: w.nonzero(), (WaitError, RuntimeError)),
    "mix": (lambda w: w + torch.ones(2, 3), ElsewhereError),
    "mix three": (lambda w: torch.where(w > 0, torch.ones(2, 3), 0), ElsewhereError),
}


@pytest.mark.parametrize("name", REFUSED)
def test_the_stand_in_refuses_what_waits_and_what_mixes(name: str) -> None:
    if name == "bring a number" and torch.cuda.is_available():
        pytest.skip("torch makes a tensor on a device that is there without asking the stand-in")
    does, error = REFUSED[name]
    w = there(torch.ones(2, 3))
    assert w.is_cuda
    assert not w.is_cpu
    with Accelerator(), pytest.raises(error):
        does(w)


# Each with a variant for the CPU that comes to the same numbers.
OPTIMIZERS: dict[str, tuple[Callable[..., optim.Optimizer], dict[str, Any], dict[str, Any]]] = {
    "sgd": (optim.SGD, {"lr": 0.1, "momentum": 0.9, "dampening": 0.2}, {}),
    "sgd-foreach": (optim.SGD, {"lr": 0.1, "momentum": 0.9}, {"foreach": True}),
    "sgd-fused": (optim.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True}, {"fused": True}),
    "adam": (optim.Adam, {"lr": 0.1}, {}),
    "adam-foreach": (optim.Adam, {"lr": 0.1, "amsgrad": True}, {"foreach": True}),
    "adam-fused": (optim.Adam, {"lr": 0.1}, {"fused": True}),
    "adam-capturable": (optim.Adam, {"lr": 0.1}, {"capturable": True}),
    "adamw": (optim.AdamW, {"lr": 0.1}, {}),
    "adamw-foreach": (optim.AdamW, {"lr": 0.1}, {"foreach": True}),
    "adamw-fused": (optim.AdamW, {"lr": 0.1}, {"fused": True}),
    "adamw-capturable": (optim.AdamW, {"lr": 0.1}, {"capturable": True, "foreach": True}),
    "nadam": (optim.NAdam, {"lr": 0.1}, {}),
    "nadam-foreach": (optim.NAdam, {"lr": 0.1}, {"foreach": True}),
    "nadam-capturable": (optim.NAdam, {"lr": 0.1}, {"capturable": True}),
    "radam": (optim.RAdam, {"lr": 0.1}, {}),
    "radam-foreach": (optim.RAdam, {"lr": 0.1}, {"foreach": True}),
    "radam-capturable": (optim.RAdam, {"lr": 0.1}, {"capturable": True}),
    "adamax": (optim.Adamax, {"lr": 0.1}, {}),
    "adamax-foreach": (optim.Adamax, {"lr": 0.1}, {"foreach": True}),
    "adamax-capturable": (optim.Adamax, {"lr": 0.1}, {"capturable": True}),
    "rmsprop": (optim.RMSprop, {"lr": 0.01, "centered": True, "momentum": 0.5}, {}),
    "rmsprop-foreach": (optim.RMSprop, {"lr": 0.01, "centered": True}, {"foreach": True}),
    "rmsprop-capturable": (optim.RMSprop, {"lr": 0.01, "momentum": 0.5}, {"capturable": True, "foreach": True}),
    "adagrad": (optim.Adagrad, {"lr": 0.1, "lr_decay": 0.1}, {}),
    "adagrad-foreach": (optim.Adagrad, {"lr": 0.1}, {"foreach": True}),
    "adagrad-fused": (optim.Adagrad, {"lr": 0.1}, {"fused": True}),
}

MODES: dict[str, dict[str, Penalty]] = {
    "gradient": {"a": ElasticNet(0.9, 0.1), "b": GroupLasso(2.0), "c": MCP(1.0)},
    "decoupled": {"*": L2(0.1)},
    "proximal": {"a": ElasticNet(0.9, 0.1), "b": GroupLasso(2.0), "c": MCP(1.0)},
}

SHAPES = {"a": (3, 4), "b": (4, 2), "c": (2, 2, 2)}


def moved(value: Any) -> Any:
    """A penalty, or what it is made of, on the device."""
    if isinstance(value, Tensor):
        return there(value)
    if isinstance(value, tuple):
        return tuple(map(moved, value))
    if isinstance(value, Penalty) and is_dataclass(value):
        return replace(value, **{f.name: moved(getattr(value, f.name)) for f in fields(value)})
    return value


def train(
    make: Callable[[list[nn.Parameter]], optim.Optimizer], put: Callable[[Tensor], Tensor], steps: int, **given: Any
) -> tuple[dict[str, nn.Parameter], Handle]:
    """Steps with gradients from keys; on the device, in a place where nothing waits."""
    with Accelerator(patient=True):
        weights = {name: nn.Parameter(put(normal(shape, Key(1).fold(name)))) for name, shape in SHAPES.items()}
        optimizer = make(list(weights.values()))
        handle = regularize(optimizer, list(weights.items()), **given)
    for t in range(steps):
        for name, w in weights.items():
            w.grad = put(normal(w.shape, Key(2).fold(name), call=t))
        with Accelerator() as device:
            optimizer.step()
        assert any(device.ran) == (put is there)
    return weights, handle


def assert_same(ours: dict[str, nn.Parameter], theirs: dict[str, nn.Parameter]) -> None:
    for name, w in ours.items():
        torch.testing.assert_close(here(w), theirs[name].detach(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_a_step_waits_for_nothing_and_comes_to_what_the_cpu_comes_to(kind: str, mode: str) -> None:
    make, options, way = OPTIMIZERS[kind]
    given: dict[str, Any] = {"penalty": MODES[mode], "mode": mode}
    ours, handle = train(lambda p: make(p, **options, **way), there, 7, **given)
    theirs, counterpart = train(lambda p: make(p, **options, foreach=False), torch.clone, 7, **given)
    assert_same(ours, theirs)
    with Accelerator(patient=True):
        assert (handle.sparsity() > 0) == (mode == "proximal")
        assert handle.sparsity() == counterpart.sparsity()
        assert handle.value() == pytest.approx(counterpart.value(), rel=1e-3)
        assert handle.nan_steps() == {}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", [kind for kind in OPTIMIZERS if kind.endswith(("-foreach", "-fused"))])
def test_foreach_and_fused_steps_come_to_what_the_loop_comes_to(kind: str, mode: str) -> None:
    make, options, way = OPTIMIZERS[kind]
    given: dict[str, Any] = {"penalty": MODES[mode], "mode": mode}
    ours, handle = train(lambda p: make(p, **options, **way), torch.clone, 7, **given)
    theirs, counterpart = train(lambda p: make(p, **options, foreach=False), torch.clone, 7, **given)
    for name, w in ours.items():
        torch.testing.assert_close(w, theirs[name], rtol=1e-4, atol=1e-5)
    assert handle.sparsity() == counterpart.sparsity()


STRENGTHS: dict[str, Callable[[Callable[[Tensor], Tensor]], Any]] = {
    "number": lambda put: 0.7,
    "tensor": lambda put: put(torch.tensor(0.7)),
    "tensor of the host": lambda put: torch.tensor(0.7),
    "schedule": lambda put: schedules.Cosine(0.2, 1.0, 5),
    "schedule of tensors": lambda put: lambda step: put(torch.tensor(0.1 * step)),
    "schedule of tensors of the host": lambda put: lambda step: torch.tensor(0.1 * step),
}
WEIGHTED: dict[str, Callable[[Callable[[Tensor], Tensor]], Penalty]] = {
    "a": lambda put: ElasticNet(put(torch.linspace(0, 2, 12).view(3, 4)), put(torch.tensor(0.1))),
    "b": lambda put: GroupLasso(put(torch.tensor(2.0)), groups=put(torch.arange(8).view(4, 2) % 3)) + L1(0.1),
    "c": lambda put: MCP(put(torch.linspace(0, 2, 8).view(2, 2, 2))) + L2(put(torch.tensor(0.1))),
}


@pytest.mark.parametrize("mode", ["gradient", "proximal"])
@pytest.mark.parametrize("kind", ["sgd", "adam-capturable"])
@pytest.mark.parametrize("name", STRENGTHS)
def test_strengths_of_all_kinds_are_not_waited_for(name: str, kind: str, mode: str) -> None:
    make, options, way = OPTIMIZERS[kind]

    def run(put: Callable[[Tensor], Tensor], **way: Any) -> tuple[dict[str, nn.Parameter], Handle]:
        with Accelerator(patient=True):
            penalties = {key: made(put) for key, made in WEIGHTED.items()}
        lr = put(torch.tensor(options["lr"])) if kind != "sgd" else options["lr"]  # SGD itself reads its lr
        settings = {**options, **way, "lr": lr}
        strength = STRENGTHS[name](put)
        return train(lambda p: make(p, **settings), put, 6, penalty=penalties, mode=mode, schedule=strength)

    assert_same(run(there, **way)[0], run(torch.clone, foreach=False)[0])


@rows()
def test_every_penalty_stays_on_its_device_and_only_singular_values_are_waited_for(case: Case) -> None:
    w, g = case.weight(), case.weight(1)
    with Accelerator(patient=True):
        penalty = moved(case.penalty)
        assert here(penalty.value(there(w))) == pytest.approx(float(case.penalty.value(w)))  # groups are counted once
    wanted: dict[str, Tensor] = {}
    found: dict[str, Tensor] = {}
    waits = isinstance(case.penalty, NuclearNorm | SpectralNorm | constraints.Stiefel)
    for device, one, results in ((False, case.penalty, wanted), (True, penalty, found)):
        x, y = (there(w), there(g)) if device else (w, g)
        with Accelerator(patient=waits):
            results["value"] = one.value(x)
            if one.traits.gradient:
                results["gradient"] = one.grad(x)
                results["sum"] = y.clone()
                one.accumulate_(x, results["sum"], 0.3)
            if one.traits.prox:
                sizes: list[float | Tensor] = [
                    0.4,
                    (there if device else torch.clone)(torch.tensor(0.4, dtype=x.dtype)),
                ]
                if one.traits.separable or one.traits.diagonal:
                    sizes.append(y.abs())
                for i, size in enumerate(sizes):
                    results[f"prox {i}"] = one.prox(x, size)
                    results[f"prox in place {i}"] = one.prox_(x.clone(), size)
                    results[f"kkt {i}"] = one.kkt(x, y, size)
    torch.testing.assert_close({name: here(result) for name, result in found.items()}, wanted)
    if waits:
        with Accelerator(), pytest.raises(WaitError, match="svd"):
            penalty.value(there(w))


@rows(prox=True, gradient=True, convex=True)
def test_lambda_max_is_the_same_on_a_device(case: Case) -> None:
    if float(case.penalty.value(torch.zeros(case.shape, dtype=torch.float64))) or case.penalty == L1(0.0):
        return
    gradient = case.weight()
    try:
        wanted = case.penalty.lambda_max(gradient)
    except wp.WellposedError:
        return
    with Accelerator(patient=True):
        assert moved(case.penalty).lambda_max(there(gradient)) == pytest.approx(wanted)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", ["sgd-fused", "adam-fused", "adamw-fused", "adagrad-fused"])
def test_a_fused_step_that_the_device_skips_skips_the_penalty_unseen(kind: str, mode: Any) -> None:
    make, options, way = OPTIMIZERS[kind]
    weights = {name: nn.Parameter(there(normal(shape, Key(1).fold(name)))) for name, shape in SHAPES.items()}
    counterparts = {name: nn.Parameter(here(w.detach())) for name, w in weights.items()}
    with Accelerator(patient=True):
        ours = make(list(weights.values()), **options, **way)
        handle = regularize(ours, list(weights.items()), MODES[mode], mode=mode)
    theirs = make(list(counterparts.values()), **options)
    regularize(theirs, list(counterparts.items()), MODES[mode], mode=mode)
    for t in range(4):
        overflow = t == 1
        kept = {name: here(w) for name, w in weights.items()}
        for name, w in weights.items():
            g = normal(w.shape, Key(2).fold(name), call=t)
            counterparts[name].grad = g
            w.grad = there(torch.full_like(g, torch.nan) if overflow else 4 * g)
        # What a gradient scaler tells an optimizer that can divide its scale out.
        vars(ours).update(grad_scale=there(torch.tensor(4.0)), found_inf=there(torch.tensor(float(overflow))))
        with Accelerator():
            ours.step()
        if overflow:
            assert all(here(w).equal(kept[name]) for name, w in weights.items())
        else:
            theirs.step()
    assert_same(weights, counterparts)
    with Accelerator(patient=True):
        assert handle.nan_steps() == {}


@pytest.mark.parametrize("mode", MODES)
def test_nan_is_counted_unseen_and_read_when_asked(mode: Any) -> None:
    w = nn.Parameter(there(torch.ones(2, 3)))
    optimizer = optim.SGD([w], lr=0.1)
    handle = regularize(optimizer, [("w", w)], L2(0.1), mode=mode)
    for bad in (False, True, False):
        w.grad = there(torch.full((2, 3), torch.nan if bad else 0.1))
        with Accelerator():
            optimizer.step()
    with Accelerator(patient=True):
        # A weight that is NaN has a penalty whose gradient is.
        assert handle.nan_steps() == {"w": 1 if mode == "decoupled" else 2}
        assert [row.nan_steps for row in handle.report()] == list(handle.nan_steps().values())


def test_complex_weights_are_not_waited_for() -> None:
    def run(put: Callable[[Tensor], Tensor], **way: Any) -> Tensor:
        with Accelerator(patient=True):
            w = nn.Parameter(put(torch.complex(normal(8, Key(1)), normal(8, Key(2)))))
            optimizer = optim.Adam([w], lr=0.1, **way)
            handle = regularize(optimizer, [("w", w)], L1(2.0), where="all")
        for t in range(5):
            w.grad = put(torch.complex(normal(8, Key(3), call=t), normal(8, Key(4), call=t)))
            with Accelerator():
                optimizer.step()
        assert handle.sparsity() > 0
        return w.detach()

    torch.testing.assert_close(here(run(there, capturable=True)), run(torch.clone), rtol=1e-3, atol=1e-4)
