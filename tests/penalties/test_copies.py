"""Optimizers with penalties, and handles, that are copied, pickled and saved."""

import copy
import functools
import io
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import wellposed as wp
from penalty_tools import linear, network, state, step
from wellposed.penalties import L1, L2, GroupLasso, Handle, Towards, regularize
from wellposed.schedules import Cosine

SGD, Adam = torch.optim.SGD, torch.optim.Adam


def saved(value: Any) -> Any:
    """What torch.load makes of what torch.save wrote."""
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


WAYS: dict[str, Callable[[Any], Any]] = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda value: pickle.loads(pickle.dumps(value)),
    "torch.save": saved,
    "deepcopy of a copy": lambda value: copy.deepcopy(copy.deepcopy(value)),
    "pickle of a copy": lambda value: pickle.loads(pickle.dumps(copy.deepcopy(value))),
}
# what is put on an optimizer
PENALTIES: dict[str, dict[str, Any]] = {
    "proximal": {"penalty": {"*": L1(0.05), "3.*": GroupLasso(0.1)}, "schedule": Cosine(0.2, 1.0, 7)},
    "gradient": {"penalty": L2(0.1), "mode": "gradient"},
    "decoupled": {"penalty": L2(0.1), "mode": "decoupled"},
    "towards": {"penalty": Towards(L1(0.1))},
    "euclidean": {"penalty": wp.constraints.MaxNorm(0.5), "metric": "euclidean"},
}


def trained(
    kind: Any = Adam, penalty: str = "proximal"
) -> tuple[nn.Module, torch.optim.Optimizer, wp.penalties.Handle]:
    model = network()
    optimizer = kind(model.parameters(), lr=0.05)
    handle = regularize(optimizer, model, **PENALTIES[penalty])
    for _ in range(3):
        step(model, optimizer)
    return model, optimizer, handle


ORDERS = [(0, 1, 2), (2, 1, 0), (1, 2, 0)]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("way", WAYS)
def test_a_copy_of_all_three_works_together_and_goes_its_own_way(
    way: str, penalty: str, order: tuple[int, int, int]
) -> None:
    three = trained(penalty=penalty)
    copies = WAYS[way](tuple(three[i] for i in order))
    model, optimizer, handle = (copies[order.index(i)] for i in range(3))
    assert handle.plan == three[2].plan
    assert handle.step == 3
    kept = state(three[0])
    for _ in range(4):
        step(model, optimizer)
    assert handle.step == 7
    assert three[2].step == 3
    assert all(p.equal(kept[name]) for name, p in three[0].named_parameters())
    for _ in range(4):
        step(three[0], three[1])
    assert all(a.equal(b) for a, b in zip(model.parameters(), three[0].parameters(), strict=True))
    assert handle.value() == three[2].value()
    handle.remove()
    for _ in range(2):
        step(model, optimizer)
        step(three[0], three[1])
    assert handle.step == 7
    assert three[2].step == 9
    assert not all(a.equal(b) for a, b in zip(model.parameters(), three[0].parameters(), strict=True))


@pytest.mark.parametrize("way", WAYS)
def test_an_optimizer_that_is_copied_keeps_its_penalty(way: str) -> None:
    model, optimizer, _ = trained(SGD)
    alone = WAYS[way](optimizer)
    (group,), (own,) = alone.param_groups, optimizer.param_groups
    for p, q in zip(group["params"], own["params"], strict=True):
        p.grad, q.grad = torch.ones_like(p), torch.ones_like(q)
    alone.step()
    optimizer.step()
    assert all(p.equal(q) for p, q in zip(group["params"], own["params"], strict=True))
    pairs = [(name, p) for (name, _), p in zip(model.named_parameters(), group["params"], strict=True)]
    with pytest.raises(wp.WellposedError, match="proximal penalty already"):
        regularize(alone, pairs, L1(0.1))


@pytest.mark.parametrize("way", WAYS)
def test_a_handle_takes_its_optimizer_with_it(way: str) -> None:
    _, _, handle = trained()
    alone = WAYS[way](handle)
    assert repr(alone) == repr(handle)
    assert alone.value() == handle.value()
    assert alone.sparsity() == handle.sparsity()
    assert alone.report() == handle.report()
    assert alone.state_dict() == handle.state_dict()
    alone.remove()
    assert alone.plan == handle.plan


def test_other_hooks_are_left_out_as_torch_leaves_them_out() -> None:
    model, optimizer, _ = trained(SGD)
    calls = []
    optimizer.register_step_post_hook(lambda *given: calls.append(1))
    other = pickle.loads(pickle.dumps(optimizer))
    other.step()
    assert calls == []
    step(model, optimizer)
    assert calls == [1]


