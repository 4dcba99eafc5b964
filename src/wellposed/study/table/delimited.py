"""From text to columns of texts: which character stands between columns, and which fields are quoted."""

import csv
import io
import re
from typing import Any

from wellposed.errors import WellposedError
from wellposed.study.needs import need
from wellposed.study.wording import join

_DELIMITERS = ",;\t|"
_NAMES = {"\t": "a tab", " ": "a space"}
_SPELLED = {"tab": "\t", "\\t": "\t", "space": " "}
_EXCEL = re.compile(r'"?sep=(.)"?[ \t]*\r?\n', re.IGNORECASE)
_SAMPLE, _RECORDS = 1 << 20, 200  # characters and records that a delimiter is told from
_BLOCK = 1 << 26  # bytes that pyarrow reads at a time; a row must fit in


def columns_of_text(name: str, text: str, sep: str | None) -> tuple[list[tuple[str, Any]], tuple[str, ...]]:
    """Read a table of delimited text.

    Args:
        name: What messages call it.
        text: The text; its first line holds the names of the columns.
        sep: What stands between columns; ``None`` is told from the text.

    Returns:
        Each column's name and its entries, a pyarrow array of texts; and notes.

    Raises:
        WellposedError: If what stands between columns cannot be told, or rows differ in length.
    """
    delimiter = None if sep is None else _SPELLED.get(sep, sep)
    notes: tuple[str, ...] = ()
    if said := _EXCEL.match(text):
        text = text[said.end() :]
        delimiter = delimiter or said[1]
    if delimiter is None:
        delimiter = _told(name, text)
        if delimiter != ",":
            notes = (f"Took {_called(delimiter)} for what stands between columns.",)
    if len(delimiter) != 1 or not delimiter.isascii() or delimiter in '"\r\n':
        raise WellposedError(f"--sep was given {sep!r}; expected one character, as ',' or ';', or tab or space")
    table = _parsed(name, text, delimiter)
    names = [str(column[0].as_py()).strip() for column in table.columns]
    _check_first_line(name, names, delimiter)
    return list(zip(names, table.slice(1).columns, strict=True)), notes


def _told(name: str, text: str) -> str:
    """The delimiter that cuts every record, the first too, into as many fields, outside quotes."""
    fits, width = [], {}
    for delimiter in _DELIMITERS:
        lengths = [len(record) for record in _records(text, delimiter)]
        width[delimiter] = lengths[0]
        if lengths[0] > 1 and set(lengths) == {lengths[0]}:
            fits.append(delimiter)
    most = [delimiter for delimiter in fits if width[delimiter] == max(width[other] for other in fits)]
    if len(most) > 1:
        raise WellposedError(
            f"{name!r} can be cut into {width[most[0]]} columns at {join([_called(d) for d in most])}; "
            f"say which it is, as --sep '{most[0]}'"
        )
    return most[0] if most else max(_DELIMITERS, key=width.__getitem__)


def _records(text: str, delimiter: str) -> list[list[str]]:
    records: list[list[str]] = []
    try:
        for record in csv.reader(io.StringIO(text[:_SAMPLE], newline=""), delimiter=delimiter):
            if record:
                records.append(record)
            if len(records) > _RECORDS:
                break
    except csv.Error:  # a field of more than 128 KiB: what came before it tells
        pass
    return (records[:-1] if len(text) > _SAMPLE else records) or [[""]]


def _parsed(name: str, text: str, delimiter: str) -> Any:
    arrow, reader = need("pyarrow"), need("pyarrow.csv")
    width = len(_records(text, delimiter)[0])
    try:
        # The names are read as a row, and all entries as texts: what a column holds is told from all of it.
        table = reader.read_csv(
            arrow.BufferReader(text.encode()),
            read_options=reader.ReadOptions(autogenerate_column_names=True, block_size=_BLOCK),
            parse_options=reader.ParseOptions(delimiter=delimiter, newlines_in_values=True),
            convert_options=reader.ConvertOptions(
                column_types={f"f{number}": arrow.string() for number in range(width)}, null_values=[]
            ),
        )
    except arrow.ArrowException as error:
        hint = (
            "close the quote there" if first_line(error).count('"') % 2 else "if that is another character, give --sep"
        )
        raise WellposedError(
            f"{name!r} cannot be read as a table with {_called(delimiter)} between columns: {first_line(error)}; {hint}"
        ) from error
    last = str(table.columns[-1][-1].as_py())
    if ("\n" in last or "\r" in last) and not text.rstrip().endswith('"'):
        raise WellposedError(
            f"{name!r} opens a quote that it never closes, at {last.splitlines()[0][:40]!r}; close it or leave it out"
        )
    return table


def _check_first_line(name: str, names: list[str], delimiter: str) -> None:
    twice = sorted({title for title in names if title and names.count(title) > 1})
    if twice:
        hint = "; its first line should hold the names of the columns" if any(map(_is_number, twice)) else ""
        raise WellposedError(f"{name!r} has more than one column named {twice[0]!r}; give each its own name{hint}")
    if len(names) == 1 and " " in names[0]:
        raise WellposedError(
            f"{name!r} has one column, {names[0]!r}, where {_called(delimiter)} stands between columns; "
            "if that is another character, give it as --sep, as in --sep space"
        )


def _is_number(text: str) -> bool:
    return bool(re.fullmatch(r"[+-]?\d+(\.\d+)?", text))


def _called(delimiter: str) -> str:
    return _NAMES.get(delimiter, repr(delimiter))


def first_line(error: Exception) -> str:
    """What an exception says, in one line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
