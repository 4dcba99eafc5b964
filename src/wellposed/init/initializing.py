"""Initializing a model in one call: plan, apply, audit."""

from typing import Any

import torch
from torch import nn

from wellposed.init.applying import fill
from wellposed.init.auditing import check
from wellposed.init.boxes import Boxes
from wellposed.init.plan import Plan, bind
from wellposed.init.planning import Rules, plan_initialize
from wellposed.init.schemes.named import scheme_of
from wellposed.init.schemes.scheme import Scheme
from wellposed.models.copying import copied
from wellposed.random.key import Key


def initialize(
    model: nn.Module,
    scheme: str | Scheme = "auto",
    *,
    seed: int | Key = 0,
    rules: Rules | None = None,
    boxes: Boxes | None = None,
    example: Any = None,
    device: torch.device | str | int | None = None,
) -> Plan:
    """Initialize a model: plan what every weight starts as, fill it, and check that it is what was planned.

    A weight's values depend on the seed, its path and its place in the weight alone: neither the device, nor wrapping
    the model, nor other layers change them.

    Args:
        model: Any model, on any device; it is filled in place.
        scheme: The name of a scheme, or a scheme.
        seed: Where all keys come from.
        rules: From globs on parameters' paths to an initializer, to an initializer and the axes to use it with, or to
            ``None`` for a weight that is to be left as it is. Of several that match the last one counts. The word
            ``"unclaimed"`` stands for all that no role claims.
        boxes: For a model whose tensors are parts of larger ones and do not know it (a DTensor does): from globs, as in
            ``rules``, to where the tensor lies in the whole; a list of boxes for a tensor of as many equal pieces; or a
            function from the parameter to one of these, or to ``None`` for one that is a whole.
        example: An input: a tensor, a tuple of arguments or a mapping of keyword arguments.
        device: Where a model on the meta device is to be.

    Returns:
        The plan, with the standard deviations that were got.

    Raises:
        WellposedError: If the plan cannot be made, in which case the model is as it was, or if a weight fails the
            audit. With an example the audit looks at the signal, too.

    Example:
        >>> import wellposed as wp
        >>> model = nn.Sequential(nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 10))
        >>> made = wp.init.initialize(model, seed=1)
        >>> made["0.weight"].initializer, round(made["0.weight"].gain, 4)
        (VarianceScaling(scale=2.35171561407, mode='fan_in', distribution='truncated_normal'), 1.5335)
    """
    chosen = scheme_of(scheme)
    bound = bind(plan_initialize(model, chosen, seed=seed, rules=rules, boxes=boxes, example=example), model)
    if chosen.fit is not None:
        rehearsal = bind(bound.plan, copied(model))  # a fit may find no answer, and the model is then to be as it was
        fill(rehearsal, device)
        chosen.fit(rehearsal, example)
    fill(bound, device)
    if chosen.fit is not None:
        bound = bind(chosen.fit(bound, example), model)
    return check(bound, example)
