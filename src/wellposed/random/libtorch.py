"""Functions of the libraries that torch itself is made of, by their names in C."""

import ctypes
import functools
from pathlib import Path
from typing import Any

import torch


@functools.cache
def c_function(name: str, part: str = "cpu") -> Any:
    """A function of a part of torch or of what it depends on; ``None`` where this build has none of that name."""
    for library in (Path(torch.__file__).parent / "lib").glob(f"libtorch_{part}.*"):
        try:
            return getattr(ctypes.CDLL(str(library)), name)
        except (OSError, AttributeError):
            continue
    return None
