"""Functional dropout in the source of a module: dropout that is called rather than a module of its own."""

import ast
import functools
import inspect
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import FunctionType, ModuleType
from typing import Any

import torch
from torch import nn
from torch.nn import functional

DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)


@dataclass(frozen=True)
class DropoutCall:
    """A call of functional dropout that may drop.

    Attributes:
        where: "function (line)".
        is_guarded: Whether the mode governs it, as far as the function that makes the call tells.
        rate: Its p, where that is written down as a number.
    """

    where: str
    is_guarded: bool
    rate: float | None


def functional_dropout(module: nn.Module) -> tuple[DropoutCall, ...]:
    """The calls of functional dropout in a module's source."""
    kind: Any = type(module)
    return _of_class(kind)


def dropout_arguments(function: Any, positional: Sequence[Any], named: Mapping[str, Any]) -> dict[str, Any] | None:
    """The arguments of a call by their names, ``p`` and ``training`` among them; ``None`` if it is not of dropout.

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


@functools.cache
def _of_class(kind: Any) -> tuple[DropoutCall, ...]:
    return tuple(call for function, tree, first in _sources(kind) for call in _dropout_calls(function, tree, first))


def _dropout_calls(function: FunctionType, tree: ast.AST, first: int) -> Iterator[DropoutCall]:
    names = _names(function, tree)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        options = {option.arg: _literal(option.value) for option in node.keywords if option.arg}
        given = dropout_arguments(_named(node.func, names), [_literal(each) for each in node.args], options)
        if given is None or given["p"] in (0, 0.0) or given["training"] is False:
            continue
        rate, mode = given["p"], given["training"]
        where = f"{ast.unparse(node.func)} (line {first + node.lineno - 1} of {function.__module__})"
        guarded = isinstance(mode, ast.AST) or (isinstance(rate, ast.AST) and _asks_the_mode(rate, function, tree))
        yield DropoutCall(where, guarded, None if isinstance(rate, ast.AST) else float(rate))


def _asks_the_mode(rate: ast.AST, function: FunctionType, tree: ast.AST) -> bool:
    """Whether a rate depends on the mode, itself or by what its variables are set to; a caller's rate is his affair."""
    used = {node.id for node in ast.walk(rate) if isinstance(node, ast.Name)} - {"self"}
    texts = [ast.unparse(rate)]
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id in used for t in node.targets):
            texts.append(ast.unparse(node.value))
    return any("training" in text for text in texts) or bool(used & set(inspect.signature(function).parameters))


def _sources(kind: Any) -> Iterator[tuple[FunctionType, ast.AST, int]]:
    """``forward``, and what it calls of its class and of its package, and so on; each with where it stands."""
    package = kind.__module__.partition(".")[0]
    functions = [kind.forward]
    for function in functions:  # which grows as names are met
        if function.__module__.startswith("torch."):
            continue
        try:
            source, first = inspect.getsourcelines(function)
            tree = ast.parse(textwrap.dedent("".join(source)))
        except (OSError, TypeError, SyntaxError):
            continue
        function = inspect.unwrap(function)
        yield function, tree, first
        names = _names(function, tree)
        for node in ast.walk(tree):
            named = _named(node, names)
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self":
                named = inspect.getattr_static(kind, node.attr, None)
            if inspect.isfunction(named) and named.__module__.partition(".")[0] == package and named not in functions:
                functions.append(named)


def _names(function: FunctionType, tree: ast.AST) -> dict[str, Any]:
    """What a function's names stand for: its module's, those it closes over and what it imports of torch itself."""
    cells = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            cells[name] = cell.cell_contents
        except ValueError:  # not yet filled
            continue
    names = {**function.__globals__, **cells}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom) and ast.unparse(node).split()[1].split(".")[0] == "torch":
            exec(compile(ast.Module([node], []), "<import>", "exec"), names)
    return names


def _named(node: ast.AST, names: Mapping[str, Any]) -> Any:
    """What a name, or a name in a module, stands for."""
    if isinstance(node, ast.Attribute):
        home = _named(node.value, names)
        return getattr(home, node.attr, None) if isinstance(home, ModuleType) else None
    return names.get(node.id) if isinstance(node, ast.Name) else None


def _literal(node: ast.AST) -> Any:
    return node.value if isinstance(node, ast.Constant) else node


_GIVEN = object()  # stands for the value of a parameter that has no default


def _defaults(function: Callable[..., Any]) -> dict[str, Any]:
    parameters = inspect.signature(function).parameters.values()
    return {p.name: _GIVEN if p.default is p.empty else p.default for p in parameters}


_KINDS = ("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout")
_BUILTINS = ("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout")
# The identity of a function -> its parameters with their defaults.
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
