"""What a module starts a parameter of its own as, asked of the module or of the model that it is in."""

import contextlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from wellposed.models.copying import copied, tensors_of, without_memory

_LARGEST = 1 << 20  # entries of a parameter that is made only to be looked at


def own_start(model: nn.Module, module: nn.Module, name: str, *, look: bool = True) -> float | None:
    """The number that a module starts one of its parameters as.

    The module is asked, a copy of it, by ``reset_parameters``, as torch's and timm's have it, or the model around it by
    ``_init_weights``, as transformers' have it, or its configuration; where none says, it is the value that all entries
    have.

    Args:
        model: The model.
        module: The module in it that holds the parameter.
        name: The parameter's name in the module.
        look: Whether to take the value that the parameter has where nobody says one.

    Returns:
        The number; ``None`` where the entries differ or nobody knows them.

    Example:
        >>> layer = nn.LayerNorm(4)
        >>> with torch.no_grad():
        ...     _ = layer.weight.fill_(3.0)
        >>> own_start(layer, layer, "weight")
        1.0
    """
    said = getattr(getattr(module, "config", None), f"{name}_init_value", None)
    if isinstance(said, int | float):
        return float(said)
    parameter = getattr(module, name)
    asked = None if parameter.numel() > _LARGEST else _asked(model, module, name)
    if asked is not None and bool(asked.isnan().any()):
        asked = None
    if asked is None and not look:
        return None
    value = parameter if asked is None else asked
    if value.is_meta or not value.numel():
        return None
    first = float(value.detach().flatten()[0])
    return first if bool((value == value.flatten()[0]).all()) else None


def _asked(model: nn.Module, module: nn.Module, name: str) -> Tensor | None:
    """The parameter as its module makes it, not a number where it does not."""
    with contextlib.suppress(Exception), torch.no_grad(), torch.random.fork_rng(devices=[]):
        empty = {
            id(t): nn.Parameter(without_memory(t)) if isinstance(t, nn.Parameter) else without_memory(t)
            for t in tensors_of(module)
        }
        copy = copied(module, empty)
        made = nn.Parameter(torch.full_like(without_memory(getattr(module, name)), torch.nan, device="cpu"))
        setattr(copy, name, made)
        start = _starter(model, module, copy)
        if start is not None:
            start()
            result: Any = getattr(copy, name)
            return result if isinstance(result, Tensor) and not result.is_meta else None
    return None


def _starter(model: nn.Module, module: nn.Module, copy: nn.Module) -> Callable[[], Any] | None:
    reset: Any = getattr(copy, "reset_parameters", None)
    if callable(reset):
        return lambda: reset()
    around = [owner for owner in model.modules() if any(inner is module for inner in owner.modules())]
    starter = next((owner for owner in reversed(around) if callable(getattr(owner, "_init_weights", None))), None)
    return None if starter is None else lambda: starter._init_weights(copy)  # type: ignore[operator]
