"""Initialization, regularization and dropout for PyTorch, reproducible on every device, thread count and sharding.

The public names are those of ``__init__.pyi``, one a line; each is imported when it is first used.
"""

import ast as _ast
from importlib import import_module as _import_module
from importlib.metadata import version as _version
from pathlib import Path as _Path

from wellposed import forks as _forks  # noqa: F401  # which has to be there before a fork

__version__ = _version("wellposed")

_FACE = {
    name.name: line.module or ""
    for line in _ast.parse(_Path(__file__).with_suffix(".pyi").read_text()).body
    if isinstance(line, _ast.ImportFrom)
    for name in line.names
}
__all__ = [*_FACE, "__version__"]


def __getattr__(name: str) -> object:
    if name not in _FACE:
        raise AttributeError(f"module 'wellposed' has no attribute {name!r}")
    home = _FACE[name]
    value = _import_module(f"wellposed.{name}") if home == __name__ else getattr(_import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
