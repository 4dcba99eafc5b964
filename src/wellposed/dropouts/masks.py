"""``Mask``: everything that a mask of dropout is a function of, and its application to the memory of a tensor."""

import functools
import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from wellposed.arguments import real, signed
from wellposed.errors import WellposedError
from wellposed.random.backend import backend_for
from wellposed.random.box import WHOLE, Box, layout
from wellposed.random.draw import Cut

# What becomes of the elements. "scaled": 0, or x / (1 - p). "selu": SELU's floor, or x scaled and shifted so that
# mean 0 and variance 1 stay (Klambauer et al., 2017). "selu slope": the derivative of that, which is linear.
Law = Literal["scaled", "selu", "selu slope"]
SELU_FLOOR = -1.7580993408473766  # what SELU saturates at: -scale * alpha (Klambauer et al., 2017)


class Mask(NamedTuple):
    """A mask of dropout, by what it is a function of: nothing of the size of a tensor.

    Attributes:
        p: The probability that an element is dropped.
        key: The 64 bits of the stream's key.
        call: The call number.
        dims: The dimensions that the mask varies over, none negative, in order; ``None`` for all.
        box: Where the tensor lies in a larger one; ``None`` where it is the whole.
        law: What becomes of the elements: "scaled", "selu" or "selu slope".
        shift: An int64 scalar that is added to the call number; on a GPU, by the kernel when it runs.
    """

    p: float
    key: int
    call: int
    dims: tuple[int, ...] | None = None
    box: Box | None = None
    law: Law = "scaled"
    shift: Tensor | None = None

    def settled(self) -> "Mask":
        """The mask with the shift in its call number, for which the host has to read it."""
        if self.shift is None:
            return self
        return self._replace(call=(self.call + int(self.shift)) % 2**64, shift=None)


@functools.lru_cache(maxsize=256)
def cut_of(p: float, law: Law = "scaled") -> Cut:
    """The threshold below which a random word drops its element, and the affine map of the other elements."""
    threshold = round(p * 4294967296.0)
    if law == "scaled" or p in (0.0, 1.0):
        return Cut(threshold, 1.0 / (1.0 - p) if p < 1.0 else 0.0)
    gain = 1 / math.sqrt((1 - p) * (1 + p * SELU_FLOOR**2))
    if law == "selu slope":
        return Cut(threshold, gain)
    floor = gain * (1 - p) * SELU_FLOOR
    return Cut(threshold, gain, floor - gain * SELU_FLOOR, floor)


def compute(x: Tensor, mask: Mask, cut: Tensor | None = None) -> Tensor:
    """Apply a mask to the memory of an ordinary tensor, outside of autograd; strides are kept.

    Args:
        x: The tensor.
        mask: The mask.
        cut: What becomes of the elements, where only the tensor's device knows the probability, see ``cut_tensor``.
    """
    if x.is_meta:
        return torch.empty_like(x)
    p, key, call, dims, box, law, shift = mask.settled() if x.is_cpu else mask
    where = WHOLE if dims is None and box is None else layout(x.shape, box, dims)
    thinned = backend_for(x).thin(x, cut_of(p, law) if cut is None else cut, key, call, where, shift)
    if x.is_contiguous():
        return thinned
    kept = torch.empty_like(x)
    return thinned if kept.is_contiguous() else kept.copy_(thinned)


def slope(mask: Mask) -> Mask:
    """The mask of the derivative: the mask itself where it is linear, else the one without the constant."""
    return mask._replace(law="selu slope") if mask.law == "selu" else mask


def stream_tensor(key: int, call: int, row: int = 0) -> Tensor:
    """A stream as operators take it: the 64 bits of the key and of the call, and the row, in an int64 tensor."""
    return torch.tensor([signed(key), signed(call), row], dtype=torch.int64, device="cpu")


def part_of_batch(x: Tensor, row: int, dim: int = 0) -> Box | None:
    """Where ``x`` lies in a larger batch, of whose samples along dimension ``dim`` it holds those from ``row`` on."""
    if row == 0 or x.dim() == 0 or dim < 0:
        return None
    before, after = x.shape[:dim], x.shape[dim + 1 :]
    return Box((*before, row + x.shape[dim], *after), (*(0 for _ in before), row, *(0 for _ in after)))


def check_probability(name: str, p: object) -> float:
    """A p as a number; refuse one outside [0, 1], NaN, and what is no number."""
    number = p if type(p) is float else real(p, f"{name}(p)")
    if not 0.0 <= number <= 1.0:
        raise WellposedError(f"{name} was given p={p}; expected a probability in [0, 1]")
    return number
