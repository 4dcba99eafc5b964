"""An input of a model: a tensor, a tuple of positional arguments, or a mapping of keyword arguments."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from wellposed._torch import tree_leaves, tree_map

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


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
