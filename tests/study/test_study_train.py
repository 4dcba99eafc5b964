"""One run: how it is trained, and which rows it is scored on."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from wellposed.study.methods import STARTS
from wellposed.study.training.columns import Column
from wellposed.study.training.dataset import Dataset
from wellposed.study.training.network import ACTIVATIONS
from wellposed.study.training.train import ROWS_WATCHED, TrainingRun, execute

RUN = TrainingRun(seed=0, hidden=(64, 64, 64), steps=100)


def regression(rows: int) -> Dataset:
    """Standardised columns, and a target that half follows from them."""
    draw = np.random.default_rng(1)
    x = draw.normal(size=(rows, 8))
    y = np.sin(1.5 * x[:, 0]) + x[:, 1] * x[:, 2] + np.abs(x[:, 3]) + 0.5 * draw.normal(size=rows)
    columns = tuple(Column(f"x{i}", x[:, i].copy()) for i in range(8))
    return Dataset("made up", "regression", "y", (), columns, y)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("start", STARTS)
def test_every_start_trains_on_a_plain_regression(start: str, activation: str) -> None:
    scores = execute(replace(RUN, start=start, activation=activation), regression(1500))["score"]
    assert None not in scores.values()
    assert scores["train"] > 0


def test_on_a_deep_network_the_right_start_learns_and_the_wrong_one_does_not() -> None:
    deep = replace(RUN, hidden=(64,) * 6, steps=200)
    right, wrong = (execute(replace(deep, start=name), regression(1500))["score"] for name in ("he", "random"))
    assert right["train"] > 0.5
    assert wrong["train"] < 0.05


@pytest.mark.parametrize("clip", [1e-3, 0.1, 2.0])
def test_no_update_is_longer_than_the_rate_times_the_longest_gradient(clip: float) -> None:
    count = 8 * 64 + 2 * 64 * 64 + 64
    run = replace(RUN, tracked=tuple(range(count)), clip=clip)
    before, after = (
        torch.tensor(execute(replace(run, steps=steps), regression(200))["weights"]["tracked"]) for steps in (0, 1)
    )
    moved = float((after - before).norm())
    assert moved <= run.rate * clip * 1.001
    assert clip > 1 or moved > 0.9 * run.rate * clip


def test_averages_and_the_scaled_network_are_scored_on_the_same_rows() -> None:
    """Networks that are hardly thinned are the scaled one: on the same rows they score the same."""
    data = regression(5 * ROWS_WATCHED + 1000)
    figures = execute(replace(RUN, p=1e-9, steps=20), data)
    for part in ("validation", "test"):
        assert figures["ensemble"][part] == [figures["ensemble"]["scaled"][part]] * len(figures["ensemble"]["networks"])
        assert figures["ensemble"]["scaled"][part] != figures["score"][part]


def test_the_largest_weights_are_told_with_their_values() -> None:
    weights = execute(replace(RUN, steps=5), regression(200))["weights"]
    again = execute(replace(RUN, steps=5, tracked=tuple(weights["largest"])), regression(200))["weights"]
    assert weights["values"] == again["tracked"]
    assert [abs(value) for value in weights["values"]] == sorted(map(abs, weights["values"]), reverse=True)
