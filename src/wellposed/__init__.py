"""Initialization, regularization and dropout for PyTorch, reproducible on every device, thread count and sharding.

The public names are those of ``__init__.pyi``, one a line; each is imported when it is first used.
"""

from importlib.metadata import version as _version

from wellposed import forks as _forks  # noqa: F401  # which has to be there before a fork
from wellposed.lazy import names_of as _names_of

__version__ = _version("wellposed")

_names, __getattr__ = _names_of(__name__, __file__)
__all__ = [*_names, "__version__"]


def __dir__() -> list[str]:
    return sorted(__all__)
