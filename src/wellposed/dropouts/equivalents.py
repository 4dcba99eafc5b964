"""Which module of wellposed's takes the place of a dropout module of torch, timm, torchvision or transformers."""

from collections.abc import Callable
from typing import Any

from torch import nn

from wellposed._torch import has_hooks
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
from wellposed.dropouts.torch_dropout import MODULES

Maker = Callable[[Any], nn.Module]


def equivalent(module: nn.Module) -> nn.Module | None:
    """A new module of wellposed's that drops as a given one does; ``None`` if the class of that is not known."""
    maker = _maker(module)
    return None if maker is None else maker(module)


def difference(module: nn.Module) -> str:
    """Why a module of a known class is not what its equivalent is; empty if it is."""
    if type(module) is nn.MultiheadAttention:
        return ""
    if has_hooks(module):
        return f"{type(module).__name__} has hooks, which a swap would lose"
    options = {"with_noise": False, "scale_by_keep": True}
    for name, value in options.items():
        if name in vars(module) and vars(module)[name] != value and type(module).__name__ == "DropBlock2d":
            return f"{type(module).__name__} has {name}={getattr(module, name)}, which wellposed's has not"
    return ""


def is_fused(module: nn.Module) -> bool:
    """Whether attention of timm's drops weights in a fused function, rather than by its dropout module."""
    is_timms = type(module).__module__.startswith("timm.") and getattr(module, "fused_attn", False)
    return bool(is_timms and getattr(getattr(module, "attn_drop", None), "p", 0.0))


def is_torchs(module: nn.Module) -> bool:
    """Whether a module drops by torch's functions for dropout, which ``keyed`` reaches."""
    return isinstance(module, (*MODULES, nn.MultiheadAttention, nn.RNNBase))


def rate(module: nn.Module) -> float | None:
    """The probability that a module drops something with; ``None`` where it has none, or learns it."""
    p = next((vars(module)[name] for name in (*_RATES, "_p") if name in vars(module)), None)
    return float(p) if isinstance(p, int | float) else None


def remember(new: nn.Module, module: nn.Module) -> None:
    """Have what takes a module's place know the module."""
    vars(new)["_swapped_out"] = (module,)  # in a tuple, or it would be a part of the new one


def is_swapped(module: nn.Module) -> bool:
    """Whether a conversion put a module where it stands."""
    return "_swapped_out" in vars(module)


def original(new: nn.Module) -> nn.Module:
    """The module whose place another has taken, with that one's mode, probability and parameters."""
    (module,) = vars(new)["_swapped_out"]
    now: Any = new.drop if isinstance(new, MultiheadAttention) else new
    if rate(equivalent(module) or module) not in (now.p, None) or (
        isinstance(new, MultiheadAttention) and module.dropout != now.p
    ):
        name = next(name for name in _RATES if name in vars(module))
        setattr(module, name, now.p / getattr(module, "gamma_scale", 1.0))
    for name, parameter in new.named_parameters(recurse=False):
        setattr(module, name, parameter)
    return module.train(new.training)  # type: ignore[no-any-return]


_RATES = ("p", "drop_prob", "prob", "dropout")  # what libraries call it


def was_fused(module: nn.Module) -> bool:
    """Whether a conversion had attention of timm's call its dropout module."""
    return bool(vars(module).get("_was_fused", False))


def set_fused(module: Any, fused: bool) -> None:
    """Have attention of timm's drop weights in a fused function, or by its dropout module."""
    module.fused_attn = fused
    if fused:
        del vars(module)["_was_fused"]
    else:
        vars(module)["_was_fused"] = True


def own_dropout(module: nn.Module) -> str:
    """How a module without an equivalent drops something, if its class says that it does; else empty."""
    name, p = type(module).__name__, getattr(module, "dropout", 0.0)
    if isinstance(module, nn.MultiheadAttention | nn.RNNBase):
        where = "between layers" if isinstance(module, nn.RNNBase) else "attention weights"
        return f"{name} drops {where} inside a function (dropout={p})" if p else ""
    if isinstance(module, MODULES):
        return f"{name} is a class of its own that extends one of torch's"
    return ""


def _maker(module: nn.Module) -> Maker | None:
    home, name = type(module).__module__, type(module).__name__
    if home.startswith("transformers.") and name.endswith("DropPath"):
        return lambda m: DropPath(m.drop_prob or 0.0)
    if home.startswith("transformers.") and name == "StableDropout":
        return lambda m: Dropout(m.drop_prob)
    if type(module) is nn.MultiheadAttention and module.dropout:
        return MultiheadAttention.of
    return _KNOWN.get((home, name))


def _as_torch_takes(ours: nn.Module) -> nn.Module:
    """Let dropout of channels take what torch's does beyond what its documents say, if with a warning."""
    if isinstance(ours, Dropout2d):
        vars(ours)["ranks"] = _RANKS
    if isinstance(ours, Dropout3d):
        vars(ours)["lone_ranks"] = tuple(rank for rank in _RANKS if rank not in ours.ranks)
    return ours


_RANKS = tuple(range(2, 65))  # torch knows of 64 dimensions at most

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
