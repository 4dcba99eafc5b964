"""Where a channel goes: from the layer that makes it, through what leaves channels apart, to the one that uses it."""

import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from wellposed.models.tracing.branching import TRANSFORMER_LAYERS, Traced, altered

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_LAYERS = (nn.Linear, *CONVOLUTIONS, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_MAX_POOLS = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)
_AVERAGE_POOLS = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)
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
    """One thing on the way.

    Args:
        kind: "each" (a function of every element alone), "norm", "pool" or "flatten".
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

    def modules(self) -> tuple[str, ...]:
        """The names of all its modules, in order."""
        between = (link.what for link in self.links if link.is_module)
        return (self.producer, *between, *([] if self.consumer is None else [self.consumer]))


@dataclass(frozen=True)
class Known:
    """What is known of a model before its channels are followed.

    Args:
        modules: Its modules by each of their names.
        own: The first name of each.
        trace: Its forward pass.
        ranks: How many dimensions the outputs of its layers have, as far as an example shows it.
        tied: The modules that share parameters or buffers with another name.
    """

    modules: Mapping[str, nn.Module]
    own: tuple[str, ...]
    trace: Traced
    ranks: Mapping[str, int]
    tied: frozenset[str]

    def objection(self, names: tuple[str, ...]) -> str:
        """Why modules must not be changed, or nothing."""
        for name in names:
            if altered(self.modules[name]):
                return f"{name} has hooks (as pruning leaves them) or a forward pass put on it, which may do anything"
            if name in self.tied:
                return f"{name} is tied to another parameter"
            if name in self.trace.reads:
                return f"the forward pass reads the weights or sizes of {name} itself"
        return ""

    def usage(self, names: tuple[str, ...], times: int) -> str:
        """Why those of the modules that hold numbers are not used together and as often as is wanted, or nothing."""
        lasting = [n for n in names if any(True for _ in (*self.modules[n].parameters(), *self.modules[n].buffers()))]
        used: dict[str, set[str]] = {name: set() for name in lasting}
        for part, _, calls in self.trace.ways():
            for name in lasting:
                if calls[name]:
                    used[name].add(part.prefix)
                if calls[name] > times or len(used[name]) > 1:
                    return f"{name if names[0] != name else 'it'} is used more than once"
            if len({calls[name] for name in lasting}) > 1:
                return f"{lasting[0]} and {lasting[-1]} are not always used together"
        return ""


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


def known(model: nn.Module, trace: Traced, ranks: Mapping[str, int]) -> Known:
    """Gather what is known of a model."""
    every, own = dict(model.named_modules(remove_duplicate=False)), tuple(dict(model.named_modules()))
    return Known(every, own, trace, ranks, _tied(model))


def chains(model: Known) -> Iterator[Chain]:
    """The way of every dense and convolution layer's channels, in the order of the forward pass."""
    nodes: dict[str, list[tuple[str, fx.Node]]] = {}
    for part, graph, _ in model.trace.ways():
        for node in graph.nodes:
            name = part.prefix + str(node.target)
            if node.op == "call_module" and isinstance(model.modules.get(name), _LAYERS):
                nodes.setdefault(name, []).append((part.prefix, node))
    for name, found in nodes.items():
        if is_plain(model.modules[name]):
            yield _one(model, name, [_follow(node, prefix, model.modules) for prefix, node in found])
        else:
            what = _called(model.modules[name])
            yield Chain(name, reason=f"it is a {what}, whose channels do not stand apart")
    for name in model.own:
        module = model.modules[name]
        if type(module) in TRANSFORMER_LAYERS and not model.trace.is_closed(name):
            chain = _inside(name, module, model)
            if chain.producer not in nodes:
                nodes[chain.producer] = []
                yield chain
    for name in model.own:
        if isinstance(model.modules[name], _LAYERS) and name not in nodes:
            unseen = "the forward pass around it cannot be followed"
            yield Chain(name, reason=unseen + "; an example lets parts of it be tried" * model.trace.is_closed(name))


