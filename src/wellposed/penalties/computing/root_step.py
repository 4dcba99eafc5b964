"""An adaptive optimizer's step sizes, left unevaluated so that kernels can fuse them."""

from typing import NamedTuple

import torch
from torch import Tensor

from wellposed.arguments import Number
from wellposed.penalties.computing.operands import at_least_float32


class RootStep(NamedTuple):
    """Step sizes numerator / (scale * sqrt(second) + eps), one for each element, not computed yet."""

    numerator: Number
    second: Tensor
    scale: Number
    eps: float

    def times(self, factor: Number) -> "RootStep":
        """The step sizes times a number."""
        return self._replace(numerator=self.numerator * factor)

    def tensor(self) -> Tensor:
        """The step sizes, one an element; for complex weights one each for the real and the imaginary part."""
        second = at_least_float32(torch.view_as_real(self.second) if self.second.is_complex() else self.second)
        return self.numerator / (second.sqrt() * self.scale + self.eps)
