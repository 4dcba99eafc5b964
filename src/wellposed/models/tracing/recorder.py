"""A model followed on a run: by a mode that sees every torch function, and hooks that see every leaf module."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from wellposed._torch import tree_leaves, tree_map
from wellposed.models.example import tensors_in
from wellposed.models.tracing import leaves
from wellposed.models.tracing.flow import Flow
from wellposed.models.tracing.operations import torch_name
from wellposed.models.tracing.signals import Parameters, is_followed


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
        self.alive: list[Any] = []
        self.inside = 0

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if not self.inside and tensors_in(result):
            name = torch_name(func)
            given, named = self.followed((list(args), dict(kwargs)))
            self.note(result, self.flow.step(name, func, given, named))
        return result

    def followed(self, tree: Any) -> Any:
        return tree_map(lambda leaf: self.known.get(id(leaf), leaf) if isinstance(leaf, Tensor) else leaf, tree)

    def note(self, result: Any, value: Any) -> None:
        for tensor in tensors_in(result):
            self.alive.append(tensor)
            if value is not None:
                self.known[id(tensor)] = value


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
            recorder.note(result, leaves.follow(recorder.flow, module, path, tree_leaves(given, is_leaf=is_followed)))

    module.register_forward_pre_hook(enter, with_kwargs=True)
    module.register_forward_hook(leave, with_kwargs=True)
