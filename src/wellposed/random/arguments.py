"""What arguments have to be: integers and numbers, of whatever type they come."""

import operator

from torch import Tensor

from wellposed.errors import WellposedError


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
