"""The findings on initialization, regularization and dropout together."""

from wellposed.study.estimate import Estimate, difference
from wellposed.study.results.judge import Judge, Sentence
from wellposed.study.results.summary import Summary
from wellposed.study.wording import Wording

_ALONE = ("initialization", "initialization alone")


def all_three(rows: list[Summary], judge: Judge) -> Sentence:
    """The test score with initialization, regularization and dropout against the score with none of them."""
    wording, by = judge.wording, {row["name"]: row["test"] for row in rows}
    change = difference(by["all"], by["none"])
    if not judge.clear(change):
        return None
    text = (
        f"Together, initialization, regularization and dropout score {wording.scored(by['all'])} on test, against "
        f"{wording.score(by['none'])} with none of them ({wording.change(change)})."
    )
    rest = difference(by["all"], by["initialization"])
    if judge.clear(rest):
        text += f" The other two {_adds(rest, wording, 'initialization alone')}."
    return text


def one_by_one(rows: list[Summary], judge: Judge) -> Sentence:
    """What each ingredient adds or takes away."""
    by = {row["name"]: row["test"] for row in rows}
    parts = []
    for name in ("initialization", "regularization", "dropout"):
        base, called = ("none", "none of the three") if name == "initialization" else _ALONE
        change = difference(by[name], by[base])
        if judge.clear(change):
            parts.append(f"{name} {_adds(change, judge.wording, called, one=True)}")
    return f"One at a time, on test: {'; '.join(parts)}." if parts else None


def _adds(change: Estimate, wording: Wording, base: str, *, one: bool = False) -> str:
    verb, to = ("add", "to") if (change["mean"] or 0.0) > 0 else ("take", "away from")
    return f"{verb}{'s' if one else ''} {wording.amount(change)} {to} {base}"
