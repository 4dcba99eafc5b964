"""Initializers whose variance follows from the fans: one engine, and the names it is known by."""

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from wellposed.errors import WellposedError
from wellposed.init.initializers.entrywise import Normal, TruncatedNormal, Uniform, std_between
from wellposed.init.initializers.initializer import Distributed, Entrywise, Initializer
from wellposed.models.fans import LINEAR, Axes, fans

Mode = Literal["fan_in", "fan_out", "fan_avg", "fan_geo_avg"]
Distribution = Literal["truncated_normal", "normal", "uniform"]
Bound = Literal["paper", "chapter"]

_CUT = 2.0  # of the truncated normal, in standard deviations before the truncation


@dataclass(frozen=True)
class VarianceScaling(Distributed):
    """Entries of mean 0 and variance scale / n, where n is one of the fans or a mean of them.

    The variance is the one that the entries have: a truncated normal, cut at two standard deviations, is made wider
    before the truncation by 1 / 0.8796 for it.

    Args:
        scale: The numerator, positive: ``gain(fn) ** 2`` for what follows the weight.
        mode: The denominator: ``"fan_in"``, ``"fan_out"``, their arithmetic mean ``"fan_avg"`` or their geometric mean
            ``"fan_geo_avg"``.
        distribution: ``"truncated_normal"``, ``"normal"`` or ``"uniform"``.

    Raises:
        WellposedError: If scale is not a positive finite number, or a name is not one of these.

    Example:
        >>> VarianceScaling(2.0, "fan_out", "normal").at((32, 8))
        Normal(mean=0.0, std=0.25)

    Source: jax.nn.initializers.variance_scaling and keras.initializers.VarianceScaling, which correct the truncation
    alike.
    """

    scale: float = 1.0
    mode: Mode = "fan_in"
    distribution: Distribution = "truncated_normal"

    def __post_init__(self) -> None:
        _check_scale(self, self.scale)
        _check_choice(self, "mode", self.mode, get_args(Mode))
        _check_choice(self, "distribution", self.distribution, get_args(Distribution))

    def at(self, shape: Sequence[int], axes: Axes = LINEAR) -> Entrywise:
        """The distribution of this variance at a shape's fans."""
        fan_in, fan_out = fans(shape, axes)
        fan = {
            "fan_in": fan_in,
            "fan_out": fan_out,
            "fan_avg": (fan_in + fan_out) / 2,
            "fan_geo_avg": math.sqrt(fan_in * fan_out),
        }[self.mode]
        # A fan of 0 belongs to a tensor without entries, which any distribution fits.
        variance = self.scale / (fan or 1)
        std = math.sqrt(variance)
        match self.distribution:
            case "uniform":
                bound = math.sqrt(3 * variance)
                return Uniform(-bound, bound)
            case "normal":
                return Normal(0.0, std)
            case "truncated_normal":
                std /= std_between(-_CUT, _CUT)
                return TruncatedNormal(0.0, std, -_CUT * std, _CUT * std)


class _Named(Distributed):
    """A variance scaling that has a name of its own."""

    @property
    @abstractmethod
    def scaling(self) -> VarianceScaling:
        """The variance scaling that this name stands for."""

    def at(self, shape: Sequence[int], axes: Axes = LINEAR) -> Entrywise:
        """The distribution of this variance at a shape's fans."""
        return self.scaling.at(shape, axes)


@dataclass(frozen=True)
class Glorot(_Named):
    """Entries of variance scale / mean(fan_in, fan_out), which keeps signal and gradient through linear units.

    Args:
        scale: The numerator, positive.
        distribution: ``"uniform"``, ``"normal"`` or ``"truncated_normal"``.
        bound: ``"paper"``: uniform on +-sqrt(6 scale / (fan_in + fan_out)). ``"chapter"``: uniform on
            +-sqrt(scale / fan_in), the heuristic that the paper argues against, of a third of LeCun's variance.

    Raises:
        WellposedError: If scale is not a positive finite number, a name is not one of these, or the chapter's bound is
            asked of a distribution that is not uniform.

    Example:
        >>> Glorot().at((64, 32)), Glorot(bound="chapter").at((64, 16))
        (Uniform(low=-0.25, high=0.25), Uniform(low=-0.25, high=0.25))

    Source: Glorot & Bengio (2010), equations 1 and 16.
    """

    scale: float = 1.0
    distribution: Distribution = "uniform"
    bound: Bound = "paper"

    def __post_init__(self) -> None:
        _check_scale(self, self.scale)
        _check_choice(self, "distribution", self.distribution, get_args(Distribution))
        _check_bound(self, self.bound, self.distribution)

    @property
    def scaling(self) -> VarianceScaling:
        """The variance scaling that this stands for."""
        if self.bound == "chapter":
            return VarianceScaling(self.scale / 3, "fan_in", "uniform")
        return VarianceScaling(self.scale, "fan_avg", self.distribution)


