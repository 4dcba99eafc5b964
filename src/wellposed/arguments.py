"""What arguments have to be: integers and numbers, of whatever type they come."""

import math
import operator
from collections.abc import Callable

import torch
from torch import Tensor, nn

from wellposed.errors import WellposedError

Number = float | Tensor
"""A number, or a tensor that broadcasts against the weight."""


def integer(value: object, name: str, low: int, high: int) -> int:
    """``value`` as a plain integer in [low, high); a bool is refused, being more often a mistake than a number."""
    if type(value) is int and low <= value < high:
        return value
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        number = None
    if number is None or isinstance(value, bool):
        raise WellposedError(f"{name} was given {value!r} of type {type(value).__name__}; expected an integer")
    if not low <= number < high:
        raise WellposedError(f"{name} was given {number}; expected an integer in [{low}, {high})")
    return number


def real(value: object, name: str) -> float:
    """``value`` as a plain number, perhaps NaN or infinite; text is refused, though Python would read it."""
    try:
        if isinstance(value, str | bytes):
            raise TypeError
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, RuntimeError, OverflowError):
        kind = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
        raise WellposedError(f"{name} was given {kind}; expected a number") from None


def nonnegative(value: object, name: str) -> Number:
    """``value`` as a finite number of at least 0; a tensor stands for one an element.

    Args:
        value: A number or a real floating-point tensor.
        name: What the message calls it, for example ``"L1(lam)"``.

    Returns:
        A float, or the tensor as it is.

    Raises:
        WellposedError: If it is anything else.
    """
    if isinstance(value, Tensor):
        if not value.dtype.is_floating_point or value.is_meta:
            raise WellposedError(f"{name} was given a tensor {described(value)}; expected floating-point values")
        if not bool(((value >= 0) & value.isfinite()).all()):
            raise WellposedError(f"{name} was given a tensor with negative, NaN or infinite entries; expected all >= 0")
        return value
    return plain_nonnegative(value, lambda: name)


def plain_nonnegative(value: object, name: Callable[[], str]) -> float:
    """``value`` as a finite number of at least 0; what it is called is asked for only where it is none."""
    try:
        if isinstance(value, bool | str | bytes):
            raise TypeError
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise WellposedError(f"{name()} was given {value!r}; expected a number >= 0") from None
    if not (math.isfinite(number) and number >= 0):
        raise WellposedError(f"{name()} was given {number}; expected a finite number >= 0")
    return number


def described(tensor: Tensor) -> str:
    """A tensor's shape and dtype, in a sentence."""
    return f"of shape {tuple(tensor.shape)} and dtype {str(tensor.dtype).removeprefix('torch.')}"


def unwritable(tensor: Tensor) -> str:
    """Why the elements of a tensor cannot each be written, with what to do, as the end of a sentence; or nothing.

    Example:
        >>> unwritable(torch.zeros(1).expand(3))
        'is expanded, so that several elements are one number; make it one parameter of its own size (.clone())'
    """
    if tensor.layout is not torch.strided:
        layout = str(tensor.layout).removeprefix("torch.")
        return f"has the layout {layout}, which has no place for every element; make it dense (.to_dense())"
    if any(size > 1 and step == 0 for size, step in zip(tensor.shape, tensor.stride(), strict=True)):
        return "is expanded, so that several elements are one number; make it one parameter of its own size (.clone())"
    return ""


def model(value: object, verb: str) -> nn.Module:
    """``value`` as a model, which a class of one is not.

    Raises:
        WellposedError: If it is none; the message names the verb that it was given to.
    """
    if isinstance(value, nn.Module):
        return value
    kind = f"the class {value.__name__}" if isinstance(value, type) else repr(value)
    hint = f", an instance such as {value.__name__}(...)" if isinstance(value, type) else ""
    raise WellposedError(f"{verb} was given {kind}; expected a torch.nn.Module{hint}")


def signed(number: int) -> int:
    """The number in [-2^63, 2^63) that has the same 64 bits as one in [0, 2^64), which kernels and tensors take.

    Example:
        >>> signed(2**64 - 1)
        -1
    """
    return number if number < 9223372036854775808 else number - 18446744073709551616
