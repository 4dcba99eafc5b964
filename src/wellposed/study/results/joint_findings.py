"""The findings on initialization, regularization and dropout together, on all training rows."""

from wellposed.study.estimate import Estimate, difference
from wellposed.study.methods import PENALTIES, STARTS
from wellposed.study.results.judge import Judge, Sentence
from wellposed.study.results.summary import Summary
from wellposed.study.wording import Wording, join, number

_NAMES = {
    "start": "the start that validation chooses",
    "penalty": "a penalty",
    "dropout": "dropout",
    "both": "a penalty and dropout together",
}


def all_of_it(rows: list[Summary], judge: Judge) -> Sentence:
    """The test score of what is recommended against PyTorch's default alone."""
    wording, default, chosen = judge.wording, rows[0], next(row for row in rows if row["chosen"])
    change = difference(chosen["test"], default["test"])
    if not judge.clear(change):
        return None
    return (
        f"On all training rows {named(chosen)} scores {wording.scored(chosen['test'])} on test, against "
        f"{wording.score(default['test'])} with {named(default)} ({wording.change(change)})."
    )


def one_by_one(rows: list[Summary], judge: Judge) -> Sentence:
    """What each ingredient adds or takes away, where all rows are trained on."""
    by = {row["name"]: row["test"] for row in rows}
    parts = []
    for name, called in _NAMES.items():
        base, to = ("default", "PyTorch's default") if name == "start" else ("start", "that start alone")
        change = difference(by[name], by[base])
        if judge.clear(change):
            parts.append(f"{called} {_adds(change, judge.wording, to)}")
    return f"One at a time, with all training rows, on test: {'; '.join(parts)}." if parts else None


def named(row: Summary) -> str:
    """A network of ``together`` in words: its start, penalty and p."""
    parts = ["PyTorch's default start" if row["start"] == "torch" else f"the start {STARTS[row['start']].label}"]
    if row["penalty"] != "none":
        parts.append(f"{PENALTIES[row['penalty']].label} at lambda = {number(row['strength'])}")
    if row["p"]:
        parts.append(f"dropout at p = {row['p']:g}")
    return parts[0] if len(parts) == 1 else f"{parts[0]} with {join(parts[1:])}"


def _adds(change: Estimate, wording: Wording, base: str) -> str:
    verb, to = ("adds", "to") if (change["mean"] or 0.0) > 0 else ("takes", "away from")
    return f"{verb} {wording.amount(change)} {to} {base}"
