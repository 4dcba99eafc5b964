"""Backends of the random numbers: which one serves a tensor, and how to choose one."""

import contextlib
import contextvars
import functools
import importlib
import warnings
from collections.abc import Iterator
from typing import Any, Protocol, cast

from torch import Tensor

from wellposed._torch import PLAIN_TYPES
from wellposed.errors import WellposedError
from wellposed.random.box import Layout
from wellposed.random.draw import Draw
from wellposed.random.native import missing


class Backend(Protocol):
    """The interface of a backend's module."""

    NAME: str

    def serves(self, tensor: Tensor) -> bool:
        """Whether this backend can work on ``tensor``."""

    def fill_(self, tensor: Tensor, draw: Draw, key: int, call: int, layout: Layout) -> None:
        """Fill ``tensor`` with the draw's values at the layout's global indices; ``key`` are the key's 64 bits."""

    def thin(self, x: Tensor, cut: Any, key: int, call: int, layout: Layout, shift: Tensor | None = None) -> Tensor:
        """A contiguous copy of ``x`` with elements dropped and the others scaled as the cut says.

        Where tensors do not lie on the host, the cut may be its numbers in a tensor, see ``cut_tensor``, and a shift
        there may be added to the call number: both are read when the device comes to it.
        """


# The backends to try for a tensor of the host, best first.
_ON_CPU = ("reference",) if missing else ("cpu", "reference")
TRITON_DEVICES = ("cuda", "xpu")  # torch calls AMD's devices "cuda", too
_ADVICE = {"gpu": ", which needs Triton: pip install triton, or torch's own packages for a GPU, which bring it"}
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
    found = _find(tensor)
    if found is not None:
        return found
    if _chosen.get() != "auto":
        raise WellposedError(
            f"the {_chosen.get()!r} backend cannot serve a {tensor.dtype} tensor on {tensor.device}; "
            'choose wp.random.backend("auto") or "reference"'
        )
    raise WellposedError(
        f"no backend serves a {tensor.dtype} tensor of layout {tensor.layout} on {tensor.device}; expected a dense one"
    )


def kernels_for(tensor: Tensor) -> Any:
    """The backend that serves ``tensor``, if it is one with kernels for more than fills and masks; else ``None``."""
    found = _find(tensor)
    return None if found is None or found.NAME == "reference" else found


def in_memory_order(tensor: Tensor) -> Tensor:
    """The tensor, or a copy that is contiguous and not lazily negated, as kernels need it."""
    return tensor if tensor.is_contiguous() and not tensor.is_neg() else tensor.resolve_neg().contiguous()


def _find(tensor: Tensor) -> Backend | None:
    chosen = _chosen.get()
    for name in _candidates(tensor) if chosen == "auto" else (chosen,):
        backend = _loaded.get(name) or _load(name)
        if backend.serves(tensor):
            return backend
    return None


def _candidates(tensor: Tensor) -> tuple[str, ...]:
    """The backends to try for a tensor, best first."""
    if tensor.is_cpu:
        return _ON_CPU
    is_reached = tensor.device.type in TRITON_DEVICES and type(tensor) in PLAIN_TYPES
    return _on_gpu() if is_reached else ("reference",)


@functools.cache
def _on_gpu() -> tuple[str, ...]:
    try:
        _load("gpu")
    except WellposedError as error:
        warnings.warn(f"{error}; until then plain torch serves, hundreds of times slower", RuntimeWarning, stacklevel=2)
        return ("reference",)
    return ("gpu", "reference")


def _load(name: str) -> Backend:
    if name not in _loaded:
        try:
            _loaded[name] = cast(Backend, importlib.import_module(f"wellposed.random.{name}"))
        except ImportError as error:
            raise WellposedError(
                f"the {name!r} backend is not available here ({error}){_ADVICE.get(name, '')}; "
                "choose 'auto' or 'reference'"
            ) from error
    return _loaded[name]
