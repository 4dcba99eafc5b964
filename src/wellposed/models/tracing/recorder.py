"""A model followed on a run: by a mode that sees every torch function, and hooks that see every leaf module."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from wellposed._torch import tree_leaves, tree_map
from wellposed.models.example import tensors_in
from wellposed.models.running import storages
from wellposed.models.tracing import leaves
from wellposed.models.tracing.calls.writes import written
from wellposed.models.tracing.flow import Flow
from wellposed.models.tracing.operations import torch_name
from wellposed.models.tracing.signals import Parameters, Signal, is_followed


def follow_run(model: nn.Module, path: str, flow: Flow, given: tuple[tuple[Any, ...], Mapping[str, Any]]) -> None:
    """Follow a model while it runs on these arguments.

    Args:
        model: A copy of the model, on which hooks are left.
        path: Its path in the whole.
        flow: Where to note what is found.
        given: Positional and keyword arguments.

    Raises:
        Exception: Whatever the model raises.
    """
    args, kwargs = given
    known: dict[int, Any] = {}
    for name, parameter in model.named_parameters(path):
        known[id(parameter)] = Parameters((name,), parameter.ndim)
    recorder = _Recorder(flow, known)
    for tensor in tensors_in((args, kwargs)):
        if tensor.is_floating_point():
            recorder.note(tensor, flow.source())
    for name, module in model.named_modules(prefix=path):
        if leaves.is_leaf(module):
            _watch(module, name, recorder)
    with recorder:
        model(*args, **kwargs)


class _Recorder(TorchFunctionMode):
    """Follows every torch function of a run."""

    def __init__(self, flow: Flow, known: dict[int, Any]) -> None:
        super().__init__()
        self.flow = flow
        self.known = known
        self.alive: dict[int, Tensor] = {}
        self.sharing: dict[int, tuple[Any, list[Tensor]]] = {}  # each memory, and the tensors in it
        self.inside = 0

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if not self.inside:
            name = torch_name(func)
            target = written(name, func, args, kwargs)
            if tensors_in((result, target)):
                given, named = self.followed((list(args), dict(kwargs)))
                value = self.flow.step(name, func, given, named, (args, kwargs))
                self.note(result, value)
                self.overwrite(target, value)
        return result

    def followed(self, tree: Any) -> Any:
        return tree_map(lambda leaf: self.known.get(id(leaf), leaf) if isinstance(leaf, Tensor) else leaf, tree)

    def note(self, result: Any, value: Any) -> None:
        for tensor in tensors_in(result):
            if id(tensor) not in self.alive:
                self.alive[id(tensor)] = tensor
                for number, memory in storages(tensor).items():
                    self.sharing.setdefault(number, (memory, []))[1].append(tensor)
            if value is not None:
                self.known[id(tensor)] = value

    def overwrite(self, target: Any, value: Any) -> None:
        """Note that a value was written into what a tensor shares its memory with."""
        if not isinstance(target, Tensor) or not isinstance(value, Signal):
            return
        self.note(target, value)
        mixed: Any = None
        for memory, sharing in (self.sharing[number] for number in storages(target)):
            whole = target.numel() * target.element_size() >= memory.nbytes()
            for other in sharing:
                if whole or (other.numel(), other.storage_offset()) == (target.numel(), target.storage_offset()):
                    self.known[id(other)] = value
                elif other.numel() > target.numel():
                    mixed = mixed or self.flow.overwrite(self.known.get(id(other)), value)
                    self.known[id(other)] = mixed


def _watch(module: nn.Module, path: str, recorder: _Recorder) -> None:
    closed: list[bool] = []

    def enter(module: nn.Module, args: Any, kwargs: Any) -> None:
        tensors = tensors_in((args, kwargs))
        # A module without parameters that takes several tensors is a function of some kind: its inside is followed.
        closed.append(leaves.has_parameters(module) or len(tensors) == 1)
        recorder.inside += closed[-1]

    def leave(module: nn.Module, args: Any, kwargs: Any, result: Any) -> None:
        if not closed.pop():
            return
        recorder.inside -= 1
        if not recorder.inside:
            given = recorder.followed((list(args), dict(kwargs)))
            value = leaves.follow(recorder.flow, module, path, tree_leaves(given, is_leaf=is_followed))
            recorder.note(result, value)
            recorder.overwrite(written("", module, args, {"inplace": getattr(module, "inplace", False)}), value)

    module.register_forward_pre_hook(enter, with_kwargs=True)
    module.register_forward_hook(leave, with_kwargs=True)
