"""Schedules of p, and the findings about dropout in a model."""

import math

import pytest
import torch
from torch import Tensor, nn

import wellposed as wp
from wellposed.schedules import Constant, Cosine, Curriculum, Linear, Schedule, Step, WarmUp

# schedule of four steps -> its factor at steps 0, 1, 2 and 4
SCHEDULES: dict[str, tuple[Schedule, tuple[float, ...]]] = {
    "constant": (Constant(), (1, 1, 1, 1)),
    "linear": (Linear(0.0, 1.0, 4), (0, 0.25, 0.5, 1)),
    "linear down": (Linear(0.8, 0.2, 4), (0.8, 0.65, 0.5, 0.2)),
    "cosine": (Cosine(0.0, 1.0, 4), (0, 0.5 - math.sqrt(0.125), 0.5, 1)),
    "curriculum": (Curriculum(4, gamma=4), (0, 1 - math.exp(-1), 1 - math.exp(-2), 1 - math.exp(-4))),
    "early": (Linear(1.0, 0.0, 2), (1, 0.5, 0, 0)),
    "late": (Step(2), (0, 0, 1, 1)),
    "warm-up": (WarmUp(2, wait=1), (0, 0, 0.5, 1)),
    "of one's own": (lambda step: 1 / (1 + min(step, 4)), (1, 1 / 2, 1 / 3, 1 / 5)),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_p_follows_the_schedule(name: str) -> None:
    schedule, wanted = SCHEDULES[name]
    model = nn.Sequential(wp.Dropout(0.4), nn.Linear(3, 3), wp.DropPath(0.1))
    plan = wp.DropoutSchedule(model, schedule)
    seen = [(model[0].p, model[2].p)]
    for _ in range(6):
        plan.step()
        seen.append((model[0].p, model[2].p))
    assert seen[4] == seen[5] == seen[6]
    for index, value in zip((0, 1, 2, 4), wanted, strict=True):
        assert seen[index] == pytest.approx((0.4 * value, 0.1 * value), abs=1e-12)


def test_a_schedule_goes_on_from_its_state() -> None:
    model, twin = nn.Sequential(wp.Dropout(0.4)), nn.Sequential(wp.Dropout(0.9))
    plan = wp.DropoutSchedule(model, Linear(0.0, 1.0, 4))
    plan.step()
    again = wp.DropoutSchedule(twin, Linear(0.0, 1.0, 4))
    again.load_state_dict(plan.state_dict())
    assert twin[0].p == model[0].p == 0.1
    with pytest.raises(wp.WellposedError, match="expected \\['0'\\]"):
        plan.load_state_dict({"done": 0, "rates": {"1": 0.5}})


def test_schedules_that_make_no_sense_are_refused() -> None:
    with pytest.raises(wp.WellposedError, match="0 dropout modules"):
        wp.DropoutSchedule(nn.Dropout(0.5), Constant())
    with pytest.raises(wp.WellposedError, match="expected a callable of the step"):
        wp.DropoutSchedule(wp.Dropout(0.5), 0.5)  # type: ignore[arg-type]
    with pytest.raises(wp.WellposedError, match="the factor 2"):
        wp.DropoutSchedule(wp.Dropout(0.5), lambda _: 2.0)


class Live(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.nn.functional.scaled_dot_product_attention(x, x, x, dropout_p=0.1)


class Careless(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(x, 0.1)


class Careful(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.dropout(x, 0.1, self.training)
        return torch.nn.functional.scaled_dot_product_attention(x, x, x, dropout_p=0.1 if self.training else 0.0)


# model -> the rules it breaks, and where
MODELS: list[tuple[nn.Module, list[tuple[str, str]]]] = [
    (nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.ReLU(), nn.Dropout(0.5), nn.Linear(2, 2)), []),
    (nn.Sequential(nn.Dropout(0.5), nn.Linear(2, 2), nn.BatchNorm1d(2)), [("before-batch-norm", "0")]),
    (nn.Sequential(wp.Dropout(0.5), nn.BatchNorm1d(2)), [("before-batch-norm", "0")]),
    (nn.Sequential(wp.Dropout(0.0), nn.BatchNorm1d(2)), []),
    (nn.Sequential(nn.Sequential(nn.Dropout2d(0.1), nn.BatchNorm2d(2))), [("before-batch-norm", "0.0")]),
    (nn.Sequential(nn.ReLU(inplace=True), nn.Dropout(0.1, inplace=True)), [("in-place-twice", "1")]),
    (nn.Sequential(nn.ReLU(), nn.Dropout(0.1, inplace=True)), []),
    (nn.Sequential(Careful(), Live(), Careless()), [("live-in-eval", "1"), ("live-in-eval", "2")]),
]


@pytest.mark.parametrize(("model", "wanted"), MODELS)
def test_findings(model: nn.Module, wanted: list[tuple[str, str]]) -> None:
    findings = wp.lint_dropout(model)
    assert [(finding.rule, finding.path) for finding in findings] == wanted
    assert all("; " in finding.message for finding in findings)


def test_what_is_called_live_in_eval_is() -> None:
    x = torch.ones(2, 64, 64)
    for model, is_live in ((Live(), True), (Careless(), True), (Careful(), False)):
        model.eval()
        assert torch.equal(model(x), model(x)) != is_live
