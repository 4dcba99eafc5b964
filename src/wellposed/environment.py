"""Versions, devices and backends of this installation."""

import contextlib
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from wellposed import random
from wellposed.errors import WellposedError
from wellposed.random import native

_PACKAGES = ("wellposed", "torch", "numpy", "triton", "scikit-learn", "matplotlib", "jinja2", "pyarrow")


def environment() -> dict[str, Any]:
    """Versions, threads, devices and backends, plain values.

    Returns:
        A name and a fact each; a package that is not installed says so.

    Example:
        >>> environment()["torch"] == torch.__version__
        True
    """
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        **{name: _version(name) for name in _PACKAGES},
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "devices": ["cpu", *(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))],
        "backends": _backends(),
        "native core": native.missing or _instruction_set(native.core.instruction_set()),
    }


def _instruction_set(name: str) -> str:
    vectors = {"v4": "x86-64-v4, AVX-512", "v3": "x86-64-v3, AVX2"}.get(name, platform.machine())
    return f"instruction set {name} ({vectors})"


def _version(name: str) -> str:
    if name == "torch":
        return torch.__version__
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _backends() -> list[str]:
    found = []
    for name in ("reference", "cpu", "gpu"):
        with contextlib.suppress(WellposedError), random.backend(name):
            found.append(name)
    return found
