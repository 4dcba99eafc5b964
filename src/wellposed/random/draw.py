"""What backends are asked to do: draw from a distribution with given constants, or apply a mask of dropout."""

import functools
import math
import struct
from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple

import torch
from torch import Tensor

from wellposed.errors import WellposedError
from wellposed.random.inverse_normal import one_sided, straddling

FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
CODES = {  # the number of a dtype in the interface of the kernels
    torch.float32: 0,
    torch.float64: 1,
    torch.bfloat16: 2,
    torch.float16: 3,
    torch.bool: 4,
    torch.uint8: 4,
    torch.uint32: 5,
}
_DEPTH = {False: (23, 18), True: (46, 48)}  # is float64 -> -log of the smallest uniform, rounded up; degree


class Kind(IntEnum):
    """The formulas that turn random words into values; the numbers are those of the kernels' interface."""

    BITS = 0
    UNIFORM = 1
    NORMAL = 2
    STRADDLING = 3
    ONE_SIDED = 4
    BERNOULLI = 5


@dataclass(frozen=True, slots=True)
class Draw:
    """A distribution to draw from, for one dtype.

    Attributes:
        kind: Which formula turns words into values.
        is_float64: Whether values are drawn in float64, by two words an element, rather than in float32 by one.
        constants: The formula's constants, each exactly representable in that arithmetic.
        dtype: What the values are stored as.
        code: The number of the dtype in the interface of the kernels; -1 for one that they do not serve.
        packed: The constants as kernels read them, as float32; as float64 where values are, and for a threshold.
    """

    kind: Kind
    is_float64: bool
    constants: tuple[float, ...]
    dtype: torch.dtype
    code: int = field(init=False, repr=False, compare=False)
    packed: bytes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        exact = self.is_float64 or self.kind == Kind.BERNOULLI
        object.__setattr__(self, "code", CODES.get(self.dtype, -1))
        letter = "d" if exact else "f"
        object.__setattr__(self, "packed", struct.pack(f"{len(self.constants)}{letter}", *self.constants))


BITS = Draw(Kind.BITS, False, (), torch.uint32)


def bits(dtype: torch.dtype) -> Draw:
    """The words themselves."""
    return BITS


@functools.lru_cache(maxsize=4096)
def uniform(low: float, high: float, dtype: torch.dtype) -> Draw:
    """The uniform distribution on [low, high)."""
    _check_dtype("uniform", dtype)
    if not low <= high or not math.isfinite(high - low):
        raise WellposedError(f"uniform was given low={low} and high={high}; expected finite numbers with low <= high")
    bottom, top = _support(low, high, dtype, open_above=True)
    return _draw(Kind.UNIFORM, dtype, low, high - low, bottom, top)


@functools.lru_cache(maxsize=4096)
def normal(mean: float, std: float, dtype: torch.dtype) -> Draw:
    """The normal distribution."""
    _check_dtype("normal", dtype)
    _check_normal("normal", mean, std)
    return _draw(Kind.NORMAL, dtype, mean, std)


@functools.lru_cache(maxsize=4096)
def truncated_normal(mean: float, std: float, a: float, b: float, dtype: torch.dtype) -> Draw:
    """The normal distribution conditioned on [a, b]."""
    _check_dtype("truncated_normal", dtype)
    _check_normal("truncated_normal", mean, std)
    if not a < b:
        raise WellposedError(f"truncated_normal was given a={a} and b={b}; expected cut-offs with a < b")
    if std == 0 and not a <= mean <= b:
        raise WellposedError(
            f"truncated_normal was given std=0 and mean={mean} outside [{a}, {b}]; expected a positive std"
        )
    bottom, top = _support(a, b, dtype, open_above=False)
    if std == 0:
        return _draw(Kind.UNIFORM, dtype, mean, 0.0, bottom, top)
    alpha, beta, width = (a - mean) / std, (b - mean) / std, (b - a) / std
    is_float64 = dtype == torch.float64
    if alpha < 0 < beta:
        cut = _draw(Kind.STRADDLING, dtype, mean, std, *straddling(alpha, beta), bottom, top)
        # Cut-offs so far out that no value reaches them: the same values with less to compute.
        return normal(mean, std, dtype) if cut.constants[2:6] == (0.0, 1.0, 0.0, 0.0) else cut
    upper = alpha >= 0
    near = alpha if upper else -beta
    if math.isinf(near):
        raise WellposedError(
            f"truncated_normal was given mean={mean}, std={std}, a={a} and b={b}; "
            "expected an interval whose near end lies a finite number of standard deviations from the mean"
        )
    tail = one_sided(near, width, *_DEPTH[is_float64])
    anchor, reach = (a, std) if upper else (b, -std)
    head = (anchor, 2 * reach / tail.hazard, tail.mass, tail.rest, tail.bend, tail.scale, tail.shift, bottom, top)
    return _draw(Kind.ONE_SIDED, dtype, *head, *tail.series)


