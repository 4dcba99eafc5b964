"""The least number from which on a condition holds, by bisection."""

from collections.abc import Callable

_DOUBLINGS, _HALVINGS = 200, 60


def least_factor(holds: Callable[[float], bool]) -> float | None:
    """The least number >= 0 from which on a condition holds, as its upper bound in double precision.

    Args:
        holds: The condition, which holds for all larger numbers once it holds for one.

    Returns:
        The number, or ``None`` if the condition does not hold at 2^200.

    Example:
        >>> least_factor(lambda factor: factor >= 3)
        3.0
    """
    if holds(0.0):
        return 0.0
    high = 1.0
    while not holds(high):
        high *= 2
        if high > 2.0**_DOUBLINGS:
            return None
    low = high / 2
    while holds(low):
        low, high = low / 2, low
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high
