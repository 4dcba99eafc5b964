"""Where the tensors of a model lie in larger ones that they are parts of, for those that do not know it themselves."""

import math
from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

from wellposed.errors import WellposedError
from wellposed.init.initializers.initializer import Initializer
from wellposed.init.initializers.whole import Whole
from wellposed.models.regions import dims_apart, local_parts, part_of
from wellposed.models.roles import Part
from wellposed.models.weights import Weight
from wellposed.random.box import Box, layout
from wellposed.random.shards import is_sharded

Place = Box | Sequence[Box] | None
Boxes = Mapping[str, Place | Callable[[Tensor], Place]]


def boxes_of(weight: Weight, part: Part, given: Place | Callable[[Tensor], Place]) -> tuple[Box, ...]:
    """The boxes of a part of a weight, checked.

    Args:
        weight: The weight.
        part: The part of it.
        given: What the user gave: a box, several for as many equal pieces, none, or a function that says so of the
            parameter.

    Raises:
        WellposedError: If something else was given, the tensor does not fit into the boxes, or it has no need of them.
    """
    name = weight.name if part.block is None else f"{weight.name}[{part.block}]"
    place = given(weight.tensor) if callable(given) else given
    if place is None:
        return ()
    found = (place,) if isinstance(place, Box) else tuple(place) if isinstance(place, Sequence) else ()
    if not found or not all(isinstance(box, Box) for box in found):
        raise WellposedError(
            f"{name}: boxes were given as {place!r}; expected a Box, a list of them for a tensor of equal pieces, "
            "None, or a function from the parameter to one of these"
        )
    if is_sharded(weight.tensor) or weight.computed is not None:
        what = "a DTensor, which knows its place" if is_sharded(weight.tensor) else "computed from other parameters"
        raise WellposedError(f"{name}: a box was given, and it is {what}; give none for it")
    if len({box.shape for box in found}) > 1:
        raise WellposedError(
            f"{name}: boxes of different wholes were given, {found}; expected one shape in all of them"
        )
    if len(found) > 1:
        _check_pieces(part_of(weight.tensor, part.where), found, name)
    try:
        for block, box in local_parts(weight.tensor, part.where, found):
            layout(tuple(block.shape), box)
    except WellposedError as error:
        raise WellposedError(f"{name}: {error}") from error
    return found


def remarks(weight: Weight, shape: Sequence[int], places: Sequence[Box], initializer: Initializer) -> list[str]:
    """What is to be said of a part that is not here as a whole: where it lies, and what it costs to make it."""
    found = [f"here at {' and '.join(str(box.offset) for box in places)}"] if places else []
    if isinstance(initializer, Whole) and (places or is_sharded(weight.tensor)):
        size = math.prod(shape) * max(weight.tensor.element_size(), 4) / 2**20
        found.append(f"each process makes the whole, {size:.3g} MiB, and keeps its part")
    return found


def _check_pieces(tensor: Tensor, boxes: tuple[Box, ...], name: str) -> None:
    apart = dims_apart(boxes)
    if len(apart) != 1 or apart[0] >= tensor.ndim or tensor.shape[apart[0]] % len(boxes):
        raise WellposedError(
            f"{name}: {len(boxes)} boxes were given for a tensor of shape {tuple(tensor.shape)}, {boxes}; expected "
            "boxes that start at different places in one dimension, along which the tensor is as many equal pieces"
        )
