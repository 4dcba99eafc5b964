"""Functional dropout in the source of a module: dropout that is called rather than a module of its own."""

import ast
import functools
import inspect
import textwrap
from collections.abc import Iterator
from typing import Any

from torch import nn


def functional_dropout(module: nn.Module) -> tuple[tuple[str, bool], ...]:
    """The calls of functional dropout in a module's source: "function (line)", and whether the mode guards it."""
    kind: Any = type(module)
    return _of_class(kind)


@functools.cache
def _of_class(kind: Any) -> tuple[tuple[str, bool], ...]:
    return tuple(call for tree, home, first in _sources(kind) for call in _dropout_calls(tree, home, first))


def _dropout_calls(tree: ast.AST, home: str, first: int) -> Iterator[tuple[str, bool]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            function = ast.unparse(node.func)
            prefix, _, last = function.rpartition(".")
            options = {option.arg: ast.unparse(option.value) for option in node.keywords}
            rate = options.get("dropout_p", "0.0")
            where = f"{function} (line {first + node.lineno - 1} of {home})"
            if prefix in _HOMES and last in _FUNCTIONS:
                mode = options.get("training") or (ast.unparse(node.args[2]) if len(node.args) > 2 else "True")
                yield where, mode != "True"
            elif last == "scaled_dot_product_attention" and rate not in ("0", "0.0"):
                yield where, "training" in rate or not rate.replace(".", "").isdigit()


def _sources(kind: Any) -> Iterator[tuple[ast.AST, str, int]]:
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
        yield tree, function.__module__, first
        for node in ast.walk(tree):
            named = None
            if isinstance(node, ast.Name):
                named = function.__globals__.get(node.id)
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self":
                named = inspect.getattr_static(kind, node.attr, None)
            if inspect.isfunction(named) and named.__module__.partition(".")[0] == package and named not in functions:
                functions.append(named)


_HOMES = ("F", "functional", "nn.functional", "torch.nn.functional", "torch")
_FUNCTIONS = frozenset(
    ("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout", "native_dropout")
) | {"dropout_", "feature_dropout"}
