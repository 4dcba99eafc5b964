"""A scheme: what every kind of part starts as, given what is known about its place in the model."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from torch import nn

from wellposed.errors import WellposedError
from wellposed.init.initializers.entrywise import Constant, Normal, Ones, Zeros
from wellposed.init.initializers.initializer import Initializer
from wellposed.init.initializers.orthogonal import Orthogonal
from wellposed.init.initializers.state_space import DecayRates, StepSizes
from wellposed.init.initializers.variance_scaling import LeCun, VarianceScaling
from wellposed.init.schemes.following import Following
from wellposed.models.fans import Axes, fans
from wellposed.models.roles import Kind, Part
from wellposed.models.tracing.signals import Branch

if TYPE_CHECKING:
    from wellposed.init.plan import Bound, Plan

Need = Literal["branches", "example"]


@dataclass(frozen=True, eq=False)
class Site:
    """One part of a weight and its place in the model: what a scheme chooses by.

    Attributes:
        name: The weight's path.
        stream: The same without what wrappers put into it.
        part: What the part is for.
        shape: The part's shape.
        fans: Its (fan_in, fan_out); (0, 0) where it has none.
        following: What follows it, and the gain that belongs to it.
        branch: The residual branch that it is in, if any.
        last: Whether it is the last weight of that branch.
        branches: All residual branches of the model.
        output: Whether nothing but the model's output follows it.
        shared: The axes of a linear layer that shares an embedding's weight, if one does.
        enlarged: Whether an embedding's rows make up the residual stream, however small they start.
        beside_shared: Whether an embedding is as wide as another one that a linear layer shares.
        module: The module that holds it.
        whole: The shape of the whole weight.
    """

    name: str
    stream: str
    part: Part
    shape: tuple[int, ...]
    fans: tuple[float, float]
    following: Following
    branch: Branch | None
    last: bool
    branches: tuple[Branch, ...]
    output: bool
    shared: Axes | None
    beside_shared: bool
    enlarged: bool
    module: nn.Module
    whole: tuple[int, ...]

    @property
    def attribute(self) -> str:
        """The weight's name in its module."""
        return self.name.rpartition(".")[2]


@dataclass(frozen=True)
class Choice:
    """What a scheme chooses for one part of a weight.

    Args:
        initializer: What the part starts as.
        gain: The gain that was used.
        note: Why, where it is not plain from the rest.
        lr: By what the optimizer's learning rate for the part is to be multiplied.
        axes: The axes to use instead of the part's own.
    """

    initializer: Initializer
    gain: float = 1.0
    note: str = ""
    lr: float = 1.0
    axes: Axes | None = None


Rule = Initializer | Callable[[Site], Initializer | Choice]


@dataclass(frozen=True)
class Scheme:
    """An initialization scheme for whole models: a rule for every kind of parameter.

    Args:
        name: The scheme's name.
        source: The paper, or where else it is from.
        rules: For each kind of part an initializer, or a rule from its site to one or to a choice that says more. Kinds
            that are left out start as under ``auto``.
        needs: ``"branches"`` where residual branches must be found, ``"example"`` where the weights are fitted to one.
        note: From the residual branches to what the model has to do for the scheme to hold.
        fit: From the plan, bound to the model that it was applied to, and the example to the plan as it came out, for
            schemes that are fitted to data.

    Example:
        >>> import wellposed as wp
        >>> tiny = wp.init.Scheme("tiny", "us", {"weight": wp.init.Normal(0.0, 1e-3)})
        >>> wp.plan_initialize(nn.Linear(3, 2), tiny).rows[0].initializer
        Normal(mean=0.0, std=0.001)
    """

    name: str
    source: str
    rules: Mapping[Kind, Rule] = field(default_factory=dict, hash=False)
    needs: tuple[Need, ...] = ()
    note: Callable[[tuple[Branch, ...]], str] | None = None
    fit: "Callable[[Bound, Any], Plan] | None" = None

    def choose(self, site: Site) -> Choice:
        """What a part starts as."""
        rule = self.rules.get(site.part.kind) or _DEFAULTS[site.part.kind]
        choice = rule if isinstance(rule, Initializer) else rule(site)
        choice = choice if isinstance(choice, Choice) else Choice(choice)
        return replace(choice, note="; ".join(filter(None, (choice.note, _in_a_head(choice, site)))))


def _in_a_head(choice: Choice, site: Site) -> str:
    """What a number that a scheme has for embeddings does in a linear layer that shares one."""
    if site.part.kind != "embedding" or site.shared is None or choice.axes is not None:
        return ""
    std = choice.initializer.std_for(site.shape, site.shared)
    if std is None:
        return ""
    size = std * math.sqrt(fans(site.shape, site.shared)[0])
    return f"the scheme's own number, though a linear layer shares it, which multiplies signals by {size:.3g} then"


def start(site: Site) -> Initializer:
    """The start that the part's role gives, or one."""
    return given(site.part) or Ones()


def given(part: Part) -> Initializer | None:
    """The start that a part's role gives, as an initializer; a number is a constant."""
    if part.start is None or isinstance(part.start, Initializer):
        return part.start
    if not isinstance(part.start, int | float):
        raise WellposedError(f"a role was given start={part.start!r}; expected a number or an initializer")
    return {0.0: Zeros(), 1.0: Ones()}.get(part.start, Constant(part.start))


def step_sizes(site: Site) -> Initializer:
    """What softplus turns into step sizes between the role's bounds."""
    return StepSizes() if site.part.bounds is None else StepSizes(*site.part.bounds)


def token(site: Site) -> Initializer:
    """The start that the part's role gives, or a normal distribution of standard deviation 0.02."""
    return given(site.part) or Normal(0.0, 0.02)


def embedding(site: Site) -> Choice:
    """Normal of 1, or as a linear layer needs it that shares it."""
    if site.shared is not None and site.enlarged:
        rows, width = site.shape[0], site.shape[-1]
        return Choice(
            Normal(0.0, min(width**-0.5, math.log(rows) / width)),
            note="shared with a linear layer; a row's product with itself is at most the logarithm of their number",
            axes=site.shared,
        )
    if site.shared is not None:
        return Choice(
            LeCun(distribution="normal"), note="shared with a linear layer, and started for it", axes=site.shared
        )
    if site.beside_shared:
        return Choice(Normal(0.0, site.shape[-1] ** -0.5), note="as large as the embedding that is shared")
    return Choice(Normal(0.0, 1.0))


def auto(site: Site) -> Choice:
    """The gain of what follows over sqrt(fan_in); the last weight of each of n residual branches divided by sqrt(n)."""
    gain, note = site.following.gain * site.following.scores, site.following.note
    if site.last and site.branch is not None and not site.branch.norms:
        gain /= math.sqrt(len(site.branches))
        note = f"ends one of {len(site.branches)} residual branches: divided by the square root of their number"
    return Choice(VarianceScaling(float(f"{gain**2:.12g}")), gain, note)


_DEFAULTS: Mapping[Kind, Rule] = MappingProxyType(
    {
        "weight": auto,
        "recurrent": Orthogonal(),
        "embedding": embedding,
        "token": token,
        "bias": Zeros(),
        "forget": Ones(),
        "scale": start,
        "slope": start,
        "gate": start,
        "decay": DecayRates(),
        "step": step_sizes,
        "constant": start,
        "fixed": start,
    }
)
