"""The tables of a study, for the terminal and for the report."""

from collections.abc import Sequence
from dataclasses import dataclass

from wellposed.study.estimate import Estimate, difference
from wellposed.study.methods import PENALTIES, STARTS
from wellposed.study.results.summary import Summary
from wellposed.study.training.network import ACTIVATIONS
from wellposed.study.wording import MINUS, Wording, number, percentage

NOT_TESTED = "\u2013"


@dataclass(frozen=True)
class ResultTable:
    """A table of text.

    Attributes:
        experiment: The experiment that it is of.
        title: What it shows.
        head: The names of its columns.
        rows: Its cells.
        chosen: The places of the rows that validation chose.
        text_columns: How many columns, from the left, hold text rather than numbers.
    """

    experiment: str
    title: str
    head: tuple[str, ...]
    rows: list[tuple[str, ...]]
    chosen: frozenset[int]
    text_columns: int


def tables(experiments: Summary, wording: Wording) -> list[ResultTable]:
    """Every table of a study.

    Args:
        experiments: The ``experiments`` of ``results.json``.
        wording: How scores are written.

    Returns:
        The tables, in the order of the experiments.
    """
    validation, test = f"validation {wording.name}", f"test {wording.name}"
    starts, penalised = experiments["initializers"], experiments["penalties"]
    thinned, joint = experiments["dropout"], experiments["together"]
    most = thinned[-1]["ensemble"]["networks"][-1]
    return [
        _table(
            "initializers",
            "Initializers",
            ("network", "initializer", "signal, last / first", "gradient, first / last", validation, test),
            [
                (
                    ACTIVATIONS[row["activation"]].label,
                    row["label"],
                    _along(row["signal"]),
                    _back(row["gradient"]),
                    *_scores(row, wording),
                )
                for row in starts
            ],
            starts,
            2,
        ),
        _table(
            "penalties",
            "Regularizers",
            ("penalty", "lambda", "weights zero", validation, test),
            [
                (row["label"], number(row["strength"]) if row["strength"] else "", _zero(row), *_scores(row, wording))
                for row in penalised
            ],
            penalised,
            1,
        ),
        _table(
            "dropout",
            "Dropout",
            ("p", f"gap, train {MINUS} test", f"{most} averaged {MINUS} 1 scaled, validation", validation, test),
            [
                (number(row["p"]), wording.points(row["gap"]), _ensemble(row, wording), *_scores(row, wording))
                for row in thinned
            ],
            thinned,
            0,
        ),
        _table(
            "together",
            "On all training rows",
            ("initializer", "penalty", "p", "weights zero", validation, test),
            [
                (STARTS[row["start"]].label, _penalty(row), number(row["p"]), _zero(row), *_scores(row, wording))
                for row in joint
            ],
            joint,
            2,
        ),
    ]


def _table(
    experiment: str,
    title: str,
    head: tuple[str, ...],
    cells: list[tuple[str, ...]],
    rows: Sequence[Summary],
    text_columns: int,
) -> ResultTable:
    chosen = frozenset(i for i, row in enumerate(rows) if row.get("chosen"))
    return ResultTable(experiment, title, head, cells, chosen, text_columns)


def _scores(row: Summary, wording: Wording) -> tuple[str, str]:
    return wording.score(row["validation"]), wording.score(row["test"]) if row["test"] else NOT_TESTED


def _along(scale: Summary) -> str:
    hidden = scale["measured"][:-1]
    return _ratio(hidden[-1], hidden[0])


def _back(scale: Summary) -> str:
    hidden = scale["measured"][:-1]
    return _ratio(hidden[0], hidden[-1])


def _ratio(a: float | None, b: float | None) -> str:
    return f"{a / b:.2g}" if a and b else NOT_TESTED


def _zero(row: Summary) -> str:
    zero: Estimate = row["zero"]
    return NOT_TESTED if zero["mean"] is None else percentage(zero["mean"] / row["weights"])


def _ensemble(row: Summary, wording: Wording) -> str:
    ensemble = row["ensemble"]
    if ensemble is None:
        return NOT_TESTED
    return wording.points(difference(ensemble["validation"][-1], ensemble["scaled"]["validation"]))


def _penalty(row: Summary) -> str:
    label = PENALTIES[row["penalty"]].label
    return f"{label}, {number(row['strength'])}" if row["strength"] else label
