"""The public names, frozen: a change here is a change of the interface and belongs in the changelog."""

import ast
import inspect
import pickle
from pathlib import Path
from types import ModuleType

import wellposed as wp

NAMES = Path(__file__).parents[1] / "data" / "public_names.txt"
PARTS = ("random", "init", "constraints", "textbook")


def names_in(module: ModuleType) -> list[str]:
    """What a module defines or imports as itself, for one that does not list its names."""
    own = ast.parse(inspect.getsource(module)).body
    exported = [alias.asname for node in own if isinstance(node, ast.ImportFrom) for alias in node.names]
    defined = [node.name for node in own if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    return [name for name in (*exported, *defined) if name and not name.startswith("_")]


def public_names() -> list[str]:
    """``name`` for the face, ``part.name`` for the parts that are reached through it."""
    names = [name for name in dir(wp) if not name.startswith("__")]
    for part in PARTS:
        if part in names:
            module = getattr(wp, part)
            names += [f"{part}.{name}" for name in getattr(module, "__all__", None) or names_in(module)]
    return sorted(names)


def test_the_public_names_are_those_on_record() -> None:
    assert public_names() == NAMES.read_text().split()


def test_every_public_name_is_documented() -> None:
    for name in public_names():
        value: object = wp
        for step in name.split("."):
            value = getattr(value, step)
        assert inspect.getdoc(value), name


def test_names_come_from_where_they_say() -> None:
    assert pickle.loads(pickle.dumps(wp.Key(3))) == wp.Key(3)
    assert wp.Key is wp.random.Key
    assert wp.Box is wp.random.Box


if __name__ == "__main__":
    NAMES.write_text("\n".join(public_names()) + "\n")
