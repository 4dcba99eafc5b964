"""Tracing: how a model's operations are seen, by symbolic tracing or on a run with an example."""

import contextlib
import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

from wellposed.errors import WellposedError
from wellposed.init.flow import End, Flow, Parameters, Signal
from wellposed.init.names import WRAPPERS
from wellposed.init.operations import torch_name
from wellposed.init.roles import is_normalisation

_LAYERS = (
    nn.Linear,
    nn.Bilinear,
    nn.modules.conv._ConvNd,
    nn.Embedding,
    nn.EmbeddingBag,
)
_COMPOSED = (nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)
_OPAQUE = (nn.MultiheadAttention, nn.RNNBase, nn.RNNCellBase)
_SMALL = 1 << 26  # entries of a model without memory that may be given some for a run
_STILL = (nn.Dropout, nn.Identity, nn.modules.dropout._DropoutNd, nn.Flatten, nn.Unflatten)


def trace(model: nn.Module, example: Any = None) -> Flow:
    """Find out what follows each weight of a model.

    With an example the model is run on it: first a copy whose parameters have no memory, then, if that fails, one that
    shares them. Without one it is traced symbolically, and where that fails its children are, one by one.

    Args:
        model: The model; it is not changed.
        example: An input: a tensor, a tuple of arguments or a mapping of keyword arguments.

    Returns:
        What was found.

    Raises:
        WellposedError: If the model cannot be run on the example.
    """
    path = ""
    while list(model._modules) and set(model._modules) <= WRAPPERS and not model._parameters:
        (name, child), *_ = model.named_children()
        model, path = child, f"{path}.{name}" if path else name
    flow = None if example is None else _run(model, path, example)
    if flow is not None:
        return flow
    flow = Flow()
    with contextlib.suppress(Exception):
        _trace_symbolically(_copy(model, {id(t): t for t in _tensors(model)}), path, flow, end="output")
    return flow


