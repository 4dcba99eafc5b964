"""The maximal update parametrization (muP): initialization and learning rates that keep as a model is made wider."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Literal

from torch import nn

from wellposed.errors import WellposedError
from wellposed.init.initializers.entrywise import Normal
from wellposed.init.initializers.variance_scaling import VarianceScaling
from wellposed.init.schemes.scheme import Choice, Rule, Scheme, Site, auto
from wellposed.models.fans import fans
from wellposed.models.names import plain_path
from wellposed.models.roles import Kind

Optimizer = Literal["adam", "sgd"]
_VECTORS: tuple[Kind, ...] = ("bias", "forget", "scale", "slope", "gate", "token", "decay", "step", "constant", "fixed")


def mup(base: nn.Module | Mapping[str, Sequence[int]], optimizer: Optimizer = "adam") -> Scheme:
    """The maximal update parametrization (muP): the best learning rate of a narrow model is that of a wider one, too.

    With r_in and r_out by how much wider a weight's fans are than in the base model:

    | weight | standard deviation | learning rate, Adam | learning rate, SGD |
    | --- | --- | --- | --- |
    | hidden: both fans grow | gain / sqrt(fan_in) | 1 / r_in | 1 |
    | output: fan_in grows | gain / sqrt(fan_in r_in) | 1 / r_in | 1 / r_in |
    | input: fan_out grows; biases, scales | gain / sqrt(fan_in) | 1 | r_out |

    At the base's own width nothing changes. The learning rates are in the plan's rows: build the optimizer from
    ``plan.groups(model, lr)``. The model itself has to divide attention's products by the head's width, not its root.

    Args:
        base: The narrow model, on any device, or the shapes of its parameters.
        optimizer: ``"adam"``, for any optimizer that divides by the gradient's size, or ``"sgd"``.

    Returns:
        The scheme.

    Raises:
        WellposedError: If the optimizer is neither; when it is used, if the base lacks a parameter of the model, or an
            embedding shares its weight with the output, which have to grow differently.

    Example:
        >>> import wellposed as wp
        >>> def net(width):
        ...     return nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, width), nn.Linear(width, 1))
        >>> plan = wp.plan_initialize(net(256), wp.init.mup(net(64)))
        >>> [row.lr for row in plan if row.role == "weight"]
        [1.0, 0.25, 0.25]

    Source: Yang et al. (2022), table 3.
    """
    if optimizer not in ("adam", "sgd"):
        raise WellposedError(f"mup was given optimizer={optimizer!r}; expected 'adam' or 'sgd'")
    if isinstance(base, nn.Module):
        shapes = {plain_path(base, name): tuple(p.shape) for name, p in base.named_parameters()}
    else:
        shapes = {name: tuple(shape) for name, shape in base.items()}

    def weight(site: Site) -> Choice:
        r_in, r_out = _growth(site, shapes)
        # How large scores are changes with the width, as muP means it to: no start may make up for that.
        plain = auto(dataclasses.replace(site, following=dataclasses.replace(site.following, scores=1.0)))
        if r_in == 1:
            return _with(plain, lr=1.0 if optimizer == "adam" else r_out, note="input" * (r_out != 1))
        if r_out == 1:
            gain = plain.gain / math.sqrt(r_in)
            return _with(Choice(VarianceScaling(gain**2), gain, plain.note), lr=1 / r_in, note="output")
        return _with(plain, lr=1 / r_in if optimizer == "adam" else 1.0, note="hidden")

    def embedding(site: Site) -> Choice:
        if site.shared is not None:
            raise WellposedError(
                f"mup lets an embedding and the output grow differently, but {site.name} is both; untie them"
            )
        return Choice(Normal(0.0, 1.0), lr=1.0 if optimizer == "adam" else _growth(site, shapes)[1])

    def vector(kind: Kind) -> Rule:
        def rule(site: Site) -> Choice:
            whole = _base(site, shapes)
            growth = max((n / b for n, b in zip(site.whole, whole, strict=True)), default=1.0)
            return _with(Scheme("auto", "").choose(site), lr=1.0 if optimizer == "adam" else growth)

        return rule

    rules: dict[Kind, Rule] = {"weight": weight, "recurrent": weight, "embedding": embedding}
    return Scheme(
        "mup",
        "Yang et al. (2022)",
        rules | {kind: vector(kind) for kind in _VECTORS},
        note=lambda _: (
            "mup holds if the optimizer is built from plan.groups(model, lr) and attention divides by the "
            "head's width, not by its root"
        ),
    )


def _with(choice: Choice, *, lr: float, note: str = "") -> Choice:
    notes = "; ".join(part for part in (note, choice.note) if part)
    return Choice(choice.initializer, choice.gain, notes, lr, choice.axes)


def _base(site: Site, shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
    shape = shapes.get(site.stream)
    if shape is None or len(shape) != len(site.whole):
        raise WellposedError(
            f"mup compares a model with its base, but the base has no parameter {site.name} of {len(site.whole)} "
            "dimensions; build the base by the same code, narrower"
        )
    return shape


def _growth(site: Site, shapes: Mapping[str, tuple[int, ...]]) -> tuple[float, float]:
    """By how much larger the fans of a part are than in the base model."""
    whole = _base(site, shapes)
    narrow = [b * n // w if w else b for b, n, w in zip(whole, site.shape, site.whole, strict=True)]
    fan_in, fan_out = fans(narrow, site.part.axes)
    return site.fans[0] / fan_in, site.fans[1] / fan_out
