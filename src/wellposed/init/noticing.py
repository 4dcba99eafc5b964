"""Noticing what a weight was, where its start may have been meant: a prior, a closed branch, an identity."""

import torch
from torch import Tensor

from wellposed._torch import PLAIN_TYPES
from wellposed.init.initializers.initializer import Initializer
from wellposed.models.regions import part_of
from wellposed.models.roles import Part
from wellposed.models.weights import Weight
from wellposed.random.key import Key


def before(weight: Weight, part: Part, initializer: Initializer) -> list[str]:
    """What is to be said of the values that a part has before it is filled: nothing, or one remark.

    Libraries start few weights as a constant or as an identity, and those for a reason. What is about to become the
    same again is not remarkable.
    """
    if weight.computed is not None or type(weight.tensor) not in PLAIN_TYPES or weight.tensor.is_meta:
        return []
    with torch.no_grad():
        values = part_of(weight.tensor, part.where)
        if not values.numel() or not values.is_floating_point():
            return []
        first = values[(0,) * values.ndim]
        if bool((values == first).all()):
            # One entry of one dimension may be a draw; torch draws none without dimensions, and no zeros.
            is_meant = values.numel() > 1 or values.ndim == 0 or not bool(first)
            told = f"was {float(first):.4g} everywhere" if is_meant else ""
        else:
            told = "was an identity" if _is_identity(values) else ""
        if not told:
            return []
        again = initializer.fill_(torch.empty_like(values), Key(0), axes=part.axes)
        return [] if torch.equal(again, values) else [told]


def _is_identity(values: Tensor) -> bool:
    """Whether values are an identity map: a matrix, or a flattened affine one, as spatial transformers have."""
    if values.ndim == 1:
        sides = {6: 2, 12: 3}
        side = sides.get(len(values))
        return side is not None and torch.equal(values, torch.eye(side, side + 1).to(values).flatten())
    is_square = values.ndim == 2 and values.shape[0] == values.shape[1]
    return is_square and torch.equal(values, torch.eye(len(values)).to(values))
