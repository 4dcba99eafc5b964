"""Penalties on what layers put out."""

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import wellposed as wp
from wellposed.compaction import compact
from wellposed.penalties import L1, L2, constraints, penalize_activity
from wellposed.random import Key, normal, normal_


def network() -> nn.Sequential:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 1))
    for name, p in model.named_parameters():
        normal_(p, Key(3).fold(name))
    return model


def gradients(model: nn.Module) -> list[Tensor]:
    found = []
    for p in model.parameters():
        assert p.grad is not None
        found.append(p.grad.clone())
    return found


@pytest.mark.parametrize("rows", [1, 6])
def test_its_gradient_is_that_of_the_penalty_written_out(rows: int) -> None:
    model, x = network(), normal((rows, 3), Key(1))
    activity = penalize_activity(model, L1(0.3) + L2(0.1), nn.ReLU)
    assert activity.names == ("1", "3")
    for _ in range(2):
        out = model(x)
    torch.autograd.backward(out.square().mean() + activity.loss())
    found = gradients(model)

    model.zero_grad()
    first = model[1](model[0](x))
    second = model[3](model[2](first))
    written = sum((0.3 * a.abs().sum() + 0.1 * a.square().sum()) / rows for a in (first, second))
    torch.autograd.backward(model[4](second).square().mean() + written)
    for a, b in zip(found, gradients(model), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("where", ["1", lambda name, module: name == "1"])
def test_where_selects(where: object) -> None:
    assert penalize_activity(network(), L1(0.3), where).names == ("1",)  # type: ignore[arg-type]


def test_nothing_is_watched_in_evaluation_or_without_gradients_or_after_removal() -> None:
    model = network()
    activity = penalize_activity(model, L1(0.3), nn.ReLU)
    with torch.no_grad():
        model(torch.ones(2, 3))
    with pytest.raises(wp.WellposedError, match="no activity"):
        activity.loss()
    model.eval()(torch.ones(2, 3))
    with pytest.raises(wp.WellposedError, match="no activity"):
        activity.loss()
    model.train()(torch.ones(2, 3))
    assert float(activity.loss().detach()) > 0
    activity.remove()
    activity.remove()
    model(torch.ones(2, 3))
    with pytest.raises(wp.WellposedError, match="no activity"):
        activity.loss()


def test_a_copy_starts_without_the_terms_and_watches_for_itself() -> None:
    model = network()
    activity = penalize_activity(model, L1(0.3), nn.ReLU)
    model(torch.ones(2, 3))
    before = float(activity.loss().detach())
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), compact(model)):
        copied(torch.full((2, 3), 9.0))
        assert float(activity.loss().detach()) == before
        hooks: list[Any] = [hook for module in copied.modules() for hook in module._forward_hooks.values()]
        assert [len(hook.terms) for hook in hooks] == [2, 2]  # one list, of the copy's latest pass
        copied(torch.ones(2, 3))
        assert len(hooks[0].terms) == 2


def test_what_only_watches_does_not_keep_a_model_from_getting_smaller() -> None:
    model = network()
    penalize_activity(model, L1(0.3), nn.ReLU)
    with torch.no_grad():
        next(model.parameters())[1] = 0
    assert sum(p.numel() for p in compact(model).parameters()) < sum(p.numel() for p in model.parameters())


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(wp.WellposedError, match=r"matches no module.*0: Linear"):
        penalize_activity(network(), L1(0.1), nn.Conv2d)
    with pytest.raises(wp.WellposedError, match="with a gradient"):
        penalize_activity(network(), constraints.NonNegative(), nn.ReLU)
    model = nn.LSTM(3, 4)
    penalize_activity(model, L1(0.1), nn.LSTM)
    with pytest.raises(wp.WellposedError, match="output of '' is tuple"):
        model(torch.ones(2, 3))
