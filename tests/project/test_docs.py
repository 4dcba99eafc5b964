"""What the documents say runs, and where they point there is something."""

import ast
import importlib
import inspect
import os
import re
import shlex
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from torch.multiprocessing.spawn import spawn

import wellposed as wp
from peers import prepare_torchvision
from wellposed.cli import app

ROOT = Path(__file__).parents[2]
WRITTEN = ("runs/", "recommended.py")  # what the study writes
LOGGED = ("wellposed/penalty", "wellposed/sparsity", "wellposed/nan_steps")  # names of figures, by integrations
PAGES = sorted([*ROOT.glob("*.md"), *(page for page in (ROOT / "docs").rglob("*.md") if "_build" not in page.parts)])
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
BLOCK = re.compile(r"^```(?:python|\{code-cell\}[^\n]*)\n(?:(?::[^\n]*\n)*\n?)(.*?)^```", re.DOTALL | re.MULTILINE)
LIBRARIES = re.compile(r"^(?:import|from) (?:accelerate|lightning|peft|timm|transformers)\b", re.MULTILINE)


def run_blocks(page: Path) -> dict[str, Any]:
    """Run a page from top to bottom, and return the names that it has made."""
    text = page.read_text()
    if LIBRARIES.search(text):
        prepare_torchvision()
    names: dict[str, Any] = {"__name__": "example"}
    for number, block in enumerate(BLOCK.findall(text)):
        code = re.sub(r"^%.*$", "", block, flags=re.MULTILINE)  # what only a notebook understands
        exec(compile(code, f"{page.name}[{number}]", "exec"), names)
    return names


@pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec.. is deprecated:FutureWarning")  # by Lightning
@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_python_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    state = torch.get_rng_state()
    run_blocks(page)
    torch.set_rng_state(state)


def _run_as_one_of(rank: int, port: int, world: int) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", rank=rank, world_size=world)
    try:
        names = run_blocks(ROOT / "docs" / "recipes" / "sharded.md")
        for function in ("fully_sharded", "tensor_parallel", "sequence_parallel", "orthogonal_on_shards"):
            names[function](rank, world)
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.slow
@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch was built without distributed")
def test_the_page_on_sharding_runs_on_two_processes() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    spawn(_run_as_one_of, (port, 2), nprocs=2)


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", prose(page)):
        assert (page.parent / target).exists(), target


def prose(page: Path) -> str:
    """A page without its blocks of code."""
    return re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def quoted(page: Path) -> set[str]:
    """What a page has in backticks, outside blocks of code."""
    return set(re.findall(r"`([^`\n]+)`", prose(page)))


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_files_that_are_named_exist(page: Path) -> None:
    """Paths are from the root or from the package; a star stands for any name."""
    for name in quoted(page):
        is_file = re.fullmatch(r"[\w.*/-]*\w\.(py|pyi|md|h|cpp|toml|txt|svg)|[\w.*-]+/[\w.*/-]*", name)
        if is_file and not name.startswith(("/", "wellposed-study/", *WRITTEN, *LOGGED)):
            pattern = name.rstrip("/")
            assert [*ROOT.glob(pattern), *(ROOT / "src" / "wellposed").glob(pattern)], name


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_names_of_ours_that_are_named_exist(page: Path) -> None:
    for dotted in {name for text in quoted(page) for name in re.findall(r"\b(?:wp|wellposed)\.(\w[\w.]*\w)", text)}:
        value: object = wp
        for depth, part in enumerate(dotted.split("."), 1):
            if not hasattr(value, part) and inspect.ismodule(value):
                importlib.import_module(".".join(["wellposed", *dotted.split(".")[:depth]]))
            value = getattr(value, part)


def test_the_chapter_needs_no_other_packages_and_keeps_its_front_matter() -> None:
    text = (ROOT / "docs" / "chapter.md").read_text()
    code = "\n".join(re.sub(r"^%.*$", "", block, flags=re.MULTILINE) for block in BLOCK.findall(text))
    imports = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {alias.name for node in imports for alias in node.names if isinstance(node, ast.Import)}
    names |= {node.module or "" for node in imports if isinstance(node, ast.ImportFrom)}
    packages = {name.partition(".")[0] for name in names} - set(sys.stdlib_module_names)
    assert packages == {"torch", "matplotlib", "wellposed"}
    for line in (
        "slug: /blog/initializationregularizationdropout",
        'date: "2021-04-08"',
        "title: Initialization, Regularization, and Dropout",
        "category: Deep Learning",
        "order: 3",
    ):
        assert f"\n{line}\n" in text.partition("\n---\n")[0] + "\n"


@pytest.fixture(autouse=True)
def figures_put_away() -> Iterator[None]:
    """Pages draw in a style of their own: what runs after them finds matplotlib as it was."""
    plt = pytest.importorskip("matplotlib.pyplot")
    with plt.rc_context():
        yield
    plt.close("all")


def test_a_page_is_cut_into_its_blocks() -> None:
    """A cell's options end with their lines: they do not reach into the code, nor over the cells that follow."""
    cells = "```{code-cell} ipython3\n:tags: [a]\n:b: c\n\nx = 1\n```\n\n```python\ny: int = 2\n```\n"
    assert BLOCK.findall(cells) == ["x = 1\n", "y: int = 2\n"]


COMMANDS = [
    (name, line)
    for page, name in zip(PAGES, NAMES, strict=True)
    for block in re.findall(r"^```\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
    for line in re.findall(r"(?:^|\| )(wellposed .*)", block, re.MULTILINE)
]


@pytest.mark.parametrize(("page", "line"), COMMANDS)
def test_commands_are_ones_that_the_program_takes(page: str, line: str) -> None:
    name, *words = shlex.split(line, comments=True)[1:]
    command: Any = typer.main.get_command(app)
    command.commands[name].make_context(name, words)  # which raises on what it does not know


def test_set_up_is_two_commands() -> None:
    blocks = re.findall(r"^```bash\n(.*?)^```", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    assert [len(block.splitlines()) for block in blocks] == [1, 1]
