"""Swapping the dropout inside somebody else's model: what is known, what is left, and why."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from torch import nn

from wellposed._torch import has_hooks
from wellposed.dropouts.calls import DROPOUTS, functional_dropout
from wellposed.dropouts.layers.attention_dropout import MultiheadAttention
from wellposed.dropouts.layers.blocks import DropBlock2d, DropBlock3d
from wellposed.dropouts.layers.elements import (
    AlphaDropout,
    Dropout,
    Dropout1d,
    Dropout2d,
    Dropout3d,
    FeatureAlphaDropout,
)
from wellposed.dropouts.layers.stochastic_depth import DropPath
from wellposed.dropouts.layers.structured import TokenDropout
from wellposed.dropouts.naming.streams import Stochastic
from wellposed.models.names import plain_path
from wellposed.models.tracing.draws import draws

Model = TypeVar("Model", bound=nn.Module)


@dataclass(frozen=True)
class Conversion:
    """What ``convert_dropout`` does to a model.

    Attributes:
        swapped: Path of a module -> what takes its place, printed.
        named: Paths of modules that were wellposed's already and are only named.
        left: Path of a module that drops something -> why it is left as it is.
    """

    swapped: dict[str, str]
    named: tuple[str, ...]
    left: dict[str, str]

    def __str__(self) -> str:
        lines = [f"{path or '(the model)'} -> {new}" for path, new in self.swapped.items()]
        lines += [f"{path or '(the model)'} named" for path in self.named]
        lines += [f"{path or '(the model)'} left: {why}" for path, why in self.left.items()]
        return "\n".join(lines) or "no dropout found"


def convert_dropout(model: Model, *, seed: int = 0, example: Any = None) -> Model:
    """Swap a model's dropout modules in place for wellposed's, each with a stream named after its path.

    Known are torch's dropout modules and ``MultiheadAttention``, timm's ``DropPath``, ``DropBlock2d`` and
    ``PatchDropout``, torchvision's ``StochasticDepth``, ``DropBlock2d`` and ``DropBlock3d``, and the ``DropPath`` and
    ``StableDropout`` of transformers; attention of timm's with ``attn_drop`` is set not to fuse, so that it calls that
    module. p and the mode stay. ``dropout_conversion`` tells beforehand what would happen; what is left as it is, such
    as dropout that a module calls as a function, is warned of.

    Args:
        model: The model.
        seed: Sets streams apart: models converted with different seeds have different masks in one ``keyed`` block.
        example: An input, with which a copy runs to find what is left, as in ``dropout_conversion``.

    Returns:
        ``model``; or what takes its place if it is itself a dropout module.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.2))
        >>> convert_dropout(model)[1], model[1].stream
        (Dropout(p=0.2), '1')
    """
    report = dropout_conversion(model, example)
    replaced: dict[nn.Module, nn.Module] = {}
    for path, module in list(model.named_modules(remove_duplicate=False)):
        if path not in report.swapped:
            continue
        if _is_fused(module):
            module.fused_attn = False
            continue
        if module not in replaced:
            replaced[module] = _equivalent(module).train(module.training)
        if path:
            parent, _, name = path.rpartition(".")
            setattr(model.get_submodule(parent), name, replaced[module])
        else:
            model = cast(Model, replaced[module])
    for path, module in model.named_modules():
        if isinstance(module, Stochastic) and module.stream is None:
            name = plain_path(model, path)
            module.stream = name if seed == 0 else f"{seed}/{name}"
    if report.left:
        reasons = "; ".join(f"{path or 'the model'}: {why}" for path, why in report.left.items())
        warnings.warn(f"convert_dropout left dropout as it is: {reasons}", stacklevel=2)
    return model


def dropout_conversion(model: nn.Module, example: Any = None) -> Conversion:
    """Tell what ``convert_dropout`` would do, without doing it.

    Args:
        model: The model.
        example: An input: a tensor, a tuple of arguments or a mapping of keyword arguments. With it a copy of the model
            runs once in training mode, and every module that draws random numbers is known. For modules that do not
            run, calls of functional dropout are looked for in the source of their classes and of the functions these
            name.

    Returns:
        What would be swapped, what only named, and what left as it is and why.

    Example:
        >>> print(dropout_conversion(nn.Sequential(nn.Dropout(0.2), nn.LSTM(4, 2, 2, dropout=0.1))))
        0 -> Dropout(p=0.2)
        1 left: LSTM drops between layers inside a function (dropout=0.1)
    """
    run = None if example is None else draws(model, example, training=True)
    drawn, ran = (run.drawn, run.ran) if run else ({}, frozenset[str]())
    swapped: dict[str, str] = {}
    named: list[str] = []
    left: dict[str, str] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        if isinstance(module, Stochastic):
            named.append(path)
        elif _is_fused(module):
            swapped[path] = f"{type(module).__name__}(fused_attn=False)"
        elif _maker(module) is not None:
            if why := _differs(module):
                left[path] = why
            else:
                swapped[path] = repr(_equivalent(module))
        elif path in drawn:
            left[path] = _drops_by_itself(module) or f"{type(module).__name__} draws at {', '.join(drawn[path])}"
        elif path not in ran and (why := _drops_by_itself(module) or _calls(module)):
            left[path] = why
    return Conversion(swapped, tuple(named), left)


def _equivalent(module: nn.Module) -> nn.Module:
    maker = _maker(module)
    assert maker is not None
    return maker(module)


def _as_torch_takes(ours: nn.Module) -> nn.Module:
    """Let dropout of channels take what torch's does beyond what its documents say, if with a warning."""
    if isinstance(ours, Dropout2d):
        vars(ours)["ranks"] = _RANKS
    if isinstance(ours, Dropout3d):
        vars(ours)["lone_ranks"] = tuple(rank for rank in _RANKS if rank not in ours.ranks)
    return ours


