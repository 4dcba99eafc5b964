"""What the package declares of itself is what its sources and its tests show."""

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest
import test_wheel

from structure import SOURCE
from wellposed.integrations.packages import OLDEST
from wellposed.study.needs import CLUSTER, EXTRA

ROOT = SOURCE.parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
DISTRIBUTIONS = {"sklearn": "scikit-learn", "markupsafe": "jinja2"}  # modules that another package brings
OPTIONAL = {"triton", "matplotlib"}  # imported in a function that says what to install, or that torch brings
UNSAFE = {"marshal", "shelve", "dill", "cloudpickle", "joblib"}
READS = {"eval", "torch.load", "torch.save", "os.system", "pickle.load", "pickle.loads", "pickle.dump"}


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[<>=\[]", requirement)[0] for requirement in requirements} - {"wellposed"}


def used(*paths: Path) -> set[str]:
    """The packages of others that files import, or ask for by ``need("module")``."""
    found = set()
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                found.add(node.module or "")
            elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "need":
                found |= {str(argument.value) for argument in node.args if isinstance(argument, ast.Constant)}
    packages = {name.partition(".")[0] for name in found} - sys.stdlib_module_names - {"wellposed", ""}
    return {DISTRIBUTIONS.get(package, package) for package in packages}


STUDY = {*(SOURCE / "study").rglob("*.py")}
COMMANDS = {*(SOURCE / "cli").rglob("*.py"), SOURCE / "__main__.py"}
INTEGRATIONS = {path for path in (SOURCE / "integrations").glob("*.py") if path.stem in OLDEST}
ESTIMATORS = {*(SOURCE / "sklearn").glob("*.py")}
LIBRARY = {*SOURCE.rglob("*.py")} - STUDY - COMMANDS - INTEGRATIONS - ESTIMATORS


def test_the_library_needs_torch_and_numpy_alone() -> None:
    assert names(PROJECT["dependencies"]) == {"torch", "numpy"}
    assert used(*LIBRARY) <= {"torch", "numpy"} | OPTIONAL


def test_the_extras_are_what_the_study_and_the_commands_import() -> None:
    assert used(*COMMANDS) - {"torch"} == names(EXTRAS["cli"])
    assert used(*STUDY) - {"torch", "numpy"} == names(EXTRAS["study"]) | names(EXTRAS["cluster"]) | {"rich"}
    assert names(EXTRAS["study"]) == {*EXTRA}
    assert names(EXTRAS["cluster"]) == {*CLUSTER}
    assert "wellposed[cli]" in EXTRAS["study"]
    assert "wellposed[study,cluster]" in EXTRAS["dev"]


def test_the_estimators_need_scikit_learn_alone() -> None:
    assert used(*ESTIMATORS) - {"torch", "numpy"} == names(EXTRAS["sklearn"])


def test_each_integration_has_an_extra_with_what_it_imports() -> None:
    assert {path.stem for path in INTEGRATIONS} == {*OLDEST}
    for path in INTEGRATIONS:
        assert path.stem in used(path)
        assert used(path) - {"torch"} <= names(EXTRAS[path.stem])


def test_every_tested_version_is_asked_for_somewhere() -> None:
    pinned = names((ROOT / "constraints.txt").read_text().split())
    asked = names([*PROJECT["dependencies"], *(line for lines in EXTRAS.values() for line in lines)])
    assert pinned == asked


def test_the_pythons_are_those_in_which_a_wheel_is_loaded() -> None:
    minors = [line.rpartition(".")[2] for line in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", line)]
    assert minors == ["11", *map(str, test_wheel.LATER)]
    assert PROJECT["requires-python"] == ">=3.11"


def test_the_citation_is_of_this_version() -> None:
    citation = dict(re.findall(r"^(\w[\w-]*): (.+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE))
    assert citation["version"] == PROJECT["version"]
    assert citation["license"] == PROJECT["license"]
    assert PROJECT["authors"] == [{"name": "The wellposed authors"}]
    assert "  - name: The wellposed authors\n" in (ROOT / "CITATION.cff").read_text()


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda path: str(path.relative_to(SOURCE)))
def test_no_text_is_run_and_no_pickle_is_read(path: Path) -> None:
    """As SECURITY.md has it."""
    tree = ast.parse(path.read_text())
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    modules = {alias.name for node in imports for alias in node.names} | {getattr(n, "module", "") for n in imports}
    assert not modules & UNSAFE
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in READS, called
            # A syntax tree is of code that has been imported already: the model's own.
            assert called != "exec" or ast.unparse(node.args[0]).startswith("compile(ast.")
            assert not (called.startswith("subprocess.") and any(word.arg == "shell" for word in node.keywords)), called
