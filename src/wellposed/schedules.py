"""What a penalty is multiplied by as training goes on: values to give as ``schedule=`` of ``regularize``."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import Tensor

from wellposed.arguments import Number, nonnegative
from wellposed.errors import WellposedError

Schedule = Number | Callable[[int], Number]
"""What multiplies a penalty: a number, a tensor of one that is read at each step, or a callable of the step number."""

Schedules = Schedule | Mapping[str, Schedule]
"""One schedule for all, or one for each glob on names; the first glob that matches counts, and 1 where none does."""


def factor_at(schedule: Schedule, step: int) -> Number:
    """What a schedule multiplies the penalty by at a step.

    Args:
        schedule: The schedule.
        step: How many steps have been taken.

    Returns:
        A number, or a tensor of no dimensions, whose value is not looked at on an accelerator: that would wait.

    Raises:
        WellposedError: If it is no number >= 0.
    """
    given = schedule(step) if callable(schedule) else schedule
    name = f"the schedule at step {step}"
    if isinstance(given, Tensor):
        if given.numel() != 1:
            raise WellposedError(f"{name} was given a tensor of shape {tuple(given.shape)}; expected a single number")
        given = given.detach().reshape(())
        if not given.is_cpu:
            return given
    return nonnegative(given, name)


def schedules_of(given: Schedules, names: Iterable[str]) -> dict[str, Schedule]:
    """The schedule of each name.

    Raises:
        WellposedError: If a glob matches none of the names, or a schedule that is no callable is no number >= 0.
    """
    rules = dict(given) if isinstance(given, Mapping) else {"*": given}
    names = list(names)
    for rule, schedule in rules.items():
        if not any(fnmatchcase(name, rule) for name in names):
            raise WellposedError(
                f"the schedule for {rule!r} matches no penalised parameter; expected a glob on {', '.join(names)}"
            )
        if not callable(schedule):
            factor_at(schedule, 0)
            if isinstance(schedule, Tensor):
                nonnegative(schedule, f"the schedule for {rule!r}")
    return {name: next((rules[rule] for rule in rules if fnmatchcase(name, rule)), 1.0) for name in names}


@dataclass(frozen=True)
class _Between:
    """From ``start`` to ``end`` over ``steps`` steps, and ``end`` from then on.

    Args:
        start: The factor at step 0, >= 0.
        end: The factor from step ``steps`` on, >= 0.
        steps: How many steps it takes, >= 1.
    """

    start: float
    end: float
    steps: int

    def __post_init__(self) -> None:
        for name in ("start", "end"):
            nonnegative(getattr(self, name), f"{type(self).__name__}({name})")
        if isinstance(self.steps, bool) or not isinstance(self.steps, int) or self.steps < 1:
            raise WellposedError(f"{type(self).__name__}(steps) was given {self.steps!r}; expected an integer >= 1")

    def _share(self, done: float) -> float:
        raise NotImplementedError

    def __call__(self, step: int) -> float:
        """The factor at a step."""
        share = self._share(min(max(step, 0), self.steps) / self.steps)
        return self.start + (self.end - self.start) * share


@dataclass(frozen=True)
class Linear(_Between):
    """A straight line from ``start`` to ``end`` over ``steps`` steps, and ``end`` from then on.

    Args:
        start: The factor at step 0, >= 0.
        end: The factor from step ``steps`` on, >= 0.
        steps: How many steps it takes, >= 1.

    Raises:
        WellposedError: If an argument is out of range.

    Example:
        >>> [Linear(0.0, 1.0, steps=4)(step) for step in (0, 1, 4, 9)]
        [0.0, 0.25, 1.0, 1.0]
    """

    def _share(self, done: float) -> float:
        return done


@dataclass(frozen=True)
class Cosine(_Between):
    """Half a cosine from ``start`` to ``end`` over ``steps`` steps: flat at both ends.

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

    def _share(self, done: float) -> float:
        return (1 - math.cos(math.pi * done)) / 2


@dataclass(frozen=True)
class WarmUp:
    """Nothing for ``wait`` steps, then a straight line up to 1 over ``steps`` steps.

    Args:
        steps: How many steps the way up takes, >= 1.
        wait: How many steps without any penalty come before, >= 0.

    Raises:
        WellposedError: If an argument is out of range.

    Example:
        >>> [WarmUp(2, wait=1)(step) for step in range(5)]
        [0.0, 0.0, 0.5, 1.0, 1.0]
    """

    steps: int
    wait: int = 0

    def __post_init__(self) -> None:
        Linear(0.0, 1.0, self.steps)
        if isinstance(self.wait, bool) or not isinstance(self.wait, int) or self.wait < 0:
            raise WellposedError(f"WarmUp(wait) was given {self.wait!r}; expected an integer >= 0")

    def __call__(self, step: int) -> float:
        """The factor at a step."""
        return Linear(0.0, 1.0, self.steps)(step - self.wait)
