"""What the draws are distributed like, against scipy and mpmath, at fixed keys.

Each test states the chance that it would fail for a perfect generator with another key; with these keys it passes.
"""

import math

import mpmath
import numpy as np
import pytest
import torch
from scipy import special, stats

import wellposed as wp
from draw_cases import CASES, ROW_IDS, ROWS, Case
from wellposed.random import reference
from wellposed.random.draw import normal as normal_draw
from wellposed.random.draw import truncated_normal as truncated_draw

KEY = wp.Key(0).fold("statistics")
ERROR_RATE = 1e-4  # of each test below, unless it says otherwise
PRECISE_ROWS = [
    (row, name) for row, name in zip(ROWS, ROW_IDS, strict=True) if row[1] in (torch.float32, torch.float64)
]


@pytest.mark.slow
@pytest.mark.parametrize(("case", "dtype"), [row for row, _ in PRECISE_ROWS], ids=[name for _, name in PRECISE_ROWS])
def test_kolmogorov_smirnov(case: Case, dtype: torch.dtype) -> None:
    """The empirical distribution of 200,000 values lies as near to scipy's as chance allows."""
    values = case.draw(200_000, KEY, dtype).double().numpy()
    assert stats.kstest(values, case.law.cdf).pvalue > ERROR_RATE


@pytest.mark.parametrize(("case", "dtype"), ROWS, ids=ROW_IDS)
def test_mean_and_deviation(case: Case, dtype: torch.dtype) -> None:
    """Both lie within the sampling error, and half a unit of rounding, of scipy's."""
    n = 100_000
    values = case.draw(n, KEY, dtype).double().numpy()
    mean, variance = float(case.law.mean()), float(case.law.var())
    fourth = float(stats.kurtosis(values) + 3)
    rounding = torch.finfo(dtype).eps * float(np.abs(values).max())
    z = stats.norm.isf(ERROR_RATE / 4)
    assert abs(values.mean() - mean) < z * math.sqrt(variance / n) + rounding
    assert abs(values.std() - math.sqrt(variance)) < z * math.sqrt(variance * (fourth - 1) / (4 * n)) + rounding


@pytest.mark.slow
def test_tails_of_the_normal() -> None:
    """Of 2^26 values the counts beyond 4, 5 and 5.5 sigma, 4251, 38 and 2.5 expected, are Poisson."""
    beyond = {4.0: 0, 5.0: 0, 5.5: 0}
    for call in range(4):
        values = wp.random.normal(2**24, KEY, call=call).abs_()
        for cut in beyond:
            beyond[cut] += int((values > cut).sum())
    for cut, count in beyond.items():
        expected = 2**26 * 2 * stats.norm.sf(cut)
        low, high = stats.poisson.interval(1 - ERROR_RATE, expected)
        assert low <= count <= high


def every_scale_of_words(bits: int) -> list[int]:
    """Words near both ends, near the middle, and at every scale in between."""
    near = [n + d for n in (0, 2 ** (bits - 1), 2**bits) for d in range(-40, 40)]
    scales = [sign * (2**k + d) for sign in (1, -1) for k in range(bits) for d in (0, 1, 12345)]
    middle = [2 ** (bits - 1) + sign * 2**k for sign in (1, -1) for k in range(bits - 1)]
    anywhere = [int(word) for word in np.random.default_rng(0).integers(0, 2**64, 3000, dtype=np.uint64)]
    return sorted({word % 2**bits for word in near + scales + middle + anywhere})


@pytest.mark.parametrize(("dtype", "bits", "bound"), [(torch.float32, 32, 6e-7), (torch.float64, 64, 4e-15)])
def test_the_quantile_is_the_inverse_of_the_distribution_function(dtype: torch.dtype, bits: int, bound: float) -> None:
    """z(word) is ndtri((word + 1/2) / 2^bits) to a relative error, out to the very first and last words."""
    words = every_scale_of_words(bits)
    signed = torch.tensor([w - 2**64 if w >= 2**63 else w for w in words])
    got = reference.values(normal_draw(0.0, 1.0, dtype), signed).double().numpy()
    with mpmath.workdps(40):
        half = mpmath.mpf(2) ** (bits - 1)
        want = np.array([float(mpmath.sqrt(2) * mpmath.erfinv((w + mpmath.mpf("0.5")) / half - 1)) for w in words])
    assert np.abs(got / want - 1).max() < bound
    assert got[0] == pytest.approx(special.ndtri(2.0 ** -(bits + 1)), rel=bound)
    assert abs(got[0]) == got[-1] > 6.2


