"""Schedules of p, and the findings about dropout in a model."""

import math

import pytest
from torch import nn

import wellposed as wp
from wellposed.schedules import Cosine, Curriculum, Linear, Schedule, Step, WarmUp

# schedule of four steps -> its factor at steps 0, 1, 2 and 4
SCHEDULES: dict[str, tuple[Schedule, tuple[float, ...]]] = {
    "constant": (Step(0), (1, 1, 1, 1)),
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
    model, counterpart = nn.Sequential(wp.Dropout(0.4)), nn.Sequential(wp.Dropout(0.9))
    plan = wp.DropoutSchedule(model, Linear(0.0, 1.0, 4))
    plan.step()
    again = wp.DropoutSchedule(counterpart, Linear(0.0, 1.0, 4))
    again.load_state_dict(plan.state_dict())
    assert counterpart[0].p == model[0].p == 0.1
    with pytest.raises(wp.WellposedError, match="expected \\['0'\\]"):
        plan.load_state_dict({"done": 0, "rates": {"1": 0.5}})


def test_schedules_that_make_no_sense_are_refused() -> None:
    with pytest.raises(wp.WellposedError, match="0 dropout modules"):
        wp.DropoutSchedule(nn.Dropout(0.5), Step(0))
    with pytest.raises(wp.WellposedError, match="expected a callable of the step"):
        wp.DropoutSchedule(wp.Dropout(0.5), 0.5)  # type: ignore[arg-type]
    with pytest.raises(wp.WellposedError, match="the factor 2"):
        wp.DropoutSchedule(wp.Dropout(0.5), lambda _: 2.0)
