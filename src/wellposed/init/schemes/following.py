"""The gain of each weight, from what its output goes through; long chains of weights are looked at as a whole."""

import functools
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from wellposed.errors import WellposedError
from wellposed.init.initializers.gains import gain
from wellposed.models.tracing.calls.elementwise import is_linear, probe
from wellposed.models.tracing.flow import Flow
from wellposed.models.tracing.signals import Fn, Use

# A deviation of the signal's size may double on its way through a chain of five weights. What chance adds on the way
# grows with the square root of the length, so the logarithm that is allowed falls with it.
_GROWTH, _LENGTH = 2.0, 5
_WIDEST = 32.0  # standard deviations before an activation that are tried
_UNNOTICED = 0.05  # of a standard deviation of scores
_UNDIVIDED = "nothing divides its scores by the root of their width; an example of an input tells how wide they are"


@dataclass(frozen=True)
class Following:
    """What follows a weight, and the gain that belongs to it.

    Attributes:
        text: In words, for the plan.
        gain: The gain; 1 where nothing is to be made up for, or it cannot be told.
        note: What else there is to say.
        scores: The factor that brings attention's scores to a standard deviation of 1, for queries and keys.
    """

    text: str
    gain: float = 1.0
    note: str = ""
    scores: float = 1.0


_UNKNOWN = Following("unknown", note="what follows could not be told, so the gain is 1")


def followings(flow: Flow, blocks: Mapping[str, Collection[str | None]]) -> dict[str, Following]:
    """What follows each weight that was seen.

    The gain is that of the activation that follows. A long chain of weights without normalisation is looked at as a
    whole: where its activations make deviations of the signal's size grow at unit scale, as GELU and SiLU do, the chain
    works at the least scale at which they grow no more than twofold on the way, and by less the longer it is. Queries
    and keys of attention that does not divide its scores by the root of their width have that factor between them.

    Args:
        flow: What tracing found.
        blocks: The names of the blocks of each weight.

    Returns:
        A row for each weight's name.
    """
    ends = {name: _settle(uses) for name, uses in flow.uses.items()}
    rows = {name: _following(use) for name, use in ends.items()}
    before, after = _links(ends)
    for name in ends:
        length = _reach(name, before) + _reach(name, after) - 1
        rows |= _rescaled(name, length, ends, before, rows)
    return rows | _scored(flow, blocks, rows)


def _settle(uses: Sequence[Use]) -> Use | None:
    """The use of a weight's output that decides its gain: the only nonlinear one, else any; none if they differ."""
    nonlinear = [use for use in uses if use.fn is not None and probe(use.fn) is not None and not is_linear(use.fn)]
    if not nonlinear:
        return next((use for use in uses if use.end != "unknown"), uses[0])
    return nonlinear[0] if len({probe(use.fn) for use in nonlinear if use.fn is not None}) == 1 else None


def _following(use: Use | None) -> Following:
    if use is None:
        return Following("several activations", note="they differ, so the gain is 1")
    through = " through a normalisation" if use.normed else ""
    if use.fn is None or is_linear(use.fn):
        return _UNKNOWN if use.end == "unknown" else Following(_ENDS[use.end] + through)
    try:
        return Following(use.label + through, _gain(use.fn, 1.0))
    except WellposedError as error:
        return Following(use.label + through, note=f"the gain is 1: {error}")


_ENDS = {
    "weight": "another weight",
    "residual": "a residual sum",
    "product": "a product",
    "norm": "a normalisation",
    "merge": "a merge",
    "attention": "attention",
    "gates": "the layer's gates",
    "output": "the output",
}


