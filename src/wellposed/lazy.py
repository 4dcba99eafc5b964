"""Packages whose names are imported when they are first used; the stub beside each says where they live."""

import ast
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path


def names_of(package: str, file: str) -> tuple[list[str], Callable[[str], object]]:
    """The names of a package, and what gives one when it is first asked for: its ``__getattr__``.

    Args:
        package: The package's ``__name__``.
        file: Its ``__file__``; beside it lies ``__init__.pyi`` with a line ``from home import name as name`` for each.
    """
    homes = {
        name.name: line.module or ""
        for line in ast.parse(Path(file).with_suffix(".pyi").read_text()).body
        if isinstance(line, ast.ImportFrom)
        for name in line.names
    }

    def get(name: str) -> object:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        home, part = homes[name], f"{package}.{name}"
        # A part that is called as its function, and so is written as that function in the stub, is imported as a part.
        value = import_module(part) if home in (package, part) else getattr(import_module(home), name)
        setattr(sys.modules[package], name, value)
        return value

    return [*homes], get
