"""One run: how it is trained, where it is stopped, and which rows it is scored on."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import wellposed as wp
from wellposed.study.methods import STARTS
from wellposed.study.training.columns import Column
from wellposed.study.training.dataset import Dataset
from wellposed.study.training.network import ACTIVATIONS
from wellposed.study.training.splits import split
from wellposed.study.training.train import CHECKS, ROWS_WATCHED, TrainingRun, execute, train

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
    deep = replace(RUN, hidden=(64,) * 20)
    right, *wrong = (execute(replace(deep, start=name), regression(800))["score"] for name in ("he", "random", "torch"))
    assert right["test"] > 0.2
    assert max(scores["test"] for scores in wrong) < 0.05


def test_the_network_is_kept_where_it_scored_best_on_validation() -> None:
    """Few rows and many updates: it is learned by heart, and validation stops it before."""
    run, data = replace(RUN, rows=60, steps=300), regression(400)
    trained = train(run, data)
    curve = trained.curve
    assert curve["train loss"][-1] < 0.05
    assert curve["kept"] < run.steps
    least = curve["validation loss"].index(min(curve["validation loss"]))
    assert curve["kept"] == curve["step"][least]
    assert len(curve["step"]) == CHECKS + 1
    with torch.no_grad():
        outputs = trained.network(trained.parts.x["validation"]).squeeze(1)
    again = float((outputs - trained.parts.y["validation"]).square().mean())
    assert again == pytest.approx(min(curve["validation loss"]), rel=1e-5)


def test_so_many_training_rows_are_trained_on() -> None:
    """A network that has learned twenty rows by heart knows these twenty and no others."""
    figures = execute(replace(RUN, rows=20, steps=400), regression(400))
    assert figures["score"]["train"] > figures["score"]["test"] + 0.2
    parts = split(regression(400), wp.Key(0).fold("split"))
    assert len(parts.some(20)[0]) == 20
    assert len(parts.some(None)[0]) == len(parts.some(9999)[0]) == 240


def test_averages_and_the_scaled_network_are_scored_on_the_same_rows() -> None:
    """Networks that are hardly thinned are the scaled one: on the same rows they score the same."""
    data = regression(5 * ROWS_WATCHED + 1000)
    figures = execute(replace(RUN, p=1e-9, steps=20), data)
    for part in ("validation", "test"):
        assert figures["ensemble"][part] == pytest.approx(
            [figures["ensemble"]["scaled"][part]] * len(figures["ensemble"]["networks"]), rel=1e-6
        )
        assert figures["ensemble"]["scaled"][part] != pytest.approx(figures["score"][part], rel=1e-6)


def test_the_largest_weights_are_told_with_their_values() -> None:
    weights = execute(replace(RUN, steps=5), regression(200))["weights"]
    again = execute(replace(RUN, steps=5, tracked=tuple(weights["largest"])), regression(200))["weights"]
    assert weights["values"] == again["tracked"]
    assert [abs(value) for value in weights["values"]] == sorted(map(abs, weights["values"]), reverse=True)
