"""Dropout whose probabilities change as training goes on."""

from typing import Any

from torch import nn

from wellposed.dropouts.layers.thinning import Thinning
from wellposed.errors import WellposedError
from wellposed.schedules import Schedule


class DropoutSchedule:
    """Set p of every dropout module of a model, step by step: what it was in the beginning, times a factor.

    A compiled model takes each new p without being compiled again.

    Args:
        model: The model, with wellposed's modules in it.
        schedule: From the number of steps taken to a factor in [0, 1]: ``Linear``, ``Cosine``, ``WarmUp``, ``Step`` or
            ``Curriculum`` of ``wellposed.schedules``, or a callable of your own.

    Raises:
        WellposedError: If the model has no module to set, the schedule cannot be called, or a factor leaves [0, 1].

    Example:
        >>> import wellposed as wp
        >>> model = nn.Sequential(wp.Dropout(0.4))
        >>> schedule = DropoutSchedule(model, wp.schedules.Linear(0.0, 1.0, steps=4))
        >>> model[0].p
        0.0
        >>> schedule.step()
        >>> model[0].p
        0.1

    Source: Morerio et al. (2017); Liu et al. (2023).
    """

    def __init__(self, model: nn.Module, schedule: Schedule) -> None:
        self._modules = {path: m for path, m in model.named_modules() if isinstance(m, Thinning)}
        if not self._modules:
            raise WellposedError(
                "DropoutSchedule was given a model with 0 dropout modules of wellposed's; expected at least one: "
                "wp.convert_dropout swaps in wellposed's"
            )
        if not callable(schedule):
            raise WellposedError(
                f"DropoutSchedule was given the schedule {schedule!r}; expected a callable of the step, such as "
                "wp.schedules.Linear(0.0, 1.0, steps=1000)"
            )
        self._schedule, self._done = schedule, 0
        self._rates = {path: module.p for path, module in self._modules.items()}
        self._set()

    def step(self) -> None:
        """Go one step on."""
        self._done += 1
        self._set()

    def state_dict(self) -> dict[str, Any]:
        """What ``load_state_dict`` restores: the steps done, and p of each module in the beginning."""
        return {"done": self._done, "rates": dict(self._rates)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where a state was taken.

        Raises:
            WellposedError: If the state is of a model with other dropout modules.
        """
        if set(state["rates"]) != set(self._rates):
            raise WellposedError(
                f"the state has dropout modules {sorted(state['rates'])}; expected {sorted(self._rates)}"
            )
        self._done, self._rates = state["done"], dict(state["rates"])
        self._set()

    def _set(self) -> None:
        factor = float(self._schedule(self._done))
        if not 0.0 <= factor <= 1.0:
            raise WellposedError(f"the schedule gave the factor {factor} at step {self._done}; expected one in [0, 1]")
        for path, module in self._modules.items():
            module.p = factor * self._rates[path]
