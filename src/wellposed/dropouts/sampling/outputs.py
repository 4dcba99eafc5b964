"""Outputs of a model, of whatever structure: mapped leaf by leaf, and stacked over Monte Carlo samples."""

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

from torch import Tensor

from wellposed._torch import tree_map, tree_structure
from wellposed.errors import WellposedError


def map_leaves(function: Callable[..., Any], *trees: Any) -> Any:
    """Map a function over the leaves of trees of one structure, as ``tree_map`` does, and enter dataclasses too.

    Raises:
        WellposedError: If the trees differ in structure.
    """

    def at(*leaves: Any) -> Any:
        if not dataclasses.is_dataclass(leaves[0]) or isinstance(leaves[0], type):
            return function(*leaves)
        if len({type(leaf) for leaf in leaves}) > 1:
            raise WellposedError(different)
        new = copy.copy(leaves[0])
        for field in dataclasses.fields(new):
            of_all = [getattr(leaf, field.name) for leaf in leaves]
            object.__setattr__(new, field.name, map_leaves(function, *of_all))
        return new

    different = "monte_carlo was given a model whose outputs differ in structure between samples"
    if any(tree_structure(tree) != tree_structure(trees[0]) for tree in trees[1:]):
        raise WellposedError(different)
    return tree_map(at, *trees)


def with_sample_dimension(outputs: Any) -> Any:
    """The outputs of one sample with a new first dimension, as those of several have."""
    return map_leaves(lambda leaf: leaf[None] if isinstance(leaf, Tensor) else leaf, outputs)


class Stacked:
    """The outputs of all samples, stacked along a new first dimension as they come in.

    Args:
        example: The outputs of sample 0.
        samples: How many there will be.

    Attributes:
        outputs: Like the model's output.
    """

    def __init__(self, example: Any, samples: int) -> None:
        self.outputs = map_leaves(
            lambda leaf: leaf.new_empty((samples, *leaf.shape)) if isinstance(leaf, Tensor) else leaf, example
        )
        self.put(0, with_sample_dimension(example))

    def put(self, first: int, outputs: Any) -> None:
        """Put in the outputs of some samples from ``first`` on.

        Raises:
            WellposedError: If they differ from those of sample 0 in shape, in structure, or in what is no tensor.
        """

        def place(whole: Any, part: Any) -> None:
            if isinstance(whole, Tensor) and isinstance(part, Tensor):
                if part.shape[1:] != whole.shape[1:]:
                    shapes = f"{tuple(whole.shape[1:])} and {tuple(part.shape[1:])}"
                    raise WellposedError(f"monte_carlo was given a model whose outputs differ in shape: {shapes}")
                whole[first : first + len(part)] = part
            elif not _are_equal(whole, part):
                raise WellposedError(
                    f"monte_carlo was given a model whose output holds {_a(whole)}, which differs between samples and "
                    "cannot be stacked; have the model return tensors (of transformers, with use_cache=False)"
                )

        map_leaves(place, self.outputs, outputs)


def _are_equal(a: Any, b: Any) -> bool:
    try:
        return a is b or bool(a == b)
    except (RuntimeError, TypeError, ValueError):  # arrays do not compare to one truth value
        return False


def _a(value: Any) -> str:
    name = type(value).__name__
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"
