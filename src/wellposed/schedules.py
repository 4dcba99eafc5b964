"""Schedules: a factor for each training step, as values that ``regularize`` and ``DropoutSchedule`` take.

A schedule is a callable from the number of steps taken, 0, 1, 2, ..., to a factor >= 0. Each shape here is a frozen
dataclass: two of the same numbers are equal, and all can be printed, hashed and pickled. Your own may be any callable;
to be pickled it has to be a function at the top of a module.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields

from wellposed.arguments import Number, integer, nonnegative

Schedule = Callable[[int], Number]
"""A callable of the number of steps taken that returns a factor >= 0."""


@dataclass(frozen=True)
class _Shape:
    """The base class of shapes: refuses numbers that make no schedule."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value, name = getattr(self, field.name), f"{type(self).__name__}({field.name})"
            if field.type is int:
                integer(value, name, 1 if field.name == "steps" else 0, 1 << 63)
            else:
                nonnegative(value, name)

    def __call__(self, step: int) -> float:
        """The factor at a step."""
        raise NotImplementedError


@dataclass(frozen=True)
class Linear(_Shape):
    """A straight line from ``start`` to ``end`` over ``steps`` steps, and ``end`` from then on.

    ``Linear(1.0, 0.0, steps)`` is early dropout: it falls from all to nothing, and stays there.

    Args:
        start: The factor at step 0, >= 0.
        end: The factor from step ``steps`` on, >= 0.
        steps: How many steps it takes, >= 1.

    Raises:
        WellposedError: If an argument is out of range.

    Example:
        >>> [Linear(0.0, 1.0, steps=4)(step) for step in (0, 1, 4, 9)]
        [0.0, 0.25, 1.0, 1.0]

    Source: Liu et al. (2023) for early dropout.
    """

    start: float
    end: float
    steps: int

    def __call__(self, step: int) -> float:
        """The factor at a step."""
        return self.start + (self.end - self.start) * _done(step, self.steps)


@dataclass(frozen=True)
class Cosine(_Shape):
    """Half a cosine from ``start`` to ``end`` over ``steps`` steps, flat at both ends, and ``end`` from then on.

    Args:
        start: The factor at step 0, >= 0.
        end: The factor from step ``steps`` on, >= 0.
        steps: How many steps it takes, >= 1.

    Raises:
        WellposedError: If an argument is out of range.

    Example:
        >>> [round(Cosine(1.0, 0.0, steps=4)(step), 3) for step in range(5)]
        [1.0, 0.854, 0.5, 0.146, 0.0]

    Source: Loshchilov and Hutter (2017).
    """

    start: float
    end: float
    steps: int

    def __call__(self, step: int) -> float:
        """The factor at a step."""
        return self.start + (self.end - self.start) * ((1 - math.cos(math.pi * _done(step, self.steps))) / 2)


@dataclass(frozen=True)
class WarmUp(_Shape):
    """Zero for ``wait`` steps, then a straight line up to 1 over ``steps`` steps.

    Args:
        steps: How many steps the way up takes, >= 1.
        wait: How many steps of factor 0 come before, >= 0.

    Raises:
        WellposedError: If an argument is out of range.

    Example:
        >>> [WarmUp(2, wait=1)(step) for step in range(5)]
        [0.0, 0.0, 0.5, 1.0, 1.0]
    """

    steps: int
    wait: int = 0

    def __call__(self, step: int) -> float:
        """The factor at a step."""
        return _done(step - self.wait, self.steps)


@dataclass(frozen=True)
class Step(_Shape):
    """One factor before step ``at``, another from then on.

    ``Step(at)`` is late dropout: nothing before that step, all from it on. ``Step(0)`` is 1 throughout.

    Args:
        at: The first step of the second factor, >= 0.
        before: The factor before it, >= 0.
        after: The factor from it on, >= 0.

    Raises:
        WellposedError: If an argument is out of range.

    Example:
        >>> [Step(2)(step) for step in range(4)]
        [0.0, 0.0, 1.0, 1.0]

    Source: Liu et al. (2023) for late dropout.
    """

    at: int
    before: float = 0.0
    after: float = 1.0

    def __call__(self, step: int) -> float:
        """The factor at a step."""
        return self.before if step < self.at else self.after


@dataclass(frozen=True)
class Curriculum(_Shape):
    """From 0 towards 1 in an exponential approach: 1 - exp(-gamma * t / steps) at step t, constant from ``steps`` on.

    Args:
        steps: How many steps it takes, >= 1.
        gamma: How steep it is, >= 0: the last factor is 1 - exp(-gamma).

    Raises:
        WellposedError: If an argument is out of range.

    Example:
        >>> [round(Curriculum(4)(step), 3) for step in range(5)]
        [0.0, 0.918, 0.993, 0.999, 1.0]

    Source: Morerio et al. (2017).
    """

    steps: int
    gamma: float = 10.0

    def __call__(self, step: int) -> float:
        """The factor at a step."""
        return -math.expm1(-self.gamma * _done(step, self.steps))


def _done(step: int, steps: int) -> float:
    """The fraction of the steps that is done, in [0, 1]."""
    return min(max(step, 0), steps) / steps