def arguments(example: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """An example as positional and keyword arguments."""
    if isinstance(example, Mapping):
        return (), dict(example)
    return (tuple(example), {}) if isinstance(example, tuple | list) else ((example,), {})


def _tensors(model: nn.Module) -> Iterator[Tensor]:
    yield from model.parameters()
    yield from model.buffers()


def _copy(model: nn.Module, tensors: dict[int, Any]) -> nn.Module:
    twin = copy.deepcopy(model, tensors)
    twin.eval()
    return twin


def _run(model: nn.Module, path: str, example: Any) -> Flow | None:
    """The flow of a run; ``None`` where the model cannot be run for want of memory and not because of the example."""
    parameters, buffers = list(model.parameters()), list(model.buffers())
    empty: dict[int, Any] = {id(p): nn.Parameter(p.to("meta"), p.requires_grad) for p in parameters}
    attempts = [("meta", empty | {id(b): b.to("meta") for b in buffers})]
    if not any(t.is_meta for t in _tensors(model)):
        attempts.append(("", {id(p): p for p in parameters}))
    elif sum(t.numel() for t in _tensors(model)) <= _SMALL:
        zeros: dict[int, Any] = {id(p): nn.Parameter(torch.zeros_like(p, device="cpu"), False) for p in parameters}
        attempts.append(("cpu", zeros | {id(b): torch.zeros_like(b, device="cpu") for b in buffers}))
    failures: list[Exception] = []
    for device, tensors in attempts:
        flow = Flow()
        try:
            twin = _copy(model, tensors)
            with torch.no_grad(), torch.random.fork_rng(devices=[]), _device(device):
                _record(twin, path, _sent(example, device), flow)
        except Exception as error:
            failures.append(error)
        else:
            flow.finish("output")
            return flow
    if len(attempts) == 1 and (isinstance(failures[0], NotImplementedError) or "meta" in str(failures[0])):
        return None
    said = str(failures[-1]).strip().splitlines() or [repr(failures[-1])]
    raise WellposedError(
        f"the example does not fit the model, which fails on it with: {said[0]}; "
        "give a tensor, a tuple of arguments or a mapping of keyword arguments that model(...) takes"
    ) from failures[-1]


def _device(name: str) -> contextlib.AbstractContextManager[Any]:
    return torch.device(name) if name else contextlib.nullcontext()


def _sent(example: Any, device: str) -> Any:
    return tree_map(lambda leaf: leaf.to(device) if isinstance(leaf, Tensor) and device else leaf, example)


class _Recorder(TorchFunctionMode):
    """Follows every torch function of a run."""

    def __init__(self, flow: Flow, notes: dict[int, Any]) -> None:
        super().__init__()
        self.flow = flow
        self.notes = notes
        self.alive: list[Any] = []
        self.inside = 0

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if not self.inside and _gives_tensors(result):
            name = torch_name(func)
            given, named = self.noted((list(args), dict(kwargs)))
            self.note(result, self.flow.step(name, func, given, named))
        return result

    def noted(self, tree: Any) -> Any:
        return tree_map(lambda leaf: self.notes.get(id(leaf), leaf) if isinstance(leaf, Tensor) else leaf, tree)

    def note(self, result: Any, value: Any) -> None:
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self.alive.append(leaf)
                if value is not None:
                    self.notes[id(leaf)] = value


def _gives_tensors(result: Any) -> bool:
    return any(isinstance(leaf, Tensor) for leaf in tree_leaves(result))


def _record(twin: nn.Module, path: str, example: Any, flow: Flow) -> None:
    notes: dict[int, Any] = {}
    for name, parameter in twin.named_parameters(path):
        notes[id(parameter)] = Parameters((name,), parameter.ndim)
    recorder = _Recorder(flow, notes)
    args, kwargs = arguments(example)
    for leaf in tree_leaves((list(args), dict(kwargs))):
        if isinstance(leaf, Tensor) and leaf.is_floating_point():
            recorder.note(leaf, flow.source())
    for name, module in twin.named_modules(prefix=path):
        if _is_unit(module):
            _watch(module, name, recorder)
    with recorder:
        twin(*args, **kwargs)


def _watch(module: nn.Module, path: str, recorder: _Recorder) -> None:
    closed: list[bool] = []

    def enter(module: nn.Module, args: Any, kwargs: Any) -> None:
        tensors = [leaf for leaf in tree_leaves((list(args), dict(kwargs))) if isinstance(leaf, Tensor)]
        # A module without parameters that takes several tensors is a function of some kind: its inside is followed.
        closed.append(_has_parameters(module) or len(tensors) == 1)
        recorder.inside += closed[-1]

    def leave(module: nn.Module, args: Any, kwargs: Any, result: Any) -> None:
        if not closed.pop():
            return
        recorder.inside -= 1
        if not recorder.inside:
            given = recorder.noted((list(args), dict(kwargs)))
            recorder.note(result, _unit(recorder.flow, module, path, tree_leaves(given, is_leaf=_is_signal)))

    module.register_forward_pre_hook(enter, with_kwargs=True)
    module.register_forward_hook(leave, with_kwargs=True)


def _has_parameters(module: nn.Module) -> bool:
    return next(module.parameters(), None) is not None


def _is_signal(leaf: Any) -> bool:
    return isinstance(leaf, Signal | Parameters)


def _is_unit(module: nn.Module) -> bool:
    """Whether a module is followed as one operation, without a look at what it does inside."""
    if isinstance(module, (*_LAYERS, *_OPAQUE, *_COMPOSED)):
        return True
    if next(module.children(), None) is not None:
        return False
    return not _has_parameters(module) or is_normalisation(module) or isinstance(module, nn.PReLU)


def _unit(flow: Flow, module: nn.Module, path: str, leaves: Sequence[Any]) -> Any:
    signals = [leaf for leaf in leaves if isinstance(leaf, Signal)]
    dot = f"{path}." if path else ""
    if isinstance(module, _LAYERS):
        return flow.product(signals, [f"{dot}weight"])
    if isinstance(module, _OPAQUE):
        end: End = "attention" if isinstance(module, nn.MultiheadAttention) else "gates"
        flow.inside((dot + name for name, p in module.named_parameters(recurse=False) if p.ndim > 1), end)
    if isinstance(module, nn.MultiheadAttention):
        return flow.product(signals, [f"{dot}out_proj.weight"])
    if not signals:
        return None
    if isinstance(module, _COMPOSED):
        return _composed(flow, module, dot, signals)
    if isinstance(module, _OPAQUE):
        return flow.opaque(signals)
    if is_normalisation(module):
        return flow.norm(signals[0], [f"{dot}weight"])
    if isinstance(module, nn.PReLU):
        slope = getattr(module, "init", 0.25)
        return flow.apply(signals[0], lambda z: nn.functional.leaky_relu(z, slope), "PReLU")
    name = type(module).__name__
    if isinstance(module, _STILL) or "Drop" in name:
        return flow.step("dropout", module, signals[:1], {})
    if "Pool" in name or "Pad" in name or "Upsample" in name or "Pixel" in name or name == "Unfold":
        return flow.step("view", module, signals[:1], {})
    if isinstance(module, nn.Softmax | nn.LogSoftmax | nn.Softmax2d | nn.Softmin):
        return flow.step("softmax", module, signals, {})
    if len(leaves) == 1 == len(signals):
        return flow.apply(signals[0], module, name)
    return flow.opaque(signals)


def _composed(flow: Flow, module: nn.Module, dot: str, signals: Sequence[Signal]) -> Signal:
    """A transformer layer of torch's own, which symbolic tracing cannot enter: it is known what it does."""
    value = signals[0]
    attentions = ["self_attn"] + (["multihead_attn"] if isinstance(module, nn.TransformerDecoderLayer) else [])
    for name in attentions:
        attention = module.get_submodule(name)
        flow.inside((f"{dot}{name}.{n}" for n, p in attention.named_parameters(recurse=False)), "attention")
        value = flow._sum([value, flow.product([value], [f"{dot}{name}.out_proj.weight"])])
    inner = flow.apply(flow.product([value], [f"{dot}linear1.weight"]), _activation(module), _label(module.activation))
    return flow._sum([value, flow.product([inner], [f"{dot}linear2.weight"])])


def _activation(module: nn.Module) -> Callable[[Tensor], Tensor]:
    fn: Callable[[Tensor], Tensor] = module.activation  # type: ignore[assignment]
    return fn


def _label(fn: Any) -> str:
    return getattr(fn, "__name__", type(fn).__name__)


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return _is_unit(m)


def _trace_symbolically(module: nn.Module, path: str, flow: Flow, end: End = "unknown") -> bool:
    """Follow a module, or else its children; whether the module itself could be traced."""
    if _is_unit(module) and next(module.children(), None) is None:
        return False
    holders = (nn.ModuleList, nn.ModuleDict)
    if not isinstance(module, holders):
        try:
            graph = _Tracer().trace(module)
        except Exception:
            graph = None
        if graph is not None:
            _interpret(graph, module, path, flow)
            flow.finish(end)
            return True
        if isinstance(module, _COMPOSED):
            _composed(flow, module, f"{path}.", [flow.source()])
            flow.finish("unknown")
            return True
    for name, child in module.named_children():
        _trace_symbolically(child, f"{path}.{name}" if path else name, flow)
    return False


def _interpret(graph: fx.Graph, root: nn.Module, path: str, flow: Flow) -> None:
    dot = f"{path}." if path else ""
    notes: dict[fx.Node, Any] = {}
    for node in graph.nodes:
        args = fx.node.map_arg(node.args, lambda n: notes[n])
        kwargs = fx.node.map_arg(node.kwargs, lambda n: notes[n])
        value: Any = None
        if node.op == "placeholder":
            value = flow.source()
        elif node.op == "get_attr":
            value = _attribute(root, node.target, dot)
        elif node.op == "call_module":
            leaves = tree_leaves((list(args), dict(kwargs)), is_leaf=_is_signal)
            value = _unit(flow, root.get_submodule(node.target), dot + node.target, leaves)
        elif node.op == "call_method":
            value = flow.step(node.target, getattr(Tensor, node.target, None) or _missing, args, kwargs)
        elif node.op == "call_function":
            value = flow.step(torch_name(node.target), node.target, args, kwargs)
        notes[node] = value


def _missing(*_: Any, **__: Any) -> Tensor:
    raise NotImplementedError


def _attribute(root: nn.Module, target: str, dot: str) -> Any:
    value: Any = root
    for part in target.split("."):
        value = getattr(value, part)
    return Parameters((dot + target,), value.ndim) if isinstance(value, nn.Parameter) else value