_RANKS = tuple(range(2, 65))  # torch knows of 64 dimensions at most
Maker = Callable[[Any], nn.Module]

# The class, by the module that defines it and its name -> what takes its place. Nothing is imported to know them.
_KNOWN: dict[tuple[str, str], Maker] = {
    **{
        ("torch.nn.modules.dropout", ours.__name__): lambda m, ours=ours: _as_torch_takes(ours(m.p))  # type: ignore[misc]
        for ours in (Dropout, Dropout1d, Dropout2d, Dropout3d, AlphaDropout, FeatureAlphaDropout)
    },
    ("timm.layers.drop", "DropPath"): lambda m: DropPath(m.drop_prob or 0.0, scale_by_keep=m.scale_by_keep),
    ("timm.layers.drop", "DropBlock2d"): lambda m: DropBlock2d(
        m.drop_prob * m.gamma_scale, m.block_size, couple_channels=m.couple_channels
    ),
    ("timm.layers.patch_dropout", "PatchDropout"): lambda m: TokenDropout(m.prob, prefix=m.num_prefix_tokens),
    ("torchvision.ops.stochastic_depth", "StochasticDepth"): lambda m: DropPath(m.p, m.mode),
    ("torchvision.ops.drop_block", "DropBlock2d"): lambda m: DropBlock2d(m.p, m.block_size),
    ("torchvision.ops.drop_block", "DropBlock3d"): lambda m: DropBlock3d(m.p, m.block_size),
}


def _maker(module: nn.Module) -> Maker | None:
    home, name = type(module).__module__, type(module).__name__
    if home.startswith("transformers.") and name.endswith("DropPath"):
        return lambda m: DropPath(m.drop_prob or 0.0)
    if home.startswith("transformers.") and name == "StableDropout":
        return lambda m: Dropout(m.drop_prob)
    if type(module) is nn.MultiheadAttention and module.dropout:
        return MultiheadAttention.of
    return _KNOWN.get((home, name))


def _differs(module: nn.Module) -> str:
    """Why a module of a known class is not what takes its place, if it is not."""
    if type(module) is nn.MultiheadAttention:
        return ""
    if has_hooks(module):
        return f"{type(module).__name__} has hooks, which a swap would lose"
    options = {"with_noise": False, "scale_by_keep": True}
    for name, value in options.items():
        if name in vars(module) and vars(module)[name] != value and type(module).__name__ == "DropBlock2d":
            return f"{type(module).__name__} has {name}={getattr(module, name)}, which wellposed's has not"
    return ""


def _is_fused(module: nn.Module) -> bool:
    """Whether a module of timm's gives its p of attention weights to a fused function rather than call the module."""
    is_timms = type(module).__module__.startswith("timm.") and getattr(module, "fused_attn", False)
    return bool(is_timms and getattr(getattr(module, "attn_drop", None), "p", 0.0))


def _drops_by_itself(module: nn.Module) -> str:
    """How a module whose class says so drops something, other than by a dropout module."""
    name, p = type(module).__name__, getattr(module, "dropout", 0.0)
    if isinstance(module, nn.MultiheadAttention | nn.RNNBase):
        where = "between layers" if isinstance(module, nn.RNNBase) else "attention weights"
        return f"{name} drops {where} inside a function (dropout={p})" if p else ""
    if isinstance(module, DROPOUTS):
        return f"{name} is a class of its own that extends one of torch's"
    return ""


def _calls(module: nn.Module) -> str:
    """The calls of functional dropout in the source of a module."""
    kind = type(module)
    if kind.__module__.startswith("torch.nn.") or not getattr(module, "fused_attn", True):
        return ""  # what is timm's and not fused calls its dropout module
    rates = [value for name, value in vars(module).items() if "drop" in name and type(value) in (int, float)]
    rates += [child.p for name, child in module.named_children() if "drop" in name and hasattr(child, "p")]
    is_off = bool(rates) and not any(rates)
    calls = sorted({call.where for call in functional_dropout(module) if call.rate is not None or not is_off})
    return f"{kind.__name__} calls {', '.join(calls)}" if calls else ""
