"""What multiplies each parameter's penalty at a step, from what was given as ``schedule=``."""

from collections.abc import Iterable, Mapping

from torch import Tensor

from wellposed.arguments import Number, nonnegative
from wellposed.errors import WellposedError
from wellposed.models.globs import last_match, matches
from wellposed.schedules import Schedule

Factor = Number | Schedule
"""What multiplies a penalty: a number, a tensor of one that is read at each step, or a schedule."""

Factors = Factor | Mapping[str, Factor]
"""One for all parameters, or one for each glob on names; the last glob that matches counts, and 1 where none does."""


def factor_at(factor: Factor, step: int) -> Number:
    """What a penalty is multiplied by at a step.

    Args:
        factor: A number, a tensor of one, or a schedule.
        step: How many steps have been taken.

    Returns:
        A number, or a tensor of no dimensions, whose value is not looked at on an accelerator: that would wait.

    Raises:
        WellposedError: If it is no number >= 0.
    """
    given = factor(step) if callable(factor) else factor
    name = f"the schedule at step {step}"
    if isinstance(given, Tensor):
        if given.numel() != 1:
            raise WellposedError(f"{name} was given a tensor of shape {tuple(given.shape)}; expected a single number")
        given = given.detach().reshape(())
        if not given.is_cpu:
            return given
    return nonnegative(given, name)


def factors_of(given: Factors, names: Iterable[str]) -> dict[str, Factor]:
    """What multiplies the penalty of each name.

    Raises:
        WellposedError: If a glob matches none of the names, or a factor that is no callable is no number >= 0.
    """
    rules = dict(given) if isinstance(given, Mapping) else {"*": given}
    names = list(names)
    for rule, factor in rules.items():
        if not any(matches(name, rule) for name in names):
            raise WellposedError(
                f"the schedule for {rule!r} matches no penalised parameter; expected a glob on {', '.join(names)}"
            )
        if not callable(factor):
            factor_at(factor, 0)
            if isinstance(factor, Tensor):
                nonnegative(factor, f"the schedule for {rule!r}")
    counting = {name: last_match([name], rules) for name in names}
    return {name: 1.0 if rule is None else rules[rule] for name, rule in counting.items()}
