"""How plans and reports show themselves: as a table in a terminal, as HTML in a notebook, as plain values for JSON."""

import dataclasses
import html
import operator
import re
import shutil
import textwrap
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, zip_longest
from typing import Any, Generic, TypeVar

_R = TypeVar("_R")
_LONG = 40  # rows from which on those that repeat are folded into one
_NARROWEST = 10  # letters that a column keeps
_GAP = 2


@dataclass(frozen=True)
class Table:
    """A title, rows of text under a header, and notes.

    Args:
        title: What stands above.
        header: The columns' names.
        rows: A cell for each column; columns without text are left out.
        notes: What stands below.
        measured: The columns whose numbers may differ between rows that are folded into one, which has their range.
        long: How many rows are not yet folded where blocks repeat.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()
    measured: Sequence[str] = ()
    long: int = _LONG

    def text(self, width: int | None = None) -> str:
        """The table as text.

        Args:
            width: How many letters a line may have, 0 for any number; cells are wrapped to fit. ``None`` takes the
                terminal's width, or 100 where there is no terminal.

        Example:
            >>> print(Table("three", ("name", "size", "why"), [("a", "1", ""), ("b", "20", "")]).text())
            three
            name  size
            a     1
            b     20
        """
        width = shutil.get_terminal_size((100, 0)).columns if width is None else width
        cells = self._cells()
        least = [max([_NARROWEST, *map(len, name.split())]) for name in cells[0]]
        widths = _fitted([max(map(len, column)) for column in zip(*cells, strict=True)], least, width)
        lines = [line for row in cells for line in _lines(row, widths)]
        around = [textwrap.fill(text, width) if width else text for text in (self.title, *self.notes)]
        return "\n".join([around[0], *lines, *around[1:]])

    def html(self) -> str:
        """The table as HTML, for notebooks."""
        head, *body = ([html.escape(cell) for cell in row] for row in self._cells())
        lines = ["<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in body]
        names = "".join(f"<th>{cell}</th>" for cell in head)
        notes = "".join(f"<p>{html.escape(note)}</p>" for note in self.notes)
        return f"<p>{html.escape(self.title)}</p><table><tr>{names}</tr>{''.join(lines)}</table>{notes}"

    def _cells(self) -> list[Sequence[str]]:
        """The header and the rows without empty columns; repeated blocks of a long table are folded."""
        measured = [i for i, name in enumerate(self.header) if name in self.measured]
        rows = folded(self.rows, measured) if len(self.rows) > self.long else list(self.rows)
        used = [i for i in range(len(self.header)) if any(row[i] for row in rows) or not rows]
        return [[row[i] for i in used] for row in (self.header, *rows)]


class Tabular(ABC, Generic[_R]):
    """A value that is a sequence of rows and shows itself as a table. Those who extend it are frozen dataclasses."""

    rows: tuple[_R, ...]

    @abstractmethod
    def table(self) -> Table:
        """The rows as a table of text."""

    def __iter__(self) -> Iterator[_R]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __str__(self) -> str:
        return self.table().text()

    def _repr_html_(self) -> str:
        return self.table().html()

    def to_dict(self) -> dict[str, Any]:
        """Everything in plain numbers, text, lists and mappings, ready for JSON; other values as they print."""
        others = (field.name for field in dataclasses.fields(self) if field.name != "rows")  # type: ignore[arg-type]
        values = {name: plain(getattr(self, name)) for name in others}
        return values | {"rows": [plain_row(row) for row in self.rows]}


def plain(value: Any) -> Any:
    """A value in numbers, text, lists and mappings."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return repr(value)


def plain_row(row: Any) -> dict[str, Any]:
    """A row, a dataclass, as a mapping of plain values."""
    return {field.name: plain(getattr(row, field.name)) for field in dataclasses.fields(row)}


def folded(rows: Iterable[Sequence[str]], measured: Sequence[int] = ()) -> list[Sequence[str]]:
    """The rows, with those in one that differ by a number in the path in their first cell and in nothing else.

    Args:
        rows: The rows.
        measured: The columns that may differ, too; they become ranges.

    Example:
        >>> folded([("blocks.0.w", "4x4"), ("blocks.0.b", "4"), ("blocks.1.w", "4x4"), ("blocks.1.b", "4"), ("w", "4")])
        [['blocks.0-1.w', '4x4'], ['blocks.0-1.b', '4'], ('w', '4')]
    """
    result = list(rows)
    depth = max((row[0].count(".") for row in result), default=0)
    for place in range(depth + 1):
        groups: dict[tuple[str, ...], list[Sequence[str]]] = {}
        for row in result:
            path = row[0].split(".")
            number = path[place] if place < len(path) and path[place].isdigit() else None
            pattern = ".".join([*path[:place], "*", *path[place + 1 :]]) if number is not None else row[0]
            same = [cell for i, cell in enumerate(row) if i > 0 and i not in measured]
            groups.setdefault((pattern, *same), []).append(row)
        result = [alike[0] if len(alike) == 1 else _one(alike, place, measured) for alike in groups.values()]
    return result


def _one(alike: list[Sequence[str]], place: int, measured: Sequence[int]) -> Sequence[str]:
    path = alike[0][0].split(".")
    if not path[place].isdigit():
        return alike[0]
    numbers = sorted(int(row[0].split(".")[place]) for row in alike)
    path[place] = _ranges(numbers)
    one = [".".join(path), *alike[0][1:]]
    for i in measured:
        ends = sorted({end for row in alike for end in row[i].split(" to ") if end}, key=float)
        one[i] = " to ".join(dict.fromkeys([ends[0], ends[-1]])) if ends else ""
    return one


def _ranges(numbers: list[int]) -> str:
    steps = {later - earlier for earlier, later in pairwise(numbers)}
    if len(numbers) > 2 and len(steps) == 1 and steps != {1}:
        return f"{numbers[0]},{numbers[1]},..,{numbers[-1]}"
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)


def _fitted(widths: list[int], least: list[int], whole: int) -> list[int]:
    """The widths of columns, the widest made narrower until they fit; no word of the header is broken."""
    room = whole - _GAP * (len(widths) - 1)
    while whole and sum(widths) > room and any(map(operator.gt, widths, least)):
        wide = [width if width > floor else 0 for width, floor in zip(widths, least, strict=True)]
        widths[wide.index(max(wide))] -= 1
    return widths


def _lines(row: Sequence[str], widths: Sequence[int]) -> Iterator[str]:
    cells = [_wrapped(cell, width) for cell, width in zip(row, widths, strict=True)]
    for line in zip_longest(*cells, fillvalue=""):
        yield (" " * _GAP).join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()


def _wrapped(cell: str, width: int) -> list[str]:
    if len(cell) <= width:
        return [cell]
    if " " in cell:
        return textwrap.wrap(cell, width, break_on_hyphens=False)
    # A path is broken at its dots before it is broken anywhere.
    spaced = re.sub(r"(?<=\w)\.(?=\w)", ". ", cell)
    return [line.replace(". ", ".") for line in textwrap.wrap(spaced, width, break_on_hyphens=False)]
