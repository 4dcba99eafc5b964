"""Counts of how the package is built: ``python tests/support/structure.py [folder of the package]`` prints them."""

import ast
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "src" / "wellposed"


def modules(source: Path = SOURCE) -> dict[str, Path]:
    """Each module's dotted name in the package, and its file; a package by its ``__init__``."""
    return {
        ".".join(path.relative_to(source).with_suffix("").parts).removesuffix("__init__").removesuffix("."): path
        for path in sorted(source.rglob("*.py"))
    }


def files_by_folder(source: Path = SOURCE) -> dict[str, int]:
    """How many Python files lie in each folder."""
    folders = (str(path.parent.relative_to(source)) for path in source.rglob("*.py"))
    return dict(sorted(Counter(folders).items()))


def repeated_names(source: Path = SOURCE) -> list[str]:
    """Names of files that occur twice, but for ``__init__``."""
    names = Counter(path.stem for path in source.rglob("*.py") if path.stem != "__init__")
    return sorted(name for name, times in names.items() if times > 1)


def repeated_classes(source: Path = SOURCE) -> list[str]:
    """Names of public classes that occur twice."""
    classes = Counter(
        node.name
        for path in source.rglob("*.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    return sorted(name for name, times in classes.items() if times > 1)


def imported(path: Path, known: dict[str, Path], *, inside: bool) -> set[str]:
    """The modules of the package that a file imports: at its top, or inside its functions."""
    tree = ast.parse(path.read_text())
    nodes: Iterator[ast.AST] = iter(tree.body)
    if inside:
        functions = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
        nodes = (node for function in functions for node in ast.walk(function))
    found = set()
    for node in nodes:
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            if name.partition(".")[0] == "wellposed":
                dotted = name.partition(".")[2]
                found.add(dotted if dotted in known else dotted.rpartition(".")[0])
    return found


def part_of(module: str) -> str:
    """The part of the package that a module belongs to: its first folder, or itself."""
    return module.partition(".")[0]


def imports_between_parts(source: Path = SOURCE) -> dict[str, dict[str, int]]:
    """How many files of each part import each other part."""
    known = modules(source)
    between: dict[str, Counter[str]] = {}
    for name, path in known.items():
        others = {part_of(other) for other in imported(path, known, inside=False)} - {part_of(name)}
        between.setdefault(part_of(name), Counter()).update(others)
    return {part: dict(sorted(others.items())) for part, others in sorted(between.items()) if others}


def circles(source: Path = SOURCE) -> list[list[str]]:
    """Modules that import each other in a circle, at their tops."""
    known = modules(source)
    graph = {name: imported(path, known, inside=False) - {name} for name, path in known.items()}
    reached = {name: _reached(graph, name) for name in graph}
    rings = {frozenset(other for other in reached[name] if name in reached[other]) for name in graph}
    return sorted(sorted(ring) for ring in rings if len(ring) > 1)


def _reached(graph: dict[str, set[str]], start: str) -> set[str]:
    seen: set[str] = set()
    todo = [start]
    while todo:
        for name in graph.get(todo.pop(), ()):
            if name not in seen:
                seen.add(name)
                todo.append(name)
    return seen


def private_names_of_torch(source: Path = SOURCE) -> dict[str, int]:
    """How often each file uses a name of torch's that begins with an underscore, where it is written after a dot."""
    counts = {}
    for path in sorted(source.rglob("*.py")):
        used = [
            node.attr
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Attribute) and _is_private(node.attr) and _starts(node) == "torch"
        ]
        used += [
            alias.name
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "torch"
            for alias in node.names
            if _is_private(alias.name) or any(map(_is_private, (node.module or "").split(".")))
        ]
        if used:
            counts[str(path.relative_to(source))] = len(used)
    return counts


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def _starts(node: ast.AST) -> str:
    while isinstance(node, ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


def main(source: Path) -> None:
    """Print all counts."""
    lines = sum(len(path.read_text().splitlines()) for path in source.rglob("*.py"))
    known = modules(source)
    print(f"{len(known)} files, {lines} lines; longest folder {max(files_by_folder(source).values())} files")
    print("files by folder:", files_by_folder(source))
    print("imports between parts:", imports_between_parts(source))
    print("circles:", circles(source) or "none")
    inside = {name: sorted(found) for name, path in known.items() if (found := imported(path, known, inside=True))}
    print("imports inside functions:", inside or "none")
    print("file names that occur twice:", repeated_names(source) or "none")
    print("public class names that occur twice:", repeated_classes(source) or "none")
    print("private names of torch:", private_names_of_torch(source))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else SOURCE)
