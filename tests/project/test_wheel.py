"""What others install: a source archive that builds by itself, a wheel with the core, and one without it.

Each is tried in an environment of its own that borrows nothing from this one but torch and its like.
"""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import wellposed as wp
from wellposed.random import cpu

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
ON_GPU = ["gpu"] if importlib.util.find_spec("triton") else []
FOLDERS = (".ci", "native", "build_tools", "src", "docs", "tests", "benchmarks")
BUILT = shutil.ignore_patterns("*.so", "*.pyc", "__pycache__", "*.egg-info", "_build")
DATA = {"wellposed/py.typed", "wellposed/__init__.pyi", "wellposed/study/report.html.jinja"}
LATER = (12, 13)  # minor versions of Python in which the core of the wheel is loaded, where the machine has them
LOAD = """
import array, importlib.util, json, sys
spec = importlib.util.spec_from_file_location("wellposed._native", sys.argv[1])
core = importlib.util.module_from_spec(spec)
spec.loader.exec_module(core)
core.use(0)
words = array.array("i", [0] * 1000)
core.fill(words.buffer_info()[0], *(bytes.fromhex(x) if isinstance(x, str) else x for x in json.loads(sys.argv[2])))
print(json.dumps([sys.version_info[1], words.tolist()]))
"""
USE = """
import json, torch, wellposed as wp
from wellposed.environment import environment
drawn, dropped = wp.random.normal(1000, wp.Key(7)), wp.dropout(torch.ones(1000), 0.3, key=wp.Key(7), call=1)
print(json.dumps([wp.__file__, environment(), drawn.tolist(), dropped.tolist()]))
"""


def call(*command: str | Path, at: Path, **environment: str) -> str:
    """What a command prints, run in another folder and without this one's settings."""
    settings = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "CXX"))}
    done = subprocess.run(command, cwd=at, env=settings | environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A source archive, made from a copy since Setuptools writes into the folder that it works in."""
    folder = tmp_path_factory.mktemp("source")
    for path in ROOT.iterdir():
        if path.is_file() and path.name != ".git":
            (folder / path.name).write_bytes(path.read_bytes())
    for name in FOLDERS:
        shutil.copytree(ROOT / name, folder / name, ignore=BUILT)
    make = "import sys; sys.path.insert(0, 'build_tools'); import backend; backend.build_sdist('dist')"
    call(sys.executable, "-c", make, at=folder)
    (made,) = (folder / "dist").glob("wellposed-*.tar.gz")
    return made


def wheel(archive: Path, folder: Path, **environment: str) -> tuple[Path, set[str]]:
    """The wheel that pip makes of the archive, and the names of what is in it."""
    call(sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", ".", archive, at=folder, **environment)
    (made,) = folder.glob("*.whl")
    with zipfile.ZipFile(made) as content:
        return made, set(content.namelist())


def use(wheel: Path, folder: Path) -> dict[str, object]:
    """What the installed package says of its environment, once it is known to be the wheel's and to draw our values."""
    venv.create(folder / "env", symlinks=True)
    python = folder / "env" / "bin" / "python"
    call(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", wheel, at=folder)
    (packages,) = (folder / "env" / "lib").glob("python*/site-packages")
    (packages / "borrowed.pth").write_text(str(Path(torch.__file__).parents[1]))
    file, environment, drawn, dropped = json.loads(call(python, "-c", USE, at=folder))
    assert Path(file).is_relative_to(packages)
    assert drawn == wp.random.normal(1000, wp.Key(7)).tolist()
    assert dropped == wp.dropout(torch.ones(1000), 0.3, key=wp.Key(7), call=1).tolist()
    assert environment["wellposed"] == wp.__version__
    return dict(environment)


def test_the_source_archive_holds_what_the_readme_needs(archive: Path) -> None:
    with tarfile.open(archive) as content:
        names = {name.partition("/")[2] for name in content.getnames()}
    assert {
        "native/loops/kernels.cpp",
        "build_tools/backend.py",
        "setup.py",
        "constraints.txt",
        "CONTRIBUTING.md",
    } <= names
    assert {"CITATION.cff", "SECURITY.md", "LICENSE", ".ci/run"} <= names
    assert {"docs/study.svg", "docs/guide/random.md", "tests/conftest.py", "tests/data/public_names.txt"} <= names
    assert not [name for name in names if name.endswith((".so", ".pyc"))]


def test_a_wheel_has_the_core_and_serves_every_python(archive: Path, tmp_path: Path) -> None:
    made, names = wheel(archive, tmp_path)
    assert made.name.startswith(f"wellposed-{wp.__version__}-cp311-abi3-")
    assert DATA | {"wellposed/_native.abi3.so"} <= names
    assert not [name for name in names if name.endswith((".cpp", ".h"))]
    environment = use(made, tmp_path)
    assert str(environment["native core"]).startswith("instruction set")
    assert environment["backends"] == ["reference", "cpu", *ON_GPU]


def other_python(minor: int) -> Path:
    """Python 3.minor of this machine, on the path or pyenv's."""
    found = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")).glob(f"versions/3.{minor}.*/bin/python")
    for python in (shutil.which(f"python3.{minor}"), *found):
        if python and not subprocess.run([python, "-c", ""], capture_output=True, check=False).returncode:
            return Path(python)
    pytest.skip(f"no Python 3.{minor} here")


@pytest.mark.parametrize("minor", LATER)
def test_the_core_is_the_same_in_later_pythons(
    minor: int, archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = other_python(minor)
    made, _ = wheel(archive, tmp_path)
    with zipfile.ZipFile(made) as content:
        core = content.extract("wellposed/_native.abi3.so", tmp_path)
    wanted = wp.random.bits(1000, wp.Key(7), call=3)
    asked: list[object] = []  # what the core is called with, but for the address
    with monkeypatch.context() as patch:
        patch.setattr(cpu, "core", SimpleNamespace(fill=lambda _, *rest: asked.extend(rest)))
        wp.random.bits(1000, wp.Key(7), call=3)
    arguments = json.dumps([x.hex() if isinstance(x, bytes) else x for x in asked])
    told, words = json.loads(call(python, "-c", LOAD, core, arguments, at=tmp_path))
    assert told == minor
    assert words == wanted.view(torch.int32).tolist()


def test_without_a_compiler_that_works_the_reference_serves(archive: Path, tmp_path: Path) -> None:
    made, names = wheel(archive, tmp_path, CXX="false")
    assert names >= DATA
    assert "wellposed/_native.abi3.so" not in names
    environment = use(made, tmp_path)
    assert "was not built" in str(environment["native core"])
    assert "pip install" in str(environment["native core"])
    assert environment["backends"] == ["reference", *ON_GPU]
