"""What each weight's output goes through in a model, found in the first of several ways that works."""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from wellposed.errors import WellposedError
from wellposed.models.copying import copied, tensors_of, without_memory
from wellposed.models.example import Arguments, arguments, with_tensors
from wellposed.models.example import copied as copied_input
from wellposed.models.names import unwrapped
from wellposed.models.tracing.exported import follow_exported
from wellposed.models.tracing.flow import Flow
from wellposed.models.tracing.graphs import follow_parts, interpret, run_graph, symbolic_graph
from wellposed.models.tracing.recorder import follow_run
from wellposed.random.shards import is_sharded

_T = TypeVar("_T")
_SMALL = 1 << 26  # entries of a model without memory that may be given some for a run
_LONGEST = 200  # letters of a reason


def trace(model: nn.Module, example: Any = None) -> Flow:
    """Find out what the output of each weight of a model goes through.

    It is traced symbolically, by torch.fx. Where that fails and there is an example, it is exported by torch.export,
    which alone can follow a model without memory that asks for the values of a mask; and where that fails too, it is
    run: first a copy whose parameters have no memory, then one that shares them. Where all fails, those of its parts
    are traced that can be.

    Args:
        model: The model; it is not changed.
        example: An input: a tensor, a tuple of arguments or a mapping of keyword arguments.

    Returns:
        What was found, in which way, and which ways failed and why.

    Raises:
        WellposedError: If the model cannot be run on the example, or the example cannot be copied.
    """
    path, model = unwrapped(model)
    shared = {id(t): t for t in tensors_of(model)}
    given = None if example is None else arguments(example)

    def by_symbols() -> Flow:
        flow = Flow("torch.fx")
        copy = copied(model, shared).eval()
        graph = symbolic_graph(copy, copied_input(given))
        if given is not None:
            with contextlib.suppress(Exception):  # without it, sizes stay unknown
                # Of the copy, which holds what tracing made an attribute of.
                _on_a_copy(copy, given, lambda copy, given: run_graph(graph, copy, given))
        interpret(graph, copy, copy, path, flow, {})
        return flow

    def by_export(copy: nn.Module, given: Arguments) -> Flow:
        flow = Flow("torch.export")
        follow_exported(copy, path, flow, given)
        return flow

    def by_run(copy: nn.Module, given: Arguments) -> Flow:
        flow = Flow("a run on the example")
        follow_run(copy, path, flow, given)
        return flow

    ways = [("torch.fx", by_symbols)]
    if given is not None:
        ways.append(("torch.export", lambda: _on_a_copy(model, given, by_export)))
        ways.append(("a run on the example", lambda: _fitting(model, given, by_run)))
    failures: list[str] = []
    for name, way in ways:
        try:
            flow = way()
        except WellposedError:
            raise
        except Exception as error:
            failures.append(f"{name} could not follow the model ({_reason(error)})")
        else:
            break
    else:
        flow = Flow("torch.fx, in parts")
        with contextlib.suppress(Exception):
            follow_parts(copied(model, shared).eval(), path, flow)
    if given is not None and flow.way == "torch.fx":
        with contextlib.suppress(NotImplementedError):
            _fitting(model, given, lambda copy, given: copy(*given[0], **given[1]))
    flow.finish("output")
    if failures:
        advice = "" if given is not None or flow.way == "torch.fx" else "; give an example of an input: example=batch"
        flow.notes = (f"{'; '.join(failures)}; it was followed by {flow.way}{advice}",)
    return flow


def _memories(model: nn.Module) -> Iterator[tuple[str, dict[int, Any]]]:
    """Ways to give a copy of a model tensors to run with: a device for its inputs, and a tensor for each of its own."""
    parameters, buffers = list(model.parameters()), list(model.buffers())
    empty = {id(p): nn.Parameter(without_memory(p), p.requires_grad) for p in parameters}
    yield "meta", empty | {id(b): without_memory(b) for b in buffers}
    if any(t.is_meta for t in tensors_of(model)):
        if sum(t.numel() for t in tensors_of(model)) <= _SMALL:
            zeros = {key: nn.Parameter(torch.zeros_like(p, device="cpu"), False) for key, p in empty.items()}
            yield "cpu", zeros | {id(b): torch.zeros_like(without_memory(b), device="cpu") for b in buffers}
    elif not any(is_sharded(p) for p in parameters):
        yield "", {id(p): p for p in parameters}


def _on_a_copy(model: nn.Module, given: Arguments, do: Callable[[nn.Module, Arguments], _T]) -> _T:
    """Work with a copy of a model, in the first of several memories in which that succeeds.

    Raises:
        ExceptionGroup: What went wrong, in each memory.
    """
    failures: list[Exception] = []
    for device, tensors in _memories(model):
        sent = copied_input(given)
        try:
            copy = copied(model, tensors).eval()
            sent = with_tensors(sent, functools.partial(Tensor.to, device=device)) if device else sent
            here = torch.device(device) if device else contextlib.nullcontext()
            with torch.no_grad(), torch.random.fork_rng(devices=[]), here:
                return do(copy, sent)
        except Exception as error:
            failures.append(error)
    raise ExceptionGroup("no copy of the model could be used", failures)


def _fitting(model: nn.Module, given: Arguments, run: Callable[[nn.Module, Arguments], _T]) -> _T:
    """Run a copy of a model on an example that has to fit.

    Raises:
        WellposedError: If the example does not fit the model.
        NotImplementedError: If the model cannot be run for want of memory, and not because of the example.
    """
    try:
        return _on_a_copy(model, given, run)
    except ExceptionGroup as group:
        first, last = group.exceptions[0], group.exceptions[-1]
    if first is last and (isinstance(first, NotImplementedError) or "meta" in str(first)):
        raise NotImplementedError(
            f"only a copy without memory could be run, and that fails: {_reason(first)}"
        ) from first
    raise WellposedError(
        f"the example does not fit the model, which fails on it with: {_reason(last)}; "
        "give a tensor, a tuple of arguments or a mapping of keyword arguments that model(...) takes"
    ) from last


def _reason(error: BaseException) -> str:
    """What an exception says, in short."""
    if isinstance(error, ExceptionGroup):
        return _reason(error.exceptions[0])
    said = str(error).strip().splitlines() or [repr(error)]
    return said[0] if len(said[0]) <= _LONGEST else f"{said[0][:_LONGEST]}..."
