"""Pairs of layers, one making channels that the other alone uses, and what lies between them in the forward pass."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

from torch import Tensor, fx, nn

from wellposed.compaction.links import (
    ELEMENTWISE,
    FUNCTIONS,
    LAYERS,
    Link,
    function_link,
    is_plain,
    kind_of,
    module_link,
    reads_no_channels,
)
from wellposed.models.names import joined
from wellposed.models.tracing.branching import TRANSFORMER_LAYERS, Traced, altered


@dataclass(frozen=True)
class Chain:
    """A layer that makes channels, what lies between, and the layer that uses them; or why it is not known.

    Args:
        producer: The producing layer's name.
        links: What is between, as far as it could be followed.
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
            if node.op == "call_module" and isinstance(model.modules.get(name), LAYERS):
                nodes.setdefault(name, []).append((part.prefix, node))
    for name, found in nodes.items():
        if is_plain(model.modules[name]):
            yield _one(model, name, [_follow(node, prefix, model.modules) for prefix, node in found])
        else:
            what = kind_of(model.modules[name])
            yield Chain(name, reason=f"it is a {what}, whose channels do not stand apart")
    for name in model.own:
        module = model.modules[name]
        if type(module) in TRANSFORMER_LAYERS and not model.trace.is_closed(name):
            chain = _inside(name, module, model)
            if chain.producer not in nodes:
                nodes[chain.producer] = []
                yield chain
    for name in model.own:
        if isinstance(model.modules[name], LAYERS) and name not in nodes:
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
    return Chain(name, chain.links, reason=reason) if reason else chain


def _inside(name: str, layer: nn.Module, model: Known) -> Chain:
    """The chain inside a transformer layer of torch, which tracing takes as one."""
    first, between, dropout, last = (joined(name, part) for part in ("linear1", "activation", "dropout", "linear2"))
    activation = cast(Any, layer.activation)
    if activation not in FUNCTIONS and type(activation) not in ELEMENTWISE:
        return Chain(first, reason=f"the activation {activation!r} is not a known function of each element")
    links = (Link("each", between, between in model.modules, activation), Link("each", dropout, True))
    chain = Chain(first, links, last)
    reason = model.objection((name, *chain.modules())) or model.usage((first, last), 0)
    if not (is_plain(model.modules[first]) and is_plain(model.modules[last])):
        reason = "it or the layer after it is not a plain Linear"
    return Chain(first, reason=reason) if reason else chain


def _follow(node: fx.Node, prefix: str, modules: Mapping[str, nn.Module]) -> Chain:
    producer = prefix + str(node.target)
    spatial = cast(Tensor, modules[producer].weight).ndim - 2
    links: list[Link] = []
    while True:
        users = [user for user in node.users if not reads_no_channels(user, spatial)]
        if len(users) != 1:
            lost = "its output is used in several places" if users else "its output is not used"
            return Chain(producer, tuple(links), reason=lost)
        node, before = users[0], node
        if node.op == "output":
            return Chain(producer, tuple(links), reason="its output is the model's or a part's")
        if not node.args or node.args[0] is not before or before in node.args[1:]:
            return Chain(producer, tuple(links), reason=f"it goes into {node.name}, which cannot be followed")
        # How many dimensions beside the batch's and the channels' there are; once they are flattened, none.
        extent = 0 if any(link.kind == "flatten" for link in links) else spatial
        if node.op == "call_module":
            name = prefix + str(node.target)
            if is_plain(modules[name]):
                return Chain(producer, tuple(links), name)
            link, what = module_link(name, modules[name], extent), f"{name} ({kind_of(modules[name])})"
        else:
            link, what = function_link(node, extent), f"{node.name} ({node.name})"
        if link is None:
            return Chain(producer, tuple(links), reason=f"it goes into {what}, which cannot be followed")
        links.append(link)


def _tied(model: nn.Module) -> frozenset[str]:
    names: dict[int, list[str]] = {}
    every = (*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False))
    for name, tensor in every:
        names.setdefault(id(tensor), []).append(name.rpartition(".")[0])
    return frozenset(name for several in names.values() if len(several) > 1 for name in several)
