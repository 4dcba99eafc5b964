"""Laws of every shape of schedule: a frozen value, factors >= 0, and a constant once it is over."""

import math
import pickle
from collections.abc import Callable

import pytest

import wellposed as wp
from wellposed.schedules import Cosine, Curriculum, Linear, Schedule, Step, WarmUp

# shape, its first factor, its last factor, how many steps it takes
SHAPES: list[tuple[Schedule, float, float, int]] = [
    (Linear(0.3, 0.3, 1), 0.3, 0.3, 0),
    (Linear(0.2, 1.5, 7), 0.2, 1.5, 7),
    (Linear(1.0, 0.0, 3), 1.0, 0.0, 3),
    (Cosine(1.0, 0.25, 5), 1.0, 0.25, 5),
    (WarmUp(3, wait=2), 0.0, 1.0, 5),
    (Step(4), 0.0, 1.0, 4),
    (Step(0, 0.5, 2.0), 2.0, 2.0, 0),
    (Curriculum(6, gamma=2.0), 0.0, 1 - math.exp(-2), 6),
]


@pytest.mark.parametrize(("shape", "first", "last", "steps"), SHAPES, ids=repr)
def test_a_shape_goes_from_its_first_factor_to_its_last(shape: Schedule, first: float, last: float, steps: int) -> None:
    factors = [shape(step) for step in range(steps + 4)]
    assert factors[0] == pytest.approx(first)
    assert factors[steps:] == pytest.approx([last] * 4)
    assert all(min(first, last) - 1e-12 <= factor <= max(first, last) + 1e-12 for factor in factors)
    rising = sorted(factors, reverse=first > last)
    assert factors == rising


@pytest.mark.parametrize("shape", [row[0] for row in SHAPES], ids=repr)
def test_a_shape_is_a_value(shape: Schedule) -> None:
    again = pickle.loads(pickle.dumps(shape))
    assert again == shape
    assert hash(again) == hash(shape)
    assert eval(repr(shape), vars(wp.schedules)) == shape
    with pytest.raises(AttributeError):
        shape.steps = 1  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "make",
    [
        lambda: Linear(-1.0, 1.0, 3),
        lambda: Linear(0.0, math.inf, 3),
        lambda: Linear(0.0, 1.0, 2.5),  # type: ignore[arg-type]
        lambda: Cosine(0.0, 1.0, 0),
        lambda: WarmUp(True),
        lambda: Step(-1),
        lambda: Step(1, before=math.nan),
        lambda: Curriculum(5, gamma=-1.0),
    ],
)
def test_numbers_that_make_no_schedule_are_refused(make: Callable[[], Schedule]) -> None:
    with pytest.raises(wp.WellposedError, match=r"\w+\(\w+\) was given"):
        make()
