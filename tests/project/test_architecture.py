"""What may import what, where things are, and what an import costs."""

import subprocess
import sys

import pytest

import structure
from structure import SOURCE, imported, modules, part_of

GROUND = {"errors", "arguments", "lazy", "schedules", "tabular", "_torch", "random"}
# part -> the parts that it may import, besides itself
FLOORS: dict[str, set[str]] = {
    "errors": set(),
    "forks": set(),
    "lazy": set(),
    "arguments": {"errors"},
    "tabular": set(),
    "schedules": {"errors", "arguments"},
    "_torch": {"errors"},
    "random": {"errors", "arguments", "forks", "_torch", "_native"},
    "configuration": {"errors"},  # it finds the types of all parts by their public names, as pickle does
    "models": GROUND,
    "init": GROUND | {"models", "configuration"},
    "penalties": GROUND | {"models"},
    "compaction": GROUND | {"models", "penalties"},
    "dropouts": GROUND | {"models"},
    "textbook": GROUND,
    "integrations": GROUND | {"models", "init", "penalties", "dropouts"},
    "checks": GROUND | {"models", "init", "penalties", "dropouts"},
    "sklearn": GROUND | {"models", "init", "penalties", "dropouts"},
    "study": GROUND | {"configuration", "models", "init", "penalties", "dropouts", "checks", "textbook", ""},
}
HEAVY = ("triton", "matplotlib", "sklearn", "jinja2", "scipy", "pyarrow", "typer", "rich")
# Imports of our own inside functions: what they spare those who do not need it.
LATER = {
    "cli": {"environment", "study", "study.terminal"},  # `wellposed --help` needs neither torch nor numpy
    "cli.init_command": {"init", "init.checkpoints.factories", "cli.rule_files"},
}
KNOWN = modules()


@pytest.mark.parametrize(
    "module", [name for name in KNOWN if part_of(name) not in ("", "__main__", "cli", "environment")]
)
def test_each_floor_stands_on_those_below(module: str) -> None:
    path, part = KNOWN[module], part_of(module)
    used = {part_of(name) for inside in (False, True) for name in imported(path, KNOWN, inside=inside)}
    assert used <= FLOORS[part] | {part}
    assert "from ." not in path.read_text(), "an import is relative"


def test_nothing_is_imported_in_a_circle() -> None:
    assert structure.circles() == []


def test_imports_inside_functions_are_of_what_is_slow_or_optional() -> None:
    found = {name: imported(path, KNOWN, inside=True) for name, path in KNOWN.items()}
    assert {name: modules for name, modules in found.items() if modules} == LATER


def test_a_folder_is_seen_at_a_glance() -> None:
    assert {folder: files for folder, files in structure.files_by_folder().items() if files > 12} == {}


def test_a_name_is_one_thing() -> None:
    assert structure.repeated_names() == []
    assert structure.repeated_classes() == []


def test_private_names_of_torch_have_one_home() -> None:
    assert set(structure.private_names_of_torch()) == {"_torch.py"}


def test_an_import_is_light() -> None:
    """Neither the import nor the use of every public name pulls in what is heavy."""
    code = "import sys, {0}; [getattr({0}, n) for n in dir({0})]; print(*[n for n in {1} if n in sys.modules])"
    heavy, torchs = (
        subprocess.run([sys.executable, "-c", line], capture_output=True, text=True, check=True).stdout.split()
        for line in (
            code.format("wellposed", HEAVY),
            f"import sys, torch; print(*[n for n in {HEAVY} if n in sys.modules])",
        )
    )
    assert set(heavy) <= set(torchs)


def test_files_can_be_read_in_one_sitting() -> None:
    lengths = {str(path.relative_to(SOURCE)): len(path.read_text().splitlines()) for path in SOURCE.rglob("*.py")}
    assert {name: lines for name, lines in lengths.items() if lines > 450} == {}
