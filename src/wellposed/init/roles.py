"""Roles: what each parameter of a module is for. One open table from module types to the parts of their parameters."""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, get_args

import torch
from torch import nn

from wellposed._torch import AnyBatchOrInstanceNorm
from wellposed.errors import WellposedError
from wellposed.init.base import Initializer
from wellposed.init.entrywise import Constant, Zeros
from wellposed.init.fans import LINEAR, Axes

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
Kind = Literal["weight", "recurrent", "embedding", "token", "bias", "forget", "scale", "slope", "gate", "fixed"]


@dataclass(frozen=True)
class Part:
    """What one block of a parameter is for.

    Args:
        kind: ``"weight"`` makes outputs from inputs, ``"recurrent"`` a state from the state before it; ``"embedding"``
            is a table of vectors, ``"token"`` a learnt input such as a position; ``"bias"`` is added, ``"forget"`` is
            the bias of a forget gate; ``"scale"`` multiplies what a normalisation gives, ``"gate"`` what a residual
            branch gives; ``"slope"`` belongs to an activation; ``"fixed"`` starts as ``start`` under every scheme.
        axes: What the block's dimensions are for.
        block: The block's name within the parameter; ``None`` for a parameter of one part.
        where: The block, as (dimension, first, end); ``None`` for the whole parameter.
        alias: The name of the parameter that would hold this block if it were stored by itself, under the same module.
            Keys come from it, so that packed and separate forms start the same.
        start: What a slope, a gate, a token or a fixed part starts as where the scheme has no say of its own.

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
    start: Initializer | None = None

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise WellposedError(
                f"Part was given kind={self.kind!r}; expected one of {', '.join(map(repr, get_args(Kind)))}"
            )
        if self.kind == "fixed" and self.start is None:
            raise WellposedError("Part was given kind='fixed' and no start; say what it starts as: start=Zeros()")


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
        >>> import wellposed as wp
        >>> class Scaled(torch.nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.kernel = torch.nn.Parameter(torch.empty(16, 4))
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
        >>> parts_of(torch.nn.Conv2d(8, 16, 3, groups=2))["weight"]
        (Part(kind='weight', axes=Axes(out=0, in_=1, groups=2), block=None, where=None, alias=None, start=None),)
    """
    describe = _find(type(module))
    if describe is None:
        return {}
    parts = describe(module)
    return {name: (part,) if isinstance(part, Part) else tuple(part) for name, part in parts.items()}


def _find(cls: type[nn.Module]) -> Describe | None:
    for base in cls.__mro__:
        for name in (base, f"{base.__module__}.{base.__qualname__}", base.__name__):
            if name in _TABLE:
                return _TABLE[name]
    return next(
        (describe for pattern, describe in _PATTERNS if pattern.fullmatch(f"{cls.__module__}.{cls.__name__}")), None
    )


_BIAS = Part("bias")
_SCALE = Part("scale")


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


@role(nn.Linear)
def _linear(module: nn.Linear) -> Parts:
    return {"weight": Part("weight"), "bias": _BIAS}


@role(nn.Bilinear)
def _bilinear(module: nn.Bilinear) -> Parts:
    return {"weight": Part("weight", Axes(out=0, in_=(1, 2))), "bias": _BIAS}


@role(nn.Conv1d, nn.Conv2d, nn.Conv3d)
def _convolution(module: nn.Conv2d) -> Parts:
    return {"weight": Part("weight", Axes(groups=module.groups, out_stride=math.prod(module.stride))), "bias": _BIAS}


@role(nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
def _transposed_convolution(module: nn.ConvTranspose2d) -> Parts:
    axes = Axes(out=1, in_=0, groups=module.groups, grouped=0, in_stride=math.prod(module.stride))
    return {"weight": Part("weight", axes), "bias": _BIAS}


@role(nn.Embedding, nn.EmbeddingBag)
def _embedding(module: nn.Embedding) -> Parts:
    table = Part("embedding", Axes(out=1, in_=(), batch=0))
    if module.padding_idx is None:
        return {"weight": table}
    row = module.padding_idx % module.num_embeddings
    return {"weight": (table, Part("fixed", table.axes, "padding", (0, row, row + 1), start=Zeros()))}


@role(nn.MultiheadAttention)
def _attention(module: nn.MultiheadAttention) -> Parts:
    return {
        "in_proj_weight": blocks("qkv", module.embed_dim, alias="{}_proj_weight"),
        "q_proj_weight": Part("weight"),
        "k_proj_weight": Part("weight"),
        "v_proj_weight": Part("weight"),
        "in_proj_bias": _BIAS,
        "bias_k": Part("token", Axes(out=2, in_=(), batch=(0, 1))),
        "bias_v": Part("token", Axes(out=2, in_=(), batch=(0, 1))),
    }


_GATES = {"RNN": ("h",), "LSTM": ("i", "f", "g", "o"), "GRU": ("r", "z", "n")}


@role(nn.RNNBase, nn.RNNCellBase)
def _recurrent(module: nn.RNNBase) -> Parts:
    name = next(
        name for name in ("LSTM", "GRU", "RNN") if isinstance(module, (getattr(nn, name), getattr(nn, name + "Cell")))
    )
    gates, size = _GATES[name], module.hidden_size
    parts: dict[str, tuple[Part, ...]] = {}
    for parameter, _ in module.named_parameters(recurse=False):
        if parameter.startswith("weight_ih"):
            parts[parameter] = blocks(gates, size)
        elif parameter.startswith("weight_hh"):
            parts[parameter] = blocks(gates, size, "recurrent")
        elif parameter.startswith("weight_hr"):
            parts[parameter] = (Part("weight"),)
        elif parameter.startswith("bias_ih") and name == "LSTM":
            i, f, g, o = blocks(gates, size, "bias")
            parts[parameter] = (i, Part("forget", f.axes, f.block, f.where), g, o)
        else:
            parts[parameter] = (_BIAS,)
    return parts


@role(
    AnyBatchOrInstanceNorm,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.RMSNorm,
)
def _normalisation(module: nn.Module) -> Parts:
    return {"weight": _SCALE, "bias": _BIAS}


@role_pattern(r".*\.\w*(LayerNorm|RMSNorm|GroupNorm|BatchNorm|LayerNorm2d|BatchNormAct2d)\w*")
def _normalisation_by_name(module: nn.Module) -> Parts:
    flat = all(p.ndim == 1 for p in module.parameters(recurse=False))
    return {"weight": _SCALE, "bias": _BIAS} if flat else {}


@role(nn.PReLU)
def _prelu(module: nn.PReLU) -> Parts:
    return {"weight": Part("slope", start=Constant(getattr(module, "init", 0.25)))}


def is_normalisation(module: nn.Module) -> bool:
    """Whether the table takes a module for a normalisation layer: its parameters, if any, are a scale and a bias."""
    return _find(type(module)) in (_normalisation, _normalisation_by_name) or isinstance(
        module, nn.LocalResponseNorm | nn.CrossMapLRN2d
    )


def buffers_of(module: nn.Module) -> dict[str, torch.Tensor]:
    """The values with which a module's buffers start, for the modules where they are known: running statistics."""
    if isinstance(module, AnyBatchOrInstanceNorm):
        return {
            "running_mean": torch.tensor(0.0),
            "running_var": torch.tensor(1.0),
            "num_batches_tracked": torch.tensor(0),
        }
    return {}
