"""Inputs made up for models that say what they take."""

import contextlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from wellposed.models.example import Arguments


def made_up(model: nn.Module) -> list[Arguments]:
    """Arguments for a model that says what it takes, one after the other; none for any other model.

    Example:
        >>> class Pictures(nn.Module):
        ...     default_cfg = {"input_size": (3, 32, 32)}
        >>> made_up(Pictures())[0][0][0].shape, made_up(nn.Linear(2, 2))
        (torch.Size([1, 3, 32, 32]), [])
    """
    size = (getattr(model, "default_cfg", None) or {}).get("input_size")
    if size is not None:
        return [((torch.zeros(1, *size),), {})]
    config, main = getattr(model, "config", None), getattr(model, "main_input_name", None)
    if config is None or main is None:
        return []
    takes = [name for name in _MADE_UP if name == main or name in inspect.signature(model.forward).parameters]
    whole: dict[str, Any] = {}
    for name in takes:
        with contextlib.suppress(Exception):
            whole[name] = _MADE_UP[name](config)
    first = {name: value for name, value in whole.items() if name == main or "ids" in name}
    return [((), given) for given in (first, whole) if given][: 1 + (first != whole)]


def _known(config: Any, *names: str, default: Any) -> Any:
    """An attribute of a configuration, or of one inside it."""
    parts = [config, *(value for value in vars(config).values() if hasattr(value, "to_dict"))]
    found = (getattr(part, name, None) for name in names for part in parts)
    return next((value for value in found if value is not None), default)


def _ids(config: Any) -> Tensor:
    return torch.ones(1, 8, dtype=torch.long)


def _picture(config: Any) -> Tensor:
    sides = _known(config, "image_size", default=224)
    height, width = (sides, sides) if isinstance(sides, int) else tuple(sides)[-2:]
    return torch.zeros(1, _known(config, "num_channels", "in_channels", default=3), height, width)


# The inputs of transformers' models that can be made up from a configuration.
_MADE_UP: Mapping[str, Callable[[Any], Tensor]] = {
    "input_ids": _ids,
    "decoder_input_ids": _ids,
    "pixel_values": _picture,
    "input_values": lambda config: torch.zeros(1, 16000),
    "input_features": lambda config: torch.zeros(
        1, _known(config, "num_mel_bins", default=80), 2 * _known(config, "max_source_positions", default=50)
    ),
}
