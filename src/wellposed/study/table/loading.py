"""A table, wherever it is, as a dataset."""

import difflib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wellposed.errors import WellposedError
from wellposed.study.needs import need
from wellposed.study.table.dates import ORDERS
from wellposed.study.table.delimited import columns_of_text, first_line
from wellposed.study.table.encodings import decoded, unpacked
from wellposed.study.table.entries import read_columns
from wellposed.study.table.frames import Arrays, columns_of_arrays, columns_of_frame, is_frame
from wellposed.study.table.goal import TASKS, goal_of
from wellposed.study.table.inputs import inputs
from wellposed.study.table.numerals import MARKS
from wellposed.study.training.columns import Column
from wellposed.study.training.dataset import Dataset
from wellposed.study.wording import count

_LEAST_ROWS = 30
_EXPECTED = "expected digits, a path to a CSV or Parquet file, or - for standard input"
_PARQUET, _ZIP = b"PAR1", b"PK\x03\x04"


def load(
    data: Any = "digits",
    target: Any = None,
    *,
    task: str | None = None,
    drop: Sequence[str] = (),
    keep: Sequence[str] = (),
    sep: str | None = None,
    decimal: str | None = None,
    encoding: str | None = None,
    date_order: str | None = None,
) -> Dataset:
    """Load a dataset.

    What the table leaves open is refused, and each decision is a note.

    Args:
        data: ``"digits"`` (1797 images of 8 x 8 pixels, bundled with scikit-learn); a path to a CSV or Parquet file, or
            one that gzip packed; ``"-"`` for standard input; a frame of pandas, polars or pyarrow; arrays ``(X, y)``.
        target: The column to learn; needed for a file and for a frame. Or y, where ``data`` is X.
        task: ``"classification"`` or ``"regression"``, where the target's values do not tell.
        drop: Columns to leave out.
        keep: Columns to learn from though they look like identifiers.
        sep: What stands between the columns of a text.
        decimal: ``"."`` or ``","``, where it cannot be told what stands before the decimals.
        encoding: That of a text, where it is not UTF-8.
        date_order: ``"day-first"`` or ``"month-first"``, where that cannot be told.

    Returns:
        The dataset.

    Raises:
        WellposedError: If the data or the target cannot be used; the message is one sentence that says why.

    Source: the digits, Alpaydin & Kaynak (1998).
    """
    for option, given, known in (
        ("--task", task, TASKS),
        ("--decimal", decimal, MARKS),
        ("--dates", date_order, ORDERS),
    ):
        if given is not None and given not in known:
            raise WellposedError(f"{option} was given {given!r}; expected {' or '.join(map(repr, known))}")
    if isinstance(data, str | Path) and str(data) == "digits":
        return _digits(target)
    name, arrays, target, notes = _arrays(data, target, sep, encoding)
    arrays = [(title or f"column {place}", array) for place, (title, array) in enumerate(arrays, 1)]
    names = [title for title, _ in arrays]
    _check_names(name, names)
    for option, titles in (("--drop", drop), ("--keep", keep)):
        for title in titles:
            _find(option, title, name, names)
    if target in drop:
        raise WellposedError(f"--drop was given {target!r}, which is the target; leave one of the two out")
    _find("--target", target, name, names)
    columns = read_columns([a for a in arrays if a[0] not in drop], decimal=decimal, date_order=date_order)
    return from_columns(name, columns, target, task=task, keep=keep, notes=notes)


