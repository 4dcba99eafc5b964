"""Accuracy, balanced accuracy, areas, and the parts that they are taken on: against scikit-learn, and laws."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

import wellposed as wp
from wellposed.study.training.baselines import BaselineRun, execute_baselines
from wellposed.study.training.columns import Column
from wellposed.study.training.dataset import Dataset
from wellposed.study.training.measures import (
    accuracy,
    area_under_curve,
    balanced_accuracy,
    beside,
    few_rows,
    log_shares,
    measure_of,
    objective_of,
)
from wellposed.study.training.splits import PARTS, split


def classified(counts: list[int], seed: int = 0) -> Dataset:
    """Classes of so many rows, told apart by a column with noise."""
    draw = np.random.default_rng(seed)
    y = draw.permutation(np.repeat(np.arange(len(counts)), counts))
    columns = (Column("x", y + draw.normal(size=len(y))), Column("z", draw.normal(size=len(y))))
    return Dataset("made up", "classification", "y", tuple("abcdefgh"[: len(counts)]), columns, y)


@pytest.mark.parametrize("classes", [2, 3, 7])
@pytest.mark.parametrize("seed", range(5))
def test_scikit_learn_agrees(classes: int, seed: int) -> None:
    draw = np.random.default_rng(seed)
    y = draw.choice(classes, size=200, p=draw.dirichlet(np.ones(classes)))
    logits = draw.normal(size=(200, classes))
    logits[:50] = logits[100:150]  # rows that tie
    logits[150:][np.arange(50), y[150:]] += 1
    outputs, goal = torch.from_numpy(logits), torch.from_numpy(y)
    told = logits.argmax(1)
    assert accuracy(outputs, goal) == pytest.approx(metrics.accuracy_score(y, told))
    recalls = [(told[y == kind] == kind).mean() for kind in np.unique(y)]
    assert balanced_accuracy(outputs, goal) == pytest.approx(np.mean(recalls))
    shares = outputs.softmax(1).numpy()
    areas = [
        metrics.roc_auc_score(y == kind, shares[:, kind])
        for kind in (range(classes) if classes > 2 else (1,))
        if 0 < (y == kind).sum() < len(y)
    ]
    assert area_under_curve(outputs, goal) == pytest.approx(np.mean(areas), abs=1e-9)
    told_beside = beside("balanced accuracy", outputs, goal)
    assert told_beside["log loss"] == pytest.approx(metrics.log_loss(y, shares, labels=range(classes)))


MEASURES = {
    (60, 50): "accuracy",
    (50, 45, 20): "accuracy",
    (60, 19): "balanced accuracy",
    (195, 5): "balanced accuracy",
    (60, 60, 60, 3): "balanced accuracy",
}


@pytest.mark.parametrize("counts", MEASURES)
def test_uneven_classes_are_scored_by_balanced_accuracy(counts: tuple[int, ...]) -> None:
    data = classified(list(counts))
    assert measure_of(data) == MEASURES[counts]
    notes = " ".join(few_rows(data))
    assert ("uneven" in notes) == (MEASURES[counts] == "balanced accuracy")
    assert ("handful" in notes) == (min(counts) < 15)
    for kind, count in zip(data.classes, counts, strict=True):
        assert (f"{kind!r} ({count})" in notes) == (count < 15)


@settings(deadline=None, max_examples=60)
@given(counts=st.lists(st.integers(3, 60), min_size=2, max_size=6), seed=st.integers(0, 2**32))
def test_every_part_has_each_class_by_its_share(counts: list[int], seed: int) -> None:
    data = classified([*counts, 30])
    parts = split(data, wp.Key(seed))
    for part, share in PARTS.items():
        assert abs(len(parts.y[part]) - share * data.rows) <= 1
        for kind, count in enumerate([*counts, 30]):
            assert abs(int((parts.y[part] == kind).sum()) - share * count) < 2


@settings(deadline=None, max_examples=60)
@given(counts=st.lists(st.integers(5, 60), min_size=2, max_size=4), share=st.floats(0.2, 1.0))
def test_some_rows_have_each_class_by_its_share_in_no_order(counts: list[int], share: float) -> None:
    parts = split(classified([*counts, 40]), wp.Key(1))
    total = len(parts.y["train"])
    rows = max(1, int(share * total))
    x, y = parts.some(rows)
    assert len(x) == len(y) == rows
    for kind in range(len(counts) + 1):
        assert abs(int((y == kind).sum()) - int((parts.y["train"] == kind).sum()) * rows / total) <= 1
    whole = [tuple(row) for row in parts.x["train"].tolist()]
    places = [whole.index(tuple(row)) for row in x.tolist()]
    assert places == sorted(places)


def test_a_rare_class_is_told_by_what_makes_it_likelier() -> None:
    """Outputs that know only how common classes are score as guessing does, whatever the shares."""
    y = torch.tensor([0] * 97 + [1] * 3)
    score = objective_of("balanced accuracy", y, 2).score
    shares = log_shares(y, 2)
    assert score(shares.expand(100, 2), y) == 0.5
    hint = torch.zeros(100, 2)
    hint[97:, 1] = 0.5  # far from making the rare class the likelier one
    assert accuracy(shares + hint, y) == 0.97
    assert score(shares + hint, y) == 1.0


def test_outputs_that_are_not_finite_have_no_score() -> None:
    for measure in ("accuracy", "balanced accuracy"):
        score = objective_of(measure, torch.tensor([0, 1]), 2).score(
            torch.tensor([[0.0, float("nan")]]), torch.tensor([0])
        )
        assert score != score


@pytest.mark.parametrize("counts", [(100, 80), (194, 6), (60, 60, 2)])
def test_baselines_of_classes(counts: tuple[int, ...]) -> None:
    data = classified(list(counts))
    found = execute_baselines(BaselineRun(3), data)
    tested = split(data, wp.Key(3).fold("split")).y["test"]
    if measure_of(data) == "accuracy":
        assert found["guess"]["test"] == pytest.approx(float((tested == 0).double().mean()))
        assert found["guess"]["beside"] == {}
    else:
        assert found["guess"]["test"] == pytest.approx(1 / len(tested.unique()))
        assert found["guess"]["beside"]["area under the curve"] == pytest.approx(0.5)
        assert found["guess"]["beside"]["accuracy"] == pytest.approx(float((tested == 0).double().mean()))
    assert found["trees"]["train"] > found["guess"]["train"]


def test_baselines_of_numbers_do_not_depend_on_threads() -> None:
    draw = np.random.default_rng(0)
    x = draw.normal(size=300)
    data = Dataset("made up", "regression", "y", (), (Column("x", x),), 3 * x + draw.normal(size=300))
    found = execute_baselines(BaselineRun(0), data)
    assert abs(found["guess"]["train"]) < 1e-9
    assert found["trees"]["test"] > 0.7
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert execute_baselines(BaselineRun(0), data) == found
    finally:
        torch.set_num_threads(threads)
