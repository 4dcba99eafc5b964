"""Initializers that draw every entry from one distribution, whatever the weight's shape."""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from wellposed import random
from wellposed.errors import WellposedError
from wellposed.init.initializers.initializer import Distributed, Entrywise, Initializer
from wellposed.models.fans import LINEAR, Axes
from wellposed.random.box import Box, layout
from wellposed.random.key import Key


@dataclass(frozen=True)
class Constant(Entrywise):
    """Every entry is ``value``.

    Args:
        value: Any number but NaN. A tensor of integers takes whole values only.

    Raises:
        WellposedError: If the value is not a number.

    Example:
        >>> import wellposed as wp
        >>> Constant(0.5)((2,), wp.Key(0))
        tensor([0.5000, 0.5000])
    """

    keyed: ClassVar[bool] = False
    value: float

    def __post_init__(self) -> None:
        if isinstance(self.value, bool) or not isinstance(self.value, Real) or math.isnan(self.value):
            raise WellposedError(
                f"{type(self).__name__} was given value={self.value!r}; expected a number that is not NaN"
            )

    def _suits(self, tensor: Tensor) -> bool:
        if tensor.is_floating_point() or tensor.is_complex():
            return True
        try:
            return torch.tensor(self.value, device="cpu").to(tensor.dtype).item() == self.value
        except (RuntimeError, OverflowError):
            return False

    def _fill_(self, tensor: Tensor, key: Key, box: Box | None) -> Tensor:
        layout(tensor.shape, box)
        return tensor.fill_(self.value)

    def _std(self) -> float:
        return 0.0


@dataclass(frozen=True)
class Zeros(Constant):
    """Every entry is 0.

    Example:
        >>> import wellposed as wp
        >>> Zeros()((2,), wp.Key(0))
        tensor([0., 0.])
    """

    value: float = field(default=0.0, init=False, repr=False)


@dataclass(frozen=True)
class Ones(Constant):
    """Every entry is 1.

    Example:
        >>> import wellposed as wp
        >>> Ones()((2,), wp.Key(0))
        tensor([1., 1.])
    """

    value: float = field(default=1.0, init=False, repr=False)


@dataclass(frozen=True)
class Uniform(Entrywise):
    """Entries uniform on [low, high).

    Args:
        low: The least value.
        high: The value that all stay below.

    Raises:
        WellposedError: If they are not finite, or high is less than low.

    Example:
        >>> import wellposed as wp
        >>> bool(Uniform(-0.1, 0.1)((1000,), wp.Key(0)).abs().max() <= 0.1)
        True
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        if not self.low <= self.high or not math.isfinite(self.high - self.low):
            raise WellposedError(f"{self} was given; expected finite numbers with low <= high")

    def _fill_(self, tensor: Tensor, key: Key, box: Box | None) -> Tensor:
        return random.uniform_(tensor, key, self.low, self.high, box=box)

    def _std(self) -> float:
        return (self.high - self.low) / math.sqrt(12)


@dataclass(frozen=True)
class Normal(Entrywise):
    """Entries normal.

    Args:
        mean: The mean.
        std: The standard deviation, at least 0.

    Raises:
        WellposedError: If they are not finite, or std is negative.

    Example:
        >>> import wellposed as wp
        >>> Normal(0.0, 0.02)((3, 4), wp.Key(0)).shape
        torch.Size([3, 4])
    """

    mean: float = 0.0
    std: float = 1.0

    def __post_init__(self) -> None:
        _check_normal(self, self.mean, self.std)

    def _fill_(self, tensor: Tensor, key: Key, box: Box | None) -> Tensor:
        return random.normal_(tensor, key, self.mean, self.std, box=box)

    def _std(self) -> float:
        return self.std


@dataclass(frozen=True)
class TruncatedNormal(Entrywise):
    """Entries normal, conditioned on lying in [a, b].

    Args:
        mean: The mean before the truncation.
        std: The standard deviation before the truncation, at least 0; ``std_for`` gives the one after it.
        a: The least value, as it stands, not counted in standard deviations.
        b: The greatest value, likewise.

    Raises:
        WellposedError: If mean or std is not finite, std is negative, or a is not less than b.

    Example:
        >>> import wellposed as wp
        >>> float(TruncatedNormal(std=0.02, a=-0.04, b=0.04)((1000,), wp.Key(0)).abs().max()) <= 0.04
        True
    """

    mean: float = 0.0
    std: float = 1.0
    a: float = -2.0
    b: float = 2.0

    def __post_init__(self) -> None:
        _check_normal(self, self.mean, self.std)
        if not self.a < self.b:
            raise WellposedError(f"{self} was given; expected cut-offs with a < b")

    def _fill_(self, tensor: Tensor, key: Key, box: Box | None) -> Tensor:
        return random.truncated_normal_(tensor, key, self.mean, self.std, self.a, self.b, box=box)

    def _std(self) -> float:
        if self.std == 0:
            return 0.0
        return self.std * std_between((self.a - self.mean) / self.std, (self.b - self.mean) / self.std)


@dataclass(frozen=True)
class Random(Distributed):
    """Entries uniform on [-bound, bound), whatever the fans.

    Args:
        bound: The bound, positive.

    Raises:
        WellposedError: If the bound is not a positive finite number.

    Example:
        >>> Random().at((3, 4))
        Uniform(low=-0.1, high=0.1)
    """

    bound: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.bound < math.inf:
            raise WellposedError(f"{self} was given; expected a positive finite bound")

    def at(self, shape: Sequence[int], axes: Axes = LINEAR) -> Entrywise:
        """The uniform distribution on [-bound, bound), for every shape."""
        return Uniform(-self.bound, self.bound)


def _check_normal(initializer: Initializer, mean: float, std: float) -> None:
    if not (math.isfinite(mean) and 0 <= std < math.inf):
        raise WellposedError(f"{initializer} was given; expected a finite mean and a finite std of at least 0")


@functools.lru_cache(maxsize=1024)
def std_between(alpha: float, beta: float) -> float:
    """The standard deviation of N(0, 1) conditioned on [alpha, beta], by Gauss-Legendre quadrature.

    The density is taken relative to its greatest value on the interval, so that far tails stay accurate.
    """
    peak = min(max(alpha, 0.0), beta)
    edge = math.sqrt(peak * peak + 80)  # beyond it the density is e^-40 of that value
    low, high = max(alpha, -edge), min(beta, edge)
    nodes, weights = np.polynomial.legendre.leggauss(128)
    t = (high - low) * (nodes + 1) / 2  # from the low end, where a far interval would lose digits
    density = weights * np.exp(-(t + low - peak) * (t + low + peak) / 2)
    density /= density.sum()
    mean = float(density @ t)
    return math.sqrt(float(density @ (t - mean) ** 2))
