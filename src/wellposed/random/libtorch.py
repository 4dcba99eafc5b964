"""Functions of the library that torch itself is made of, by their C names."""

import ctypes
import functools
from pathlib import Path
from typing import Any

import torch


@functools.cache
def c_function(name: str) -> Any:
    """A function of torch's library or of one that it depends on; ``None`` where this build has none of that name."""
    for library in (Path(torch.__file__).parent / "lib").glob("libtorch_cpu.*"):
        try:
            return getattr(ctypes.CDLL(str(library)), name)
        except (OSError, AttributeError):
            continue
    return None
