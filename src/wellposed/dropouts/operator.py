"""Thinning, the primitive under every dropout: set elements to zero by their random words, and scale the others.

It is a self-adjoint linear map whose vector-Jacobian product is the same operator, so a derivative of any order thins
again, and nothing but the stream is saved for the backward pass. An ordinary tensor goes to a kernel at once; what
compilers, function transforms, modes and subclasses watch goes by the custom operator ``wellposed::dropout``. Its
stream and p are tensors, so that a graph can have them as inputs: a new step or a new p causes no recompilation.
"""

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.compiler import is_compiling, is_exporting
from torch.utils.checkpoint import checkpoint

from wellposed._torch import (
    apply_of,
    is_functionalized,
    is_ordinary,
    is_recorded,
    materialized,
    transforms_are_active,
)
from wellposed.dropouts.masks import Law, Mask, check_probability, compute, part_of_batch, slope, stream_tensor
from wellposed.dropouts.pointwise import cut_of_tensor, thin_pointwise
from wellposed.random.box import Box
from wellposed.random.draw import cut_tensor


def thin(x: Tensor, mask: Mask) -> Tensor:
    """Apply a mask to a tensor of any kind, in a way that autograd, transforms, compilers and subclasses follow.

    Args:
        x: The tensor.
        mask: The mask.

    Returns:
        A tensor like ``x``.
    """
    if is_ordinary(x):
        return thin_ordinary(x, mask)
    p, key, call, dims, box, law, _ = mask.settled()
    rate = torch.tensor(p, dtype=torch.float64, device="cpu")
    return thin_by_operator(x, stream_tensor(key, call), rate, dims, box, law=law)


def thin_ordinary(x: Tensor, mask: Mask) -> Tensor:
    """Apply a mask to an ordinary tensor, recorded for autograd where that is asked for."""
    return _apply_thin(x, mask) if is_recorded(x) else compute(x, mask)


