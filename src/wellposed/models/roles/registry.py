"""What each parameter of a module is for: one open table from module types to the parts of their parameters."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar, get_args

from torch import Tensor, nn

from wellposed.errors import WellposedError
from wellposed.models.fans import LINEAR, Axes
from wellposed.random.box import Box
from wellposed.random.key import Key

Kind = Literal[
    "weight",
    "recurrent",
    "embedding",
    "token",
    "bias",
    "forget",
    "scale",
    "slope",
    "gate",
    "decay",
    "step",
    "constant",
    "fixed",
]


class Start(Protocol):
    """What fills a tensor: an initializer of ``wellposed.init``, of which this floor knows nothing more."""

    def fill_(self, tensor: Tensor, key: Key, *, axes: Axes = ..., box: Box | None = None) -> Tensor:
        """Fill a tensor in place."""


@dataclass(frozen=True)
class Part:
    """What one block of a parameter is for.

    Args:
        kind: ``"weight"`` makes outputs from inputs, ``"recurrent"`` a state from the state before it; ``"embedding"``
            is a table of vectors, ``"token"`` a learnt input such as a position; ``"bias"`` is added, ``"forget"`` is
            the bias of a forget gate; ``"scale"`` multiplies what a normalisation gives, ``"gate"`` what a residual
            branch gives; ``"slope"`` belongs to an activation; ``"decay"`` is the logarithm of the rates at which a
            state space model's states decay, ``"step"`` what softplus turns into its step sizes; ``"constant"`` belongs
            to its layer's formula, as an exponent does, and starts as ``start`` or stays as it is; ``"fixed"`` starts
            as ``start`` under every scheme.
        axes: What the block's dimensions are for.
        block: The block's name within the parameter; ``None`` for a parameter of one part.
        where: The block, as (dimension, first, end); ``None`` for the whole parameter.
        alias: The name of the parameter that would hold this block if it were stored by itself, under the same module.
            Keys come from it, so that packed and separate forms start the same.
        start: What a scale, a slope, a gate, a token or a fixed part starts as where the scheme has no say of its own:
            a number or an initializer.
        bounds: The smallest and the largest step size of a ``"step"``.

    Raises:
        WellposedError: If the kind is none of these, or is ``"fixed"`` without a start.

    Example:
        >>> Part("weight", Axes(out=1, in_=0)).axes
        Axes(out=1, in_=0)
    """

    kind: Kind
    axes: Axes = LINEAR
    block: str | None = None
    where: tuple[int, int, int] | None = None
    alias: str | None = None
    start: float | Start | None = None
    bounds: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise WellposedError(
                f"Part was given kind={self.kind!r}; expected one of {', '.join(map(repr, get_args(Kind)))}"
            )
        if self.kind == "fixed" and self.start is None:
            raise WellposedError("Part was given kind='fixed' and no start; say what it starts as: start=0.0")


Parts = Mapping[str, Part | Iterable[Part]]
Describe = Callable[[Any], Parts]
_D = TypeVar("_D", bound=Describe)

_TABLE: dict[type[nn.Module] | str, Describe] = {}
_PATTERNS: list[tuple[re.Pattern[str], Describe]] = []


def role(*types: type[nn.Module] | str) -> Callable[[_D], _D]:
    """Register what the parameters of a module type are for.

    The function that is decorated takes a module of the type and returns a part, or several, for each parameter, under
    the parameter's name in the module. A dotted name reaches into a child and goes before what the child's type says.
    Names that a module does not have are skipped. A row holds for subclasses too, unless they have their own.

    Args:
        types: Module types, or their names with or without the package, for types that are not to be imported.

    Returns:
        The decorator.

    Example:
        >>> import torch, wellposed as wp
        >>> class Scaled(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.kernel = nn.Parameter(torch.empty(16, 4))
        >>> @wp.init.role(Scaled)
        ... def scaled(module):
        ...     return {"kernel": wp.init.Part("weight", wp.init.Axes(out=1, in_=0))}
    """

    def register(describe: _D) -> _D:
        for kind in types:
            _TABLE[kind] = describe
        return describe

    return register


def role_pattern(pattern: str) -> Callable[[_D], _D]:
    """Register what parameters are for, for all types whose full name matches and that have no row."""

    def register(describe: _D) -> _D:
        _PATTERNS.append((re.compile(pattern), describe))
        return describe

    return register


def parts_of(module: nn.Module) -> dict[str, tuple[Part, ...]]:
    """The parts of a module's parameters that the table knows, under their names in the module.

    Args:
        module: Any module.

    Returns:
        The parts of each parameter; empty for a type that no row claims.

    Example:
        >>> [(part.kind, part.axes) for part in parts_of(nn.Conv2d(8, 16, 3, groups=2))["weight"]]
        [('weight', Axes(out=0, in_=1, groups=2))]
    """
    describe = describe_of(type(module))
    if describe is None:
        return {}
    parts = describe(module)
    return {name: (part,) if isinstance(part, Part) else tuple(part) for name, part in parts.items()}


def describe_of(cls: type[nn.Module]) -> Describe | None:
    """The row that holds for a module type: its own, else that of the nearest class above it, else a pattern's."""
    for base in cls.__mro__:
        for name in (base, f"{base.__module__}.{base.__qualname__}", base.__name__):
            if name in _TABLE:
                return _TABLE[name]
    return next(
        (describe for pattern, describe in _PATTERNS if pattern.fullmatch(f"{cls.__module__}.{cls.__name__}")), None
    )


def is_own_row(cls: type[nn.Module]) -> bool:
    """Whether the row that holds for a module type is one of this package's, and not one that a user registered."""
    return getattr(describe_of(cls), "__module__", "").startswith(f"{__package__}.")


def blocks(
    names: Iterable[str], size: int, kind: Kind = "weight", axes: Axes = LINEAR, dim: int = 0, alias: str | None = None
) -> tuple[Part, ...]:
    """Parts of equal size that lie side by side along a dimension; ``alias`` may have the place ``{}`` for their names.

    Example:
        >>> [part.where for part in blocks("qkv", 4)]
        [(0, 0, 4), (0, 4, 8), (0, 8, 12)]
    """
    return tuple(
        Part(kind, axes, name, (dim, i * size, (i + 1) * size), None if alias is None else alias.format(name))
        for i, name in enumerate(names)
    )
