"""Means over seeds with standard errors, and a paired t test for their differences."""

import functools
import math
from collections.abc import Sequence
from typing import TypedDict

from wellposed.study.needs import need


class Estimate(TypedDict):
    """A mean over seeds.

    Attributes:
        mean: The mean; ``None`` where a value is.
        error: Its standard error; ``None`` for fewer than two seeds.
        values: One value a seed; ``None`` where training diverged.
    """

    mean: float | None
    error: float | None
    values: list[float | None]


def estimate(values: Sequence[float | None]) -> Estimate:
    """The mean and its standard error.

    Example:
        >>> estimate([1.0, 3.0])
        {'mean': 2.0, 'error': 1.0, 'values': [1.0, 3.0]}
    """
    finite = [value for value in values if value is not None]
    if len(finite) < len(values) or not finite:
        return Estimate(mean=None, error=None, values=list(values))
    mean = math.fsum(finite) / len(finite)
    if len(finite) == 1:
        return Estimate(mean=mean, error=None, values=list(values))
    variance = math.fsum((value - mean) ** 2 for value in finite) / (len(finite) - 1)
    return Estimate(mean=mean, error=math.sqrt(variance / len(finite)), values=list(values))


def difference(a: Estimate, b: Estimate) -> Estimate:
    """The mean of a - b, seed by seed: the same seed means the same rows, the same first draws and the same order."""
    pairs = zip(a["values"], b["values"], strict=True)
    return estimate([None if x is None or y is None else x - y for x, y in pairs])


def clear(change: Estimate, step: float = 0.0) -> bool:
    """Whether a difference is significant: a two-sided t test at 5 %.

    Args:
        change: The difference.
        step: The least by which a score can change. Seeds that happen to agree do not make the standard error less
            than half of it.

    Returns:
        Whether it is; never true without a standard error, or where all that differs is rounding.

    Example:
        >>> clear(estimate([1.0, 1.2, 0.9])), clear(estimate([1.0, -1.0, 0.5])), clear(estimate([1.0]))
        (True, False, False)
    """
    mean, error = change["mean"], change["error"]
    if mean is None or error is None:
        return False
    return _tells(mean, error, len(change["values"]), step)


def seeds_needed(change: Estimate, step: float = 0.0, most: int = 100) -> int | None:
    """How many seeds would tell a difference of this size and spread from chance, as :func:`clear` does.

    Args:
        change: The difference over the seeds that there are.
        step: As for :func:`clear`.
        most: Where to give up.

    Returns:
        The least number of seeds; ``None`` where not even ``most`` would, or the spread is not known.

    Example:
        >>> seeds_needed(estimate([1.0, -1.0, 2.0, -1.0, 1.0])), seeds_needed(estimate([0.0, 0.0]))
        (46, None)
    """
    mean, error = change["mean"], change["error"]
    if mean is None or error is None:
        return None
    deviation = error * math.sqrt(len(change["values"]))
    for seeds in range(2, most + 1):
        if _tells(mean, deviation / math.sqrt(seeds), seeds, step):
            return seeds
    return None


def _tells(mean: float, error: float, seeds: int, step: float) -> bool:
    error = max(error, step / 2)
    return error > 1e-9 * abs(mean) and abs(mean) > _quantile(seeds - 1) * error


@functools.cache
def _quantile(freedom: int) -> float:
    """The two-sided 95 % quantile of Student's t."""
    return float(need("scipy.special").stdtrit(freedom, 0.975))
