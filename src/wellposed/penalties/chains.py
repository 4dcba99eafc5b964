"""Where a channel goes: from the layer that makes it, through what leaves channels apart, to the one that uses it."""

import operator
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, fx, nn
from torch.nn import functional
from torch.nn.utils import parametrize

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_LAYERS = (nn.Linear, *CONVOLUTIONS, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_MAX_POOLS = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)
_AVERAGE_POOLS = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)
_ADAPTIVE_POOLS = tuple(getattr(nn, f"Adaptive{kind}Pool{d}d") for kind in ("Max", "Avg") for d in (1, 2, 3))
_DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)
_ELEMENTWISE = (
    nn.Identity, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish, nn.Tanh,
    nn.Sigmoid, nn.Hardtanh, nn.Hardswish, nn.Hardsigmoid, nn.Softplus, nn.Softsign, nn.LogSigmoid, nn.Tanhshrink,
    nn.Softshrink, nn.Hardshrink, nn.Threshold,
)  # fmt: skip
_FUNCTIONS = {
    torch.relu, torch.tanh, torch.sigmoid, functional.relu, functional.relu6, functional.gelu, functional.silu,
    functional.leaky_relu, functional.elu, functional.selu, functional.mish, functional.tanh, functional.sigmoid,
    functional.softplus, functional.hardswish, functional.hardtanh,
}  # fmt: skip
_METHODS = {"relu", "tanh", "sigmoid"}
_DROPOUT_FUNCTIONS = {functional.dropout, functional.dropout1d, functional.dropout2d, functional.dropout3d}
_MAX_POOL_FUNCTIONS = {getattr(space, f"max_pool{d}d") for space in (torch, functional) for d in (1, 2, 3)}
_AVERAGE_POOL_FUNCTIONS = {getattr(functional, f"avg_pool{d}d") for d in (1, 2, 3)}
_ADAPTIVE_POOL_FUNCTIONS = {
    getattr(functional, f"adaptive_{kind}_pool{d}d") for kind in ("max", "avg") for d in (1, 2, 3)
}

# What is inside modules of torch that tracing takes as one: producer, what is between, consumer.
_INSIDE: dict[type[nn.Module], tuple[str, str, str]] = {
    nn.TransformerEncoderLayer: ("linear1", "activation", "linear2"),
    nn.TransformerDecoderLayer: ("linear1", "activation", "linear2"),
}


class Link(NamedTuple):
    """One thing on the way.

    Args:
        kind: "each" (a function of every element alone), "norm", "pool" or "flatten".
        name: The module's name, or the function's.
        function: What "each" does.
        steady: Whether a channel that is one number everywhere stays that number, apart from "each" and "norm".
    """

    kind: str
    name: str
    function: Callable[[Tensor], Tensor] = nn.Identity()
    steady: bool = True


@dataclass(frozen=True)
class Chain:
    """A producer, what is between, and the consumer; or why there is none.

    Args:
        producer: The producing layer's name.
        links: What is between.
        consumer: The consuming layer's name, or ``None``.
        reason: Why the channels cannot be followed, if they cannot.
    """

    producer: str
    links: tuple[Link, ...] = ()
    consumer: str | None = None
    reason: str = ""


def is_plain(module: nn.Module) -> bool:
    """Whether a module is a dense or convolution layer whose channels stand apart."""
    dense = type(module) is nn.Linear
    convolution = type(module) in CONVOLUTIONS and getattr(module, "groups", 1) == 1
    return (dense or convolution) and not parametrize.is_parametrized(module)


def pads(module: object) -> bool:
    """Whether a layer puts zeros around its input."""
    padding = getattr(module, "padding", 0)
    if isinstance(padding, str):
        return padding != "valid"
    return any(padding) if isinstance(padding, tuple) else bool(padding)


def chains(model: nn.Module) -> Iterator[Chain]:
    """The way of every dense and convolution layer's channels, in the order of the forward pass."""
    modules = dict(model.named_modules())
    tied = _tied(model)
    seen: set[str] = set()
    for prefix, graph in _graphs(model):
        calls = Counter(str(node.target) for node in graph.nodes if node.op == "call_module")
        for node in graph.nodes:
            name = prefix + str(node.target)
            if node.op != "call_module" or name in seen or not isinstance(modules.get(name), _LAYERS):
                continue
            seen.add(name)
            if is_plain(modules[name]):
                yield _sound(_follow(node, prefix, modules, calls), tied)
            else:
                yield Chain(name, reason=f"it is a {_called(modules[name])}, whose channels do not stand apart")
    for name, module in modules.items():
        if type(module) in _INSIDE:
            first, between, last = (f"{name}.{part}".lstrip(".") for part in _INSIDE[type(module)])
            activation = getattr(module, _INSIDE[type(module)][1])
            seen.add(first)
            if activation in _FUNCTIONS or type(activation) in _ELEMENTWISE:
                yield _sound(Chain(first, (Link("each", between, activation),), last), tied)
            else:
                yield Chain(first, reason=f"the activation {activation!r} is not a known function of each element")
    for name, module in modules.items():
        if isinstance(module, _LAYERS) and name not in seen:
            yield Chain(name, reason="the forward pass around it cannot be followed")


def _called(module: nn.Module) -> str:
    return ("grouped " if getattr(module, "groups", 1) > 1 else "") + type(module).__name__


