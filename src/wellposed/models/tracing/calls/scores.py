"""How large the scores of attention are before their softmax, from the factors on the way."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from wellposed.models.tracing.calls.elementwise import is_linear, slope_at_zero
from wellposed.models.tracing.calls.terms import terms
from wellposed.models.tracing.signals import Scores, Signal

Tensors = tuple[Sequence[Any], Mapping[str, Any]]


@dataclass
class Attention:
    """What was seen of attention in a model.

    Attributes:
        scores: The scores that a softmax was seen to take.
        values: The weights whose output is averaged by what a softmax gives.
    """

    scores: list[Scores] = field(default_factory=list)
    values: set[str] = field(default_factory=set)

    def multiply(
        self, product: Signal, name: str, leaves: Sequence[Any], kwargs: Mapping[str, Any], tensors: Tensors
    ) -> None:
        """Note a product of two signals: it may be scores, or values averaged by weights."""
        sides = [leaf for leaf in leaves if isinstance(leaf, Signal)][-2:]
        if len(sides) == 2:
            product.source.scores = _scores(sides, kwargs.get("alpha", 1.0), terms(name, *tensors))
            if any(side.source.weighs for side in sides):
                self.values.update(name for side in sides for name in side.source.names)

    def softmax(self, signal: Signal, weights: Signal) -> None:
        """Note a softmax: of scores, or of anything else."""
        scores = scores_of(signal)
        if scores is not None:
            self.scores.append(scores)
            weights.source.weighs = True

    def fused(self, leaves: Sequence[Any], kwargs: Mapping[str, Any], tensors: Tensors) -> None:
        """Note ``scaled_dot_product_attention``, which divides by the root of the width or takes a scale."""
        queries, keys, values = (*leaves, None, None, None)[:3]
        if not isinstance(queries, Signal) or not isinstance(keys, Signal):
            return
        scale = kwargs.get("scale")
        query = next((value for value in (*tensors[0], *tensors[1].values()) if isinstance(value, Tensor)), None)
        width = 1 if scale is None else None if query is None else query.shape[-1]
        scores = _scores((queries, keys), 1.0 if scale is None else scale, width)
        self.scores.append(replace(scores, divided=scores.divided or scale is None))
        self.values.update(values.source.names if isinstance(values, Signal) else ())


def _scores(sides: Sequence[Signal], factor: Any, width: int | None) -> Scores:
    slopes = [_slope(side) for side in sides]
    scale = math.prod(slope for slope in slopes if slope is not None) * factor if isinstance(factor, int | float) else 0
    known = None not in slopes and isinstance(factor, int | float)
    std = abs(scale) * math.sqrt(width) if known and width is not None else None
    queries, keys = (side.source.names if _slope(side) is not None else () for side in sides)
    return Scores(queries, keys, std, not known or scale != 1)


def _slope(side: Signal) -> float | None:
    """The factor between weights' output and a side of the product; ``None`` if there is more, or it is not known."""
    plain = not side.norms and not side.gates and (side.fn is None or is_linear(side.fn))
    return slope_at_zero(side.fn) if plain else None


def scores_of(signal: Signal) -> Scores | None:
    """A signal as scores, with what was done to them so far; ``None`` if it is no product of two signals."""
    before = signal.source.scores
    if before is None:
        return None
    slope = None if signal.gates else slope_at_zero(signal.fn)
    std = None if slope is None or before.std is None else before.std * abs(slope)
    return replace(before, std=std, divided=before.divided or slope is None or abs(slope - 1) > 1e-6)


def sum_of_scores(signals: Sequence[Signal]) -> Scores | None:
    """The scores in a sum of signals, with independent ones added; what else is added to them is left out."""
    parts = [scores for scores in map(scores_of, signals) if scores is not None]
    if not parts:
        return None
    stds = [part.std for part in parts if part.std is not None]
    return Scores(
        tuple(dict.fromkeys(name for part in parts for name in part.queries)),
        tuple(dict.fromkeys(name for part in parts for name in part.keys)),
        math.hypot(*stds) if len(stds) == len(parts) else None,
        any(part.divided for part in parts),
    )
