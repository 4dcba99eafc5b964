"""What may import what, and what an import costs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "wellposed"
GROUND = {"errors", "lazy", "_torch", "random"}
# part -> the parts that it may import, besides itself
FLOORS: dict[str, set[str]] = {
    "errors": set(),
    "forks": set(),
    "lazy": set(),
    "_torch": {"errors"},
    "random": {"errors", "forks", "_torch", "_native"},
    "init": GROUND,
    "penalties": GROUND,
    "dropouts": GROUND,
    "textbook": GROUND,
    "checks": GROUND | {"init", "penalties", "dropouts"},
    "study": GROUND | {"init", "penalties", "dropouts", "checks", "textbook"},
}
HEAVY = ("triton", "matplotlib", "sklearn", "jinja2", "scipy", "pyarrow", "typer", "rich")


def imports(path: Path) -> set[str]:
    """The parts of the package that a file imports; names taken from the package itself count by their part."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            names = [node.module or ""]
            if node.module == "wellposed":
                names = [f"wellposed.{alias.name}" for alias in node.names]
        found |= {name.split(".")[1] for name in names if name.startswith("wellposed.")}
        found |= {"wellposed" for name in names if name == "wellposed"}
    return found


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda path: str(path.relative_to(SOURCE)))
def test_each_floor_stands_on_those_below(path: Path) -> None:
    part = path.relative_to(SOURCE).parts[0].removesuffix(".py")
    if part in ("__init__", "__main__", "cli", "environment"):
        return
    allowed = FLOORS[part] | {part} | ({"wellposed"} if part in ("study", "checks") else set())
    assert imports(path) <= allowed


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
