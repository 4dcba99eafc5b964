"""A model followed through the graph of it that torch.fx makes, by abstract interpretation."""

import inspect
import operator
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, fx, nn

from wellposed._torch import tree_leaves
from wellposed.models.example import tensors_in
from wellposed.models.names import joined
from wellposed.models.tracing import leaves
from wellposed.models.tracing.flow import Flow
from wellposed.models.tracing.operations import torch_name
from wellposed.models.tracing.signals import Parameters, is_followed


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return leaves.is_leaf(m)


def follow_symbolically(
    module: nn.Module, path: str, flow: Flow, given: tuple[Sequence[Any], Mapping[str, Any]] | None = None
) -> None:
    """Follow a module that torch.fx can trace.

    Args:
        module: The module.
        path: Its path in the model.
        flow: Where to note what is found.
        given: Its positional and keyword arguments, where they are known: those without tensors then decide which way
            the module goes.

    Raises:
        Exception: Whatever torch.fx raises when it cannot trace the module.
    """
    graph = _Tracer().trace(module, None if given is None else _fixed(module, *given))
    interpret(graph, module, module, path, flow, {})


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


def _fixed(module: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a call, defaults included, that hold no tensor."""
    signature = inspect.signature(module.forward)
    bound = signature.bind(*args, **kwargs)
    bound.apply_defaults()
    several = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return {
        name: value
        for name, value in bound.arguments.items()
        if signature.parameters[name].kind not in several and not tensors_in(value)
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
    for node in graph.nodes:
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), values.__getitem__)
        value: Any = None
        if node.op == "placeholder":
            value = inputs[node.name] if node.name in inputs else flow.source()
        elif node.op == "get_attr":
            value = _attribute(owner, node.target, path)
        elif node.op == "call_module":
            noted = tree_leaves((list(args), dict(kwargs)), is_leaf=is_followed)
            given = [leaf for leaf in noted if not isinstance(leaf, Parameters | Tensor)]
            value = leaves.follow(flow, model.get_submodule(node.target), joined(path, node.target), given)
        elif node.op == "call_method":
            value = flow.step(node.target, getattr(Tensor, node.target, None) or _missing, args, kwargs)
        elif node.op == "call_function":
            bodies = [i for i, arg in enumerate(args) if isinstance(arg, fx.GraphModule)]
            if bodies:
                operands = tree_leaves(args[bodies[-1] + 1 :], is_leaf=is_followed)
                for i in bodies:
                    value = _inner(args[i], operands, model, path, flow)
            elif node.target is operator.getitem and isinstance(args[0], list | tuple):
                value = args[0][args[1]]
            else:
                value = flow.step(torch_name(node.target), node.target, args, kwargs)
        else:
            return args[0]
        values[node] = node.meta.get("val") if value is None else value
    return None


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
