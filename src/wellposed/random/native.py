"""Import of the native core: whether it is installed, and if it is not, why and how to get it.

``from wellposed.random.native import core`` is the core, ``wellposed._native``, or an ``ImportError`` that says that.
"""

import functools
import os
import runpy
import warnings
from pathlib import Path

from wellposed import forks
from wellposed._torch import parallel_for

__all__ = ["core", "missing"]

_ROOT = Path(__file__).parents[3]
_DIGEST = _ROOT / "build_tools" / "digest.py"  # which a checkout has and an installed wheel does not


def _advice(error: ImportError) -> str:
    unbuilt = isinstance(error, ModuleNotFoundError)
    why = "was not built when wellposed was installed" if unbuilt else f"cannot be loaded here ({error})"
    again = "-e ." if _DIGEST.exists() else "--no-cache-dir --force-reinstall --no-deps wellposed"
    return f"the native core {why}; `pip install -v {again}` builds it, or shows what is in the way"


def _warn_if_stale() -> None:
    """Warn in a checkout whose sources have changed since the core was built from them."""
    if _DIGEST.exists() and core.source_digest() != runpy.run_path(str(_DIGEST))["source_digest"](_ROOT):
        warnings.warn(
            "the native core was built from other sources than native/ has now; `pip install -e .` builds it again",
            RuntimeWarning,
            stacklevel=2,
        )


def __getattr__(name: str) -> object:
    raise ImportError(missing) if name == "core" else AttributeError(f"module {__name__!r} has no attribute {name!r}")


missing = ""  # why there is no core, and how to get it
try:
    import wellposed._native as core
except ImportError as error:
    missing = _advice(error)
    warnings.warn(f"{missing}; until then plain torch serves, many times slower", RuntimeWarning, stacklevel=2)
else:
    _warn_if_stale()
    core.use(0 if forks.is_forked else parallel_for())
    if hasattr(os, "register_at_fork"):  # a child has none of torch's threads, and would wait for them for ever
        os.register_at_fork(after_in_child=functools.partial(core.use, 0))
