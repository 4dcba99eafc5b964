"""The primitive under every dropout: drop elements by their words, scale the rest; its transpose is itself.

So a derivative of any order needs only the name of the mask, and nothing is stored for the backward pass.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.compiler import is_compiling

from wellposed.random.backend import _chosen, backend_for
from wellposed.random.box import WHOLE, Box, layout

_SMALL = 1 << 16  # elements: fewer are one thread's work, and the way to the kernel is what they cost

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
    signed = call if call < 9223372036854775808 else call - 18446744073709551616
    return p, dims, box, (*key, signed, round(p * 4294967296.0), 1.0 / (1.0 - p) if p < 1.0 else 0.0)


def is_plain(x: Tensor) -> bool:
    """Whether nothing but autograd watches what happens to ``x``, so that a kernel may work on its memory.

    Compilers, tracers, functorch, modes, subclasses and lazily negated tensors do.
    """
    return (
        not is_compiling()
        and type(x) in _PLAIN_TYPES
        and not x.is_neg()
        and not _functorch_is_active()
        and not _dispatch_modes()
        and not _function_modes()
        and _tracer() is None
    )


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
_PLAIN_TYPES = (Tensor, torch.nn.Parameter)
_functorch_is_active = torch._C._are_functorch_transforms_active
_dispatch_modes, _function_modes = torch._C._len_torch_dispatch_stack, torch._C._len_torch_function_stack
_tracer = torch._C._get_tracing_state


def thin(x: Tensor, mask: Mask) -> Tensor:
    """Thin any tensor; autograd, functorch, compilers and subclasses see it done."""
    return thin_plain(x, mask) if is_plain(x) else thin_by_operator(x, mask)


def thin_plain(x: Tensor, mask: Mask) -> Tensor:
    """Thin a plain tensor, recording what autograd needs."""
    _, dims, box, words = mask
    is_small = (
        box is None
        and (dims is None or dims == _LEADING[: len(dims)])
        and x.numel() < _SMALL
        and x.is_contiguous()
        and x.is_cpu
        and words[3] < 4294967296
        and _chosen.get() == "auto"
    )
    if (x.requires_grad and torch.is_grad_enabled()) or forward_ad._current_level >= 0:
        return _apply_small(x, mask) if is_small else _apply(x, mask)
    return _thin_few(x, mask) if is_small else compute(x, mask)


def compute(x: Tensor, mask: Mask) -> Tensor:
    """Thin the memory of a tensor: 0 where the word is below the threshold, elsewhere x * scale; strides are kept."""
    _, dims, box, (low, high, call, threshold, scale) = mask
    if x.is_meta:
        return torch.empty_like(x)
    leads = box is None and (dims is None or dims == _LEADING[: len(dims)])
    inner = 1 if dims is None or not leads else math.prod(x.shape[len(dims) :])
    is_direct = leads and threshold < 4294967296 and x.is_contiguous() and x.is_cpu and _chosen.get() == "auto"
    if is_direct and inner > 1:
        return _thin_groups(x, inner, low, high, call, threshold, scale)
    where = WHOLE if leads and inner == 1 else layout(x.shape, box, dims)
    thinned = backend_for(x).thin(x.contiguous(), threshold, scale, (low, high), call % 2**64, where)
    if x.is_contiguous():
        return thinned
    kept = torch.empty_like(x)
    return thinned if kept.is_contiguous() else kept.copy_(thinned)


_LEADING = tuple(range(64))  # as many dimensions as a tensor may have


def _thin_groups(*arguments: Any) -> Tensor:
    """Stands in for the kernel likewise."""
    global _thin_groups
    from wellposed.random.cpu import thin_groups as _thin_groups

    return _thin_groups(*arguments)


def _thin_small(*arguments: Any) -> Tensor:
    """Stands in for the kernel until its first use, since Numba takes long to import."""
    global _thin_small
    from wellposed.random.cpu import thin_small as _thin_small

    return _thin_small(*arguments)


def _thin_few(x: Tensor, mask: Mask) -> Tensor:
    _, dims, _, words = mask
    inner = 1 if dims is None else math.prod(x.shape[len(dims) :])
    return _thin_small(x, *words) if inner == 1 else _thin_few_groups(x, inner, *words)


def _thin_few_groups(*arguments: Any) -> Tensor:
    """Stands in for the kernel likewise."""
    global _thin_few_groups
    from wellposed.dropouts.cpu import thin_few_groups as _thin_few_groups

    return _thin_few_groups(*arguments)


class _Thin(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, mask: Mask) -> Tensor:
        ctx.mask = mask
        return compute(x, mask)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _thin_gradient(grad, ctx.mask), None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, _: None) -> Tensor:
        return thin(tangent.clone() if tangent._is_zerotensor() else tangent, ctx.mask)


class _ThinSmall(_Thin):
    """The same for a small tensor, as short as it can be."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, mask: Mask) -> Tensor:
        ctx.mask = mask
        return _thin_few(x, mask)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        if (
            not is_compiling()
            and type(grad) is Tensor
            and not grad.requires_grad
            and grad.is_contiguous()
            and not grad.is_neg()
            and not _dispatch_modes()
            and not _function_modes()
        ):
            try:
                return _thin_few(grad, ctx.mask), None
            except RuntimeError:  # a batch of gradients looks like one gradient, but has no memory of its own
                pass
        return _thin_gradient(grad, ctx.mask), None


def _thin_gradient(grad: Tensor, mask: Mask) -> Tensor:
    if _is_batched(grad):  # by autograd.grad(..., is_grads_batched=True)
        return thin_by_operator(grad, mask)
    return thin(grad, mask)


_is_batched = torch._C._functorch.is_legacy_batchedtensor


def quick_apply(kind: type[torch.autograd.Function]) -> Callable[..., Tensor]:
    """``apply`` without its look for functorch, which ``is_plain`` has done; that costs more than a small tensor."""
    kind._backward_cls.apply = kind.backward  # type: ignore[attr-defined]  # the same with one call fewer
    apply: Callable[..., Tensor] = super(torch.autograd.Function, kind).apply  # type: ignore[misc]
    return apply


_apply, _apply_small = quick_apply(_Thin), quick_apply(_ThinSmall)


def thin_by_operator(x: Tensor, mask: Mask) -> Tensor:
    """Thin a tensor that is not plain, by way of torch's dispatcher."""
    from wellposed.dropouts.operator import thin_any

    p, dims, box, (low, high, call, _, _) = mask
    rate = torch.tensor(p, dtype=torch.float64, device="cpu")
    return thin_any(x, words_of((low, high), call), rate, dims, box)


def words_of(key: tuple[int, int], call: int) -> Tensor:
    """A stream as operators take it: the 64 bits of the key and of the call, and row 0, in an int64 tensor."""
    low, high = key
    signed = call if call < 9223372036854775808 else call - 18446744073709551616
    return torch.tensor([(high << 32 | low) - (high >> 31 << 64), signed, 0], dtype=torch.int64, device="cpu")
