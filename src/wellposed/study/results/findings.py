"""What the figures say, in plain words. A sentence is made of figures, and is left out where they do not support it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from wellposed.study.estimate import Estimate, clear, difference
from wellposed.study.results import scales
from wellposed.study.results.summary import Summary
from wellposed.study.training.data import PARTS
from wellposed.study.training.network import ACTIVATIONS
from wellposed.study.words import Words, count, join, number, share

Sentence = str | None
_PRINTED = 1e-3  # scores are printed to so many


@dataclass(frozen=True)
class Judge:
    """Says scores in words, and which differences between them to speak of.

    Attributes:
        words: How scores are said.
        step: The least difference that a score can show.
    """

    words: Words
    step: float

    def clear(self, change: Estimate) -> bool:
        """Whether the seeds tell a difference from chance."""
        return clear(change, self.step)

    def above(self, a: Estimate, b: Estimate) -> bool:
        """Whether a is clearly above b."""
        change = difference(a, b)
        return self.clear(change) and (change["mean"] or 0.0) > 0


def findings(results: Summary) -> list[dict[str, str]]:
    """The findings of a study.

    Args:
        results: What ``results.json`` holds, less the findings.

    Returns:
        For each finding its experiment and its text.
    """
    data = results["data"]
    judge = Judge(Words(data["task"]), max(1 / (PARTS["test"] * data["rows"]), _PRINTED))
    found = []
    for experiment, rules in RULES.items():
        for rule in rules:
            text = rule(results["experiments"][experiment], judge)
            if text:
                found.append({"experiment": experiment, "text": text})
    return found


def _all_three(rows: list[Summary], judge: Judge) -> Sentence:
    words, by = judge.words, {row["name"]: row["test"] for row in rows}
    change = difference(by["all"], by["none"])
    if not judge.clear(change):
        return None
    text = (
        f"Together, initialization, regularization and dropout score {words.scored(by['all'])} on test, against "
        f"{words.score(by['none'])} with none of them ({words.change(change)})."
    )
    rest = difference(by["all"], by["initialization"])
    if judge.clear(rest):
        text += f" The other two {_adds(rest, words, 'initialization alone')}."
    return text


def _one_by_one(rows: list[Summary], judge: Judge) -> Sentence:
    """What each ingredient adds or takes away."""
    by = {row["name"]: row["test"] for row in rows}
    parts = []
    for name in ("initialization", "regularization", "dropout"):
        base, called = ("none", "none of the three") if name == "initialization" else _ALONE
        change = difference(by[name], by[base])
        if judge.clear(change):
            parts.append(f"{name} {_adds(change, judge.words, called, one=True)}")
    return f"One at a time, on test: {'; '.join(parts)}." if parts else None


_ALONE = ("initialization", "initialization alone")


def _adds(change: Estimate, words: Words, base: str, *, one: bool = False) -> str:
    verb, to = ("add", "to") if (change["mean"] or 0.0) > 0 else ("take", "away from")
    return f"{verb}{'s' if one else ''} {words.amount(change)} {to} {base}"


def _best_start(activation: str) -> Callable[[list[Summary], Judge], Sentence]:
    def sentence(rows: list[Summary], judge: Judge) -> Sentence:
        words, network = judge.words, f"On the {ACTIVATIONS[activation].label} network"
        rivals = [row for row in rows if row["activation"] == activation]
        best = next(row for row in rivals if row["chosen"])
        lost = [row for row in rivals if row["validation"]["mean"] is None or row["test"]["mean"] is None]
        worse = [row for row in rivals if row is not best and judge.above(best["test"], row["test"])]
        if len(lost) == len(rivals):
            return f"{network} training diverged with every start{_on_a_seed(best)}."
        parts = []
        if worse:
            least = min(worse, key=lambda row: row["test"]["mean"])
            parts.append(
                f"{network} validation chooses {best['label']}: {words.scored(best['test'])} on test. Of the "
                f"{len(rivals) - 1} other starts {len(worse)} {'is' if len(worse) == 1 else 'are'} clearly behind, "
                f"{least['label']} furthest with {words.score(least['test'])}."
            )
        if lost:
            parts.append(
                f"{'Training' if parts else f'{network} training'} diverged with "
                f"{join([row['label'] for row in lost])}{_on_a_seed(best)}."
            )
        return " ".join(parts) or None

    return sentence


def _on_a_seed(row: Summary) -> str:
    return "" if len(row["test"]["values"]) == 1 else ", on one seed at least"


def _zeros(rows: list[Summary], judge: Judge) -> Sentence:
    """Exact zeros: by the chapter's gradient update, and by proximal steps."""
    step = [row for row in rows if row["penalty"] == "l1"]
    trained = [row for row in rows if row["penalty"] == "l1_proximal" and row["validation"]["mean"] is not None]
    chosen = next((row for row in trained if row["chosen"]), None)
    if chosen is None:
        return None
    left = max(value or 0 for row in step for value in row["zero"]["values"])
    most = max(trained, key=lambda row: row["zero"]["mean"])
    if most["zero"]["mean"] <= 10 * left:
        return None
    text = (
        f"L1 by the chapter's gradient update leaves {f'at most {left:,.0f}' if left else 'none'} of "
        f"{count(chosen['weights'], 'weight')} exactly zero, at any lambda tried. Proximal steps set "
        f"{share(chosen['zero']['mean'] / chosen['weights'])} of them to exactly zero at the lambda that validation "
        f"chooses ({number(chosen['strength'])})"
    )
    if most is not chosen:
        text += f", and {share(most['zero']['mean'] / most['weights'])} at {number(most['strength'])}"
    return f"{text}."


