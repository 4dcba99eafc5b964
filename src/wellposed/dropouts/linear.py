"""Linear maps as autograd functions that save nothing: each derivative computes the map, or its transpose, again."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from wellposed._torch import apply_of, is_ordinary, is_recorded, materialized

Map = Callable[[Tensor], Tensor]


def linear(x: Tensor, forth: Map, back: Map) -> Tensor:
    """Apply a linear map, recorded for derivatives of any order without saving a tensor.

    Compilers, function transforms and modes trace the map itself, and decide themselves what to save and what to
    compute again.

    Args:
        x: The tensor.
        forth: The map. It must be the same whenever it is called, and hold no tensor of the size of ``x``.
        back: Its transpose.

    Returns:
        ``forth(x)``.
    """
    if is_ordinary(x) and is_recorded(x):
        return _apply(x, forth, back)
    return forth(x)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, forth: Map, back: Map) -> Tensor:
        ctx.maps = forth, back
        return forth(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        forth, back = ctx.maps
        return linear(grad, back, forth), None, None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: None) -> Tensor:
        return linear(materialized(tangent), *ctx.maps)


_apply = apply_of(_Linear)
