"""Running a model: torch's generators restored afterwards, and the peak memory of its activations measured."""

import contextlib
import weakref
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from wellposed._torch import TorchDispatchMode
from wellposed.models.example import tensors_in


@contextlib.contextmanager
def own_generators(values: Any) -> Iterator[list[torch.Generator]]:
    """Give torch's default generators, of the CPU and of the tensors' devices; their states are restored afterwards."""
    devices = {tensor.device.index for tensor in tensors_in(values) if tensor.is_cuda}
    generators = [torch.default_generator, *(torch.cuda.default_generators[index] for index in sorted(devices))]
    states = [generator.get_state() for generator in generators]
    try:
        yield generators
    finally:
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)


def seed_all(generators: Iterable[torch.Generator], words: tuple[int, int]) -> list[Tensor]:
    """Seed generators with the 64 bits of a key's two words, and return their states."""
    return [generator.manual_seed(words[0] | words[1] << 32).get_state() for generator in generators]


class PeakMemory(TorchDispatchMode):
    """Measures the peak memory of the tensors that operators make inside a ``with`` block.

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
        before = storages((args, kwargs))
        outputs = function(*args, **(kwargs or {}))
        for number, storage in storages(outputs).items():
            if number not in before:
                self._sizes[weakref.ref(storage, self._release)] = storage.nbytes()
                self._now += storage.nbytes()
                self.most = max(self.most, self._now)
        return outputs

    def _release(self, storage: "weakref.ref[torch.UntypedStorage]") -> None:
        self._now -= self._sizes.pop(storage)


def storages(values: Any) -> dict[int, torch.UntypedStorage]:
    """The memory of the tensors in values, each by its identity, which is its own for as long as it is referred to."""
    memory = [t.untyped_storage() for t in tensors_in(values) if t.layout == torch.strided and not t.is_nested]
    return {id(storage): storage for storage in memory}