def _one(model: Known, name: str, ways: list[Chain]) -> Chain:
    """What the ways that a layer's channels take have in common: all of it, or nothing."""
    chain = next((way for way in ways if way.consumer is None), ways[0])
    reason = (
        model.usage((name,), 1) or chain.reason or model.objection(chain.modules()) or model.usage(chain.modules(), 1)
    )
    rank, wanted = model.ranks.get(name), cast(Tensor, model.modules[name].weight).ndim
    if not reason and len(set(ways)) > 1:
        reason = "its channels go different ways under different conditions"
    if not reason and rank not in (None, wanted) and any(link.kind != "each" for link in chain.links):
        reason = f"its output has {rank} dimensions; only of {wanted} is it known which are the channels"
    return Chain(name, reason=reason) if reason else chain


def _inside(name: str, layer: nn.Module, model: Known) -> Chain:
    """The chain inside a transformer layer of torch, which tracing takes as one."""
    first, between, dropout, last = (
        f"{name}.{part}".lstrip(".") for part in ("linear1", "activation", "dropout", "linear2")
    )
    activation = cast(Any, layer.activation)
    if activation not in _FUNCTIONS and type(activation) not in _ELEMENTWISE:
        return Chain(first, reason=f"the activation {activation!r} is not a known function of each element")
    links = (Link("each", between, between in model.modules, activation), Link("each", dropout, True))
    chain = Chain(first, links, last)
    reason = model.objection((name, *chain.modules())) or model.usage((first, last), 0)
    if not (is_plain(model.modules[first]) and is_plain(model.modules[last])):
        reason = "it or the layer after it is not a plain Linear"
    return Chain(first, reason=reason) if reason else chain


def _called(module: nn.Module) -> str:
    grouped, hooked = getattr(module, "groups", 1) > 1, altered(module)
    return "grouped " * grouped + type(module).__name__ + " with hooks" * hooked


def _follow(node: fx.Node, prefix: str, modules: Mapping[str, nn.Module]) -> Chain:
    producer = prefix + str(node.target)
    spatial = cast(Tensor, modules[producer].weight).ndim - 2
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
        # How many dimensions beside the batch's and the channels' there are; once they are flattened, none.
        extent = 0 if any(link.kind == "flatten" for link in links) else spatial
        if node.op == "call_module":
            name = prefix + str(node.target)
            if is_plain(modules[name]):
                return Chain(producer, tuple(links), name)
            link, what = _module_link(name, modules[name], extent), f"{name} ({_called(modules[name])})"
        else:
            link, what = _function_link(node, extent), f"{node.name} ({node.name})"
        if link is None:
            return Chain(producer, reason=f"it goes into {what}, which cannot be followed")
        links.append(link)


def _module_link(name: str, module: nn.Module, extent: int) -> Link | None:
    kind = type(module)
    if kind in _ELEMENTWISE:
        return Link("each", name, True, module)
    if kind in _DROPOUTS:
        return Link("each", name, True)
    if kind in NORMS and getattr(module, "running_mean", None) is not None:
        return Link("norm", name, True) if kind is NORMS[max(extent, 1) - 1] else None
    if kind in _POOLS:
        steady = kind not in _AVERAGE_POOLS or not (pads(module) or getattr(module, "divisor_override", None))
        return Link("pool", name, True, steady=steady) if _POOLS[kind] == extent else None
    whole = isinstance(module, nn.Flatten) and (module.start_dim, module.end_dim) == (1, -1)
    return Link("flatten", name, True) if whole else None


def _function_link(node: fx.Node, extent: int) -> Link | None:
    rest, kwargs = node.args[1:], node.kwargs
    called: Any = node.target
    if node.op == "call_method" and called in _METHODS:
        called = getattr(torch, called)
    what = f"{called}{rest}{kwargs}"
    if called in _DROPOUT_FUNCTIONS:
        return Link("each", what, False)
    if called in _FUNCTIONS and not any(isinstance(value, fx.Node) for value in (*rest, *kwargs.values())):
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


def _reads_no_channels(node: fx.Node, spatial: int) -> bool:
    """Whether a node reads sizes only that stay as they are when there are fewer channels."""
    if _is_shape(node):
        return all(_reads_no_channels(user, spatial) for user in node.users)
    read = _reads_size(node)
    return read is not None and (not node.users or read[1] == 0 or (spatial > 0 and read[1] >= 2))


def _tied(model: nn.Module) -> frozenset[str]:
    names: dict[int, list[str]] = {}
    every = (*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False))
    for name, tensor in every:
        names.setdefault(id(tensor), []).append(name.rpartition(".")[0])
    return frozenset(name for several in names.values() if len(several) > 1 for name in several)
