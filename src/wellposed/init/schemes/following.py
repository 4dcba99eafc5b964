"""The gain of each weight, from what its output goes through; long chains of weights are looked at as a whole."""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from wellposed.errors import WellposedError
from wellposed.init.initializers.gains import gain
from wellposed.models.tracing.calls.elementwise import is_linear, probe
from wellposed.models.tracing.flow import Flow
from wellposed.models.tracing.signals import Fn, Use

# A deviation of the signal's size may double on its way through a chain of five weights. What chance adds on the way
# grows with the square root of the length, so the logarithm that is allowed falls with it.
_GROWTH, _LENGTH = 2.0, 5
_WIDEST = 32.0  # standard deviations before an activation that are tried


@dataclass(frozen=True)
class Following:
    """What follows a weight, and the gain that belongs to it.

    Attributes:
        text: In words, for the plan.
        gain: The gain; 1 where nothing is to be made up for, or it cannot be told.
        note: What else there is to say.
    """

    text: str
    gain: float = 1.0
    note: str = ""


_UNKNOWN = Following("unknown", note="what follows could not be told, so the gain is 1")


def followings(flow: Flow) -> dict[str, Following]:
    """What follows each weight that was seen.

    The gain is that of the activation that follows. A long chain of weights without normalisation is looked at as a
    whole: where its activations make deviations of the signal's size grow at unit scale, as GELU and SiLU do, the chain
    works at the least scale at which they grow no more than twofold on the way, and by less the longer it is.

    Args:
        flow: What tracing found.

    Returns:
        A row for each weight's name.
    """
    ends = {name: _settle(uses) for name, uses in flow.uses.items()}
    rows = {name: _following(use) for name, use in ends.items()}
    before, after = _links(ends)
    for name in ends:
        length = _reach(name, before) + _reach(name, after) - 1
        rows |= _rescaled(name, length, ends, before, rows)
    return rows


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