@functools.lru_cache(maxsize=4096)
def bernoulli(p: float, dtype: torch.dtype) -> Draw:
    """Success with probability p: the word is below round(p * 2^32)."""
    if dtype.is_complex:
        raise WellposedError(f"bernoulli was given dtype {dtype}; expected a real dtype")
    if not 0 <= p <= 1:
        raise WellposedError(f"bernoulli was given p={p}; expected a probability in [0, 1]")
    return Draw(Kind.BERNOULLI, False, (float(round(p * 2**32)),), dtype)


def _check_normal(name: str, mean: float, std: float) -> None:
    if not (math.isfinite(mean) and 0 <= std < math.inf):
        raise WellposedError(f"{name} was given mean={mean} and std={std}; expected finite numbers with std >= 0")


def _check_dtype(name: str, dtype: torch.dtype) -> None:
    if dtype not in FLOATS:
        raise WellposedError(f"{name} was given dtype {dtype}; expected float32, float64, bfloat16 or float16")


def _draw(kind: Kind, dtype: torch.dtype, *constants: float) -> Draw:
    is_float64 = dtype == torch.float64
    if not is_float64:
        rounded = tuple(torch.tensor(constants, dtype=torch.float64, device="cpu").to(torch.float32).tolist())
        if any(math.isinf(new) and math.isfinite(old) for new, old in zip(rounded, constants, strict=True)):
            raise WellposedError(
                f"values of {dtype} are drawn in float32, which cannot hold the parameter {max(constants, key=abs)}; "
                "expected parameters below 3.4e38, or dtype=torch.float64"
            )
        constants = rounded
    return Draw(kind, is_float64, constants, dtype)


def _support(low: float, high: float, dtype: torch.dtype, *, open_above: bool) -> tuple[float, float]:
    """The least and the greatest number of ``dtype`` in [low, high], or in [low, high) where it is open above.

    A value clamped to these stays within the interval when it is rounded to ``dtype``.
    """
    bottom, top = (torch.tensor(end, dtype=torch.float64, device="cpu") for end in (low, high))
    least, greatest = bottom.to(dtype), top.to(dtype)
    if low == high and least.isfinite():
        return least.item(), least.item()
    infinity = torch.tensor(math.inf, dtype=dtype, device="cpu")
    if least.double() < bottom:
        least = torch.nextafter(least, infinity)
    if greatest.double() > top or (open_above and greatest.double() == top):
        greatest = torch.nextafter(greatest, -infinity)
    if least > greatest or (open_above and least.isinf()):
        raise WellposedError(
            f"no {dtype} number lies between {low} and {high}; expected a wider interval or a dtype with more digits"
        )
    return least.item(), greatest.item()


class Cut(NamedTuple):
    """The constants of a dropout mask: below the threshold an element becomes ``floor``, else ``x * scale + addend``.

    Attributes:
        threshold: In [0, 2^32].
        scale: What the others are multiplied by.
        addend: What is added to them then; -0 changes nothing, not even the sign of a zero.
        floor: The value of dropped elements.
    """

    threshold: int
    scale: float
    addend: float = -0.0
    floor: float = 0.0


@functools.lru_cache(maxsize=1024)
def cut_bits(cut: Cut, is_float64: bool) -> tuple[int, ...]:
    """The threshold of a cut, and the bits of its other numbers in the precision that it is applied in."""
    return cut.threshold, *number_bits(cut[1:], is_float64)


def number_bits(numbers: tuple[float, ...], is_float64: bool) -> tuple[int, ...]:
    """The bits of numbers, rounded to float32 unless they are for float64."""
    floats, integers = ("d", "q") if is_float64 else ("f", "I")
    return struct.unpack(f"{len(numbers)}{integers}", struct.pack(f"{len(numbers)}{floats}", *numbers))


def cut_tensor(threshold: Tensor, *numbers: Tensor, dtype: torch.dtype) -> Tensor:
    """A cut whose numbers are known to a device alone, as ``cut_bits`` has them: int64, for tensors of ``dtype``."""
    if dtype == torch.float64:
        return torch.stack([threshold, *(number.double().view(torch.int64) for number in numbers)])
    bits = [number.float().view(torch.int32).long() & 0xFFFF_FFFF for number in numbers]
    return torch.stack([threshold, *bits])


def cut_numbers(cut: Cut | Tensor, exact: torch.dtype, device: torch.device) -> tuple[Tensor, ...]:
    """The numbers of a cut as scalar tensors: the threshold, and scale, addend and floor in ``exact``."""
    if not isinstance(cut, Tensor):
        threshold = torch.full((), cut.threshold, dtype=torch.int64, device=device)
        return threshold, *(torch.full((), number, dtype=exact, device=device) for number in cut[1:])
    threshold, *bits = cut.unbind()
    integers = torch.int64 if exact == torch.float64 else torch.int32
    return threshold, *(number.to(integers).view(exact) for number in bits)
