"""Where a channel goes: from the layer that makes it, through what leaves channels apart, to the one that uses it."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn
from torch.nn import functional
from torch.nn.utils import parametrize

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_POOLS = tuple(
    getattr(nn, f"{kind}Pool{d}d") for kind in ("Max", "Avg", "AdaptiveMax", "AdaptiveAvg") for d in (1, 2, 3)
)
_DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)
_ELEMENTWISE = (
    nn.Identity, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish, nn.Tanh,
    nn.Sigmoid, nn.Hardtanh, nn.Hardswish, nn.Hardsigmoid, nn.Softplus, nn.Softsign, nn.LogSigmoid, nn.Tanhshrink,
    nn.Softshrink, nn.Hardshrink, nn.Threshold,
)  # fmt: skip
_FUNCTIONS = {
    torch.relu, torch.tanh, torch.sigmoid, functional.relu, functional.relu6, functional.gelu, functional.silu,
    functional.leaky_relu, functional.elu, functional.selu, functional.mish, functional.tanh, functional.sigmoid,
    functional.softplus, functional.hardswish,
}  # fmt: skip
_METHODS = {"relu", "tanh", "sigmoid"}

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
        function: The function, or the module.
    """

    kind: str
    name: str
    function: Callable[[Tensor], Tensor]


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


def chains(model: nn.Module) -> Iterator[Chain]:
    """The way of every dense and convolution layer's channels, in the order of the forward pass."""
    modules = dict(model.named_modules())
    tied = _tied(model)
    seen: set[str] = set()
    for prefix, graph in _graphs(model):
        calls = Counter(str(node.target) for node in graph.nodes if node.op == "call_module")
        for node in graph.nodes:
            name = prefix + str(node.target)
            if node.op != "call_module" or name in seen or name not in modules or not is_plain(modules[name]):
                continue
            seen.add(name)
            yield _sound(_follow(node, prefix, modules, calls), tied)
    for name, module in modules.items():
        if type(module) in _INSIDE:
            first, between, last = (f"{name}.{part}".lstrip(".") for part in _INSIDE[type(module)])
            activation = getattr(module, _INSIDE[type(module)][1])
            if activation in _FUNCTIONS or type(activation) in _ELEMENTWISE:
                yield _sound(Chain(first, (Link("each", between, activation),), last), tied)
            else:
                yield Chain(first, reason=f"the activation {activation!r} is not a known function of each element")


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
    if calls[str(node.target)] > 1:
        return Chain(producer, reason="it is used more than once")
    links: list[Link] = []
    while True:
        users = list(node.users)
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
        else:
            name, module = str(node.target), None
        link = _link(node, name, module)
        if link is None:
            what = type(module).__name__ if module is not None else node.name
            return Chain(producer, reason=f"it goes into {name} ({what}), which cannot be followed")
        links.append(link)


def _link(node: fx.Node, name: str, module: nn.Module | None) -> Link | None:
    if module is not None:
        if type(module) in _ELEMENTWISE:
            return Link("each", name, module)
        if type(module) in _DROPOUTS:
            return Link("each", name, nn.Identity())
        if type(module) in NORMS and getattr(module, "running_mean", None) is not None:
            return Link("norm", name, module)
        if type(module) in _POOLS:
            return Link("pool", name, module)
        whole = type(module) is nn.Flatten and (module.start_dim, module.end_dim) == (1, -1)
        return Link("flatten", name, module) if whole else None
    if node.target is functional.dropout:
        return Link("each", name, nn.Identity())
    if node.target in _FUNCTIONS or (node.op == "call_method" and node.target in _METHODS):
        rest, kwargs = node.args[1:], node.kwargs
        if any(isinstance(value, fx.Node) for value in (*rest, *kwargs.values())):
            return None
        target: Any = getattr(torch, str(node.target)) if node.op == "call_method" else node.target
        return Link("each", name, lambda x: target(x, *rest, **{k: v for k, v in kwargs.items() if k != "inplace"}))
    flat = node.target is torch.flatten or (node.op == "call_method" and node.target == "flatten")
    if flat and (*node.args[1:], *node.kwargs.values()) == (1,):
        return Link("flatten", name, nn.Flatten())
    return None


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
