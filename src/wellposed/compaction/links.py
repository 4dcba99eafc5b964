"""Which modules and functions treat each channel by itself, as tables."""

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from wellposed.models.tracing.branching import altered

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_INSTANCE_NORMS = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
NORMS = (*_BATCH_NORMS, *_INSTANCE_NORMS, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)
LAYERS = (nn.Linear, *CONVOLUTIONS, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_MAX_POOLS = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)
_AVERAGE_POOLS = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)
_DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)
ELEMENTWISE = (
    nn.Identity, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish, nn.Tanh,
    nn.Sigmoid, nn.Hardtanh, nn.Hardswish, nn.Hardsigmoid, nn.Softplus, nn.Softsign, nn.LogSigmoid, nn.Tanhshrink,
    nn.Softshrink, nn.Hardshrink, nn.Threshold,
)  # fmt: skip
FUNCTIONS = {
    torch.relu, torch.tanh, torch.sigmoid, functional.relu, functional.relu6, functional.gelu, functional.silu,
    functional.leaky_relu, functional.elu, functional.selu, functional.mish, functional.tanh, functional.sigmoid,
    functional.softplus, functional.hardswish, functional.hardtanh,
}  # fmt: skip
_METHODS = {"relu", "tanh", "sigmoid"}
_DROPOUT_FUNCTIONS = {functional.dropout, functional.dropout1d, functional.dropout2d, functional.dropout3d}
_POOLS = {kind: d for kinds in (_MAX_POOLS, _AVERAGE_POOLS) for d, kind in enumerate(kinds, 1)} | {
    getattr(nn, f"Adaptive{kind}Pool{d}d"): d for kind in ("Max", "Avg") for d in (1, 2, 3)
}
_MAX_POOL_FUNCTIONS = {getattr(space, f"max_pool{d}d"): d for space in (torch, functional) for d in (1, 2, 3)}
_AVERAGE_POOL_FUNCTIONS = {getattr(functional, f"avg_pool{d}d"): d for d in (1, 2, 3)}
_ADAPTIVE_POOL_FUNCTIONS = {
    getattr(functional, f"adaptive_{kind}_pool{d}d"): d for kind in ("max", "avg") for d in (1, 2, 3)
}
_POOL_FUNCTIONS = _MAX_POOL_FUNCTIONS | _AVERAGE_POOL_FUNCTIONS | _ADAPTIVE_POOL_FUNCTIONS


@dataclass(frozen=True)
class Link:
    """One module or function between two layers.

    Args:
        kind: "each" (a function of every element alone), "norm" (by running statistics), "group norm" (by those of the
            input, over groups of channels), "pool" or "flatten".
        what: The module's name, or the function and its arguments.
        is_module: Whether it is a module.
        function: What "each" does.
        steady: Whether a channel that is one number everywhere stays that number, apart from "each" and "norm".
    """

    kind: str
    what: str
    is_module: bool
    function: Callable[[Tensor], Tensor] = field(default=nn.Identity(), compare=False)
    steady: bool = True


def is_plain(module: nn.Module) -> bool:
    """Whether a module is a dense or convolution layer whose channels stand apart."""
    dense = type(module) is nn.Linear
    convolution = type(module) in CONVOLUTIONS and getattr(module, "groups", 1) == 1
    return (dense or convolution) and "weight" in dict(module.named_parameters(recurse=False))


def pads(module: object) -> bool:
    """Whether a layer puts zeros around its input."""
    padding = getattr(module, "padding", 0)
    if isinstance(padding, str):
        return padding != "valid"
    return any(padding) if isinstance(padding, tuple) else bool(padding)


def kind_of(module: nn.Module) -> str:
    """The kind of a module, for a message."""
    grouped, hooked = getattr(module, "groups", 1) > 1, altered(module)
    return "grouped " * grouped + type(module).__name__ + " with hooks" * hooked


