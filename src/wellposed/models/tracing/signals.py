"""What stands for tensors in an abstract interpretation of a forward pass: parameters, and signals made from them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

Fn = Callable[[Tensor], Tensor]
End = Literal["weight", "residual", "product", "norm", "merge", "attention", "gates", "output", "unknown"]


@dataclass(frozen=True)
class Parameters:
    """Parameters by name, or views of them, on their way into an operation."""

    names: tuple[str, ...]
    ndim: int


@dataclass(frozen=True)
class Scores:
    """The scores of attention: products of queries and keys, on their way into a softmax.

    Attributes:
        queries: The weights whose output is one side of the products.
        keys: The weights whose output is the other side.
        std: The standard deviation of scores of independent queries and keys of unit variance; ``None`` if not known.
        divided: Whether a factor is on the way to the softmax, or may be.
    """

    queries: tuple[str, ...]
    keys: tuple[str, ...]
    std: float | None
    divided: bool = True


@dataclass(eq=False)
class Source:
    """The origin of a signal: the output of a weight, or of an operation where signals meet.

    Attributes:
        names: The weights whose output it is.
        before: All sources that it was made from, at any remove.
        tail: The weights that were last on the way to it.
        used: Whether anything is known to have taken it.
        last: The signal that was last made from it.
        scores: What it is as the scores of attention, if it is a product of two signals.
        weighs: Whether it is what a softmax gives, so that what it is multiplied with are attention's values.
    """

    names: tuple[str, ...]
    before: frozenset["Source"]
    tail: tuple[str, ...] = ()
    used: bool = False
    last: "Signal | None" = None
    scores: Scores | None = None
    weighs: bool = False


@dataclass(eq=False)
class Signal:
    """A tensor that was made from one source by operations that are noted in ``fn``; ``None`` is the identity."""

    source: Source
    fn: Fn | None = None
    label: tuple[str, ...] = ()
    place: object = "source"  # tensors of one place have their elements in one order; None is like no other
    norms: tuple[str, ...] = ()
    gates: tuple[str, ...] = ()
    weighted: bool = False  # by a tensor, as each half of a rotation is


@dataclass(frozen=True)
class Use:
    """One thing that a weight's output goes through, and where that ends."""

    fn: Fn | None
    label: str
    end: End
    into: tuple[str, ...] = ()
    normed: bool = False


@dataclass(frozen=True)
class Branch:
    """A residual branch: the weights in it, those it ends with, and the norms and gates after them."""

    weights: tuple[str, ...]
    last: tuple[str, ...]
    norms: tuple[str, ...]
    gates: tuple[str, ...]


def is_followed(leaf: Any) -> bool:
    """Whether an argument stands for a tensor that is followed."""
    return isinstance(leaf, Signal | Parameters)