def from_columns(
    name: str,
    columns: Sequence[Column],
    target: str | None,
    *,
    task: str | None = None,
    keep: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> Dataset:
    """Make a dataset of columns, one of which is the target.

    Raises:
        WellposedError: If there is no such target, it cannot be learned, or there is nothing to learn it from.
    """
    names = [column.name for column in columns]
    goal = columns[names.index(_find("--target", target, name, names))]
    if goal.strange:
        raise WellposedError(
            f"target {goal.name!r} of {name} holds {goal.strange} values; expected numbers, dates or text"
        )
    rows = np.flatnonzero(~goal.missing)
    if len(rows) < _LEAST_ROWS:
        if not len(goal.values):
            raise WellposedError(f"{name!r} has column names but no rows; expected one row an example")
        raise WellposedError(
            f"{name} has {count(len(rows), 'row')} with a target; a study needs at least {_LEAST_ROWS}"
        )
    told, classes, y, goal_notes = goal_of(goal.take(rows), task)
    features, feature_notes = inputs([column for column in columns if column is not goal], rows, keep)
    notes = [*notes, *goal_notes, *feature_notes]
    if gaps := len(goal.values) - len(rows):
        notes.append(f"Left out {count(gaps, 'row')} without a target.")
    if not features:
        reason = " ".join(note for note in notes if note.startswith("Left out column")) or "it is the only one"
        raise WellposedError(f"{name} has no column to learn {goal.name!r} from; {reason}")
    return Dataset(name, told, goal.name, classes, tuple(features), y, tuple(notes))


def _arrays(
    data: Any, target: Any, sep: str | None, encoding: str | None
) -> tuple[str, Arrays, str | None, tuple[str, ...]]:
    """The name of a table, its columns, its target and notes."""
    if target is not None and np.ndim(target):
        data, target = (data, target), None
    target = None if target is None else str(target)  # a frame's columns may be called by numbers
    if isinstance(data, tuple) and len(data) == 2:
        columns, goal, notes = columns_of_arrays(*data)
        return "arrays", columns, target or goal, notes
    if is_frame(data):
        columns, notes = columns_of_frame(data)
        return "frame", columns, target, notes
    if isinstance(data, str | Path):
        name, content = _content(str(data))
        if content.startswith(_PARQUET) or name.lower().endswith((".parquet", ".pq")):
            return name, _parquet(name, content), target, ()
        text, notes = decoded(name, content, encoding)
        if not text.strip():
            raise WellposedError(f"{name!r} is empty; expected a table with a line of column names")
        columns, more = columns_of_text(name, text, sep)
        return name, columns, target, (*notes, *more)
    hint = "; call .collect() first" if hasattr(data, "collect") else ""
    raise WellposedError(
        f"data was given as {type(data).__name__}; {_EXPECTED}, a frame of pandas or polars, or arrays (X, y){hint}"
    )


def _content(given: str) -> tuple[str, bytes]:
    """A name for messages and reports, and the bytes of a file or of standard input."""
    try:
        if given == "-":
            content = sys.stdin.buffer.read()
        else:
            with open(given, "rb") as file:
                content = file.read()
    except (FileNotFoundError, NotADirectoryError):
        raise WellposedError(f"--data was given {given!r}, but there is no such file; {_EXPECTED}") from None
    except IsADirectoryError:
        raise WellposedError(f"--data was given {given!r}, which is a folder; {_EXPECTED}") from None
    except OSError as error:
        raise WellposedError(f"{given!r} cannot be read: {error.strerror}") from error
    name = "standard input" if given == "-" else Path(given).name
    content = unpacked(name, content)
    if content.startswith(_ZIP):
        raise WellposedError(f"{name!r} is a workbook or another archive; save the table in it as CSV")
    return name, content


def _parquet(name: str, content: bytes) -> Arrays:
    arrow, parquet = need("pyarrow"), need("pyarrow.parquet")
    try:
        table = parquet.read_table(arrow.BufferReader(content))
    except (arrow.ArrowException, OSError) as error:
        raise WellposedError(f"{name!r} cannot be read as a Parquet file: {first_line(error)}") from error
    return columns_of_frame(table)[0]


def _check_names(name: str, names: Sequence[str]) -> None:
    twice = sorted({title for title in names if names.count(title) > 1})
    if twice:
        raise WellposedError(f"{name!r} has more than one column named {twice[0]!r}; give each its own name")


def _find(option: str, given: str | None, name: str, names: Sequence[str]) -> str:
    """A column's name as it is; one that is nearly right is suggested."""
    known = ", ".join(map(repr, names[:12])) + (", ..." if len(names) > 12 else "")
    if given is None:
        raise WellposedError(f"{option} is missing; name the column to learn, one of: {known}")
    if given in names:
        return given
    folded = {title.casefold(): title for title in reversed(names)}
    near = difflib.get_close_matches(given.strip().casefold(), folded, n=2)
    meant = f"; did you mean {' or '.join(repr(folded[title]) for title in near)}?" if near else ""
    raise WellposedError(
        f"{option} was given {given!r}, which is no column of {name}{meant or f'; its columns are: {known}'}"
    )


def _digits(target: object) -> Dataset:
    if target is not None:
        raise WellposedError("--target was given with digits, whose target is fixed; leave --target out")
    bundle = need("sklearn.datasets").load_digits()
    pixels = np.asarray(bundle.data, dtype=np.float64)
    columns = tuple(
        Column(f"pixel {i // 8},{i % 8}", pixels[:, i].copy())
        for i in range(pixels.shape[1])
        if np.ptp(pixels[:, i]) > 0
    )
    note = f"Left out {pixels.shape[1] - len(columns)} pixels that are the same in every image."
    y = np.asarray(bundle.target, dtype=np.int64)
    return Dataset("digits", "classification", "digit", tuple(map(str, range(10))), columns, y, (note,))