def _scored(
    flow: Flow, blocks: Mapping[str, Collection[str | None]], rows: dict[str, Following]
) -> dict[str, Following]:
    """The rows of queries and keys whose scores would not have a standard deviation of 1."""
    alone = {name for name, uses in flow.uses.items() if {use.end for use in uses} == {"attention"}}
    free = {name for name in alone if name not in flow.attention.values or {"q", "k"} & set(blocks.get(name, ()))}
    factors: dict[str, set[tuple[float, str]]] = {}
    for scores in flow.attention.scores:
        if scores.std is None:
            factor, note = 1.0, "" if scores.divided else _UNDIVIDED
        elif abs(math.log(max(scores.std, 1e-30))) < _UNNOTICED:
            factor, note = 1.0, ""
        else:
            sides = [side for side in (scores.queries, scores.keys) if side and free.issuperset(side)]
            factor = 1.0 if not sides else scores.std ** (-1 / len(sides))
            note = f"queries and keys of unit variance would give scores of standard deviation {scores.std:.3g}"
            note += f": times {factor:.3g}" if sides else ", but it makes more than these, so it is left"
        for name in {*scores.queries, *scores.keys} & rows.keys():
            factors.setdefault(name, set()).add((factor if name in free else 1.0, note))
    return {
        name: replace(rows[name], scores=factor, note="; ".join(filter(None, (rows[name].note, note))))
        for name, found in factors.items()
        for factor, note in [_agreed(found)]
    }


def _agreed(found: Collection[tuple[float, str]]) -> tuple[float, str]:
    factors = [factor for factor, _ in found]
    if max(factors) > min(factors) * (1 + _UNNOTICED):
        return 1.0, "it is used for scores of several sizes, so it is left"
    return min(found)


def _links(ends: dict[str, Use | None]) -> tuple[dict[str, str], dict[str, str]]:
    """The weight before, and the weight after, each weight of a chain."""
    before: dict[str, str] = {}
    after: dict[str, str] = {}
    for name, use in ends.items():
        if use is not None and use.end == "weight" and not use.normed and use.into and use.into[0] != name:
            before.setdefault(use.into[0], name)
            after.setdefault(name, use.into[0])
    return before, after


def _reach(name: str, step: dict[str, str]) -> int:
    seen: set[str] = set()
    while name not in seen:
        seen.add(name)
        name = step.get(name, name)
    return len(seen)


def _rescaled(
    name: str, length: int, ends: dict[str, Use | None], before: dict[str, str], rows: dict[str, Following]
) -> dict[str, Following]:
    """The row of a weight in a chain too long for unit scale, or nothing."""
    own, previous = ends[name], ends.get(before.get(name, ""))
    taken = _scale(own, length)
    given = _scale(previous, length)
    if taken == given == 1.0:
        return {}
    value = taken * (_gain(previous.fn, given) if previous is not None and previous.fn is not None else 1.0)
    note = f"a chain of {length} weights, worked at standard deviation {max(taken, given):.3g} before its activations"
    return {name: Following(rows[name].text, value, note)}


def _scale(use: Use | None, length: int) -> float:
    """The standard deviation before an activation at which a chain of this length works."""
    if use is None or use.fn is None or use.end != "weight" or use.normed or is_linear(use.fn):
        return 1.0
    return _working_scale(_Known(use.fn), length)


@functools.cache
def _working_scale(known: "_Known", length: int) -> float:
    allowed = math.log(_GROWTH) * min(1.0, math.sqrt(_LENGTH / length)) / length

    def growth(std: float) -> float:
        step = 1e-3
        wide, narrow = (gain(known.fn, std=std * math.exp(sign * step)) for sign in (1, -1))
        return (math.log(narrow) - math.log(wide)) / (2 * step) - 1.0

    try:
        if growth(1.0) <= allowed or growth(_WIDEST) > allowed:
            return 1.0
        low, high = 1.0, _WIDEST
        for _ in range(20):
            middle = math.sqrt(low * high)
            low, high = (low, middle) if growth(middle) <= allowed else (middle, high)
    except WellposedError:
        return 1.0
    return high


class _Known:
    """A function known by what it does to a few numbers, so that the same one is worked out once."""

    def __init__(self, fn: Fn) -> None:
        self.fn = fn
        self.values = probe(fn)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Known) and self.values == other.values

    def __hash__(self) -> int:
        return hash(self.values)


def _gain(fn: Fn, std: float) -> float:
    return _gain_of(_Known(fn), std)


@functools.lru_cache(maxsize=256)
def _gain_of(known: _Known, std: float) -> float:
    return gain(known.fn, std=std)
