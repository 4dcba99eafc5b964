"""Running a model apart: a copy that shares the parameters, torch's generators put back, memory measured."""

import contextlib
import copy
import weakref
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from wellposed._torch import TorchDispatchMode, tree_leaves
from wellposed.errors import WellposedError

Model = TypeVar("Model", bound=nn.Module)


def twin_of(model: Model) -> Model:
    """A copy that shares the model's parameters; buffers and all else that running it may change are its own.

    Args:
        model: The model. Tensors that it holds with their history, such as an output it has kept, are copied without.

    Returns:
        The copy, in the model's mode.

    Raises:
        WellposedError: If the model cannot be copied.

    Example:
        >>> model = nn.BatchNorm1d(4)
        >>> twin = twin_of(model)
        >>> twin.weight is model.weight, twin.running_mean is model.running_mean
        (True, False)
    """
    try:
        with _WithoutHistory():
            return copy.deepcopy(model, {id(parameter): parameter for parameter in model.parameters()})
    except Exception as problem:
        raise WellposedError(
            f"{type(model).__name__} cannot be copied, and only a copy is run, to leave the model as it is "
            f"({type(problem).__name__}: {problem}); pass the model as it is before it is sharded or wrapped, and "
            "keep out of it what copy.deepcopy refuses"
        ) from problem


class _WithoutHistory(TorchFunctionMode):
    """Lets tensors that have a history be copied, which torch refuses."""

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if function is Tensor.__deepcopy__ and not args[0].is_leaf:
            return args[0].detach().clone()
        return function(*args, **(kwargs or {}))


@contextlib.contextmanager
def own_generators(values: Any) -> Iterator[list[torch.Generator]]:
    """The default generators of torch, of the CPU and of the tensors' devices, which are put back afterwards."""
    devices = {leaf.device.index for leaf in tree_leaves(values) if isinstance(leaf, Tensor) and leaf.is_cuda}
    generators = [torch.default_generator, *(torch.cuda.default_generators[index] for index in sorted(devices))]
    states = [generator.get_state() for generator in generators]
    try:
        yield generators
    finally:
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)


def seed_all(generators: Iterable[torch.Generator], words: tuple[int, int]) -> list[Tensor]:
    """Seed generators with the 64 bits of two words; their states are returned."""
    return [generator.manual_seed(words[0] | words[1] << 32).get_state() for generator in generators]


class PeakMemory(TorchDispatchMode):
    """Measures how much memory the tensors hold at most that operators make inside the block.

    Attributes:
        most: The peak, in bytes.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.most = self._now = 0
        self._sizes: dict[weakref.ref[torch.UntypedStorage], int] = {}

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        before = _storages((args, kwargs))
        outputs = function(*args, **(kwargs or {}))
        for number, storage in _storages(outputs).items():
            if number not in before:
                self._sizes[weakref.ref(storage, self._release)] = storage.nbytes()
                self._now += storage.nbytes()
                self.most = max(self.most, self._now)
        return outputs

    def _release(self, storage: "weakref.ref[torch.UntypedStorage]") -> None:
        self._now -= self._sizes.pop(storage)


def _storages(values: Any) -> dict[int, torch.UntypedStorage]:
    """The memory of tensors, each by the identity that it keeps while it is held."""
    tensors = (leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor))
    memory = [t.untyped_storage() for t in tensors if t.layout == torch.strided and not t.is_nested]
    return {id(storage): storage for storage in memory}
