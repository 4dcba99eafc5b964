"""Thinning, the primitive under every dropout: drop elements by their words, scale the rest.

Thinning is linear and its own transpose, so a derivative of any order thins again: nothing but the mask's name is kept
for the backward pass. An ordinary tensor goes to a kernel at once; what compilers, transforms, modes and subclasses
watch goes by ``wellposed::dropout``, an operator that they see whole. Its stream and p are tensors, so that a graph can
carry them: a new step or a new p compiles nothing again.
"""

import functools
import itertools
import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.compiler import is_compiling

from wellposed._torch import apply_of, is_ordinary, is_recorded, materialized, transforms_are_active
from wellposed.arguments import signed
from wellposed.errors import WellposedError
from wellposed.random.backend import backend_for
from wellposed.random.box import WHOLE, Box, layout
from wellposed.random.draw import Cut

# What p stands for. "scaled": 0, or x / (1 - p). "selu": SELU's floor, or x scaled and shifted so that mean 0 and
# variance 1 stay (Klambauer et al., 2017). "selu slope": the derivative of that, which is linear.
Law = Literal["scaled", "selu", "selu slope"]
_SELU_FLOOR = -1.7580993408473766  # what SELU saturates at: -scale * alpha (Klambauer et al., 2017)


class Mask(NamedTuple):
    """What names a mask.

    Attributes:
        p: The probability that an element is dropped.
        key: The 64 bits of the key.
        call: The call number.
        dims: The dimensions that the mask varies over, none negative, in order; ``None`` for all.
        box: The whole that the tensor is a part of.
        law: What p stands for.
    """

    p: float
    key: int
    call: int
    dims: tuple[int, ...] | None = None
    box: Box | None = None
    law: Law = "scaled"


@functools.lru_cache(maxsize=256)
def cut_of(p: float, law: Law = "scaled") -> Cut:
    """What a law makes of p: the threshold below which a word drops its element, and what becomes of the others."""
    threshold = round(p * 4294967296.0)
    if law == "scaled" or p in (0.0, 1.0):
        return Cut(threshold, 1.0 / (1.0 - p) if p < 1.0 else 0.0)
    gain = 1 / math.sqrt((1 - p) * (1 + p * _SELU_FLOOR**2))
    if law == "selu slope":
        return Cut(threshold, gain)
    floor = gain * (1 - p) * _SELU_FLOOR
    return Cut(threshold, gain, floor - gain * _SELU_FLOOR, floor)


def thin(x: Tensor, mask: Mask) -> Tensor:
    """Thin a tensor of any kind; autograd, transforms, compilers and subclasses see it done.

    Args:
        x: The tensor.
        mask: What names the mask.

    Returns:
        A tensor like ``x``.
    """
    if is_ordinary(x):
        return thin_ordinary(x, mask)
    p, key, call, dims, box, law = mask
    rate = torch.tensor(p, dtype=torch.float64, device="cpu")
    return thin_by_operator(x, words_of(key, call), rate, dims, box, law=law)


def thin_ordinary(x: Tensor, mask: Mask) -> Tensor:
    """Thin an ordinary tensor."""
    return _apply_thin(x, mask) if is_recorded(x) else compute(x, mask)


def compute(x: Tensor, mask: Mask) -> Tensor:
    """Thin the memory of an ordinary tensor; strides are kept."""
    if x.is_meta:
        return torch.empty_like(x)
    p, key, call, dims, box, law = mask
    where = WHOLE if dims is None and box is None else layout(x.shape, box, dims)
    thinned = backend_for(x).thin(x, cut_of(p, law), key, call, where)
    if x.is_contiguous():
        return thinned
    kept = torch.empty_like(x)
    return thinned if kept.is_contiguous() else kept.copy_(thinned)