def _sparsest(rows: list[Summary], judge: Judge) -> Sentence:
    """How many weights can go at a cost of 2 points or less."""
    words, plain = judge.words, next(row for row in rows if row["penalty"] == "none")
    kept = []
    for row in rows:
        change = difference(row["validation"], plain["validation"])
        if row["penalty"] != "l1_proximal" or change["mean"] is None or change["error"] is None:
            continue
        if change["mean"] - change["error"] > -0.02 and row["zero"]["mean"] > 0.05 * row["weights"]:
            kept.append((row["zero"]["mean"], row, change))
    if not kept:
        return None
    zero, row, change = max(kept, key=lambda entry: entry[0])
    verdict = "" if judge.clear(change) else ", no clear difference"
    return (
        f"With {share(zero / row['weights'])} of its weights at zero (L1, proximal, lambda = "
        f"{number(row['strength'])}) the network scores {words.scored(row['validation'])} on validation, against "
        f"{words.score(plain['validation'])} without a penalty ({words.change(change)}{verdict})."
    )


def _best_penalty(rows: list[Summary], judge: Judge) -> Sentence:
    """Whether the penalty that validation prefers is better or worse on test."""
    words, plain = judge.words, next(row for row in rows if row["penalty"] == "none")
    rivals = [row for row in rows if row["chosen"] and row["penalty"] != "none"]
    trained = [row for row in rivals if row["validation"]["mean"] is not None]
    if not trained:
        return None
    best = max(trained, key=lambda row: row["validation"]["mean"])
    change = difference(best["test"], plain["test"])
    if not judge.clear(change):
        return None
    return (
        f"Of all penalties validation chooses {best['label']} at lambda = {number(best['strength'])}: on test it "
        f"scores {words.scored(best['test'])}, against {words.score(plain['test'])} without a penalty "
        f"({words.change(change)})."
    )


def _gap(rows: list[Summary], judge: Judge) -> Sentence:
    """What dropout does to the gap between training and test."""
    words, plain, best = judge.words, rows[0], next(row for row in rows if row["chosen"])
    change = difference(best["gap"], plain["gap"])
    if not judge.clear(change):
        return None
    closer = abs(best["gap"]["mean"]) < abs(plain["gap"]["mean"])
    verb = "moves" if best["gap"]["mean"] < 0 or plain["gap"]["mean"] < 0 else "narrows" if closer else "widens"
    return (
        f"Dropout at the p that validation chooses ({best['p']:g}) {verb} the gap between training and test from "
        f"{words.points(plain['gap'])} to {words.points(best['gap'])} {words.unit}."
    )


def _dropout_on_test(rows: list[Summary], judge: Judge) -> Sentence:
    words, plain, best = judge.words, rows[0], next(row for row in rows if row["chosen"])
    change = difference(best["test"], plain["test"])
    if not judge.clear(change):
        return None
    return (
        f"On test, p = {best['p']:g} scores {words.scored(best['test'])}, against {words.score(plain['test'])} without "
        f"dropout ({words.change(change)})."
    )


def _ensemble(rows: list[Summary], judge: Judge) -> Sentence:
    """One network with its weights scaled against the average of many thinned ones, on the same rows."""
    words, best = judge.words, next(row for row in rows if row["chosen"])
    ensemble = best["ensemble"]
    single, many, scaled = ensemble["test"][0], ensemble["test"][-1], ensemble["scaled"]["test"]
    change = difference(many, scaled)
    if change["mean"] is None or change["error"] is None:
        return None
    networks = f"the average of {ensemble['networks'][-1]} thinned networks"
    if judge.clear(change):
        less = "more" if change["mean"] > 0 else "less"
        text = (
            f"At p = {best['p']:g}, {networks} scores {words.amount(change)} {less} than the one network with its "
            "weights scaled, on the same test rows."
        )
    elif abs(change["mean"]) + change["error"] < 0.01:
        text = (
            f"The one network with its weights scaled stands in for the ensemble: at p = {best['p']:g}, {networks} "
            f"shows no clear difference from it on the same test rows ({words.change(change)})."
        )
    else:
        return None
    gain = difference(many, single)
    if judge.clear(gain) and (gain["mean"] or 0.0) > 0:
        text += f" A single thinned network scores {words.amount(gain)} less than that average."
    return text


def _too_much(rows: list[Summary], judge: Judge) -> Sentence:
    """The least p from which on every p clearly and badly hurts."""
    bad: list[Summary] = []
    for row in sorted(rows[1:], key=lambda row: -row["p"]):
        change = difference(row["validation"], rows[0]["validation"])
        if not judge.clear(change) or (change["mean"] or 0.0) > -0.1:
            break
        bad.append(row)
    if not bad:
        return None
    least, words = bad[-1], judge.words
    return (
        f"Too much dropout hurts: at p = {least['p']:g} a network of this depth and width scores "
        f"{words.score(least['validation'])} on validation after the same number of updates, against "
        f"{words.score(rows[0]['validation'])} without dropout."
    )


def _of_scales(rule: Callable[[list[Summary]], Sentence]) -> Callable[[list[Summary], Judge], Sentence]:
    return lambda rows, judge: rule(rows)


RULES: dict[str, Sequence[Callable[[Any, Judge], Sentence]]] = {
    "together": (_all_three, _one_by_one),
    "initializers": (
        *map(_of_scales, (scales.of_he, scales.vanishing_gradient)),
        *map(_best_start, ACTIVATIONS),
        _of_scales(scales.theory),
    ),
    "penalties": (_zeros, _sparsest, _best_penalty),
    "dropout": (_gap, _dropout_on_test, _ensemble, _too_much),
}
