"""``wellposed::dropout``: the primitive as an operator that compilers, functorch and tensor subclasses see whole.

Key, call and p are tensors here, so that a graph can carry them: a new step or a new p compiles nothing again.
"""

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.compiler import is_compiling

from wellposed.dropouts.thinning import Mask, compute, is_plain, mask_of, thin
from wellposed.errors import WellposedError
from wellposed.random.box import Box

# A captured CUDA graph repeats what ran on the device, without the host, which makes the mask from its name.
TAGS = (torch.Tag.pt2_compliant_tag, torch.Tag.cudagraph_unsafe)
_library: Any = torch.library.Library("wellposed", "FRAGMENT")
_library.define(
    "dropout(Tensor x, Tensor words, Tensor p, SymInt[]? dims, SymInt[] shape, SymInt[] offset, int batch) -> Tensor",
    tags=TAGS,
)
_NAME = "wellposed::dropout"


def thin_any(
    x: Tensor, words: Tensor, p: Tensor, dims: Sequence[int] | None = None, box: Box | None = None, batch: int = 0
) -> Tensor:
    """Thin a tensor of any kind.

    Args:
        x: The tensor.
        words: int64 of shape (3,): the 64 bits of the key, the call number, and the row at which the tensor stands in
            a larger batch.
        p: A scalar tensor, or one p for each sample.
        dims: The dimensions that the mask varies over; ``None`` means all.
        box: The whole that the tensor is a part of.
        batch: The dimension that holds the samples; -1 if none does.

    Returns:
        A tensor like ``x``.
    """
    shape, offset = ((), ()) if box is None else (box.shape, box.offset)
    return _apply(x, words, p, dims, shape, offset, batch)


def _apply(x: Tensor, *name: Any) -> Tensor:
    if not torch._C._are_functorch_transforms_active():
        return torch.ops.wellposed.dropout(x, *name)  # type: ignore[no-any-return]
    if is_compiling():
        return _times_mask(x, *name)
    return _Transformed.apply(x, *name)  # type: ignore[no-any-return, no-untyped-call]


def _times_mask(x: Tensor, *name: Any) -> Tensor:
    """The same by torch's operators and a mask that needs no derivative: what compilers trace under functorch."""
    exact = torch.promote_types(x.dtype, torch.float32)
    mask = torch.ops.wellposed.dropout(torch.ones_like(x, dtype=exact), *name)
    return torch.where(mask == 0, 0.0, x.to(exact) * mask).to(x.dtype)


@torch.library.impl(_library, "dropout", "CompositeExplicitAutograd")
def _compute(
    x: Tensor, words: Tensor, p: Tensor, dims: list[int] | None, shape: list[int], offset: list[int], batch: int
) -> Tensor:
    rates: list[float] = p.reshape(-1).tolist()
    for rate in rates:
        check_probability("dropout", rate)
    whole = _mask(x, words, rates[0] if rates else 0.0, dims, shape, offset, batch)
    if p.dim() == 0:
        return compute(x, whole)
    _, counted, box, (low, high, call, _, _) = whole
    result = torch.empty_like(x)
    first = 0
    for rate, equal in itertools.groupby(rates):
        count = len(list(equal))
        mask = mask_of(rate, (low, high), call % 2**64, counted, _slab(box, x, first, batch))
        result.narrow(batch, first, count).copy_(compute(x.narrow(batch, first, count), mask))
        first += count
    return result


def _mask(
    x: Tensor, words: Tensor, p: float, dims: list[int] | None, shape: list[int], offset: list[int], batch: int
) -> Mask:
    seed, call, row = (number % 2**64 for number in words.tolist())
    box = Box(tuple(shape), tuple(offset)) if shape else part_of_batch(x, row, batch)
    return mask_of(p, (seed & 0xFFFF_FFFF, seed >> 32), call, None if dims is None else tuple(dims), box)


def _slab(box: Box | None, x: Tensor, first: int, dim: int) -> Box:
    """Where the part of ``x`` lies that starts at index ``first`` of dimension ``dim``."""
    whole, offset = (x.shape, [0] * x.dim()) if box is None else (box.shape, list(box.offset))
    offset[dim] += first
    return Box(tuple(whole), tuple(offset))


def check_probability(name: str, p: float) -> None:
    """Refuse a p outside [0, 1]; NaN is."""
    if not 0.0 <= p <= 1.0:
        raise WellposedError(f"{name} was given p={p}; expected a probability in [0, 1]")


def part_of_batch(x: Tensor, row: int, dim: int = 0) -> Box | None:
    """The whole that ``x`` is a part of, where ``x`` holds the samples from ``row`` on in dimension ``dim``."""
    if row == 0 or x.dim() == 0 or dim < 0:
        return None
    before, after = x.shape[:dim], x.shape[dim + 1 :]
    return Box((*before, row + x.shape[dim], *after), (*(0 for _ in before), row, *(0 for _ in after)))


def _fake(x: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(x)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, words, p, *ctx.where = inputs
    ctx.save_for_backward(words, p)


def _transpose(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return _apply(grad, *ctx.saved_tensors, *ctx.where), None, None, None, None, None, None


def _vmap(
    info: Any, in_dims: tuple[int | None, ...], x: Tensor, words: Tensor, p: Tensor, *where: Any
) -> tuple[Tensor, int]:
    """What a loop over the samples gives: one mask for all where the words are shared, else each its own."""
    x_dim = in_dims[0]
    if x_dim is not None and in_dims[1] is None and in_dims[2] is None:
        dims, shape, offset, batch = where
        x = x.movedim(x_dim, 0)
        counted = [d + 1 for d in (range(x.dim() - 1) if dims is None else dims)]
        whole = ((info.batch_size, *shape), (0, *offset)) if shape else ((), ())
        return _apply(x, words, p, counted, *whole, batch + 1 if batch >= 0 else batch), 0
    samples = zip(
        *(
            [tensor] * info.batch_size if dim is None else tensor.unbind(dim)
            for tensor, dim in zip((x, words, p), in_dims[:3], strict=True)
        ),
        strict=True,
    )
    return torch.stack([_one(*sample, *where) for sample in samples]), 0


def _one(x: Tensor, words: Tensor, p: Tensor, *where: Any) -> Tensor:
    """``_apply``, without torch's dispatcher where nobody needs it: it would cost more than the work."""
    if p.dim() == 0 and is_plain(x):
        return thin(x, _mask(x, words, float(p), *where))
    return _apply(x, words, p, *where)


class _Transformed(torch.autograd.Function):
    """The operator under functorch, whose transforms an operator's own derivative formula does not reach."""

    @staticmethod
    def forward(x: Tensor, *name: Any) -> Tensor:
        return torch.ops.wellposed.dropout(x, *name)  # type: ignore[no-any-return]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _keep(ctx, inputs, output)
        ctx.save_for_forward(*inputs[1:3])

    backward = staticmethod(_transpose)
    vmap = staticmethod(_vmap)

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: None) -> Tensor:
        return _apply(tangent, *ctx.saved_tensors, *ctx.where)


torch.library.register_fake(_NAME, _fake, lib=_library)
torch.library.register_autograd(_NAME, _transpose, setup_context=_keep, lib=_library)
torch.library.register_vmap(_NAME, _vmap, lib=_library)
