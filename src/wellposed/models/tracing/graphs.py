"""Graphs: a model followed through the graph of it that torch.fx or torch.export makes."""

import contextlib
import functools
import inspect
import io
import logging
import operator
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from wellposed._torch import tree_leaves
from wellposed.models.tracing import leaves
from wellposed.models.tracing.operations import torch_name
from wellposed.models.tracing.signals import Flow, Parameters, is_noted


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return leaves.is_unit(m)


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
    _interpret(graph, module, module, path, flow, {})


def follow_parts(module: nn.Module, path: str, flow: Flow) -> None:
    """Follow those parts of a module that torch.fx can trace, the largest that there are."""
    for name, child in module.named_children():
        _follow_part(child, f"{path}.{name}" if path else name, flow)


def _follow_part(module: nn.Module, path: str, flow: Flow) -> None:
    if leaves.is_unit(module) and next(module.children(), None) is None:
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


def follow_exported(module: nn.Module, path: str, flow: Flow, given: tuple[tuple[Any, ...], Mapping[str, Any]]) -> None:
    """Follow a module that torch.export can export for these arguments.

    Args:
        module: A copy of the module, which is made to give tensors alone.
        path: The module's path in the model.
        flow: Where to note what is found.
        given: Positional and keyword arguments.

    Raises:
        Exception: Whatever torch.export raises when it cannot export the module.
    """
    args, kwargs = given
    forward = module.forward

    @functools.wraps(forward)
    def tensors(*args: Any, **kwargs: Any) -> list[Tensor]:
        # What else a model gives, such as a cache of its own type, cannot be exported.
        return [leaf for leaf in tree_leaves(forward(*args, **kwargs)) if isinstance(leaf, Tensor)]

    module.forward = tensors
    with _silence():
        program = torch.export.export(module, args, dict(kwargs), strict=False)
    for part in program.graph_module.modules():
        if isinstance(part, fx.GraphModule):
            _restore_calls(part.graph, module)
    dot = f"{path}." if path else ""
    inputs: dict[str, Any] = {}
    values = {node.name: node.meta.get("val") for node in program.graph.find_nodes(op="placeholder")}
    for spec in program.graph_signature.input_specs:
        name, value = spec.arg.name, values.get(spec.arg.name)
        if spec.kind is torch.export.graph_signature.InputKind.PARAMETER:
            inputs[name] = Parameters((f"{dot}{spec.target}",), module.get_parameter(str(spec.target)).ndim)
        elif spec.kind is torch.export.graph_signature.InputKind.USER_INPUT:
            inputs[name] = flow.source() if isinstance(value, Tensor) and value.is_floating_point() else value
        else:
            inputs[name] = program.constants.get(str(spec.target), value)
    _interpret(program.graph, program.graph_module, module, path, flow, inputs)


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """No word from torch.export, which prints what it cannot export, and another way is tried then."""
    disabled = logging.root.manager.disable
    logging.disable()
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stderr(io.StringIO()),
            contextlib.redirect_stdout(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


def _fixed(module: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a call, defaults included, that hold no tensor."""
    signature = inspect.signature(module.forward)
    bound = signature.bind(*args, **kwargs)
    bound.apply_defaults()
    several = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return {
        name: value
        for name, value in bound.arguments.items()
        if signature.parameters[name].kind not in several
        and not any(isinstance(leaf, Tensor) for leaf in tree_leaves(value))
    }


def _restore_calls(graph: fx.Graph, model: nn.Module) -> None:
    """Put the calls of units back into an exported graph, in place of what they came to."""
    calls: dict[tuple[str, str], list[fx.Node]] = {}
    for node in graph.nodes:
        for key, (path, _) in node.meta.get("nn_module_stack", {}).items():
            if path and leaves.is_unit(model.get_submodule(path)):
                calls.setdefault((key, path), []).append(node)
                break
    for (_, path), nodes in calls.items():
        inside = set(nodes)
        inputs = dict.fromkeys(n for node in nodes for n in node.all_input_nodes if n not in inside)
        if len(inputs) > 1 and not leaves.has_parameters(model.get_submodule(path)):
            continue  # a function of some kind: its inside is followed
        with graph.inserting_after(nodes[-1]):
            call = graph.create_node("call_module", path, tuple(inputs))
        for node in reversed(nodes):
            node.replace_all_uses_with(call)
            graph.erase_node(node)


def _interpret(
    graph: fx.Graph, owner: nn.Module, model: nn.Module, path: str, flow: Flow, inputs: Mapping[str, Any]
) -> Any:
    """Carry notes through a graph.

    Args:
        graph: The graph.
        owner: The module that its attributes are of.
        model: The module that the modules it calls are in.
        path: The path of that module.
        flow: Where to note what is found.
        inputs: Notes of placeholders; those that are left out are signals.

    Returns:
        The notes of what the graph gives.
    """
    dot = f"{path}." if path else ""
    notes: dict[fx.Node, Any] = {}
    for node in graph.nodes:
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), notes.__getitem__)
        value: Any = None
        if node.op == "placeholder":
            value = inputs[node.name] if node.name in inputs else flow.source()
        elif node.op == "get_attr":
            value = _attribute(owner, node.target, dot)
        elif node.op == "call_module":
            noted = tree_leaves((list(args), dict(kwargs)), is_leaf=is_noted)
            given = [leaf for leaf in noted if not isinstance(leaf, Parameters | Tensor)]
            value = leaves.follow(flow, model.get_submodule(node.target), dot + node.target, given)
        elif node.op == "call_method":
            value = flow.step(node.target, getattr(Tensor, node.target, None) or _missing, args, kwargs)
        elif node.op == "call_function":
            bodies = [i for i, arg in enumerate(args) if isinstance(arg, fx.GraphModule)]
            if bodies:
                operands = tree_leaves(args[bodies[-1] + 1 :], is_leaf=is_noted)
                for i in bodies:
                    value = _inner(args[i], operands, model, path, flow)
            elif node.target is operator.getitem and isinstance(args[0], list | tuple):
                value = args[0][args[1]]
            else:
                value = flow.step(torch_name(node.target), node.target, args, kwargs)
        else:
            return args[0]
        notes[node] = node.meta.get("val") if value is None else value
    return None


def _inner(body: fx.GraphModule, operands: Sequence[Any], model: nn.Module, path: str, flow: Flow) -> Any:
    """Follow the body of a region, a branch or a loop."""
    names = [node.name for node in body.graph.find_nodes(op="placeholder")]
    return _interpret(body.graph, body, model, path, flow, dict(zip(names, operands, strict=False)))


def _missing(*_: Any, **__: Any) -> Tensor:
    raise NotImplementedError


def _attribute(owner: nn.Module, target: str, dot: str) -> Any:
    value: Any = owner
    for part in target.split("."):
        value = getattr(value, part)
    return Parameters((dot + target,), value.ndim) if isinstance(value, nn.Parameter) else value
