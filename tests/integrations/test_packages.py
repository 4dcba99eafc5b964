"""Libraries that are missing or too old are refused before they are imported."""

import importlib
import importlib.metadata
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

import wellposed as wp
from wellposed.integrations import packages

NAMES = sorted(packages.OLDEST)


def without(monkeypatch: pytest.MonkeyPatch, name: str, version: Any) -> Any:
    """Import an integration anew where the library has another version, or is not there."""
    monkeypatch.setattr(packages, "version", version)
    monkeypatch.delitem(sys.modules, f"wellposed.integrations.{name}", raising=False)
    return importlib.import_module(f"wellposed.integrations.{name}")


@pytest.mark.parametrize("name", NAMES)
def test_a_library_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    def version(package: str) -> str:
        raise importlib.metadata.PackageNotFoundError(package)

    with pytest.raises(wp.WellposedError, match=rf"needs {name}>=.*not installed.*wellposed\[{name}\]"):
        without(monkeypatch, name, version)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("found", ["0.9.9", "1.0.0rc1"])
def test_a_library_that_is_too_old_is_named(monkeypatch: pytest.MonkeyPatch, name: str, found: str) -> None:
    with pytest.raises(wp.WellposedError, match=rf"found {name} {found}; expected {packages.OLDEST[name]} or newer"):
        without(monkeypatch, name, lambda package: found)


@pytest.mark.parametrize("name", NAMES)
def test_the_extras_ask_for_what_the_code_asks_for(name: str) -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert f"{name}>={packages.OLDEST[name]}" in project["optional-dependencies"][name]


@pytest.mark.parametrize("version", ["2.6.0", "2.6.6", "2.10", "3.0.0.dev1"])
def test_newer_versions_are_taken(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    monkeypatch.setattr(packages, "version", lambda package: version)
    packages.require("lightning")


def test_nothing_is_imported_that_nobody_uses() -> None:
    import subprocess

    code = "import sys, wellposed.integrations, wellposed.integrations.verbs; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not set(modules) & set(NAMES)
