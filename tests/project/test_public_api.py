"""The public names, frozen: a change here is a change of the interface and belongs in the changelog."""

import ast
import inspect
import pickle
from importlib import import_module
from pathlib import Path
from types import ModuleType

import wellposed as wp
from peers import prepare_torchvision

prepare_torchvision()  # which transformers imports
NAMES = Path(__file__).parents[1] / "data" / "public_names.txt"
PARTS = ("random", "init", "constraints", "textbook", "schedules")
# Packages that the face does not name: what is public in them beside the face's own is what its functions return.
BEHIND = ("compaction", "dropouts", "penalties", "penalties.conventions", "study")
# Modules that need a library.
INTEGRATIONS = (*(f"integrations.{name}" for name in ("accelerate", "lightning", "skorch", "transformers")), "sklearn")


def names_in(module: ModuleType) -> list[str]:
    """What a module defines or imports as itself, for one that does not list its names."""
    own = ast.parse(inspect.getsource(module)).body
    exported = [alias.asname for node in own if isinstance(node, ast.ImportFrom) for alias in node.names]
    defined = [node.name for node in own if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    return [name for name in (*exported, *defined) if name and not name.startswith("_")]


def public_names() -> list[str]:
    """``name`` for the face, ``part.name`` for the parts that are reached through it and for what it returns."""
    names = [name for name in dir(wp) if not name.startswith("__")]
    for part in PARTS:
        if part in names:
            module = getattr(wp, part)
            names += [f"{part}.{name}" for name in getattr(module, "__all__", None) or names_in(module)]
    face = {id(value_of(name)) for name in names}
    for part in (*BEHIND, *INTEGRATIONS):
        module = import_module(f"wellposed.{part}")
        found = getattr(module, "__all__", None) or names_in(module)
        names += [f"{part}.{name}" for name in found if id(getattr(module, name)) not in face]
    return sorted(names)


def value_of(name: str) -> object:
    """What a public name leads to."""
    value: object = wp
    for number, step in enumerate(name.split("."), 1):
        if not hasattr(value, step):
            import_module(".".join(["wellposed", *name.split(".")[:number]]))
        value = getattr(value, step)
    return value


def test_the_public_names_are_those_on_record() -> None:
    assert public_names() == NAMES.read_text().split()


def test_every_public_name_is_documented() -> None:
    for name in public_names():
        assert inspect.getdoc(value_of(name)), name


def test_names_come_from_where_they_say() -> None:
    assert pickle.loads(pickle.dumps(wp.Key(3))) == wp.Key(3)
    assert wp.Key is wp.random.Key
    assert wp.Box is wp.random.Box


if __name__ == "__main__":
    NAMES.write_text("\n".join(public_names()) + "\n")
