"""How the parameters of a model enter its forward pass, found by running it, or by the graphs that torch.fx makes."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.overrides import TorchFunctionMode

from wellposed._torch import tree_leaves, tree_map
from wellposed.models.copying import copied, tensors_of, without_memory
from wellposed.models.example import Arguments, arguments, tensors_in, with_tensors
from wellposed.models.example import copied as copied_input
from wellposed.models.names import joined, unwrapped
from wellposed.models.roles.use.by_use import Entries
from wellposed.models.roles.use.contractions import Made, View
from wellposed.models.roles.use.made_up import made_up
from wellposed.models.tracing.operations import torch_name

# Modules of torch's that are entered, for the sake of what becomes of an embedding's rows.
_OPEN = (nn.Sequential, nn.Embedding, nn.LayerNorm, nn.RMSNorm, nn.GroupNorm, nn.Identity, nn.Dropout)
_SMALL = 1 << 26  # entries of a model without memory that may be given some for a run


def entries_of(model: nn.Module, example: Any = None) -> Entries:
    """Find out how the parameters of a model enter its forward pass.

    The model is run on the example, or on an input made up for it where it says what it takes, as models of timm and of
    transformers do; else it is traced symbolically. What was not reached is traced, or run, module by module. A way
    that fails half-way has seen the first half, and what one module of a type does with its parameters all do.

    Args:
        model: The model; it is not changed.
        example: An input, as :func:`wellposed.plan_initialize` takes it.

    Returns:
        What was found.
    """
    path, model = unwrapped(model)
    entries = Entries()
    inputs = made_up(model) if example is None else [arguments(example)]
    with contextlib.suppress(Exception):
        copy = copied(model, {id(t): _like(t, without_memory(t)) for t in tensors_of(model)}).eval()
        if not inputs:
            _follow_graph(copy, path, entries, _is_closed)
        for module in copy.modules() if inputs else ():
            if module is not copy:
                _pass_over(module)
        for given in inputs:
            _follow_runs(model, copy, path, entries, given)
        for name, module in copy.named_modules():
            own = [joined(path, joined(name, parameter)) for parameter, _ in module.named_parameters(recurse=False)]
            if not of_torch(module) and any(parameter not in entries.found for parameter in own):
                _follow_graph(module, joined(path, name) if name else path, entries, lambda child: True)
                _run_alone(module, joined(path, name) if name else path, entries)
        _share(copy, path, entries)
    return entries


def of_torch(module: nn.Module) -> bool:
    """Whether a module is one of torch's own, of which it is known what its parameters are for."""
    return type(module).__module__.startswith("torch.nn.")


def _is_closed(module: nn.Module) -> bool:
    """Whether a module is one of torch's that torch.fx cannot enter, or need not."""
    return of_torch(module) and not isinstance(module, _OPEN)


