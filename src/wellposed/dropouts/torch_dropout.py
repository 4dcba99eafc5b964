"""Dropout as torch has it: the classes of its modules, and the arguments of its functions."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

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
    signature = FUNCTIONS.get(function)
    if signature is None:
        return None
    given = signature.defaults | dict(zip(signature.names, positional, strict=False)) | dict(named)
    p, training = given.pop("dropout_p", given.pop("p", 0.0)), given.pop("train", given.pop("training", True))
    return {"p": p, "training": training} | given


class Signature(NamedTuple):
    """The names of a function's parameters, in order, and the defaults of those that have one."""

    names: tuple[str, ...]
    defaults: dict[str, Any]


def _signature(function: Callable[..., Any]) -> Signature:
    parameters = inspect.signature(function).parameters
    return Signature(tuple(parameters), {p.name: p.default for p in parameters.values() if p.default is not p.empty})


_KINDS = ("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout")
_BUILTINS = ("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout")
_ATTENTION = {"attn_mask": None, "dropout_p": 0.0, "is_causal": False, "scale": None, "enable_gqa": False}
# Builtins have no signature that could be read.
FUNCTIONS = {
    **{getattr(functional, name): _signature(getattr(functional, name)) for name in _KINDS},
    **{getattr(torch, name + end): Signature(("input", "p", "train"), {}) for name in _BUILTINS for end in ("", "_")},
    torch.native_dropout: Signature(("input", "p", "train"), {}),
    functional.multi_head_attention_forward: _signature(functional.multi_head_attention_forward),
    functional.scaled_dot_product_attention: Signature(("query", "key", "value", *_ATTENTION), _ATTENTION),
}
RECURRENT = (torch.lstm, torch.gru, torch.rnn_tanh, torch.rnn_relu)  # which drop between layers
