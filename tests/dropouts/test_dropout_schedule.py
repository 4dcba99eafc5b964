"""Schedules of p, and the findings about dropout in a model."""

import math

import pytest
from torch import nn

import wellposed as wp
from wellposed.dropouts import scheduling as schedule

# factor -> its value when 0, 1/4, 1/2 and all of training is done
FACTORS = {
    "constant": (schedule.constant(), (1, 1, 1, 1)),
    "linear": (schedule.linear(), (0, 0.25, 0.5, 1)),
    "linear down": (schedule.linear(0.8, 0.2), (0.8, 0.65, 0.5, 0.2)),
    "cosine": (schedule.cosine(), (0, 0.5 - math.sqrt(0.125), 0.5, 1)),
    "curriculum": (schedule.curriculum(4), (0, 1 - math.exp(-1), 1 - math.exp(-2), 1 - math.exp(-4))),
    "early": (schedule.early(0.5), (1, 0.5, 0, 0)),
    "late": (schedule.late(0.5), (0, 0, 1, 1)),
}


@pytest.mark.parametrize("name", FACTORS)
def test_p_follows_the_factor(name: str) -> None:
    factor, wanted = FACTORS[name]
    model = nn.Sequential(wp.Dropout(0.4), nn.Linear(3, 3), wp.DropPath(0.1))
    plan = wp.DropoutSchedule(model, factor, steps=4)
    seen = [(model[0].p, model[2].p)]
    for _ in range(6):
        plan.step()
        seen.append((model[0].p, model[2].p))
    assert seen[4] == seen[5] == seen[6]
    for index, value in zip((0, 1, 2, 4), wanted, strict=True):
        assert seen[index] == pytest.approx((0.4 * value, 0.1 * value), abs=1e-12)


def test_a_schedule_goes_on_from_its_state() -> None:
    model, twin = nn.Sequential(wp.Dropout(0.4)), nn.Sequential(wp.Dropout(0.9))
    plan = wp.DropoutSchedule(model, schedule.linear(), steps=4)
    plan.step()
    again = wp.DropoutSchedule(twin, schedule.linear(), steps=4)
    again.load_state_dict(plan.state_dict())
    assert twin[0].p == model[0].p == 0.1
    with pytest.raises(wp.WellposedError, match="expected \\['0'\\]"):
        plan.load_state_dict({"done": 0, "rates": {"1": 0.5}})


def test_schedules_that_make_no_sense_are_refused() -> None:
    with pytest.raises(wp.WellposedError, match="0 dropout modules"):
        wp.DropoutSchedule(nn.Dropout(0.5), schedule.constant(), 3)
    with pytest.raises(wp.WellposedError, match="steps=0"):
        wp.DropoutSchedule(wp.Dropout(0.5), schedule.constant(), 0)
    with pytest.raises(wp.WellposedError, match="the factor 2"):
        wp.DropoutSchedule(wp.Dropout(0.5), lambda _: 2.0, 3)