class _Thin(torch.autograd.Function):
    """Thinning of ordinary tensors."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, mask: Mask) -> Tensor:
        ctx.mask = mask
        return compute(x, mask)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return thin(grad, _slope(ctx.mask)), None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, _: None) -> Tensor:
        return thin(materialized(tangent), _slope(ctx.mask))


_apply_thin = apply_of(_Thin)


def _slope(mask: Mask) -> Mask:
    """What names the derivative: thinning itself, but for a law that adds something."""
    return mask._replace(law="selu slope") if mask.law == "selu" else mask


def words_of(key: int, call: int, row: int = 0) -> Tensor:
    """A stream as operators take it: the 64 bits of the key and of the call, and the row, in an int64 tensor."""
    return torch.tensor([signed(key), signed(call), row], dtype=torch.int64, device="cpu")


# A captured CUDA graph repeats what ran on the device, without the host, which makes the mask from its name.
TAGS = (torch.Tag.pt2_compliant_tag, torch.Tag.cudagraph_unsafe)
_library: Any = torch.library.Library("wellposed", "FRAGMENT")
_library.define(
    "dropout(Tensor x, Tensor words, Tensor p, SymInt[]? dims, SymInt[] shape, SymInt[] offset, int batch, str law)"
    " -> Tensor",
    tags=TAGS,
)
_NAME = "wellposed::dropout"


def thin_by_operator(
    x: Tensor,
    words: Tensor,
    p: Tensor,
    dims: Sequence[int] | None = None,
    box: Box | None = None,
    batch: int = 0,
    law: Law = "scaled",
) -> Tensor:
    """Thin a tensor of any kind by what tensors name.

    Args:
        x: The tensor.
        words: int64 of shape (3,): the 64 bits of the key, the call number, and the row at which the tensor stands in
            a larger batch.
        p: A scalar tensor, or one p for each sample.
        dims: The dimensions that the mask varies over; ``None`` means all.
        box: The whole that the tensor is a part of.
        batch: The dimension that holds the samples; -1 if none does.
        law: What p stands for.

    Returns:
        A tensor like ``x``.
    """
    shape, offset = ((), ()) if box is None else (box.shape, box.offset)
    return _apply(x, words, p, dims, shape, offset, batch, law)


def _apply(x: Tensor, *name: Any) -> Tensor:
    if not transforms_are_active():
        return torch.ops.wellposed.dropout(x, *name)  # type: ignore[no-any-return]
    if is_compiling():
        return _times_mask(x, *name)
    return _Transformed.apply(x, *name)  # type: ignore[no-any-return, no-untyped-call]


def _times_mask(x: Tensor, words: Tensor, p: Tensor, *rest: Any) -> Tensor:
    """The same by torch's operators and masks that need no derivative: what compilers trace under transforms."""
    *where, law = rest
    exact = torch.promote_types(x.dtype, torch.float32)

    def made_of(value: float, law: Law) -> Tensor:
        made: Tensor = torch.ops.wellposed.dropout(torch.full_like(x, value, dtype=exact), words, p, *where, law)
        return made

    if law == "selu":  # of -0 it makes the shift, or the floor
        scale, other = made_of(1.0, "selu slope"), made_of(-0.0, "selu")
        return torch.where(scale == 0, other, x.to(exact) * scale + other).to(x.dtype)
    scale = made_of(1.0, law)
    return torch.where(scale == 0, 0.0, x.to(exact) * scale).to(x.dtype)


@torch.library.impl(_library, "dropout", "CompositeExplicitAutograd")
def _compute(
    x: Tensor,
    words: Tensor,
    p: Tensor,
    dims: list[int] | None,
    shape: list[int],
    offset: list[int],
    batch: int,
    law: Law,
) -> Tensor:
    rates: list[float] = p.reshape(-1).tolist()
    for rate in rates:
        check_probability("dropout", rate)
    whole = _mask(x, words, rates[0] if rates else 0.0, dims, shape, offset, batch, law)
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


def _mask(
    x: Tensor,
    words: Tensor,
    p: float,
    dims: list[int] | None,
    shape: list[int],
    offset: list[int],
    batch: int,
    law: Law,
) -> Mask:
    key, call, row = (number % 2**64 for number in words.tolist())
    box = Box(tuple(shape), tuple(offset)) if shape else part_of_batch(x, row, batch)
    return Mask(p, key, call, None if dims is None else tuple(dims), box, law)


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
    _, words, p, *where, law = inputs
    ctx.where = (*where, "selu slope" if law == "selu" else law)
    ctx.save_for_backward(words, p)


def _transpose(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return _apply(grad, *ctx.saved_tensors, *ctx.where), *(None,) * 7


def _vmap(
    info: Any, in_dims: tuple[int | None, ...], x: Tensor, words: Tensor, p: Tensor, *where: Any
) -> tuple[Tensor, int]:
    """What a loop over the samples gives: one mask for all where the words are shared, else each its own."""
    x_dim = in_dims[0]
    if x_dim is not None and in_dims[1] is None and in_dims[2] is None:
        dims, shape, offset, batch, law = where
        x = x.movedim(x_dim, 0)
        counted = [d + 1 for d in (range(x.dim() - 1) if dims is None else dims)]
        whole = ((info.batch_size, *shape), (0, *offset)) if shape else ((), ())
        return _apply(x, words, p, counted, *whole, batch + 1 if batch >= 0 else batch, law), 0
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
    if p.dim() == 0 and is_ordinary(x):
        return thin_ordinary(x, _mask(x, words, float(p), *where))
    return _apply(x, words, p, *where)


class _Transformed(torch.autograd.Function):
    """The operator under ``torch.func``, whose transforms an operator's own derivative formula does not reach."""

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