@pytest.mark.parametrize(("dtype", "bits", "bound"), [(torch.float32, 32, 2e-6), (torch.float64, 64, 1e-13)])
@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0, 2.5, 8.0, 40.0, 1e3, 1e6, 1e12])
@pytest.mark.parametrize("width", [1e-3, 1.0, math.inf])
def test_far_tails_keep_their_digits(alpha: float, width: float, dtype: torch.dtype, bits: int, bound: float) -> None:
    """The excess over the near end, not only the value, is right to a relative error: here the near end is 0."""
    end = width / max(alpha, 1.0)
    draw = truncated_draw(-alpha, 1.0, 0.0, end, dtype)
    words = [0, 1, 5, 1000, 2**bits // 1000, 2**bits // 3, 2 ** (bits - 1), 2**bits - 2**bits // 1000, 2**bits - 1]
    signed = torch.tensor([w - 2**64 if w >= 2**63 else w for w in words])
    got = reference.values(draw, signed).double().tolist()
    with mpmath.workdps(60):
        near, far = mpmath.mpf(alpha), mpmath.mpf(alpha) + mpmath.mpf(end)

        def log_tail(z: mpmath.mpf) -> mpmath.mpf:
            return mpmath.log(mpmath.erfc(z / mpmath.sqrt(2)) / 2)

        kept = mpmath.exp(log_tail(far) - log_tail(near)) if math.isfinite(width) else mpmath.mpf(0)
        for word, excess in zip(words, got, strict=True):
            u = (mpmath.mpf(word) + mpmath.mpf("0.5")) / mpmath.mpf(2) ** bits
            y = -mpmath.log(1 - (1 - kept) * u)
            # d(log tail)/dz = -hazard, so a relative error e of the excess shows as e * excess * hazard in y
            at = near + mpmath.mpf(excess)
            hazard = mpmath.npdf(at) / (mpmath.erfc(at / mpmath.sqrt(2)) / 2)
            error = (log_tail(near) - log_tail(at) - y) / hazard
            assert abs(error) <= bound * excess + float(torch.finfo(dtype).tiny)


@pytest.mark.parametrize(
    ("name", "pairs"),
    [
        ("neighbouring keys", [(wp.Key(n), 0, wp.Key(n + 1), 0) for n in range(20)]),
        ("keys one high bit apart", [(wp.Key(0), 0, wp.Key(1 << n), 0) for n in range(64)]),
        ("neighbouring calls", [(KEY, n, KEY, n + 1) for n in range(20)]),
        ("far calls", [(KEY, 0, KEY, 1 << n) for n in range(64)]),
        ("folded names", [(KEY.fold(f"layer.{n}"), 0, KEY.fold(f"layer.{n + 1}"), 0) for n in range(20)]),
        ("folded numbers", [(KEY.fold(n), 0, KEY.fold(n + 1), 0) for n in range(20)]),
    ],
)
def test_streams_are_uncorrelated(name: str, pairs: list[tuple[wp.Key, int, wp.Key, int]]) -> None:
    """Two streams correlate no more than chance allows, at lags from -2 to 2, and half of their bits agree."""
    n = 2**16
    limit = stats.norm.isf(ERROR_RATE / (2 * 5 * len(pairs)))
    for first, call, second, other in pairs:
        a, b = wp.random.bits(n, first, call=call), wp.random.bits(n, second, call=other)
        x, y = (words.to(torch.int64).double().numpy() / 2**32 - 0.5 for words in (a, b))
        for lag in range(-2, 3):
            assert abs(np.corrcoef(x, np.roll(y, lag))[0, 1]) * math.sqrt(n) < limit, name
        agreeing = int(np.bitwise_count(a.numpy() ^ b.numpy()).sum())
        assert abs(agreeing - 16 * n) < stats.norm.isf(ERROR_RATE / 2 / len(pairs)) * math.sqrt(8 * n)


def test_one_stream_is_uncorrelated_with_itself() -> None:
    """Serial correlations up to lag 64, which a shared counter would show."""
    x = wp.random.uniform(2**18, KEY, dtype=torch.float64).numpy() - 0.5
    limit = stats.norm.isf(ERROR_RATE / 128) / math.sqrt(len(x))
    assert all(abs(np.corrcoef(x[:-lag], x[lag:])[0, 1]) < limit for lag in range(1, 65))


def test_the_table_covers_every_public_draw() -> None:
    assert {case.function for case in CASES} == {"uniform", "normal", "truncated_normal"}
