"""Means, standard errors and the test of differences: against scipy."""

import numpy as np
import pytest
from scipy import stats

from wellposed.study.estimate import clear, difference, estimate


@pytest.mark.parametrize("seeds", [2, 3, 5, 8, 11, 40])
def test_scipy_agrees(seeds: int) -> None:
    draw = np.random.default_rng(seeds)
    verdicts = set()
    for shift in np.linspace(0, 3, 25):
        a, b = draw.normal(shift, 1, seeds), draw.normal(0, 1, seeds)
        change = difference(estimate(a.tolist()), estimate(b.tolist()))
        assert change["mean"] == pytest.approx((a - b).mean(), abs=1e-12)
        assert change["error"] == pytest.approx(stats.sem(a - b), rel=1e-12)
        verdict = bool(stats.ttest_rel(a, b).pvalue < 0.05)
        assert clear(change) == verdict
        verdicts.add(verdict)
    assert verdicts == {True, False}


@pytest.mark.parametrize("values", [[], [1.0], [1.0, None], [None]])
def test_nothing_is_clear_without_an_error(values: list[float | None]) -> None:
    change = estimate(values)
    assert change["error"] is None
    assert not clear(change)


def test_a_diverged_seed_leaves_no_mean() -> None:
    assert estimate([0.5, None])["mean"] is None


@pytest.mark.parametrize(
    ("values", "step", "verdict"),
    [
        ([0.01, 0.01], 0.0, False),  # no spread tells nothing of chance
        ([0.1 + 0.2 - 0.3, 0.0, 1e-17], 0.0, False),
        ([0.01, 0.01], 0.01, False),
        ([0.01, 0.01, 0.01, 0.01, 0.02], 0.01, False),
        ([0.05] * 5, 0.01, True),
        ([-0.05] * 5, 0.01, True),
    ],
)
def test_seeds_that_happen_to_agree_do_not_make_a_step_clear(values: list[float], step: float, verdict: bool) -> None:
    assert clear(estimate(values), step) == verdict
