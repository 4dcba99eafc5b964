"""What the documents say runs, and where they point there is something."""

import importlib
import inspect
import re
from pathlib import Path

import pytest
import torch

import wellposed as wp

ROOT = Path(__file__).parents[2]
WRITTEN = ("runs/", "recommended.py")  # what the study writes
PAGES = sorted([*ROOT.glob("*.md"), *(page for page in (ROOT / "docs").rglob("*.md") if "_build" not in page.parts)])
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
BLOCK = re.compile(r"^```(?:python|\{code-cell\}[^\n]*)\n(?:(?::.*\n)*\n?)(.*?)^```", re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_python_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    state = torch.get_rng_state()
    names: dict[str, object] = {"__name__": "example"}
    for number, block in enumerate(BLOCK.findall(page.read_text())):
        code = re.sub(r"^%.*$", "", block, flags=re.MULTILINE)  # what only a notebook understands
        exec(compile(code, f"{page.name}[{number}]", "exec"), names)
    torch.set_rng_state(state)


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), target


def quoted(page: Path) -> set[str]:
    """What a page has in backticks, outside blocks of code."""
    return set(re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)))


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_files_that_are_named_exist(page: Path) -> None:
    """Paths are from the root or from the package; a star stands for any name."""
    for name in quoted(page):
        is_file = re.fullmatch(r"[\w.*/-]*\w\.(py|pyi|md|h|cpp|toml|txt|svg)|[\w.*-]+/[\w.*/-]*", name)
        if is_file and not name.startswith(("/", "wellposed-study/", *WRITTEN)):
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


def test_set_up_is_two_commands() -> None:
    blocks = re.findall(r"^```bash\n(.*?)^```", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    assert [len(block.splitlines()) for block in blocks] == [1, 1]
