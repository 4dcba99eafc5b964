"""Tables as people have them, and what is read from each, or why it is refused.

A case's column ``x`` stands in a table of 60 rows between a column ``base`` of plain numbers and a target ``y``.
"""

import gzip
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

ROWS = 60
GAP = None
BASE = [round(math.sin(i * i), 2) for i in range(ROWS)]
WHOLE = [round(100 * base) for base in BASE]


@dataclass(frozen=True)
class TableCase:
    """One table.

    Attributes:
        content: The file.
        x: The first entries of its column ``x``, ``GAP`` for a gap; ``None`` where the column is left out.
        notes: What each note has, in order.
        refused: What the refusal says; the table is refused where there is one.
        options: How the table is read.
        file: Its name.
        target: Its target.
        classes: Its classes, or none for a regression.
    """

    content: str | bytes
    x: tuple[float | str | None, ...] | None = None
    notes: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    file: str = "t.csv"
    target: str = "y"
    classes: tuple[str, ...] = ("no", "yes")


def table(
    entry: Callable[[int], str] | None = None,
    *,
    sep: str = ",",
    decimal: str = ".",
    base: Sequence[float] = BASE,
    goal: Callable[[int], str] = lambda i: ("no", "yes")[i % 3 == 0],
    name: str = "x",
    end: str = "\n",
) -> str:
    """The text of a table: ``base``, the column of a case, and ``y``."""
    rows = [["base", *([name] if entry else []), "y"]]
    for i, number in enumerate(base):
        rows.append([str(number).replace(".", decimal), *([entry(i)] if entry else []), goal(i)])
    return "".join(sep.join(row) + end for row in rows)


def but(entry: Callable[[int], str], **rows: str) -> Callable[[int], str]:
    """Entries, but for some rows: ``but(entry, _3="?")``."""
    return lambda i: rows.get(f"_{i}", entry(i))


def tenth(i: int) -> str:
    """A number with a point, in no order."""
    return f"{i * 7 % 60 / 10}"


def comma(i: int) -> str:
    """A number with a comma."""
    return tenth(i).replace(".", ",")


def day(i: int) -> tuple[int, int]:
    """A day of the month and a month, in no order."""
    return 1 + i * 11 % 28, 1 + i * 5 % 12


def early(i: int) -> tuple[int, int]:
    """A day that could be a month."""
    return 1 + i * 11 % 12, 1 + i * 5 % 12


TENTHS = (0.0, 0.7, 1.4, 2.1)
SEMICOLON = "Took ';' for what stands between columns."
AS_X = "Read column 'x' as numbers, "
FIRST_OF_2020 = 1577836800.0
DAY = 86400.0

