"""What is trained, made from the data: rows that are few, batches, updates and grids."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from wellposed.random.key import Key
from wellposed.study.design import Settings, design
from wellposed.study.experiments import WAVES, size
from wellposed.study.methods import PENALTIES
from wellposed.study.table.loading import load
from wellposed.study.training.columns import Column
from wellposed.study.training.dataset import Dataset
from wellposed.study.training.splits import MOST_SCORED, split
from wellposed.study.training.train import TrainingRun, train


def table(rows: int, counts: tuple[int, ...] = (), columns: int = 6) -> Dataset:
    draw = np.random.default_rng(0)
    x = draw.normal(size=(rows, columns))
    features = tuple(Column(f"x{i}", x[:, i].copy()) for i in range(columns))
    if counts:
        y = draw.permutation(np.repeat(np.arange(len(counts)), counts))
        return Dataset("made up", "classification", "y", tuple(map(str, range(len(counts)))), features, y)
    return Dataset("made up", "regression", "y", (), features, x[:, 0] + draw.normal(size=rows))


FEW = {
    "numbers": (table(2000), 100),
    "a small table": (table(300), None),
    "even classes": (table(2000, (1000, 1000)), 100),
    "twenty classes": (table(4000, (200,) * 20), 200),
    "a rare class": (table(4000, (3900, 100)), 400),
    "a tiny class": (table(20000, (19990, 10)), 1000),
}


@pytest.mark.parametrize("name", FEW)
def test_few_rows_have_ten_of_the_rarest_class_where_there_are(name: str) -> None:
    data, rows = FEW[name]
    made = design(Settings(), data)
    assert made.few.rows == rows
    assert made.full.rows is None
    assert (made.few == made.full) == (rows is None)
    if rows and data.classes:
        _, y = split(data, Key(0).fold("split")).some(rows)
        assert int(torch.bincount(y, minlength=len(data.classes)).min()) >= (1 if rows == 1000 else 9)


@pytest.mark.parametrize("rows", [60, 400, 2000, 30000, 200000])
def test_updates_and_epochs_are_told(rows: int) -> None:
    made = design(Settings(), table(rows, columns=1))
    for name, regime in made.regimes.items():
        run: TrainingRun = getattr(made, name)
        assert regime["rows"] == (run.rows or max(round(0.6 * rows), rows - 2 * MOST_SCORED))
        assert regime["updates"] == run.steps
        assert regime["epochs"] == pytest.approx(run.steps * run.batch / regime["rows"], rel=0.6) != 0
        assert 32 <= run.batch <= 256
        assert 120 <= run.steps <= 1000
    if made.few.rows:
        assert made.regimes["few"]["epochs"] > 50


def test_what_is_set_is_taken() -> None:
    made = design(Settings(hidden=(5, 4), deep=(3,) * 4, seeds=7, steps=11, rows=20, rates=(0.4,)), table(200))
    assert made.few.hidden == made.full.hidden == (5, 4)
    assert made.deep.hidden == (3,) * 4
    assert {made.few.steps, made.full.steps, made.deep.steps} == {11}
    assert (made.seeds, made.few.rows, made.rates) == (7, 20, (0.4,))


@pytest.mark.parametrize("scale", [1.0, 5.0])
def test_the_grid_of_lambda_follows_the_data(scale: float) -> None:
    """Lambda grows with how much the columns say of the target, and the largest one empties much of a network."""
    data = table(400, columns=3)
    draw = np.random.default_rng(1)
    told = Dataset(
        data.name, data.task, "y", (), data.features, data.features[0].values + draw.normal(size=400) * scale
    )
    made = design(Settings(), told)
    parts = split(told, Key(0).fold("split"))
    x, y = (values.double().numpy() for values in parts.some(made.few.rows))
    largest = np.abs(2 * x.T @ (y - y.mean()) / len(y)).max()
    assert made.strengths["l1_proximal"] == pytest.approx([f * largest for f in (0.03, 0.008, 0.002)], rel=0.06)
    zero = []
    for strength in made.strengths["l1_proximal"]:
        run = TrainingRun(0, (64, 64), penalty="l1_proximal", strength=strength, rows=made.few.rows)
        weights = torch.cat([weight.flatten() for weight in train(run, told).network.weights()])
        zero.append(float((weights == 0).double().mean()))
    assert zero[0] > 0.3


def test_decay_alone_shrinks_by_what_is_said() -> None:
    made = design(Settings(), table(400))
    largest = made.strengths["l2"][0]
    assert (1 - 2 * made.few.rate * largest) ** made.few.steps == pytest.approx(np.exp(-3), rel=0.3)
    assert list(made.strengths) == [name for name, method in PENALTIES.items() if method.make is not None]


def test_the_digits_leave_room_for_the_question() -> None:
    """On few rows the network has far more weights than rows and goes through them many times."""
    data = load("digits")
    made = design(Settings(), data)
    weights = sum(a * b for a, b in pairwise((61, *made.few.hidden, 10)))
    assert weights > 100 * made.regimes["few"]["rows"]
    assert made.regimes["few"]["epochs"] > 50
    assert size(made) < 200
    assert len(WAVES) == 4