class _Thin(torch.autograd.Function):
    """Thinning of ordinary tensors."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, mask: Mask) -> Tensor:
        ctx.mask = mask
        return compute(x, mask)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return thin(grad, slope(ctx.mask)), None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, _: None) -> Tensor:
        return thin(materialized(tangent), slope(ctx.mask))


_apply_thin = apply_of(_Thin)


# Devices on which compilers are shown the operator, whose kernel is faster there than what they would make of it.
_OPAQUE = ("cpu", "meta")
# A captured CUDA graph repeats what ran on the device, without the host, on which the stream is read.
TAGS = (torch.Tag.pt2_compliant_tag, torch.Tag.cudagraph_unsafe)
_library: Any = torch.library.Library("wellposed", "FRAGMENT")
_library.define(
    "dropout(Tensor x, Tensor stream, Tensor p, SymInt[]? dims, SymInt[] shape, SymInt[] offset, int batch, str law)"
    " -> Tensor",
    tags=TAGS,
)
_NAME = "wellposed::dropout"


def thin_by_operator(
    x: Tensor,
    stream: Tensor,
    p: Tensor,
    dims: Sequence[int] | None = None,
    box: Box | None = None,
    batch: int = 0,
    law: Law = "scaled",
) -> Tensor:
    """Apply a mask to a tensor of any kind by the custom operator, with the stream and p given as tensors.

    Args:
        x: The tensor.
        stream: int64 of shape (3,): the 64 bits of the key, the call number, and the tensor's first row in a larger
            batch.
        p: A scalar tensor, or one p for each sample.
        dims: The dimensions that the mask varies over; ``None`` means all.
        box: Where the tensor lies in a larger one; ``None`` where it is the whole.
        batch: The dimension that holds the samples; -1 if none does.
        law: What becomes of the elements, see ``Mask``.

    Returns:
        A tensor like ``x``.
    """
    shape, offset = ((), ()) if box is None else (box.shape, box.offset)
    return _apply(x, stream, p, dims, shape, offset, batch, law)


def _apply(x: Tensor, *name: Any) -> Tensor:
    if is_compiling() and not is_exporting() and x.device.type not in _OPAQUE:
        if transforms_are_active():  # which have no checkpoints
            return thin_pointwise(x, *name)
        # As a checkpoint, lest a compiler keep the mask for the backward pass rather than draw it again.
        thinned: Tensor = checkpoint(thin_pointwise, x, *name, use_reentrant=False, preserve_rng_state=False)
        return thinned
    if not transforms_are_active():
        return torch.ops.wellposed.dropout(x, *name)  # type: ignore[no-any-return]
    if is_compiling() or is_functionalized():
        return _times_mask(x, *name)
    return _Transformed.apply(x, *name)  # type: ignore[no-any-return, no-untyped-call]


def _times_mask(x: Tensor, stream: Tensor, p: Tensor, *rest: Any) -> Tensor:
    """The same as a product with a mask that needs no derivative: under transforms of compilers, or functionalized."""
    *where, law = rest
    exact = torch.promote_types(x.dtype, torch.float32)

    def made_of(value: float, law: Law) -> Tensor:
        made: Tensor = torch.ops.wellposed.dropout(torch.full_like(x, value, dtype=exact), stream, p, *where, law)
        return made

    if law == "selu":  # of -0 it makes the shift, or the floor
        scale, other = made_of(1.0, "selu slope"), made_of(-0.0, "selu")
        return torch.where(scale == 0, other, x.to(exact) * scale + other).to(x.dtype)
    scale = made_of(1.0, law)
    return torch.where(scale == 0, 0.0, x.to(exact) * scale).to(x.dtype)


@torch.library.impl(_library, "dropout", "CompositeExplicitAutograd")
def _compute(
    x: Tensor,
    stream: Tensor,
    p: Tensor,
    dims: list[int] | None,
    shape: list[int],
    offset: list[int],
    batch: int,
    law: Law,
) -> Tensor:
    if not (p.is_cpu or x.is_cpu):
        return _compute_there(x, stream, p, dims, shape, offset, batch, law)
    rates: list[float] = p.reshape(-1).tolist()
    for rate in rates:
        check_probability("dropout", rate)
    whole = _mask(x, stream, rates[0] if rates else 0.0, dims, shape, offset, batch, law)
    if p.dim() == 0:
        return compute(x, whole)
    result = torch.empty_like(x)
    first = 0
    for rate, equal in itertools.groupby(rates):
        count = len(list(equal))
        mask = whole._replace(p=rate, box=_slab(whole.box, x, first, batch))
        result.narrow(batch, first, count).copy_(compute(x.narrow(batch, first, count), mask))
        first += count
    return result


def _compute_there(x: Tensor, stream: Tensor, p: Tensor, *where: Any) -> Tensor:
    """The same with a p that lies on a device, which is not waited for."""
    if p.dim():
        return thin_pointwise(x, stream, p, *where)
    *_, law = where
    cut = cut_tensor(*cut_of_tensor(p.to(x.device), law), dtype=x.dtype)
    return compute(x, _mask(x, stream, 0.0, *where), cut)


def _mask(
    x: Tensor,
    stream: Tensor,
    p: float,
    dims: list[int] | None,
    shape: list[int],
    offset: list[int],
    batch: int,
    law: Law,
) -> Mask:
    key, call, row = (number % 2**64 for number in stream.tolist())
    box = Box(tuple(shape), tuple(offset)) if shape else part_of_batch(x, row, batch)
    return Mask(p, key, call, None if dims is None else tuple(dims), box, law)


def _slab(box: Box | None, x: Tensor, first: int, dim: int) -> Box:
    """Where the slice of ``x`` that starts at index ``first`` of dimension ``dim`` lies in the whole."""
    whole, offset = (x.shape, [0] * x.dim()) if box is None else (box.shape, list(box.offset))
    offset[dim] += first
    return Box(tuple(whole), tuple(offset))


def _fake(x: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(x)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, stream, p, *where, law = inputs
    ctx.where = (*where, "selu slope" if law == "selu" else law)
    ctx.save_for_backward(stream, p)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return _apply(grad, *ctx.saved_tensors, *ctx.where), *(None,) * 7


def _vmap(
    info: Any, in_dims: tuple[int | None, ...], x: Tensor, stream: Tensor, p: Tensor, *where: Any
) -> tuple[Tensor, int]:
    """The batching rule: one mask for all samples where they share the stream, else one for each."""
    x_dim = in_dims[0]
    if x_dim is not None and in_dims[1] is None and in_dims[2] is None:
        dims, shape, offset, batch, law = where
        x = x.movedim(x_dim, 0)
        counted = [d + 1 for d in (range(x.dim() - 1) if dims is None else dims)]
        whole = ((info.batch_size, *shape), (0, *offset)) if shape else ((), ())
        return _apply(x, stream, p, counted, *whole, batch + 1 if batch >= 0 else batch, law), 0
    samples = zip(
        *(
            [tensor] * info.batch_size if dim is None else tensor.unbind(dim)
            for tensor, dim in zip((x, stream, p), in_dims[:3], strict=True)
        ),
        strict=True,
    )
    return torch.stack([_one(*sample, *where) for sample in samples]), 0


def _one(x: Tensor, stream: Tensor, p: Tensor, *where: Any) -> Tensor:
    """``_apply``, but without torch's dispatcher for ordinary tensors, where it would cost more than the work."""
    if p.dim() == 0 and is_ordinary(x):
        return thin_ordinary(x, _mask(x, stream, float(p), *where))
    return _apply(x, stream, p, *where)


class _Transformed(torch.autograd.Function):
    """The operator under ``torch.func``, whose transforms an operator's own derivative formula does not reach."""

    @staticmethod
    def forward(x: Tensor, *name: Any) -> Tensor:
        return torch.ops.wellposed.dropout(x, *name)  # type: ignore[no-any-return]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _keep(ctx, inputs, output)
        ctx.save_for_forward(*inputs[1:3])

    backward = staticmethod(_backward)
    vmap = staticmethod(_vmap)

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: None) -> Tensor:
        return _apply(tangent, *ctx.saved_tensors, *ctx.where)


torch.library.register_fake(_NAME, _fake, lib=_library)
torch.library.register_autograd(_NAME, _backward, setup_context=_keep, lib=_library)
torch.library.register_vmap(_NAME, _vmap, lib=_library)