CASES: dict[str, TableCase] = {
    # Numbers with gaps
    "plain": TableCase(table(tenth), TENTHS),
    "empty entries": TableCase(table(but(tenth, _1="")), (0.0, GAP), ("Filled 1 gap in column 'x'",)),
    "words for a gap that are everybody's": TableCase(
        table(but(tenth, _1="NA", _2="nan", _3="")), (0.0, GAP, GAP, GAP), ("Took 'NA' and 'nan'", "Filled 3 gaps")
    ),
    "an infinite number": TableCase(
        table(but(tenth, _1="inf")), (0.0, GAP), ("Took 1 infinite number in column 'x' for gaps.", "Filled 1 gap")
    ),
    **{
        f"one {word} among numbers": TableCase(
            table(but(tenth, _3=word)),
            (0.0, 0.7, 1.4, GAP),
            (f"Took {word!r} in column 'x' for a gap; the other 59 of 60 entries are numbers.", "Filled 1 gap"),
        )
        for word in ("?", "-", "n/a", "N/A", "None", "null", "#DIV/0!", "low", "12a")
    },
    "most entries are dashes": TableCase(
        table(lambda i: "-" if i % 4 else tenth(i)),
        (0.0, GAP),
        ("Took '-' in column 'x' for gaps; the other 15 of 60 entries are numbers.", "Filled 45 gaps"),
    ),
    "some codes are numbers": TableCase(
        table(lambda i: f"A{i % 3}" if i % 4 == 0 else str(i % 5)),
        ("A0", "1", "2", "3"),
        ("Took column 'x' for texts: some are numbers, and others, as 'A0', 'A1' and 'A2', are not.",),
    ),
    "a question mark among texts": TableCase(
        table(but(lambda i: "red" if i % 2 else "blue", _1="?")),
        ("blue", GAP, "blue", "red"),
        ("Took '?' in column 'x' for gaps.", "Filled 1 gap in column 'x' with the training rows' commonest text."),
    ),
    "none is a text among texts": TableCase(table(lambda i: ("None", "brick", "-")[i % 3]), ("None", "brick", "-")),
    # How numbers are written
    "semicolons and commas": TableCase(
        table(comma, sep=";", decimal=","), TENTHS, (SEMICOLON, "Read column 'base'", f"{AS_X}'0,0' as 0.")
    ),
    "commas in quotes": TableCase(table(lambda i: f'"{comma(i)}"', decimal="."), TENTHS, (f"{AS_X}'0,0' as 0.",)),
    "commas and a question mark": TableCase(
        table(but(comma, _3="?"), sep=";"),
        (0.0, 0.7, 1.4, GAP),
        (SEMICOLON, f"{AS_X}'0,0' as 0.", "Took '?' in column 'x' for a gap; the other 59 of 60", "Filled 1 gap"),
    ),
    "thousands after a comma": TableCase(
        table(lambda i: f'"{1000.25 + i * 7 % 60:,}"'), (1000.25, 1007.25), (f"{AS_X}'1,000.25' as 1000.25.",)
    ),
    "thousands after a point": TableCase(
        table(lambda i: f"1.00{i % 10},5", sep=";", decimal=","),
        (1000.5, 1001.5),
        (SEMICOLON, "Read column 'base'", f"{AS_X}'1.000,5' as 1000.5."),
    ),
    "thousands after a space": TableCase(
        table(lambda i: f"1 00{i % 10}"), (1000.0, 1001.0), (f"{AS_X}'1 000' as 1000.",)
    ),
    "thousands after an apostrophe": TableCase(
        table(lambda i: f"1'00{i % 10}.5"), (1000.5, 1001.5), (f'{AS_X}"1\'000.5" as 1000.5.',)
    ),
    "a comma that is told by another column": TableCase(
        table(lambda i: f'"1,00{i % 10}"'), (1000.0, 1001.0), (f"{AS_X}'1,000' as 1000.",)
    ),
    "points that are told by another column": TableCase(
        table(lambda i: f"1.00{i % 10}", sep=";", decimal=","),
        (1000.0, 1001.0),
        (SEMICOLON, "Read column 'base'", f"{AS_X}'1.000' as 1000."),
    ),
    "a comma that nothing tells": TableCase(
        table(lambda i: f"1,00{i % 10}", sep=";", base=WHOLE),
        refused=("column 'x' can be read in two ways: '1,000' is 1000 or 1;", "--decimal '.' or --decimal ','"),
    ),
    "a comma that the user tells": TableCase(
        table(lambda i: f"1,00{i % 10}", sep=";", base=WHOLE),
        (1.0, 1.001),
        (SEMICOLON, f"{AS_X}'1,000' as 1."),
        options={"decimal": ","},
    ),
    "columns that contradict each other": TableCase(
        table(lambda i: f"1,00{i % 10};{comma(i)}", sep=";", name="x;z"),
        refused=("column 'x' can be read in two ways",),
    ),
    "a currency before": TableCase(table(lambda i: f"${tenth(i)}"), TENTHS, (f"{AS_X}'$0.0' as 0.",)),
    "a currency behind": TableCase(
        table(lambda i: f"1.00{i % 10},50 €", sep=";"), (1000.5, 1001.5), (SEMICOLON, f"{AS_X}'1.000,50 €' as 1000.5.")
    ),
    "a loss in brackets": TableCase(
        table(but(lambda i: f"${tenth(i)}", _1="($5.50)", _2="-$6")), (0.0, -5.5, -6.0), (f"{AS_X}'$0.0' as 0.",)
    ),
    "percent": TableCase(table(lambda i: f"{tenth(i)} %"), TENTHS, (f"{AS_X}'0.0 %' as 0.",)),
    "percent and none": TableCase(
        table(lambda i: f"{i % 7}{'%' if i % 2 else ''}"),
        refused=("column 'x' has numbers of different units, as '0' and '1%'", "--drop x"),
    ),
    "two currencies": TableCase(
        table(lambda i: f"{'$€'[i % 2]}{i % 7}"), refused=("different units, as '$0' and '€1'",)
    ),
    "two currencies, left out": TableCase(table(lambda i: f"{'$€'[i % 2]}{i % 7}"), None, options={"drop": ["x"]}),
    "postal codes": TableCase(
        table(lambda i: f"0{i % 7}123"),
        ("00123", "01123"),
        ("Took column 'x' for texts: it has whole numbers that begin with a zero, as '00123'.",),
    ),
    "exponents and signs": TableCase(table(but(tenth, _0="+1e-3", _1="-.5", _2="2.")), (0.001, -0.5, 2.0)),
    # Dates and times
    "the year first": TableCase(table(lambda i: f"2020-01-{1 + i % 28:02d}"), (FIRST_OF_2020, FIRST_OF_2020 + DAY)),
    "with a time": TableCase(
        table(lambda i: f"2020-01-01T{i % 24:02d}:30:00"), (FIRST_OF_2020 + 1800, FIRST_OF_2020 + 5400)
    ),
    "with a zone": TableCase(
        table(lambda i: f"2020-01-01T{i % 24:02d}:30:00+01:00"), (FIRST_OF_2020 - 1800, FIRST_OF_2020 + 1800)
    ),
    "slashes, the year first": TableCase(table(lambda i: f"2020/1/{1 + i % 28}"), (FIRST_OF_2020, FIRST_OF_2020 + DAY)),
    "the day first": TableCase(
        table(lambda i: "{:02d}.{:02d}.2020".format(*day(i))),
        (FIRST_OF_2020, FIRST_OF_2020 + (31 + 29 + 31 + 30 + 31 + 11) * DAY),
        ("Read column 'x' as dates, day first, as '01.01.2020'.",),
    ),
    "the month first": TableCase(
        table(lambda i: "{1}/{0}/20 0:00".format(*day(i))),
        (FIRST_OF_2020, FIRST_OF_2020 + (31 + 29 + 31 + 30 + 31 + 11) * DAY),
        ("Read column 'x' as dates, month first, as '1/1/20 0:00'.",),
    ),
    "the month by name": TableCase(table(lambda i: f"{1 + i % 28} January 2020"), (FIRST_OF_2020, FIRST_OF_2020 + DAY)),
    "the month by its short name": TableCase(
        table(lambda i: f'"Jan {1 + i % 28}, 2020"'), (FIRST_OF_2020, FIRST_OF_2020 + DAY)
    ),
    "dates of which one is none": TableCase(
        table(but(lambda i: f"2020-01-{1 + i % 28:02d}", _1="soon")),
        (FIRST_OF_2020, GAP),
        ("Took 'soon' in column 'x' for a gap; the other 59 of 60 entries are dates.", "Filled 1 gap"),
    ),
    "a day that does not exist": TableCase(
        table(but(lambda i: f"2020-01-{1 + i % 28:02d}", _1="2020-02-30")),
        (FIRST_OF_2020, GAP),
        ("Took '2020-02-30' in column 'x' for a gap", "Filled 1 gap"),
    ),
    "dates in either order": TableCase(
        table(lambda i: "{:02d}/{:02d}/2020".format(*early(i))),
        refused=("column 'x' can be read in two ways: '12/06/2020' begins with", "--dates day-first or --dates month"),
    ),
    "dates whose order the user tells": TableCase(
        table(lambda i: "{:02d}/{:02d}/2020".format(*early(i))),
        (FIRST_OF_2020, FIRST_OF_2020 + (31 + 29 + 31 + 30 + 31 + 11) * DAY),
        ("Read column 'x' as dates, day first",),
        options={"date_order": "day-first"},
    ),
    "dates whose order another column tells": TableCase(
        table(lambda i: "{:02d}/{:02d}/2020,{:02d}/{:02d}/2020".format(*early(i), *day(i)), name="x,z"),
        (FIRST_OF_2020, FIRST_OF_2020 + (31 + 29 + 31 + 30 + 31 + 11) * DAY),
        ("Read column 'x' as dates, day first", "Read column 'z' as dates, day first"),
    ),
    "dates day by day": TableCase(
        table(lambda i: f"2020-{1 + i // 28:02d}-{1 + i % 28:02d}"), (FIRST_OF_2020, FIRST_OF_2020 + DAY)
    ),
    "a time of day": TableCase(table(lambda i: f"08:{i * 7 % 60:02d}:30"), (28830.0, 29250.0)),
    # How a file is written
    "tabs": TableCase(table(tenth, sep="\t"), TENTHS, ("Took a tab for",), file="t.tsv"),
    "bars": TableCase(table(tenth, sep="|"), TENTHS, ("Took '|' for",)),
    "semicolons and texts with commas": TableCase(
        table(lambda i: ("a,b", "c,d,e")[i % 2], sep=";"), ("a,b", "c,d,e"), (SEMICOLON,)
    ),
    "commas in a name": TableCase(
        table(lambda i: f"{tenth(i)};{('red', 'blue')[i % 2]}", sep=";", name="x;colour, or none, or any, or all"),
        TENTHS,
        (SEMICOLON,),
    ),
    "two characters that could stand between": TableCase(
        table(sep=";", decimal=",").replace("base", "base, sine"), refused=("2 columns at ',' and ';'", "--sep ','")
    ),
    "the user says what stands between": TableCase(
        table(lambda i: tenth(i), sep=" "), TENTHS, options={"sep": "space"}
    ),
    "spaces between": TableCase(table(tenth, sep=" "), refused=("has one column, 'base x y'", "--sep space")),
    "Excel says what stands between": TableCase("sep=;\r\n" + table(tenth, sep=";", end="\r\n"), TENTHS),
    "commas, semicolons and line ends in quotes": TableCase(
        table(lambda i: ('"a;b\n;"', '"c, ""d"""')[i % 2]), ("a;b\n;", 'c, "d"')
    ),
    "a quote that is never closed": TableCase(
        table(but(lambda i: "red" if i % 2 else "blue", _9='"red')), refused=("close the quote there",)
    ),
    "a quote that is never closed, in the last column": TableCase(
        table(goal=lambda i: '"yes' if i == 59 else "no"), refused=("opens a quote that it never closes, at 'yes'",)
    ),
    "an inch in a text": TableCase(table(lambda i: ('5" disc', "disc")[i % 2]), ('5" disc', "disc")),
    "rows of different lengths": TableCase(
        table(but(tenth, _9="1,2")), refused=("Expected 3 columns, got 4", "give --sep")
    ),
    "UTF-8 with a mark": TableCase(("\ufeff" + table(tenth)).encode(), TENTHS),
    "UTF-16": TableCase(table(tenth).encode("utf-16"), TENTHS, ("Read as UTF-16, as the file's first bytes say.",)),
    "UTF-16 without a mark": TableCase(
        table(tenth).encode("utf-16-le"), refused=("zero bytes", "--encoding utf-16-le")
    ),
    "Latin-1": TableCase(
        table(lambda i: ("grün", "rot")[i % 2]).encode("latin-1"),
        refused=("is not UTF-8 text (byte 15 is not), and reads 'grün' in windows-1252", "--encoding windows-1252"),
    ),
    "Latin-1 that the user tells": TableCase(
        table(lambda i: ("grün", "rot")[i % 2]).encode("latin-1"),
        ("grün", "rot"),
        ("Read as latin-1, as --encoding says.",),
        options={"encoding": "latin-1"},
    ),
    "an encoding that there is not": TableCase(
        table(tenth), options={"encoding": "latin-99"}, refused=("--encoding was given 'latin-99'", "knows utf-8")
    ),
    "another encoding than the user says": TableCase(
        table(lambda i: "grün"), options={"encoding": "ascii"}, refused=("is not text in ascii, as --encoding says",)
    ),
    "packed": TableCase(gzip.compress(table(tenth).encode()), TENTHS, file="t.csv.gz"),
    "packed and cut": TableCase(
        gzip.compress(table(tenth).encode())[:-20], file="t.csv.gz", refused=("cannot be unpacked", "cut or damaged")
    ),
    "a workbook": TableCase(
        b"PK\x03\x04" + bytes(99), file="t.xlsx", refused=("is a workbook", "save the table in it as CSV")
    ),
    # Columns that are nothing to learn from
    "a nameless column that counts the rows": TableCase(
        table(str, name=""), notes=("Left out column 'column 2': it counts the rows; to learn from it, give --keep",)
    ),
    "a column that counts the rows": TableCase(
        table(lambda i: str(i + 1)),
        notes=("Left out column 'x': it counts the rows; to learn from it, give --keep x.",),
    ),
    "a column that counts the rows, kept": TableCase(table(str), (0.0, 1.0, 2.0), options={"keep": ["x"]}),
    "numbers in the order of the rows": TableCase(
        table(lambda i: str(1000 + 2 * i + i % 2)), notes=("Left out column 'x': its whole numbers go from row to row",)
    ),
    "numbers in another order": TableCase(table(lambda i: str(i * 7 % 60)), (0.0, 7.0, 14.0)),
    "a shuffled index": TableCase(
        table(lambda i: str(i * 7 % 60), name=""),
        notes=("Left out column 'column 2': every row has a number of its own",),
    ),
    "an identifier": TableCase(
        table(lambda i: str(5000 + i * 991 % 6007), name="patient_id"),
        notes=("Left out column 'patient_id': every row has a number of its own, as an identifier does",),
    ),
    "identifiers of texts": TableCase(
        table(lambda i: f"P{i:03d}"), notes=("Left out column 'x': nearly every row has a text of its own",)
    ),
    "JSON": TableCase(
        table(lambda i: f'"{{""a"": {i % 3}}}"'), notes=("Left out column 'x': it holds JSON values, not numbers",)
    ),
    "truth values": TableCase(table(lambda i: ("True", "False", "")[i % 3]), (1.0, 0.0, GAP), ("Filled 20 gaps",)),
    "a name twice": TableCase(table(tenth, name="base"), refused=("more than one column named 'base'",)),
    "no names": TableCase(
        table(lambda i: "1.5,1.5", name="1.5,1.5"),
        refused=("more than one column named '1.5'", "its first line should hold"),
    ),
    "names alone": TableCase("base,x,y\n", refused=("has column names but no rows",)),
    # Targets
    "a target nearly named right": TableCase(
        table(tenth).replace("y\n", "Price\n", 1), target="prise", refused=("did you mean 'Price'?",)
    ),
    "a target of many columns nearly named right": TableCase(
        table(lambda i: ",".join(map(str, range(40))), name=",".join(f"c{j}" for j in range(40))),
        target="c_17",
        refused=("did you mean 'c17'",),
    ),
    "a column to leave out nearly named right": TableCase(
        table(tenth), options={"drop": ["bose"]}, refused=("--drop was given 'bose'", "did you mean 'base'?")
    ),
    "the target left out": TableCase(
        table(tenth), options={"drop": ["y"]}, refused=("--drop was given 'y', which is the",)
    ),
    "texts of their own to learn": TableCase(
        table(goal=lambda i: f"name {i}"), refused=("target 'y' has 60 different texts in 60 rows",)
    ),
    "whole numbers to learn": TableCase(
        table(tenth, goal=lambda i: str(i % 6)),
        TENTHS,
        ("Took target 'y' for 6 classes, being 6 whole numbers; to have it as a number, give --task regression.",),
        classes=tuple("012345"),
    ),
    "whole numbers to learn as numbers": TableCase(
        table(tenth, goal=lambda i: str(i % 6)), TENTHS, options={"task": "regression"}, classes=()
    ),
    "fractions to learn as classes": TableCase(
        table(tenth, goal=lambda i: ("0.5", "1.5")[i % 2]),
        TENTHS,
        options={"task": "classification"},
        classes=("0.5", "1.5"),
    ),
    "texts to learn as numbers": TableCase(
        table(tenth), options={"task": "regression"}, refused=("'regression', but target 'y' has texts, as 'no'",)
    ),
    "a task that there is not": TableCase(
        table(tenth), options={"task": "ranking"}, refused=("--task was given 'ranking'; expected 'classification' or",)
    ),
    "prices to learn": TableCase(
        table(tenth, goal=but(lambda i: f'"$1,{i * 7 % 60:03d}.50"', _59="?")),
        TENTHS,
        (
            "Read column 'y' as numbers, '$1,000.50' as 1000.5.",
            "Took '?' in column 'y' for a gap; the other 59 of 60 entries are numbers.",
            "Left out 1 row without a target.",
        ),
        classes=(),
    ),
}
