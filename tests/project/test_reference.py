"""The reference in the site has every public name once and no other, and its docstrings render as they are meant."""

import inspect
import re
from pathlib import Path
from types import ModuleType

import pytest
from test_public_api import NAMES, value_of

ROOT = Path(__file__).parents[2]
PUBLIC = NAMES.read_text().split()
ENTRY = re.compile(r"^(?: {3}~|```\{py:data\} )wellposed\.([\w.]+)$", re.MULTILINE)
ENTRIES = [
    name for page in sorted((ROOT / "docs" / "reference").glob("*.md")) for name in ENTRY.findall(page.read_text())
]


def test_every_public_name_stands_in_the_reference_once() -> None:
    """By what it leads to: ``wp.Key`` and ``wp.random.Key`` are one entry."""
    entries = [id(value_of(name)) for name in ENTRIES]
    for name in PUBLIC:
        value = value_of(name)
        if not isinstance(value, ModuleType):
            assert entries.count(id(value)) == 1, f"{name} stands in docs/reference {entries.count(id(value))} times"


def test_nothing_else_stands_in_the_reference() -> None:
    assert sorted(set(ENTRIES) - set(PUBLIC)) == []


@pytest.mark.parametrize("name", [name for name in ENTRIES if inspect.isclass(value_of(name))])
def test_properties_are_not_taken_for_types(name: str) -> None:
    """The first line of a property's docstring is shown as its type up to a colon, and as its text from there on."""
    for step, value in inspect.getmembers(value_of(name), lambda value: isinstance(value, property)):
        ours = (getattr(value.fget, "__module__", "") or "").startswith("wellposed")
        assert step.startswith("_") or not ours or ": " not in (inspect.getdoc(value) or "").split("\n")[0], (
            f"{name}.{step}"
        )
