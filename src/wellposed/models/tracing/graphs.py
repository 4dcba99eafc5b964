"""A model followed through the graph of it that torch.fx makes, by abstract interpretation."""

import inspect
import operator
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor, fx, nn

from wellposed._torch import tree_leaves, tree_map
from wellposed.models.copying import without_memory
from wellposed.models.example import tensors_in
from wellposed.models.names import joined
from wellposed.models.tracing import leaves
from wellposed.models.tracing.calls.writes import is_part, shares_memory, written
from wellposed.models.tracing.flow import Flow
from wellposed.models.tracing.operations import torch_name
from wellposed.models.tracing.signals import Parameters, Signal, is_followed


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return leaves.is_leaf(m)


def symbolic_graph(module: nn.Module, given: tuple[Sequence[Any], Mapping[str, Any]] | None = None) -> fx.Graph:
    """The graph of a module that torch.fx can trace.

    Args:
        module: The module.
        given: Its positional and keyword arguments, where they are known: those without tensors then decide which way
            the module goes.

    Raises:
        Exception: Whatever torch.fx raises when it cannot trace the module.
    """
    return _Tracer().trace(module, None if given is None else _fixed(_bound(module, *given)))


def run_graph(graph: fx.Graph, module: nn.Module, given: tuple[Sequence[Any], Mapping[str, Any]]) -> None:
    """Run a module's graph, and note each node's value in it, tensors without their memory.

    Args:
        graph: The graph of a module like this one.
        module: A copy of the module.
        given: Its positional and keyword arguments.

    Raises:
        Exception: Whatever the module raises.
    """
    _Noting(module, graph=graph).run(*_bound(module, *given).arguments.values(), enable_io_processing=False)


class _Noting(fx.Interpreter):
    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        n.meta["val"] = tree_map(lambda leaf: without_memory(leaf) if isinstance(leaf, Tensor) else leaf, value)
        return value


def follow_symbolically(module: nn.Module, path: str, flow: Flow) -> None:
    """Follow a module that torch.fx can trace.

    Args:
        module: The module.
        path: Its path in the model.
        flow: Where to note what is found.

    Raises:
        Exception: Whatever torch.fx raises when it cannot trace the module.
    """
    interpret(symbolic_graph(module), module, module, path, flow, {})


def follow_parts(module: nn.Module, path: str, flow: Flow) -> None:
    """Follow those parts of a module that torch.fx can trace, the largest that there are."""
    for name, child in module.named_children():
        _follow_part(child, joined(path, name), flow)


def _follow_part(module: nn.Module, path: str, flow: Flow) -> None:
    if leaves.is_leaf(module) and next(module.children(), None) is None:
        return
    if not isinstance(module, nn.ModuleList | nn.ModuleDict):
        try:
            follow_symbolically(module, path, flow)
        except Exception:
            if leaves.is_composed(module):
                leaves.follow_composed(flow, module, f"{path}.", [flow.source()])
                flow.finish("unknown")
                return
        else:
            flow.finish("unknown")
            return
    follow_parts(module, path, flow)


