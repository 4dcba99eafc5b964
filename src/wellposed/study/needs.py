"""Optional packages, imported when they are first used."""

import importlib
from types import ModuleType

from wellposed.errors import WellposedError

# The packages of the extra ``study``.
EXTRA = ("scikit-learn", "matplotlib", "jinja2", "pyarrow", "safetensors", "scipy", "threadpoolctl")
CLUSTER = ("distributed",)  # of the extra ``cluster``


def need(module: str) -> ModuleType:
    """Import a module of the ``study`` extra, or of ``cluster``.

    Args:
        module: Its dotted name.

    Returns:
        The module.

    Raises:
        WellposedError: If its package is not installed; the message says what to install.

    Example:
        >>> need("json").__name__
        'json'
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = (error.name or module).partition(".")[0]
        extra = CLUSTER if package in CLUSTER else EXTRA
        raise WellposedError(
            f"the study needs {package}, which is not installed; install what it needs with: pip install "
            f"{' '.join(extra)}"
        ) from error
