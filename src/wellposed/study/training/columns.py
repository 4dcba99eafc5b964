"""CSV and Parquet files as columns: numbers with gaps, or text as codes."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wellposed.errors import WellposedError
from wellposed.study.needs import need

READERS = {".csv": "csv", ".tsv": "csv", ".txt": "csv", ".parquet": "parquet", ".pq": "parquet"}
_DELIMITERS = ",;\t|"


@dataclass(frozen=True, eq=False)
class Column:
    """One column of a table.

    Attributes:
        name: Its name.
        values: float64 with NaN for a gap; of a text column the codes, int64 with -1 for a gap.
        levels: The texts that the codes stand for, in alphabetical order; ``None`` for a column of numbers.
        truth: Whether it holds booleans, as 0 and 1.
        strange: The kind of the values if they are no numbers, dates or text; all of them are gaps then.
    """

    name: str
    values: NDArray[Any]
    levels: tuple[str, ...] | None = None
    truth: bool = False
    strange: str | None = None

    @property
    def missing(self) -> NDArray[np.bool_]:
        """Where the gaps are."""
        return np.isnan(self.values) if self.levels is None else self.values < 0

    def take(self, rows: NDArray[Any]) -> "Column":
        """The column at some rows only."""
        return replace(self, values=self.values[rows])

    def said(self, value: float) -> str:
        """One of its values as text."""
        if self.levels is not None:
            return self.levels[int(value)]
        return ("false", "true")[int(value)] if self.truth else f"{value:.15g}"


def read(file: str | Path) -> list[Column]:
    """Read a CSV or Parquet file.

    Args:
        file: Its path, whose ending tells its kind.

    Returns:
        The columns, all of one length of at least one row.

    Raises:
        WellposedError: If there is no such file, it is empty, or not a table.
    """
    path = Path(file)
    kind = READERS.get(path.suffix.lower())
    if kind is None:
        raise WellposedError(
            f"--data was given {str(file)!r}; expected digits, or a file that ends in .csv or .parquet"
        )
    if not path.exists():
        raise WellposedError(f"--data was given {str(path)!r}, but there is no such file; check the path")
    if path.is_dir():
        raise WellposedError(f"--data was given {str(path)!r}, which is a folder; give one .csv or .parquet file")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise WellposedError(f"{str(path)!r} cannot be read: {error.strerror}") from error
    if not content.strip():
        raise WellposedError(f"{str(path)!r} is empty; expected a table with a line of column names")
    table = _csv(path, content) if kind == "csv" else _parquet(path)
    names = [name.strip() for name in table.column_names]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise WellposedError(f"{str(path)!r} has more than one column named {twice[0]!r}; give each its own name")
    if not table.num_rows:
        raise WellposedError(f"{str(path)!r} has column names but no rows; expected one row an example")
    return [_column(name, column) for name, column in zip(names, table.columns, strict=True)]


def _csv(path: Path, content: bytes) -> Any:
    arrow, csv = need("pyarrow"), need("pyarrow.csv")
    first = content.lstrip().splitlines()[0].decode("utf-8", errors="replace")
    delimiter = max(_DELIMITERS, key=first.count)
    try:
        content.decode()
        return csv.read_csv(
            arrow.BufferReader(content),
            # One block, so that a column's type is told from all of its rows.
            read_options=csv.ReadOptions(block_size=min(len(content) + 1, 2**31 - 1)),
            parse_options=csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
            convert_options=csv.ConvertOptions(strings_can_be_null=True),
        )
    except UnicodeDecodeError as error:
        raise WellposedError(f"{str(path)!r} is not a table of UTF-8 text (byte {error.start} is not)") from error
    except arrow.ArrowException as error:
        raise WellposedError(f"{str(path)!r} cannot be read as a table: {_first_line(error)}") from error


def _parquet(path: Path) -> Any:
    arrow, parquet = need("pyarrow"), need("pyarrow.parquet")
    try:
        return parquet.read_table(path)
    except (arrow.ArrowException, OSError) as error:
        raise WellposedError(f"{str(path)!r} cannot be read as a Parquet file: {_first_line(error)}") from error


def _column(name: str, chunked: Any) -> Column:
    arrow = need("pyarrow")
    types = arrow.types
    if types.is_dictionary(chunked.type):
        chunked = chunked.cast(chunked.type.value_type)
    kind = chunked.type
    if types.is_null(kind):
        return Column(name, np.full(len(chunked), np.nan))
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        return _text(name, chunked.cast(arrow.large_string()).combine_chunks().dictionary_encode())
    if types.is_date(kind) or types.is_timestamp(kind):
        chunked = chunked.cast(arrow.timestamp("s"), safe=False).cast(arrow.int64())
    elif not (types.is_boolean(kind) or types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind)):
        return Column(name, np.full(len(chunked), np.nan), strange=str(kind))
    values = chunked.cast(arrow.float64(), safe=False).to_numpy().astype(np.float64)
    values[np.isinf(values)] = np.nan
    return Column(name, values, truth=types.is_boolean(kind))


def _text(name: str, encoded: Any) -> Column:
    """Texts as codes; spaces around a text mean nothing, and a text of spaces alone is a gap."""
    texts = [text.strip() for text in encoded.dictionary.to_pylist()]
    levels = sorted(set(texts) - {""})
    rank = {level: code for code, level in enumerate(levels)}
    codes = np.array([*(rank.get(text, -1) for text in texts), -1], dtype=np.int64)
    return Column(name, codes[encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)], tuple(levels))


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
