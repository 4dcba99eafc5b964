"""An input of a model: a tensor, a tuple of positional arguments, or a mapping of keyword arguments."""

import copy
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor

from wellposed._torch import tree_leaves, tree_map
from wellposed.errors import WellposedError
from wellposed.models.copying import WithoutHistory

Arguments = tuple[tuple[Any, ...], dict[str, Any]]
_E = TypeVar("_E")


def arguments(example: Any) -> Arguments:
    """The positional and the keyword arguments that an input stands for.

    Args:
        example: A tensor or any other single argument, a tuple of arguments, or a mapping of keyword arguments.

    Returns:
        What to call the model with: ``model(*arguments[0], **arguments[1])``.

    Example:
        >>> arguments((1, 2)), arguments({"x": 1}), arguments([1, 2])
        (((1, 2), {}), ((), {'x': 1}), (([1, 2],), {}))
    """
    if isinstance(example, Mapping):
        return (), {str(name): value for name, value in example.items()}
    return (example if isinstance(example, tuple) else (example,)), {}


def tensors_in(values: Any) -> list[Tensor]:
    """The tensors in nested arguments or outputs."""
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


def with_tensors(values: Arguments, change: Callable[[Tensor], Tensor]) -> Arguments:
    """The arguments with each of their tensors changed."""
    changed: Arguments = tree_map(lambda leaf: change(leaf) if isinstance(leaf, Tensor) else leaf, values)
    return changed


def copied(example: _E) -> _E:
    """A copy of an input, for a model to run on: whatever the model does to it in place, the input stays as it is.

    Args:
        example: An input, or arguments: tensors in nested values. Objects of other kinds, such as a cache of keys and
            values, are copied too.

    Returns:
        The copy. Gradients flow through its tensors to those of the input.

    Raises:
        WellposedError: If it holds what cannot be copied.

    Example:
        >>> x = torch.ones(2)
        >>> _ = torch.nn.SiLU(inplace=True)(copied(x))
        >>> x
        tensor([1., 1.])
    """
    try:
        with torch.enable_grad(), WithoutHistory():
            return copy.deepcopy(example, {id(tensor): tensor.clone() for tensor in tensors_in(example)})
    except Exception as problem:
        raise WellposedError(
            f"the input cannot be copied, and a model is run on a copy alone, to leave the input as it is "
            f"({type(problem).__name__}: {problem}); keep out of it what copy.deepcopy refuses"
        ) from problem
