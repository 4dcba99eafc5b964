"""The primitive under every dropout: drop elements by their words, scale the rest; its transpose is itself.

So a derivative of any order needs only the name of the mask, and nothing is stored for the backward pass.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.compiler import is_compiling, is_dynamo_compiling

from wellposed.random.backend import _chosen, backend_for
from wellposed.random.box import WHOLE, Box, layout
from wellposed.random.integers import signed
from wellposed.random.late import late
from wellposed.random.memory import PLAIN_TYPES

# What names a mask. Plain tuples, since making an object of a class would cost as much as thinning a small tensor.
# The key's words, low and high; the call, as a signed number; the threshold and the scale that p stands for.
Words = tuple[int, int, int, int, float]
# p; the dimensions that the mask varies over, none negative, or None for all; the whole that the tensor is a part of,
# or None; and the words above.
Mask = tuple[float, tuple[int, ...] | None, Box | None, Words]


def mask_of(
    p: float, key: tuple[int, int], call: int, dims: tuple[int, ...] | None = None, box: Box | None = None
) -> Mask:
    """Name a mask: words below p * 2^32 drop their elements, and 1 / (1 - p) scales the others."""
    return p, dims, box, (*key, call if call < 4294967296 else signed(call), *rates_of(p))


def rates_of(p: float) -> tuple[int, float]:
    """The threshold below which a word drops its element, and the scale of the others."""
    return round(p * 4294967296.0), 1.0 / (1.0 - p) if p < 1.0 else 0.0


def is_plain(x: Tensor) -> bool:
    """Whether nothing but autograd watches what happens to ``x``, so that a kernel may work on its memory.

    Compilers, tracers, functorch, modes, subclasses and lazily negated tensors do.
    """
    return (
        not is_compiling()
        and type(x) in PLAIN_TYPES
        and not x.is_neg()
        and not _functorch_is_active()
        and not _dispatch_modes()
        and not _function_modes()
        and _tracer() is None
    )


def is_recorded(x: Tensor) -> bool:
    """Whether autograd is to know what is done to a plain tensor."""
    return (x.requires_grad and torch.is_grad_enabled()) or forward_ad._current_level >= 0


def is_plain_on_cpu(x: Tensor) -> bool:
    """Whether the CPU's kernels may work on the memory of ``x``: plain, and of a dtype that they know."""
    return (
        is_plain(x)
        and x.is_cpu
        and x.dtype in _SCALED
        and x.layout == torch.strided
        and not _is_batched(x)
        and _chosen.get() != "reference"
    )


_SCALED = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
_functorch_is_active = torch._C._are_functorch_transforms_active
_dispatch_modes, _function_modes = torch._C._len_torch_dispatch_stack, torch._C._len_torch_function_stack
_tracer = torch._C._get_tracing_state


def thin(x: Tensor, mask: Mask) -> Tensor:
    """Thin any tensor; autograd, functorch, compilers and subclasses see it done."""
    if not is_dynamo_compiling():
        thinned: Tensor | None = thin_plain(x, mask)
        if thinned is not None:
            return thinned
    if not is_plain(x) or _is_batched(x):
        return thin_by_operator(x, mask)
    return _apply(x, (mask, None)) if is_recorded(x) else compute(x, mask)


@late
def thin_plain(x: Tensor, mask: Mask) -> Callable[[Tensor, Mask], Tensor | None] | None:
    """``plain_thin.thinner``'s builtin."""
    if not (is_plain(x) and x.is_cpu):
        return None
    from wellposed.random.kernels.plain_thin import backward, thinner

    _Thin._backward_cls.apply = backward(_apply, _Thin.backward)  # type: ignore[attr-defined]
    return thinner(_apply)


def compute(x: Tensor, mask: Mask) -> Tensor:
    """Thin the memory of a tensor: 0 where the word is below the threshold, elsewhere x * scale; strides are kept."""
    _, dims, box, (low, high, call, threshold, scale) = mask
    if x.is_meta:
        return torch.empty_like(x)
    leads = box is None and (dims is None or dims == _LEADING[: len(dims)])
    inner = 1 if dims is None or not leads else math.prod(x.shape[len(dims) :])
    is_direct = leads and threshold < 4294967296 and x.is_contiguous() and x.is_cpu and _chosen.get() == "auto"
    if is_direct and inner > 1:
        thinned: Tensor = _thin_groups(x, inner, low, high, call, threshold, scale)
        return thinned
    where = WHOLE if leads and inner == 1 else layout(x.shape, box, dims)
    thinned = backend_for(x).thin(x.contiguous(), threshold, scale, (low, high), call % 2**64, where)
    if x.is_contiguous():
        return thinned
    kept = torch.empty_like(x)
    return thinned if kept.is_contiguous() else kept.copy_(thinned)


_LEADING = tuple(range(64))  # as many dimensions as a tensor may have


@late
def _thin_groups(*_: Any) -> Callable[..., Tensor]:
    from wellposed.random.cpu import thin_groups

    return thin_groups


def self_adjoint(
    compute: Callable[[Tensor, Any], Tensor], again: Callable[[Tensor, Any], Tensor]
) -> type[torch.autograd.Function]:
    """A function of autograd for a linear map that is its own transpose; a graph keeps but the mask that names it.

    It is applied to a plain tensor and a pair: the mask, and what the map makes of the tensor if that is known.

    Args:
        compute: The map of a plain tensor and a mask, unknown to autograd.
        again: The map of any tensor, which derivatives are made by.
    """

    class SelfAdjoint(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor, done: tuple[Any, Tensor | None]) -> Tensor:
            ctx.mask, made = done
            return compute(x, ctx.mask) if made is None else made

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
            return again(grad, ctx.mask), None

        @staticmethod
        def jvp(ctx: Any, tangent: Tensor, _: None) -> Tensor:
            return again(tangent.clone() if tangent._is_zerotensor() else tangent, ctx.mask)

    return SelfAdjoint


_is_batched = torch._C._functorch.is_legacy_batchedtensor  # by autograd.grad(..., is_grads_batched=True)


def quick_apply(kind: type[torch.autograd.Function]) -> Callable[..., Tensor]:
    """``apply`` without its look for functorch, which ``is_plain`` has done; that costs more than a small tensor."""
    kind._backward_cls.apply = kind.backward  # type: ignore[attr-defined]  # the same with one call fewer
    apply: Callable[..., Tensor] = super(torch.autograd.Function, kind).apply  # type: ignore[misc]
    return apply


_Thin = self_adjoint(compute, thin)
_apply = quick_apply(_Thin)


def thin_by_operator(x: Tensor, mask: Mask) -> Tensor:
    """Thin a tensor that is not plain, by way of torch's dispatcher."""
    from wellposed.dropouts.operator import thin_any

    p, dims, box, (low, high, call, _, _) = mask
    rate = torch.tensor(p, dtype=torch.float64, device="cpu")
    return thin_any(x, words_of((low, high), call), rate, dims, box)


def words_of(key: tuple[int, int], call: int) -> Tensor:
    """A stream as operators take it: the 64 bits of the key and of the call, and row 0, in an int64 tensor."""
    low, high = key
    return torch.tensor([signed(high << 32 | low), signed(call % 2**64), 0], dtype=torch.int64, device="cpu")