def test_an_optimizer_without_its_penalty_is_torchs_again() -> None:
    model = network()
    optimizer = SGD(model.parameters(), lr=0.1)
    before = set(vars(optimizer))
    one, two = regularize(optimizer, model, L1(0.1)), regularize(optimizer, model, L2(0.1), mode="gradient")
    one.remove()
    assert len(copy.deepcopy((optimizer, two))) == 2
    assert set(vars(optimizer)) > before
    two.remove()
    assert set(vars(optimizer)) == before


def test_hooks_of_a_loaded_optimizer_and_new_ones_do_not_meet(tmp_path: Path) -> None:
    """Torch numbers hooks from 0 in each process, so a loaded hook must not lie under a number."""
    path = tmp_path / "optimizer.pickle"
    path.write_bytes(pickle.dumps(trained(SGD)))
    code = (
        "import pickle, sys, torch; model, optimizer, handle = pickle.load(open(sys.argv[1], 'rb'))\\n"
        "for _ in range(40): optimizer.register_step_pre_hook(lambda *given: None)\\n"
        "for p in model.parameters(): p.grad = torch.zeros_like(p)\\n"
        "optimizer.step(); print(handle.step)"
    ).replace("\\n", "\n")
    out = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True).stdout
    assert out.split() == ["4"]


def test_masters_are_copied_with_their_model() -> None:
    model = network().to(torch.bfloat16)
    masters = {name: p.detach().float() for name, p in model.named_parameters()}
    optimizer = SGD(masters.values(), lr=0.1)
    handle = regularize(optimizer, model, L1(5.0), masters=masters)
    _, others, optimizer, handle = copy.deepcopy((model, masters, optimizer, handle))
    for master in others.values():
        master.grad = torch.zeros_like(master)
    optimizer.step()
    assert handle.sparsity() > 0
    assert (others["0.weight"] == 0).any()
    assert not (masters["0.weight"] == 0).any()


def halved(step: int) -> float:
    """A schedule at the top of a module, which pickle can name."""
    return 0.5**step


def constant_metric(group: Any, state: Any, parameter: Any) -> float:
    return 0.1


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"schedule": lambda t: 1.0}, "schedule= is <function"),
        ({"schedule": {"0.*": 1.0, "3.*": lambda t: 1.0}}, "schedule= is <function"),
        ({"metric": lambda group, state, p: 0.1}, "metric= is <function"),
    ],
)
@pytest.mark.parametrize("whole", [True, False])
def test_what_pickle_cannot_take_is_named_and_what_it_can_is_taken(
    options: dict[str, Any], named: str, whole: bool
) -> None:
    model = network()
    optimizer = SGD(model.parameters(), lr=0.1)
    handle = regularize(optimizer, model, L1(0.1), **options)
    with pytest.raises(wp.WellposedError, match=rf"{named}.*at the top of a module.*state_dict\(\)"):
        pickle.dumps(handle if whole else optimizer)
    model, optimizer, handle = copy.deepcopy((model, optimizer, handle))  # functions are not copied
    step(model, optimizer)
    assert handle.step == 1


@pytest.mark.parametrize("options", [{"schedule": halved}, {"metric": constant_metric}, {"metric": SGD}])
def test_functions_with_names_are_pickled(options: dict[str, Any]) -> None:
    model = network()
    optimizer = SGD(model.parameters(), lr=0.1)
    regularize(optimizer, model, L1(0.1), **options)
    other, again = pickle.loads(pickle.dumps((model, optimizer)))
    for _ in range(2):
        step(model, optimizer)
        step(other, again)
    assert all(a.equal(b) for a, b in zip(model.parameters(), other.parameters(), strict=True))


class Estimator:
    """What holds a model, its optimizer and its penalty, as estimators of scikit-learn's kind do."""

    def __init__(self) -> None:
        self.model, self.optimizer, self.handle = trained()
        self.score = functools.partial(Handle.sparsity, self.handle)


def test_an_estimator_that_holds_a_handle_is_pickled() -> None:
    estimator = pickle.loads(pickle.dumps(Estimator()))
    before = linear(estimator.model, 0).weight.clone()
    step(estimator.model, estimator.optimizer)
    assert estimator.handle.step == 4
    assert not linear(estimator.model, 0).weight.equal(before)
    assert estimator.score() == estimator.handle.sparsity()
