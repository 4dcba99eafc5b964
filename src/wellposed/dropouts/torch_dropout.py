"""Dropout as torch has it: the classes of its modules, and the arguments of its functions."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from wellposed._torch import modules_being_called

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
    defaults = _FUNCTIONS.get(id(function))
    if defaults is None:
        return None
    given = defaults | dict(zip(defaults, positional, strict=False)) | dict(named)
    p, training = given.pop("dropout_p", given.pop("p", 0.0)), given.pop("train", given.pop("training", True))
    return {"p": p, "training": training} | {name: value for name, value in given.items() if value is not _GIVEN}


class DropoutCalls(TorchFunctionMode):
    """Notes calls of functional dropout that drop nothing, since they are told that the model is not in training mode.

    Attributes:
        off: The module that makes the call, and the name of the function. Torch's own modules are left out.
    """

    def __init__(self) -> None:
        super().__init__()
        self.off: list[tuple[nn.Module | None, str]] = []

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = dropout_arguments(function, args, kwargs or {})
        if given is not None and given["p"] != 0 and not given["training"]:
            module = next(modules_being_called(), None)
            if not isinstance(module, (*MODULES, nn.MultiheadAttention)):
                self.off.append((module, function.__name__))
        return function(*args, **(kwargs or {}))


_GIVEN = object()  # stands for the value of a parameter that has no default


def _defaults(function: Callable[..., Any]) -> dict[str, Any]:
    parameters = inspect.signature(function).parameters.values()
    return {p.name: _GIVEN if p.default is p.empty else p.default for p in parameters}


_KINDS = ("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout")
_BUILTINS = ("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout")
# The identity of a function -> its parameters with their defaults. Builtins have no signature to read these from.
_FUNCTIONS: dict[int, dict[str, Any]] = {
    **{id(getattr(functional, name)): _defaults(getattr(functional, name)) for name in _KINDS},
    **{
        id(getattr(torch, name + end)): {"input": _GIVEN, "p": _GIVEN, "train": _GIVEN}
        for name in _BUILTINS
        for end in ("", "_")
    },
    id(torch.native_dropout): {"input": _GIVEN, "p": _GIVEN, "train": _GIVEN},
    id(functional.multi_head_attention_forward): _defaults(functional.multi_head_attention_forward),
    id(functional.scaled_dot_product_attention): dict.fromkeys(("query", "key", "value"), _GIVEN)
    | {"attn_mask": None, "dropout_p": 0.0},
}
