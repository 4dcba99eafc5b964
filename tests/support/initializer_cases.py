"""One table of initializers; every row goes through every law in test_laws_initializers.py."""

from dataclasses import dataclass
from math import sqrt
from typing import Any

from scipy import stats

import wellposed as wp
from wellposed.init import Axes

LINEAR = Axes()

SHAPE = (96, 64)  # fan_in 64, fan_out 96 under the default axes


@dataclass(frozen=True)
class Case:
    """An initializer, where it is used, and the distribution that scipy says its entries have."""

    initializer: wp.init.Initializer
    truth: Any = None  # a frozen scipy distribution, the value of a constant, or nothing that scipy knows
    shape: tuple[int, ...] = SHAPE
    axes: Axes = LINEAR

    def __str__(self) -> str:
        return f"{self.initializer}{'' if self.axes == LINEAR else self.axes}"


def uniform(bound: float) -> Any:
    return stats.uniform(-bound, 2 * bound)


def truncated(mean: float, std: float, a: float, b: float) -> Any:
    return stats.truncnorm((a - mean) / std, (b - mean) / std, mean, std)


def cut_at_two(std: float) -> Any:
    """The normal cut at two of its standard deviations whose standard deviation after the cut is ``std``."""
    before = std / stats.truncnorm(-2, 2).std()
    return stats.truncnorm(-2, 2, 0, before)


CASES = [
    Case(wp.init.Zeros(), 0.0),
    Case(wp.init.Ones(), 1.0),
    Case(wp.init.Constant(-2.5), -2.5),
    Case(wp.init.Uniform(-1.0, 3.0), stats.uniform(-1, 4)),
    Case(wp.init.Normal(), stats.norm(0, 1)),
    Case(wp.init.Normal(0.5, 0.02), stats.norm(0.5, 0.02)),
    Case(wp.init.TruncatedNormal(), truncated(0, 1, -2, 2)),
    Case(wp.init.TruncatedNormal(0.1, 0.5, -0.2, 2.0), truncated(0.1, 0.5, -0.2, 2.0)),
    Case(wp.init.TruncatedNormal(0.0, 1.0, 5.0, 9.0), truncated(0, 1, 5, 9)),
    Case(wp.init.TruncatedNormal(0.0, 0.02, -2.0, 2.0), truncated(0, 0.02, -2, 2)),
    Case(wp.init.Random(), uniform(0.1)),
    Case(wp.init.Random(bound=1.0), uniform(1.0)),
    Case(wp.init.VarianceScaling(), cut_at_two(sqrt(1 / 64))),
    Case(wp.init.VarianceScaling(2.0, "fan_out", "normal"), stats.norm(0, sqrt(2 / 96))),
    Case(wp.init.VarianceScaling(0.5, "fan_avg", "uniform"), uniform(sqrt(3 * 0.5 / 80))),
    Case(wp.init.VarianceScaling(3.0, "fan_geo_avg", "truncated_normal"), cut_at_two(sqrt(3 / sqrt(64 * 96)))),
    Case(wp.init.Glorot(), uniform(sqrt(6 / 160))),
    Case(wp.init.Glorot(distribution="normal"), stats.norm(0, sqrt(2 / 160))),
    Case(wp.init.Glorot(distribution="truncated_normal"), cut_at_two(sqrt(2 / 160))),
    Case(wp.init.Glorot(bound="chapter"), uniform(sqrt(1 / 64))),
    Case(wp.init.He(), uniform(sqrt(6 / 64))),
    Case(wp.init.He(distribution="normal"), stats.norm(0, sqrt(2 / 64))),
    Case(wp.init.He(distribution="truncated_normal", mode="fan_out"), cut_at_two(sqrt(2 / 96))),
    Case(wp.init.He(scale=2 / (1 + 0.2**2)), uniform(sqrt(6 / (64 * 1.04)))),
    Case(wp.init.He(bound="chapter"), uniform(sqrt(2 / 64))),
    Case(wp.init.LeCun(), uniform(sqrt(3 / 64))),
    Case(wp.init.LeCun(distribution="truncated_normal"), cut_at_two(sqrt(1 / 64))),
    Case(wp.init.He(), uniform(sqrt(6 / 96)), axes=Axes(out=1, in_=0)),
    Case(wp.init.Glorot(), uniform(sqrt(6 / (64 + 32))), axes=Axes(groups=3)),
    Case(wp.init.LeCun(distribution="normal"), stats.norm(0, sqrt(1 / 36)), (32, 4, 3, 3), Axes(groups=2)),
    Case(wp.init.He(distribution="normal"), stats.norm(0, sqrt(2 / 24)), (8, 16, 24), Axes(out=1, in_=2, batch=0)),
    Case(wp.init.Orthogonal()),
    Case(wp.init.Orthogonal(0.5), None, (64, 96)),
    Case(wp.init.Orthogonal(2.0), None, (32, 16, 3, 3)),
    Case(wp.init.Orthogonal(), None, (6, 24, 32), Axes(out=1, in_=2, batch=0)),
    Case(wp.init.Orthogonal(), None, (96, 32), Axes(groups=3)),
    Case(wp.init.Orthogonal(), None, (12, 20, 3), Axes(out=1, in_=0, groups=4, grouped=0)),
    Case(wp.init.DeltaOrthogonal(1.5), None, (24, 16, 3, 3)),
    Case(wp.init.DeltaOrthogonal(), None, (24, 8, 5), Axes(groups=2)),
    Case(wp.init.Identity(), None, (48, 48)),
    Case(wp.init.Identity(-2.0), None, (16, 24)),
    Case(wp.init.Identity(), None, (4, 8, 8), Axes(out=2, in_=1, batch=0)),
    Case(wp.init.Dirac(), None, (16, 12, 3, 3)),
    Case(wp.init.Dirac(groups=2), None, (16, 8, 4)),
    Case(wp.init.Sparse(0.3), None, (50, 40)),
    Case(wp.init.Sparse(0.9, std=1.0), None, (40, 50)),
    Case(wp.init.Hadamard(), None, (24, 40)),
    Case(wp.init.Hadamard(), None, (40, 24)),
    Case(wp.init.Hadamard(), None, (20, 8, 3, 3)),
    Case(wp.init.STFT(), None, (17, 1, 24)),
    Case(wp.init.STFT("imag", "hamming", "spectrum", True), None, (16, 24, 9), Axes(out=1, in_=0)),
    Case(wp.init.STFT(window=None), None, (12, 3, 8), Axes(groups=2)),
    Case(wp.init.DecayRates(), None, (24, 16)),
    Case(wp.init.StepSizes(), None, (64, 64)),
]