def _graphs(model: nn.Module) -> Iterator[tuple[str, fx.Graph]]:
    """The model's graph; where it cannot be traced, those of its children, as far as they can."""
    todo = [("", model)]
    while todo:
        prefix, module = todo.pop(0)
        if not list(module.children()) or isinstance(module, nn.MultiheadAttention) or type(module) in _INSIDE:
            continue
        try:
            yield prefix, fx.Tracer().trace(module)
        except Exception:  # whatever a forward pass may raise when it is given symbols instead of tensors
            todo += [(f"{prefix}{name}.", child) for name, child in module.named_children()]


def _follow(node: fx.Node, prefix: str, modules: dict[str, nn.Module], calls: Counter[str]) -> Chain:
    producer = prefix + str(node.target)
    spatial = cast(Tensor, modules[producer].weight).ndim - 2
    if calls[str(node.target)] > 1:
        return Chain(producer, reason="it is used more than once")
    links: list[Link] = []
    while True:
        users = [user for user in node.users if not _reads_no_channels(user, spatial)]
        if len(users) != 1:
            return Chain(producer, reason="its output is used in several places" if users else "its output is not used")
        node, before = users[0], node
        if node.op == "output":
            return Chain(producer, reason="its output is the model's or a part's")
        if not node.args or node.args[0] is not before or before in node.args[1:]:
            return Chain(producer, reason=f"it goes into {node.name}, which cannot be followed")
        if node.op == "call_module":
            name = prefix + str(node.target)
            module = modules[name]
            if calls[str(node.target)] > 1:
                return Chain(producer, reason=f"{name} is used more than once")
            if is_plain(module):
                return Chain(producer, tuple(links), name)
            link, what = _module_link(name, module), _called(module)
        else:
            link, what = _function_link(node, spatial), node.name
        if link is None:
            where = name if node.op == "call_module" else str(node.name)
            return Chain(producer, reason=f"it goes into {where} ({what}), which cannot be followed")
        links.append(link)


def _module_link(name: str, module: nn.Module) -> Link | None:
    kind = type(module)
    if kind in _ELEMENTWISE:
        return Link("each", name, module)
    if kind in _DROPOUTS:
        return Link("each", name)
    if kind in NORMS and getattr(module, "running_mean", None) is not None:
        return Link("norm", name)
    if kind in _MAX_POOLS or kind in _ADAPTIVE_POOLS:
        return Link("pool", name)
    if kind in _AVERAGE_POOLS:
        return Link("pool", name, steady=not (pads(module) or getattr(module, "divisor_override", None)))
    whole = isinstance(module, nn.Flatten) and (module.start_dim, module.end_dim) == (1, -1)
    return Link("flatten", name) if whole else None


def _function_link(node: fx.Node, spatial: int) -> Link | None:
    rest, kwargs, name = node.args[1:], node.kwargs, node.name
    called: Any = node.target
    if node.op == "call_method" and called in _METHODS:
        called = getattr(torch, called)
    if called in _DROPOUT_FUNCTIONS:
        return Link("each", name)
    if called in _FUNCTIONS and not any(isinstance(value, fx.Node) for value in (*rest, *kwargs.values())):
        return Link("each", name, lambda x: called(x, *rest, **{k: v for k, v in kwargs.items() if k != "inplace"}))
    if called in _MAX_POOL_FUNCTIONS or called in _ADAPTIVE_POOL_FUNCTIONS:
        return Link("pool", name)
    if called in _AVERAGE_POOL_FUNCTIONS:
        return Link("pool", name, steady=len(rest) <= 2 and not {"padding", "divisor_override"} & set(kwargs))
    if called is torch.mean or called == "mean":
        return _mean(name, spatial, dict(zip(("dim", "keepdim"), rest, strict=False)) | kwargs)
    if called is torch.flatten or called == "flatten":
        given = {"start_dim": 0, "end_dim": -1, **dict(zip(("start_dim", "end_dim"), rest, strict=False)), **kwargs}
        return Link("flatten", name) if given == {"start_dim": 1, "end_dim": -1} else None
    if called in ("view", "reshape", torch.reshape):
        shape = rest[0] if len(rest) == 1 and isinstance(rest[0], tuple | list) else rest
        batch = len(shape) == 2 and shape[1] == -1 and _reads_size(shape[0]) == (node.args[0], 0)
        return Link("flatten", name) if batch else None
    return None


def _mean(name: str, spatial: int, given: Mapping[str, Any]) -> Link | None:
    """The mean over all that a convolution's channels extend in, and nothing else."""
    dim = given.get("dim") or ()
    dims = {dim} if isinstance(dim, int) else set(dim)
    if spatial < 1 or {d % (spatial + 2) for d in dims} != set(range(2, spatial + 2)):
        return None
    return Link("pool" if given.get("keepdim") else "flatten", name)


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


def _reads_no_channels(node: fx.Node, spatial: int) -> bool:
    """Whether a node reads sizes only that stay as they are when there are fewer channels."""
    if _is_shape(node):
        return all(_reads_no_channels(user, spatial) for user in node.users)
    read = _reads_size(node)
    return read is not None and (not node.users or read[1] == 0 or (spatial > 0 and read[1] >= 2))


def _tied(model: nn.Module) -> set[str]:
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name.rpartition(".")[0])
    return {name for several in names.values() if len(several) > 1 for name in several}


def _sound(chain: Chain, tied: set[str]) -> Chain:
    for name in (chain.producer, chain.consumer, *(link.name for link in chain.links)):
        if name in tied:
            return Chain(chain.producer, reason=f"{name} is tied to another parameter")
    return chain
