"""Running a model: on generators of its own, without a warning, and with the memory of its activations measured."""

import contextlib
import re
import warnings
import weakref
from collections.abc import Iterator
from typing import Any

import torch

from wellposed._torch import TorchDispatchMode, taking_a_generator
from wellposed.models.example import tensors_in


class OwnGenerators(TorchDispatchMode):
    """Random operators draw from generators of this block's own; torch's, which all threads share, are left alone.

    Args:
        words: The 64 bits that the generators are seeded with, as a key's two words.

    Attributes:
        drew: Whether an operator has drawn.
    """

    def __init__(self, words: tuple[int, int]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.drew = False
        self._seed = words[0] | words[1] << 32
        self._generators: dict[torch.device, torch.Generator] = {}

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        draws = torch.Tag.nondeterministic_seeded in function.tags and function.namespace != "wellposed"
        if not draws or given.get("generator") is not None:
            return function(*args, **given)
        device = torch.device(given.get("device") or next((t.device for t in tensors_in(args)), "cpu"))
        taking = taking_a_generator(function)
        if device.type == "meta":
            return function(*args, **given)
        # What takes no generator, as fused attention, may have torch's, whose state is then put back.
        generator = self._own(device) if taking is not None else _torchs(device)
        before = generator.get_state()
        if taking is not None:
            outputs = taking(*args, **given | {"generator": generator})
        else:
            outputs = function(*args, **given)
        after = generator.get_state()
        if not torch.equal(before, after):
            if taking is None:
                generator.set_state(before)
            self.note()
        return outputs

    def note(self) -> None:
        """Take note that an operator has drawn."""
        self.drew = True

    def _own(self, device: torch.device) -> torch.Generator:
        if device not in self._generators:
            self._generators[device] = torch.Generator(device).manual_seed(self._seed)
        return self._generators[device]


def _torchs(device: torch.device) -> torch.Generator:
    """Torch's default generator of a device."""
    if device.type != "cuda":
        return torch.default_generator
    return torch.cuda.default_generators[torch.cuda.current_device() if device.index is None else device.index]


@contextlib.contextmanager
def ignored(message: str) -> Iterator[None]:
    """Ignore warnings that begin with a message, in all threads.

    Other than ``warnings.catch_warnings``, it puts nobody's filters back, which another thread may have changed.
    """
    filters: Any = warnings.filters
    entry = ("ignore", re.compile(re.escape(message)), Warning, None, 0)
    filters.insert(0, entry)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # where all filters were taken out meanwhile
            filters.remove(entry)


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
