"""The table of distributions: each row is put through every law of random numbers."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from scipy import stats
from torch import Tensor

import wellposed as wp

FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
FAR = math.inf


@dataclass(frozen=True)
class Case:
    """A distribution, the call that draws from it, and the law that scipy has for it."""

    name: str
    arguments: dict[str, float]
    function: str
    law: Any
    dtypes: tuple[torch.dtype, ...] = FLOATS

    def draw(self, shape: int | tuple[int, ...], key: wp.Key, dtype: torch.dtype, call: int = 0) -> Tensor:
        """A new tensor."""
        function: Callable[..., Tensor] = getattr(wp.random, self.function)
        return function(shape, key, **self.arguments, call=call, dtype=dtype)

    def fill_(self, tensor: Tensor, key: wp.Key, call: int = 0, box: wp.Box | None = None) -> Tensor:
        """The in-place twin."""
        function: Callable[..., Tensor] = getattr(wp.random, self.function + "_")
        return function(tensor, key, **self.arguments, call=call, box=box)


def truncated(name: str, mean: float, std: float, a: float, b: float, *narrow: torch.dtype) -> Case:
    """A truncated normal; ``narrow`` are the dtypes that hold several numbers of its interval."""
    law = stats.truncnorm((a - mean) / std, (b - mean) / std, loc=mean, scale=std)
    arguments = {"mean": mean, "std": std, "a": a, "b": b}
    return Case(name, arguments, "truncated_normal", law, narrow or FLOATS)


PRECISE = (torch.float32, torch.float64)
CASES = [
    Case("uniform", {}, "uniform", stats.uniform()),
    Case("uniform, shifted", {"low": -3.0, "high": 5.0}, "uniform", stats.uniform(-3, 8)),
    Case("normal", {}, "normal", stats.norm()),
    Case("normal, scaled", {"mean": -1.5, "std": 0.02}, "normal", stats.norm(-1.5, 0.02), PRECISE),
    truncated("truncated at 2 sigma", 0.0, 1.0, -2.0, 2.0),
    truncated("truncated, lopsided", 0.5, 2.0, -0.5, 7.0),
    truncated("truncated at 1000 sigma", 0.0, 1.0, -1000.0, 1000.0),
    truncated("truncated, narrow around the mean", 0.0, 1.0, -1e-3, 2e-3),
    truncated("half normal", 0.0, 1.0, 0.0, FAR),
    truncated("upper tail from 0.3", 0.0, 1.0, 0.3, 0.4),
    truncated("upper tail from 3", 0.0, 1.0, 3.0, FAR),
    truncated("upper tail from 8 to 9", 0.0, 1.0, 8.0, 9.0, *PRECISE),
    truncated("upper tail from 30", 0.0, 1.0, 30.0, FAR, *PRECISE),
    truncated("lower tail to -5", 0.0, 1.0, -FAR, -5.0, *PRECISE),
    truncated("lower tail, scaled", 10.0, 0.5, 3.0, 6.0, *PRECISE),
]
IDS = [case.name for case in CASES]
ROWS = [(case, dtype) for case in CASES for dtype in case.dtypes]
ROW_IDS = [f"{case.name}-{str(dtype).removeprefix('torch.')}" for case, dtype in ROWS]


def identical(a: Tensor, b: Tensor) -> bool:
    """Equal bit for bit, NaN and the sign of zero included."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    integer = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[a.element_size()]
    return torch.equal(a.contiguous().view(integer), b.contiguous().view(integer))
