"""What the parameters of state space models start as: rates of decay and step sizes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from wellposed import random
from wellposed.init.initializers.initializer import Entrywise
from wellposed.init.initializers.whole import Whole
from wellposed.models.fans import LINEAR, Axes
from wellposed.random.box import Box
from wellposed.random.key import Key


@dataclass(frozen=True)
class DecayRates(Whole):
    """log(1), log(2), ... along the last dimension: the rates at which a state space model's states decay.

    Source: Gu et al. (2022), the real diagonal start S4D-Real; Gu & Dao (2023).
    """

    keyed: ClassVar[bool] = False

    def _whole(self, shape: tuple[int, ...], axes: Axes, key: Key, like: Tensor) -> Tensor:
        return self._rates(shape[-1]).to(like.device).expand(shape)

    def _check(self, shape: tuple[int, ...], axes: Axes) -> None:
        return

    def _rates(self, size: int) -> Tensor:
        return torch.arange(1, size + 1, dtype=torch.float64, device="cpu").log()

    def std_for(self, shape: Sequence[int], axes: Axes = LINEAR) -> float:
        """The standard deviation of the rates."""
        return float(self._rates(shape[-1]).std(correction=0)) if shape[-1] else 0.0


@dataclass(frozen=True)
class StepSizes(Entrywise):
    """What softplus turns into step sizes that are log-uniform between two bounds.

    Source: Gu & Dao (2023), section 3.6.
    """

    low: float = 1e-3
    high: float = 0.1

    def _fill_(self, tensor: Tensor, key: Key, box: Box | None) -> Tensor:
        random.uniform_(tensor, key, math.log(self.low), math.log(self.high), box=box)
        return tensor.copy_(self._inverse(tensor.double()))

    def _inverse(self, log_step: Tensor) -> Tensor:
        step = log_step.exp()
        return step + (-(-step).expm1()).log()

    def _std(self) -> float:
        grid = torch.linspace(math.log(self.low), math.log(self.high), 20_001, dtype=torch.float64, device="cpu")
        return float(self._inverse((grid[1:] + grid[:-1]) / 2).std(correction=0))