@dataclass(frozen=True)
class He(_Named):
    """Entries of variance scale / fan_in, with the scale 2 that keeps a signal through rectified linear units.

    Args:
        scale: The numerator, positive: 2 for ReLU, 2 / (1 + a^2) for a leaky ReLU of slope a, or
            ``gain(fn) ** 2``.
        mode: The denominator, as in ``VarianceScaling``; ``"fan_out"`` keeps the gradient instead.
        distribution: ``"uniform"``, ``"normal"`` or ``"truncated_normal"``.
        bound: ``"paper"``: uniform on +-sqrt(3 scale / fan). ``"chapter"``: uniform on +-sqrt(scale / fan), of a
            third of that variance.

    Raises:
        WellposedError: If scale is not a positive finite number, a name is not one of these, or the chapter's bound is
            asked of a distribution that is not uniform.

    Example:
        >>> He().at((64, 96)), He(bound="chapter").at((64, 32))
        (Uniform(low=-0.25, high=0.25), Uniform(low=-0.25, high=0.25))

    Source: He et al. (2015), equations 10 and 14.
    """

    scale: float = 2.0
    mode: Mode = "fan_in"
    distribution: Distribution = "uniform"
    bound: Bound = "paper"

    def __post_init__(self) -> None:
        _check_scale(self, self.scale)
        _check_choice(self, "mode", self.mode, get_args(Mode))
        _check_choice(self, "distribution", self.distribution, get_args(Distribution))
        _check_bound(self, self.bound, self.distribution)

    @property
    def scaling(self) -> VarianceScaling:
        """The variance scaling that this stands for."""
        return VarianceScaling(self.scale / (3 if self.bound == "chapter" else 1), self.mode, self.distribution)


@dataclass(frozen=True)
class LeCun(_Named):
    """Entries of variance scale / fan_in, which keeps a signal through linear units and, with SELU, normalises it.

    Args:
        scale: The numerator, positive.
        distribution: ``"uniform"``, ``"normal"`` or ``"truncated_normal"``.

    Raises:
        WellposedError: If scale is not a positive finite number, or the distribution is not one of these.

    Example:
        >>> LeCun(distribution="normal").at((10, 16))
        Normal(mean=0.0, std=0.25)

    Source: LeCun et al. (1998), section 4.6; Klambauer et al. (2017).
    """

    scale: float = 1.0
    distribution: Distribution = "uniform"

    def __post_init__(self) -> None:
        _check_scale(self, self.scale)
        _check_choice(self, "distribution", self.distribution, get_args(Distribution))

    @property
    def scaling(self) -> VarianceScaling:
        """The variance scaling that this stands for."""
        return VarianceScaling(self.scale, "fan_in", self.distribution)


Xavier = Glorot
Kaiming = He


def _check_scale(initializer: Initializer, scale: float) -> None:
    if not 0 < scale < math.inf:
        raise WellposedError(f"{initializer} was given; expected a positive finite scale, or Zeros() for a weight of 0")


def _check_choice(initializer: Initializer, name: str, choice: str, choices: tuple[str, ...]) -> None:
    if choice not in choices:
        raise WellposedError(f"{initializer} was given; expected {name} to be one of {', '.join(map(repr, choices))}")


def _check_bound(initializer: Initializer, bound: str, distribution: str) -> None:
    _check_choice(initializer, "bound", bound, get_args(Bound))
    if bound == "chapter" and distribution != "uniform":
        raise WellposedError(f"{initializer} was given; the chapter's bound is that of the uniform distribution")