def module_link(name: str, module: nn.Module, extent: int) -> Link | None:
    """The link that a module is, if it keeps channels apart.

    Args:
        name: Its name.
        module: The module.
        extent: How many dimensions its input has beside the batch's and the channels'.
    """
    kind = type(module)
    if kind in ELEMENTWISE:
        return Link("each", name, True, module)
    if kind in _DROPOUTS:
        return Link("each", name, True)
    if kind in (*_BATCH_NORMS, *_INSTANCE_NORMS) and getattr(module, "running_mean", None) is not None:
        fits = kind is _BATCH_NORMS[max(extent, 1) - 1] or (extent and kind is _INSTANCE_NORMS[extent - 1])
        return Link("norm", name, True) if fits else None
    if kind is nn.GroupNorm or (extent and kind is _INSTANCE_NORMS[extent - 1]):
        return Link("group norm", name, True)
    if kind in _POOLS:
        steady = kind not in _AVERAGE_POOLS or not (pads(module) or getattr(module, "divisor_override", None))
        return Link("pool", name, True, steady=steady) if _POOLS[kind] == extent else None
    whole = isinstance(module, nn.Flatten) and (module.start_dim, module.end_dim) == (1, -1)
    return Link("flatten", name, True) if whole else None


def function_link(node: fx.Node, extent: int) -> Link | None:
    """The link that a call of a function or a method is, if it keeps channels apart."""
    rest, kwargs = node.args[1:], node.kwargs
    called: Any = node.target
    if node.op == "call_method" and called in _METHODS:
        called = getattr(torch, called)
    what = f"{called}{rest}{kwargs}"
    if called in _DROPOUT_FUNCTIONS:
        return Link("each", what, False)
    if called in FUNCTIONS and not any(isinstance(value, fx.Node) for value in (*rest, *kwargs.values())):
        options = {k: v for k, v in kwargs.items() if k != "inplace"}
        return Link("each", what, False, lambda x: called(x, *rest, **options))
    if called in _POOL_FUNCTIONS:
        plain = len(rest) <= 2 and not {"padding", "divisor_override"} & set(kwargs)
        steady = called not in _AVERAGE_POOL_FUNCTIONS or plain
        return Link("pool", what, False, steady=steady) if _POOL_FUNCTIONS[called] == extent else None
    if called is torch.mean or called == "mean":
        return _mean(what, extent, dict(zip(("dim", "keepdim"), rest, strict=False)) | kwargs)
    if called is torch.flatten or called == "flatten":
        given = {"start_dim": 0, "end_dim": -1, **dict(zip(("start_dim", "end_dim"), rest, strict=False)), **kwargs}
        return Link("flatten", what, False) if given == {"start_dim": 1, "end_dim": -1} else None
    if called in ("view", "reshape", torch.reshape):
        shape = rest[0] if len(rest) == 1 and isinstance(rest[0], tuple | list) else rest
        batch = len(shape) == 2 and shape[1] == -1 and _reads_size(shape[0]) == (node.args[0], 0)
        return Link("flatten", what, False) if batch else None
    return None


def _mean(what: str, extent: int, given: Mapping[str, Any]) -> Link | None:
    """The mean over all that a convolution's channels extend in, and nothing else."""
    dim = given.get("dim") or ()
    dims = {dim} if isinstance(dim, int) else set(dim)
    if extent < 1 or {d % (extent + 2) for d in dims} != set(range(2, extent + 2)):
        return None
    return Link("pool" if given.get("keepdim") else "flatten", what, False)


def _reads_size(node: Any) -> tuple[fx.Node, int] | None:
    """Whose size a node reads, and in which dimension: ``x.size(d)``, ``x.size()[d]`` or ``x.shape[d]``."""
    if not isinstance(node, fx.Node):
        return None
    of, dim = node.args[0] if node.args else None, node.args[1] if len(node.args) > 1 else None
    if node.target is operator.getitem and isinstance(of, fx.Node) and _is_shape(of):
        of = of.args[0]
    elif not (node.op == "call_method" and node.target == "size"):
        return None
    return (of, dim) if isinstance(of, fx.Node) and isinstance(dim, int) else None


def _is_shape(node: fx.Node) -> bool:
    whole = node.op == "call_method" and node.target == "size" and len(node.args) == 1
    return whole or (node.target is getattr and node.args[1] == "shape")


def reads_no_channels(node: fx.Node, spatial: int) -> bool:
    """Whether a node reads sizes only that stay as they are when there are fewer channels."""
    if _is_shape(node):
        return all(reads_no_channels(user, spatial) for user in node.users)
    read = _reads_size(node)
    return read is not None and (not node.users or read[1] == 0 or (spatial > 0 and read[1] >= 2))
