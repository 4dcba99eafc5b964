"""Dropout as torch has it: the classes of its modules, and the arguments of its functions."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional

MODULES = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)


def dropout_arguments(function: Any, positional: Sequence[Any], named: Mapping[str, Any]) -> dict[str, Any] | None:
    """The arguments of a call of functional dropout by name; ``None`` if the function is another one.

    Args:
        function: The function that is called, of ``torch`` or of ``torch.nn.functional``.
        positional: Its positional arguments.
        named: Its keyword arguments.

    Returns:
        Every argument that was given or has a default, with the probability as ``p`` and the mode as ``training``,
        whatever the function itself calls them.

    Example:
        >>> dropout_arguments(torch.dropout, ["x", 0.5], {"train": False})
        {'p': 0.5, 'training': False, 'input': 'x'}
        >>> dropout_arguments(torch.relu, ["x"], {})
    """
    if function in RECURRENT:
        first = 2 if isinstance(positional[2], list | tuple) else 3  # a packed sequence has the sizes of its batches
        _, _, layers, p, training, *_ = positional[first:]
        return {"p": p if layers > 1 else 0.0, "training": training}
    defaults = FUNCTIONS.get(function)
    if defaults is None:
        return None
    given = defaults | dict(zip(defaults, positional, strict=False)) | dict(named)
    p, training = given.pop("dropout_p", given.pop("p", 0.0)), given.pop("train", given.pop("training", True))
    return {"p": p, "training": training} | {name: value for name, value in given.items() if value is not _GIVEN}


_GIVEN = object()  # stands for the value of a parameter that has no default


def _defaults(function: Callable[..., Any]) -> dict[str, Any]:
    parameters = inspect.signature(function).parameters.values()
    return {p.name: _GIVEN if p.default is p.empty else p.default for p in parameters}


_KINDS = ("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout")
_BUILTINS = ("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout")
# A function -> its parameters with their defaults. Builtins have no signature to read these from.
FUNCTIONS: dict[Any, dict[str, Any]] = {
    **{getattr(functional, name): _defaults(getattr(functional, name)) for name in _KINDS},
    **{
        getattr(torch, name + end): {"input": _GIVEN, "p": _GIVEN, "train": _GIVEN}
        for name in _BUILTINS
        for end in ("", "_")
    },
    torch.native_dropout: {"input": _GIVEN, "p": _GIVEN, "train": _GIVEN},
    functional.multi_head_attention_forward: _defaults(functional.multi_head_attention_forward),
    functional.scaled_dot_product_attention: dict.fromkeys(("query", "key", "value"), _GIVEN)
    | {"attn_mask": None, "dropout_p": 0.0, "is_causal": False, "scale": None, "enable_gqa": False},
}
RECURRENT = (torch.lstm, torch.gru, torch.rnn_tanh, torch.rnn_relu)  # which drop between layers
