"""Schedules: how strong dropout is as training goes on."""

import math
from collections.abc import Callable
from typing import Any

from torch import nn

from wellposed.dropouts.layers.thinning import Thinning
from wellposed.errors import WellposedError

Factor = Callable[[float], float]  # from the share of training that is done, in [0, 1], to a factor of p, in [0, 1]


def constant() -> Factor:
    """The same all through."""
    return lambda _: 1.0


def linear(start: float = 0.0, end: float = 1.0) -> Factor:
    """In a straight line from ``start`` to ``end``."""
    return lambda done: start + (end - start) * done


def cosine(start: float = 0.0, end: float = 1.0) -> Factor:
    """Along half a cosine from ``start`` to ``end``: slow, fast, slow."""
    return lambda done: start + (end - start) * 0.5 * (1 - math.cos(math.pi * done))


def curriculum(gamma: float = 10.0) -> Factor:
    """From nothing towards all, 1 - exp(-gamma * done) (Morerio et al., 2017)."""
    return lambda done: -math.expm1(-gamma * done)


def early(until: float = 0.5) -> Factor:
    """Falling in a straight line from all to nothing at ``until``, nothing after (Liu et al., 2023)."""
    return lambda done: max(0.0, 1 - done / until)


def late(start: float = 0.5) -> Factor:
    """Nothing before ``start``, all from then on (Liu et al., 2023)."""
    return lambda done: float(done >= start)


class DropoutSchedule:
    """Set p of every dropout module of a model, step by step: a factor times what it was in the beginning.

    A compiled model takes each new p without being compiled again.

    Args:
        model: The model, with wellposed's modules in it.
        factor: From the share of training that is done to a factor in [0, 1]: ``constant``, ``linear``, ``cosine``,
            ``curriculum``, ``early`` or ``late`` of ``wellposed.dropouts.schedule``, or a function of your own.
        steps: How many steps there are.

    Raises:
        WellposedError: If the model has no module to set, ``steps`` is not positive or a factor leaves [0, 1].

    Example:
        >>> import wellposed as wp
        >>> model = nn.Sequential(wp.Dropout(0.4))
        >>> schedule = DropoutSchedule(model, linear(), steps=4)
        >>> model[0].p
        0.0
        >>> schedule.step()
        >>> model[0].p
        0.1

    Source: Morerio et al. (2017); Liu et al. (2023).
    """

    def __init__(self, model: nn.Module, factor: Factor, steps: int) -> None:
        self._modules = {path: m for path, m in model.named_modules() if isinstance(m, Thinning)}
        if not self._modules or steps < 1:
            raise WellposedError(
                f"DropoutSchedule was given steps={steps} and {len(self._modules)} dropout modules of wellposed's; "
                "expected at least one of each; wp.convert_dropout swaps in wellposed's"
            )
        self._factor, self._steps, self._done = factor, steps, 0
        self._rates = {path: module.p for path, module in self._modules.items()}
        self._set()

    def step(self) -> None:
        """Go one step on; after the last, p stays."""
        self._done = min(self._done + 1, self._steps)
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
        factor = self._factor(self._done / self._steps)
        if not 0.0 <= factor <= 1.0:
            raise WellposedError(f"the schedule gave the factor {factor} at step {self._done}; expected one in [0, 1]")
        for path, module in self._modules.items():
            module.p = factor * self._rates[path]
