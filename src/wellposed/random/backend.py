"""Backends of the random numbers: which one serves a tensor, and how to choose one."""

import contextlib
import contextvars
import importlib
from collections.abc import Iterator
from typing import Any, Protocol, cast

from torch import Tensor

from wellposed.errors import WellposedError
from wellposed.random.box import Layout
from wellposed.random.draw import Cut, Draw
from wellposed.random.native import missing


class Backend(Protocol):
    """The interface of a backend's module."""

    def serves(self, tensor: Tensor) -> bool:
        """Whether this backend can work on ``tensor``."""

    def fill_(self, tensor: Tensor, draw: Draw, key: int, call: int, layout: Layout) -> None:
        """Fill ``tensor`` with the draw's values at the layout's global indices; ``key`` are the key's 64 bits."""

    def thin(self, x: Tensor, cut: Cut, key: int, call: int, layout: Layout) -> Tensor:
        """A contiguous copy of ``x`` with elements dropped and the others scaled as the cut says."""


# The backends to try for a tensor, best first. A new backend is one file and one entry here.
_ON_CPU = ("reference",) if missing else ("cpu", "reference")
_ELSEWHERE = ("reference",)
_NAMES = ("auto", "reference", "cpu", "gpu")
_loaded: dict[str, Backend] = {}
_chosen: contextvars.ContextVar[str] = contextvars.ContextVar("wellposed_backend", default="auto")


@contextlib.contextmanager
def backend(name: str) -> Iterator[None]:
    """Choose the backend that draws random numbers inside a ``with`` block; the numbers do not depend on it.

    Args:
        name: "auto" (the fastest that can serve each tensor), "reference" (plain torch), "cpu" or "gpu". An explicit
            choice that cannot serve a tensor raises there and then; it never falls back.

    Raises:
        WellposedError: If the name is unknown or the backend does not exist in this installation.

    Example:
        >>> import torch, wellposed as wp
        >>> with wp.random.backend("reference"):
        ...     slow = wp.random.normal(5, wp.Key(0))
        >>> torch.equal(slow, wp.random.normal(5, wp.Key(0)))
        True
    """
    if name not in _NAMES:
        raise WellposedError(f"backend was given {name!r}; expected one of {', '.join(map(repr, _NAMES))}")
    if name != "auto":
        _load(name)
    token = _chosen.set(name)
    try:
        yield
    finally:
        _chosen.reset(token)


def backend_for(tensor: Tensor) -> Backend:
    """The backend that serves ``tensor``.

    Raises:
        WellposedError: If an explicitly chosen backend cannot.
    """
    chosen = _chosen.get()
    names = (_ON_CPU if tensor.is_cpu else _ELSEWHERE) if chosen == "auto" else (chosen,)
    for name in names:
        backend = _loaded.get(name) or _load(name)
        if backend.serves(tensor):
            return backend
    if chosen != "auto":
        raise WellposedError(
            f"the {chosen!r} backend cannot serve a {tensor.dtype} tensor on {tensor.device}; "
            'choose wp.random.backend("auto") or "reference"'
        )
    raise WellposedError(
        f"no backend serves a {tensor.dtype} tensor of layout {tensor.layout} on {tensor.device}; expected a dense one"
    )


def cpu_for(tensor: Tensor) -> Any:
    """The cpu backend's module if it serves ``tensor``, for operations that only it has kernels for; else ``None``."""
    if not tensor.is_cpu or "cpu" not in _ON_CPU or _chosen.get() == "reference":
        return None
    cpu: Any = _loaded.get("cpu") or _load("cpu")
    return cpu if cpu.serves(tensor) else None


def _load(name: str) -> Backend:
    if name not in _loaded:
        try:
            _loaded[name] = cast(Backend, importlib.import_module(f"wellposed.random.{name}"))
        except ImportError as error:
            raise WellposedError(
                f"the {name!r} backend is not available here ({error}); choose 'auto' or 'reference'"
            ) from error
    return _loaded[name]