def _like(tensor: Tensor, other: Tensor) -> Tensor:
    return nn.Parameter(other, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else other


def _follow_runs(model: nn.Module, copy: nn.Module, path: str, entries: Entries, given: Arguments) -> None:
    """Run a copy without memory; if that fails and the model is small, one with zeros or with the model's values."""
    if _run(copy, path, entries, with_tensors(given, lambda t: t.to("meta")), "meta"):
        return
    if sum(t.numel() for t in tensors_of(model)) <= _SMALL:
        values = {id(t): _like(t, torch.zeros_like(without_memory(t), device="cpu")) for t in tensors_of(model)}
        if not any(t.is_meta for t in tensors_of(model)):
            values = {id(p): p for p in model.parameters()}
        _run(copied(model, values).eval(), path, entries, copied_input(given), "cpu")


def _run_alone(module: nn.Module, path: str, entries: Entries) -> None:
    """Run a module on a made-up signal as wide as its first parameter."""
    width = next((p.shape[-1] for p in module.parameters(recurse=False) if p.ndim), 1)
    _run(module, path, entries, ((torch.zeros(2, 3, width, device="meta"),), {}), "meta")


def _share(model: nn.Module, path: str, entries: Entries) -> None:
    """What a parameter is for is so in every module of a type."""
    kinds: dict[tuple[type, str], list[str]] = {}
    for name, module in model.named_modules():
        for parameter, _ in module.named_parameters(recurse=False):
            kinds.setdefault((type(module), parameter), []).append(joined(path, joined(name, parameter)))
    for names in kinds.values():
        seen = next((entries.found[name] for name in names if name in entries.found), None)
        if seen is not None:
            entries.found |= {name: list(seen) for name in names if name not in entries.found}


def _pass_over(module: nn.Module) -> None:
    """Let a module that cannot be run without memory give its first tensor."""
    forward = module.forward

    def given(*args: Any, **kwargs: Any) -> Any:
        try:
            return forward(*args, **kwargs)
        except Exception:
            if tensors := tensors_in((args, kwargs)):
                return tensors[0]
            raise

    module.forward = given


def _run(copy: nn.Module, path: str, entries: Entries, given: Arguments, device: str) -> bool:
    known: dict[int, Any] = {}
    for name, parameter in copy.named_parameters(path):
        known[id(parameter)] = View.of(name, parameter)
    for tensor in tensors_in(given):
        known[id(tensor)] = Made()
    args, kwargs = given
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]), torch.device(device), _Watch(entries, known):
            copy(*args, **kwargs)
    except Exception:
        return False
    return True


class _Watch(TorchFunctionMode):
    """Sees every torch function of a run."""

    def __init__(self, entries: Entries, known: dict[int, Any]) -> None:
        super().__init__()
        self.entries = entries
        self.known = known
        self.alive: list[Tensor] = []  # so that no tensor gets the identity of another

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        given, named = tree_map(
            lambda leaf: self.known.get(id(leaf), leaf) if isinstance(leaf, Tensor) else leaf,
            (list(args), dict(kwargs)),
        )
        made = self.entries.step(torch_name(func), func, given, named)
        tensors = tensors_in(result)
        values = made if isinstance(made, list) and len(made) == len(tensors) else [made] * len(tensors)
        for tensor, value in zip(tensors, values, strict=True):
            if value is not None and not isinstance(value, list):
                self.alive.append(tensor)
                self.known[id(tensor)] = value
        return result


class _Tracer(fx.Tracer):
    def __init__(self, is_leaf: Callable[[nn.Module], bool]) -> None:
        super().__init__()
        self.is_leaf = is_leaf

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return self.is_leaf(m)


def _follow_graph(module: nn.Module, path: str, entries: Entries, is_leaf: Callable[[nn.Module], bool]) -> None:
    """Follow the graph of a module as far as torch.fx gets."""
    tracer = _Tracer(is_leaf)
    with contextlib.suppress(Exception):
        tracer.trace(module)
    values: dict[fx.Node, Any] = {}
    graph = getattr(tracer, "graph", None)
    for node in () if graph is None else graph.nodes:
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), values.get)
        values[node] = _value(node, args, kwargs, module, path, entries)


def _value(node: fx.Node, args: Any, kwargs: Any, module: nn.Module, path: str, entries: Entries) -> Any:
    if node.op == "placeholder":
        return Made()
    if node.op == "output":
        return None
    if node.op == "get_attr":
        owner, _, name = str(node.target).rpartition(".")
        value = getattr(module.get_submodule(owner), name)
        return View.of(joined(path, str(node.target)), value) if isinstance(value, nn.Parameter) else value
    if node.op == "call_module":
        for leaf in tree_leaves((list(args), dict(kwargs))):
            if isinstance(leaf, View):
                entries.enter(leaf, "token")
        return Made()
    if isinstance(node.target, str):
        return entries.step(node.target, getattr(Tensor, node.target, _missing), args, kwargs)
    if torch_name(node.target) == "getitem" and isinstance(args[0], list):
        with contextlib.suppress(Exception):
            return args[0][args[1]]
    return entries.step(torch_name(node.target), node.target, args, kwargs)


def _missing(*_: Any, **__: Any) -> Tensor:
    raise NotImplementedError
