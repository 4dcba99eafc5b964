"""Frames of pandas and polars, tables of pyarrow, and arrays (X, y), as columns."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from wellposed.errors import WellposedError
from wellposed.study.needs import need
from wellposed.study.training.columns import Column

Arrays = list[tuple[str, Any]]


def is_frame(data: Any) -> bool:
    """Whether data is a table with named columns, of pandas, polars or pyarrow."""
    tabular = hasattr(data, "iloc") or hasattr(data, "__arrow_c_stream__")
    return tabular and hasattr(data, "shape") and hasattr(data, "columns")


def columns_of_frame(frame: Any) -> tuple[Arrays, tuple[str, ...]]:
    """Each column's name and its entries, a pyarrow array where there is one; and a note on an index that is left out.

    Raises:
        WellposedError: If the columns have names of several levels.
    """
    titles = list(getattr(frame, "column_names", frame.columns))
    if any(isinstance(title, tuple) for title in titles):
        raise WellposedError("the frame's columns have names of several levels; give each column one name")
    if hasattr(frame, "iloc"):
        columns: Iterable[Any] = (frame.iloc[:, place] for place in range(len(titles)))
    else:
        columns = frame.iter_columns() if hasattr(frame, "iter_columns") else frame.columns
    index = [name for name in getattr(getattr(frame, "index", None), "names", ()) if name is not None]
    notes = tuple(
        f"Left out the frame's index {str(name)!r}; reset_index() makes it a column to learn from." for name in index
    )
    named = zip((str(title).strip() for title in titles), columns, strict=True)
    return [(title, _array(title, column)) for title, column in named], notes


def columns_of_arrays(x: Any, y: Any) -> tuple[Arrays, str, tuple[str, ...]]:
    """The columns of (X, y), the name of y, and notes.

    Args:
        x: A frame, or an array of shape (rows, columns).
        y: An array of shape (rows,); classes or numbers.

    Raises:
        WellposedError: If the shapes do not fit each other.
    """
    name = str(getattr(y, "name", None) or "y")
    goal = y if hasattr(y, "iloc") or hasattr(y, "__arrow_c_stream__") else _numpy(y)
    shape = tuple(goal.shape)
    if len(shape) == 2 and shape[1] == 1:
        goal = goal.reshape(-1)
    elif len(shape) != 1:
        raise WellposedError(f"y was given with the shape {shape}; expected (rows,), one target a row")
    notes: tuple[str, ...] = ()
    if is_frame(x):
        columns, notes = columns_of_frame(x)
    else:
        table = _numpy(x)
        if table.ndim != 2:
            raise WellposedError(
                f"X was given with the shape {table.shape}; expected (rows, columns), as X.reshape(len(X), -1) has it"
            )
        columns = [(f"x{place}", _array(f"x{place}", table[:, place])) for place in range(table.shape[1])]
        x = table
    if len(x) != len(goal):
        raise WellposedError(f"X has {len(x)} rows and y has {len(goal)}; expected one target a row")
    while name in {title for title, _ in columns}:
        name += "_"
    return [*columns, (name, _array(name, goal))], name, notes


def _numpy(values: Any) -> Any:
    if hasattr(values, "detach"):  # a tensor
        values = values.detach().cpu().numpy()
    elif hasattr(values, "toarray"):  # a sparse matrix of scipy's
        values = values.toarray()
    return np.asarray(values)


def _array(name: str, column: Any) -> Any:
    """A column as a pyarrow array; entries of mixed types as the texts that they print as."""
    arrow = need("pyarrow")
    if isinstance(column, arrow.Array | arrow.ChunkedArray):
        return column
    try:
        if hasattr(column, "__arrow_c_stream__"):
            return arrow.chunked_array(column)
        return arrow.array(column, from_pandas=True)
    except (arrow.ArrowInvalid, arrow.ArrowTypeError, arrow.ArrowNotImplementedError):
        if str(column.dtype) != "object":
            return Column(name, np.full(len(column), np.nan), strange=str(column.dtype))
        return arrow.array([None if one is None or one != one else str(one) for one in column], arrow.large_string())
