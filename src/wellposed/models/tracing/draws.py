"""Random draws that a model makes otherwise than by a known module: found by watching it run."""

import contextlib
import linecache
from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from wellposed._torch import line_outside_torch, modules_being_called
from wellposed.models.copying import sharing_parameters
from wellposed.models.example import arguments, copied
from wellposed.models.names import joined
from wellposed.models.running import OwnGenerators


@dataclass(frozen=True)
class WatchedRun:
    """What was seen of one run of a model.

    Attributes:
        drawn: Path -> the lines of source, each "file:line: text", from which a random operator of torch's was reached.
        ran: The paths of the modules that were called.
        unseen: The paths of modules that were not, so that what they do is not known: of modules inside one another
            the outermost, and only those with a ``forward`` that is neither torch's nor wellposed's.
        paths: The modules of the copy that ran -> their paths.
    """

    drawn: dict[str, list[str]]
    ran: frozenset[str]
    unseen: tuple[str, ...]
    paths: dict[nn.Module | None, str]


def draws(
    model: nn.Module,
    example: Any,
    *,
    training: bool,
    beside: Callable[[nn.Module], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext,
) -> WatchedRun:
    """The random draws of one run of a model, by the path of the module that makes them.

    Args:
        model: The model. A copy runs, which shares its parameters; neither it nor torch's generators are touched.
        example: An input: a tensor, a tuple of arguments or a mapping of keyword arguments.
        training: Whether the copy is in training mode.
        beside: From the copy to a context manager that it runs in.

    Returns:
        What was seen. The generators always start from the same seed.

    Raises:
        WellposedError: If the model or the example cannot be copied.
    """
    other = sharing_parameters(model).train(training)
    called: set[nn.Module] = set()
    for module in other.modules():
        module.register_forward_pre_hook(lambda module, _: called.add(module))
    watch = _Watch()
    args, kwargs = copied(arguments(example))
    with torch.no_grad(), watch, beside(other):
        other(*args, **kwargs)
    paths: dict[nn.Module | None, str] = {module: path for path, module in other.named_modules()}
    found: dict[str, list[str]] = {}
    for drawer, line in watch.seen:
        found.setdefault(paths.get(drawer, ""), []).append(line)
    called.update(drawer for drawer, _ in watch.seen if drawer is not None)  # perhaps by another method than forward
    ran = frozenset(path for path, module in other.named_modules(remove_duplicate=False) if module in called)
    drawn = {path: list(dict.fromkeys(lines)) for path, lines in found.items()}
    return WatchedRun(drawn, ran, tuple(_unseen(other, called)), paths)


def _unseen(module: nn.Module, called: Set[nn.Module], path: str = "") -> Iterator[str]:
    """The paths of the outermost modules that were not called and whose ``forward`` nobody knows."""
    forward = getattr(type(module), "forward", None)
    is_known = str(getattr(forward, "__module__", "")).partition(".")[0] in ("torch", "wellposed")
    if module not in called and not is_known:
        yield path
        return
    for name, child in module.named_children():
        yield from _unseen(child, called, joined(path, name))


class _Watch(OwnGenerators):
    """Notes each random operator: the innermost module that is being called, and the line outside torch it came by."""

    def __init__(self) -> None:
        super().__init__((0, 0))
        self.seen: list[tuple[nn.Module | None, str]] = []

    def note(self) -> None:
        self.seen.append((next(modules_being_called(), None), line_of_source()))


def line_of_source() -> str:
    """The line outside torch and wellposed that is being run, as "file:line: text"."""
    module, name, number = line_outside_torch(stacklevel=2)
    return f"{module}:{number}: {linecache.getline(name, number).strip()}"
