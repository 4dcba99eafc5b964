"""Linear maps of which autograd keeps nothing: each derivative makes them again from what names them."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from wellposed.dropouts.thinning import is_plain, quick_apply

Map = Callable[[Tensor], Tensor]


def linear(x: Tensor, forth: Map, back: Map, made: Tensor | None = None) -> Tensor:
    """``forth(x)``, recorded for derivatives of any order.

    Compilers, functorch and modes see the map itself, and weigh keeping against making again themselves.

    Args:
        x: The tensor.
        forth: The map. It must be the same whenever it is called, and hold no tensor of the size of ``x``.
        back: Its transpose.
        made: ``forth(x)`` where the caller knows that ``x`` is plain and has made it already.

    Returns:
        What the map makes of ``x``.
    """
    if made is None and not is_plain(x):
        return forth(x)
    if (x.requires_grad and torch.is_grad_enabled()) or forward_ad._current_level >= 0:
        return _apply(x, forth, back, (made,))  # in a tuple it is no input of the graph's
    return forth(x) if made is None else made


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, forth: Map, back: Map, made: tuple[Tensor | None]) -> Tensor:
        ctx.maps = forth, back
        return forth(x) if made[0] is None else made[0]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        forth, back = ctx.maps
        if grad.requires_grad or forward_ad._current_level >= 0:
            return linear(grad, back, forth), None, None, None
        return back(grad), None, None, None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: None) -> Tensor:
        return linear(tangent.clone() if tangent._is_zerotensor() else tangent, *ctx.maps)


_apply = quick_apply(_Linear)
