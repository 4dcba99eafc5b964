"""Thinning written in torch's pointwise operations, with the stream and p left on the device where they are.

It is a kernel of no backend, but compilers fuse it with what stands around it, and nothing of it waits for a device.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from wellposed.dropouts.masks import SELU_FLOOR, Law
from wellposed.random import reference


def thin_pointwise(
    x: Tensor,
    stream: Tensor,
    p: Tensor,
    dims: Sequence[int] | None,
    shape: Sequence[int],
    offset: Sequence[int],
    batch: int,
    law: Law,
) -> Tensor:
    """Apply a mask, as the operator ``wellposed::dropout`` does, whose arguments these are."""
    stream, p = (tensor.to(x.device, non_blocking=True) for tensor in (stream, p))
    key, call, row = stream.unbind()
    if p.dim():
        p = p.reshape([-1 if d == batch else 1 for d in range(x.dim())])
    exact = torch.promote_types(x.dtype, torch.float32)
    threshold, scale, addend, floor = cut_of_tensor(p, law)
    word = reference.words(_index(x, row, dims, shape, offset, batch), key, call)
    kept = x.to(exact) * scale.to(exact) + addend.to(exact)
    return torch.where(word < threshold, floor.to(exact), kept).to(x.dtype)


def cut_of_tensor(p: Tensor, law: Law) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The threshold, and the scale, addend and floor in float64, of probabilities that are not read.

    A p outside [0, 1] makes the scale and the floor NaN, since whether it is there only the device knows.
    """
    p = p.double()
    is_known = (p >= 0) & (p <= 1)
    nan, zero = torch.full_like(p, math.nan), torch.zeros_like(p)
    scale, addend, floor = torch.where(p < 1, 1 / (1 - p), 0.0), torch.full_like(p, -0.0), zero
    if law != "scaled":
        inside = (p > 0) & (p < 1)
        gain = 1 / ((1 - p) * (1 + p * SELU_FLOOR**2)).sqrt()
        scale = torch.where(inside, gain, scale)
        if law == "selu":
            floor = torch.where(inside, gain * (1 - p) * SELU_FLOOR, floor)
            addend = torch.where(inside, floor - gain * SELU_FLOOR, addend)
    threshold = torch.where(is_known, (p * 4294967296.0).round(), zero).long()
    return threshold, torch.where(is_known, scale, nan), addend, torch.where(is_known, floor, nan)


def _index(
    x: Tensor, row: Tensor, dims: Sequence[int] | None, shape: Sequence[int], offset: Sequence[int], batch: int
) -> Tensor:
    """The global index of each element, of size 1 where the mask does not vary."""
    index = torch.zeros([1] * x.dim(), dtype=torch.int64, device=x.device)
    stride: int | Tensor = 1
    for d in reversed(range(x.dim())):
        if dims is not None and d not in dims:
            continue
        place = torch.arange(x.shape[d], device=x.device)
        size: int | Tensor = x.shape[d]
        if shape:
            place, size = place + offset[d], shape[d]
        elif d == batch:
            place, size = place + row, x.shape[d] + row
        index = index + (place * stride).reshape([-1 if e == d else 1 for e in range(x.dim())])
        stride = stride * size
    return index
