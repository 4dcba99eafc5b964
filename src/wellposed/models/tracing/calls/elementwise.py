"""What an elementwise function makes of a few numbers: whether two are the same, whether one is linear, its slope."""

from collections.abc import Callable

import torch
from torch import Tensor

_PROBE = (-3.0, -1.75, -1.0, -0.4, -0.1, 0.15, 0.5, 1.1, 2.0, 3.5)
_SMALL = 1e-4  # where a cap or any other smooth function is as good as linear


def probe(fn: Callable[[Tensor], Tensor]) -> tuple[float, ...] | None:
    """What a function makes of ten numbers; ``None`` when it is not a function of numbers.

    Example:
        >>> probe(torch.relu) == probe(torch.nn.ReLU()), probe(torch.nn.Linear(2, 2))
        (True, None)
    """
    return _values(fn, _PROBE)


def is_linear(fn: Callable[[Tensor], Tensor]) -> bool:
    """Whether a function is a number times its argument, with or without an offset."""
    values = probe(fn)
    if values is None:
        return False
    slope = (values[-1] - values[0]) / (_PROBE[-1] - _PROBE[0])
    return all(abs(v - values[0] - slope * (z - _PROBE[0])) < 1e-9 for v, z in zip(values, _PROBE, strict=True))


def slope_at_zero(fn: Callable[[Tensor], Tensor] | None) -> float | None:
    """The slope of a function at 0; ``None`` when it is not a function of numbers.

    Args:
        fn: The function; ``None`` is the identity.

    Example:
        >>> slope_at_zero(None), round(slope_at_zero(lambda z: 30 * torch.tanh(z / 60)), 6)
        (1.0, 0.5)
    """
    values = (_SMALL, -_SMALL) if fn is None else _values(fn, (_SMALL, -_SMALL))
    return None if values is None else (values[0] - values[1]) / (2 * _SMALL)


def _values(fn: Callable[[Tensor], Tensor], numbers: tuple[float, ...]) -> tuple[float, ...] | None:
    z = torch.tensor(numbers, dtype=torch.float64, device="cpu")
    try:
        with torch.no_grad(), torch.device("cpu"):
            y: Tensor = fn(z.clone())
            return tuple(y.tolist()) if y.shape == z.shape and y.is_floating_point() else None
    except Exception:
        return None
