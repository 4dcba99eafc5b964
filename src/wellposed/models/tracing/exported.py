"""A model followed through the graph of it that torch.export makes of a call."""

import contextlib
import functools
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn

from wellposed.models.example import tensors_in
from wellposed.models.names import joined
from wellposed.models.tracing import leaves
from wellposed.models.tracing.flow import Flow
from wellposed.models.tracing.graphs import interpret
from wellposed.models.tracing.signals import Parameters


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
        return tensors_in(forward(*args, **kwargs))

    module.forward = tensors
    with _silence():
        program = torch.export.export(module, args, dict(kwargs), strict=False)
    for part in program.graph_module.modules():
        if isinstance(part, fx.GraphModule):
            _restore_calls(part.graph, module)
    inputs: dict[str, Any] = {}
    values = {node.name: node.meta.get("val") for node in program.graph.find_nodes(op="placeholder")}
    for spec in program.graph_signature.input_specs:
        name, value = spec.arg.name, values.get(spec.arg.name)
        if spec.kind is torch.export.graph_signature.InputKind.PARAMETER:
            inputs[name] = Parameters((joined(path, str(spec.target)),), module.get_parameter(str(spec.target)).ndim)
        elif spec.kind is torch.export.graph_signature.InputKind.USER_INPUT:
            inputs[name] = flow.source() if isinstance(value, Tensor) and value.is_floating_point() else value
        else:
            inputs[name] = program.constants.get(str(spec.target), value)
    interpret(program.graph, program.graph_module, module, path, flow, inputs)


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Silences torch.export, which prints what it cannot export; another way is tried then."""
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


def _restore_calls(graph: fx.Graph, model: nn.Module) -> None:
    """Put the calls of leaf modules back into an exported graph, in place of what they came to."""
    calls: dict[tuple[str, str], list[fx.Node]] = {}
    for node in graph.nodes:
        for key, (path, _) in node.meta.get("nn_module_stack", {}).items():
            if path and leaves.is_leaf(model.get_submodule(path)):
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