def _bound(module: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> inspect.BoundArguments:
    """The arguments of a call, defaults included."""
    bound = inspect.signature(module.forward).bind(*args, **kwargs)
    bound.apply_defaults()
    return bound


def _fixed(bound: inspect.BoundArguments) -> dict[str, Any]:
    """The arguments of a call that hold no tensor."""
    several = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    parameters = bound.signature.parameters
    return {
        name: value
        for name, value in bound.arguments.items()
        if parameters[name].kind not in several and not tensors_in(value)
    }


def interpret(
    graph: fx.Graph, owner: nn.Module, model: nn.Module, path: str, flow: Flow, inputs: Mapping[str, Any]
) -> Any:
    """Interpret a graph abstractly: its values are the signals and the parameters that are followed.

    Args:
        graph: The graph.
        owner: The module that its attributes are of.
        model: The module that the modules it calls are in.
        path: The path of that module.
        flow: Where to note what is found.
        inputs: What placeholders stand for; those that are left out are signals.

    Returns:
        What the graph gives.
    """
    values: dict[fx.Node, Any] = {}
    memories: dict[fx.Node, _Memory] = {}
    for node in graph.nodes:
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), values.__getitem__)
        tensors = fx.node.map_arg((node.args, node.kwargs), lambda n: n.meta.get("val"))
        value: Any = None
        if node.op == "placeholder":
            known = node.meta.get("val")
            followed = not isinstance(known, Tensor) or known.is_floating_point()
            value = inputs[node.name] if node.name in inputs else flow.source() if followed else known
        elif node.op == "get_attr":
            value = _attribute(owner, node.target, path)
        elif node.op == "call_module":
            noted = tree_leaves((list(args), dict(kwargs)), is_leaf=is_followed)
            given = [leaf for leaf in noted if not isinstance(leaf, Parameters | Tensor)]
            value = leaves.follow(flow, model.get_submodule(node.target), joined(path, node.target), given)
        elif node.op == "call_method":
            value = flow.step(node.target, getattr(Tensor, node.target, None) or _missing, args, kwargs, tensors)
        elif node.op == "call_function":
            bodies = [i for i, arg in enumerate(args) if isinstance(arg, fx.GraphModule)]
            if bodies:
                operands = tree_leaves(args[bodies[-1] + 1 :], is_leaf=is_followed)
                for i in bodies:
                    value = _inner(args[i], operands, model, path, flow)
            elif node.target is operator.getitem and isinstance(args[0], list | tuple):
                value = args[0][args[1]]
            else:
                value = flow.step(torch_name(node.target), node.target, args, kwargs, tensors)
        else:
            return args[0]
        values[node] = node.meta.get("val") if value is None else value
        target = _written(node, model)
        memories[node] = _memory(node, target, memories, model)
        if target is not None and isinstance(value, Signal):
            _overwrite(target, value, values, memories, flow)
    return None


def _written(node: fx.Node, model: nn.Module) -> fx.Node | None:
    """The node whose tensor an operation writes its result into."""
    if node.op == "call_module":
        module = model.get_submodule(str(node.target))
        target = written("", module, node.args, {"inplace": getattr(module, "inplace", False)})
    elif node.op in ("call_function", "call_method"):
        name = node.target if isinstance(node.target, str) else torch_name(node.target)
        fn = node.target if callable(node.target) else None
        target = written(name, fn, node.args, node.kwargs)
    else:
        target = None
    return target if isinstance(target, fx.Node) else None


class _Memory(NamedTuple):
    """Where a node's tensor lies: in whose tensor's memory, and in which part of it; ``None`` if it fills it."""

    owner: fx.Node
    part: fx.Node | None = None


def _memory(node: fx.Node, target: fx.Node | None, memories: Mapping[fx.Node, _Memory], model: nn.Module) -> _Memory:
    if target is not None:
        return memories[target]
    first = node.args[0] if node.args else None
    if node.op == "call_module":
        name = type(model.get_submodule(str(node.target))).__name__.lower()
    else:
        name = node.target if isinstance(node.target, str) else torch_name(node.target)
    if not isinstance(first, fx.Node) or not shares_memory(name):
        return _Memory(node)
    return _Memory(memories[first].owner, node if is_part(name) else memories[first].part)


def _overwrite(
    target: fx.Node,
    value: Signal,
    values: dict[fx.Node, Any],
    memories: Mapping[fx.Node, _Memory],
    flow: Flow,
) -> None:
    """Note that a value was written into what a node's tensor shares its memory with."""
    owner, part = memories[target]
    sharing = [node for node, memory in memories.items() if memory.owner is owner]
    values.update({node: value for node in sharing if part is None or memories[node].part is part})
    if part is not None:
        mixed = flow.overwrite(values[owner], value)
        values.update({node: mixed for node in sharing if memories[node].part is None})


def _inner(body: fx.GraphModule, operands: Sequence[Any], model: nn.Module, path: str, flow: Flow) -> Any:
    """Follow the body of a region, a branch or a loop."""
    names = [node.name for node in body.graph.find_nodes(op="placeholder")]
    return interpret(body.graph, body, model, path, flow, dict(zip(names, operands, strict=False)))


def _missing(*_: Any, **__: Any) -> Tensor:
    raise NotImplementedError


def _attribute(owner: nn.Module, target: str, path: str) -> Any:
    value: Any = owner
    for part in target.split("."):
        value = getattr(value, part)
    return Parameters((joined(path, target),), value.ndim) if isinstance(value, nn.Parameter) else value
