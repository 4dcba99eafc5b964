"""What the figures say, in plain words. A sentence is made of figures, and is left out where they do not support it."""

import statistics
from collections.abc import Callable, Sequence
from typing import Any

from wellposed.study.estimate import Estimate, clear, difference
from wellposed.study.summary import Summary
from wellposed.study.words import Words, count, factor, number, share

Sentence = str | None


def findings(results: Summary) -> list[dict[str, str]]:
    """The findings of a study.

    Args:
        results: What ``results.json`` holds, less the findings.

    Returns:
        For each finding its experiment and its text.
    """
    words = Words(results["data"]["task"])
    found = []
    for experiment, rules in RULES.items():
        for rule in rules:
            text = rule(results["experiments"][experiment], words)
            if text:
                found.append({"experiment": experiment, "text": text})
    return found


def _scale_of_he(rows: list[Summary], words: Words) -> Sentence:
    """Whether the chapter's He loses the signal that the paper's keeps."""
    chapter, paper = (_start(rows, "relu", name) for name in ("he_chapter", "he"))
    lost, kept = (_a_layer(row["signal"]["measured"]) for row in (chapter, paper))
    theory = _a_layer(chapter["signal"]["predicted"])
    if lost is None or kept is None or theory is None or not (lost < 0.6 and 0.7 < kept < 1.4):
        return None
    layers = len(chapter["signal"]["measured"]) - 1
    first, last = chapter["signal"]["measured"][0], chapter["signal"]["measured"][-2]
    return (
        f"On ReLU, the chapter's He bound multiplies the signal's mean square by {lost:.2f} at every layer "
        f"(theory: {theory:.2f}): after {count(layers, 'hidden layer')} it is {factor(last**2 / first**2)} of what "
        f"it was at the first. He's own bound multiplies it by {kept:.2f}."
    )


def _vanishing_gradient(rows: list[Summary], words: Words) -> Sentence:
    """The start whose gradient fades most on its way back."""
    faded = []
    for row in rows:
        gradient = row["gradient"]["measured"]
        if len(gradient) > 2 and gradient[0] and gradient[-2]:
            faded.append((gradient[0] / gradient[-2], row))
    if not faded:
        return None
    ratio, row = min(faded, key=lambda entry: entry[0])
    if ratio > 0.1:
        return None
    return (
        f"The gradient fades most with {row['label']} on the {_NETWORK[row['activation']]} network: at the first layer "
        f"it is {factor(ratio)} as large as at the last hidden one."
    )


def _theory(rows: list[Summary], words: Words) -> Sentence:
    """How far the measured scales are from the predicted ones."""
    off = [
        abs(measured / predicted - 1)
        for row in rows
        for kind in ("signal", "gradient")
        for measured, predicted in zip(row[kind]["measured"], row[kind]["predicted"], strict=True)
        if measured and predicted
    ]
    if not off or statistics.median(off) > 0.25:
        return None
    return (
        f"Theory predicts the scale of signal and gradient at a layer to within {share(statistics.median(off))} on "
        f"median and {share(max(off))} at worst, over {len(off)} measured scales."
    )


def _best_start(activation: str) -> Callable[[list[Summary], Words], Sentence]:
    def sentence(rows: list[Summary], words: Words) -> Sentence:
        rivals = [row for row in rows if row["activation"] == activation]
        best = next(row for row in rivals if row["chosen"])
        worse = [row for row in rivals if row is not best and _clearly_above(best["test"], row["test"])]
        lost = [row for row in rivals if row["test"]["mean"] is None]
        if not worse and not lost:
            return None
        text = (
            f"On the {_NETWORK[activation]} network validation chooses {best['label']}: "
            f"{words.scored(best['test'])} on test."
        )
        if worse:
            worst = min(worse, key=lambda row: row["test"]["mean"])
            text += f" {worst['label']} reaches {words.score(worst['test'])}"
            text += f", and {count(len(worse), 'start')} of {len(rivals) - 1} are clearly behind."
        if lost:
            text += f" Training diverged with {_join([row['label'] for row in lost])}."
        return text

    return sentence


def _zeros(rows: list[Summary], words: Words) -> Sentence:
    """Exact zeros: by the chapter's gradient update, and by proximal steps."""
    most = {}
    for name in ("l1", "l1_proximal"):
        known = [row for row in rows if row["penalty"] == name and row["zero"]["mean"] is not None]
        most[name] = max(known, key=lambda row: row["zero"]["mean"])
    step, proximal = most["l1"], most["l1_proximal"]
    if proximal["zero"]["mean"] <= 10 * step["zero"]["mean"] or not proximal["zero"]["mean"]:
        return None
    chosen = next(row for row in rows if row["penalty"] == "l1_proximal" and row["chosen"])
    left = step["zero"]["mean"]
    text = (
        f"L1 by the chapter's gradient update leaves {'no weight' if not left else f'at most {left:,.0f} weights'} of "
        f"{step['weights']:,} exactly zero at any lambda tried. Proximal steps set "
        f"{share(chosen['zero']['mean'] / chosen['weights'])} of them to exactly zero at the lambda that validation "
        f"chooses ({number(chosen['strength'])})"
    )
    if proximal is not chosen:
        text += f", and {share(proximal['zero']['mean'] / proximal['weights'])} at {number(proximal['strength'])}"
    return f"{text}."


def _best_penalty(rows: list[Summary], words: Words) -> Sentence:
    """Whether a penalty that validation prefers is better on test."""
    plain = next(row for row in rows if row["penalty"] == "none")
    chosen = [
        row for row in rows if row["chosen"] and row["penalty"] != "none" and row["validation"]["mean"] is not None
    ]
    if not chosen or plain["test"]["mean"] is None:
        return None
    best = max(chosen, key=lambda row: row["validation"]["mean"])
    change = difference(best["test"], plain["test"])
    if not clear(change):
        return None
    return (
        f"Of all penalties validation chooses {best['label']} at lambda = {number(best['strength'])}: on test it "
        f"scores {words.scored(best['test'])}, against {words.score(plain['test'])} without a penalty "
        f"({words.change(change)})."
    )


def _sparsest(rows: list[Summary], words: Words) -> Sentence:
    """How many weights can go before validation suffers."""
    plain = next(row for row in rows if row["penalty"] == "none")
    kept = []
    for row in rows:
        change = difference(row["validation"], plain["validation"])
        harmless = (
            change["mean"] is not None and change["error"] is not None and change["mean"] - change["error"] > -0.02
        )
        if row["penalty"] == "l1_proximal" and harmless and row["zero"]["mean"] > 0.05 * row["weights"]:
            kept.append((row["zero"]["mean"], row, change))
    if not kept:
        return None
    zero, row, change = max(kept, key=lambda entry: entry[0])
    return (
        f"With {share(zero / row['weights'])} of its weights at zero (L1, proximal, lambda = "
        f"{number(row['strength'])}) the network scores {words.score(row['validation'])} on validation, against "
        f"{words.score(plain['validation'])} with all of them ({words.change(change)})."
    )


def _gap(rows: list[Summary], words: Words) -> Sentence:
    """Whether dropout narrows the gap between training and test."""
    plain, best = rows[0], next(row for row in rows if row["chosen"])
    change = difference(best["gap"], plain["gap"])
    if not clear(change):
        return None
    verb = "narrows" if (change["mean"] or 0.0) < 0 else "widens"
    return (
        f"Dropout at the p that validation chooses ({best['p']:g}) {verb} the gap between training and test from "
        f"{words.points(plain['gap'])} to {words.points(best['gap'])} {words.unit}."
    )


def _dropout_on_test(rows: list[Summary], words: Words) -> Sentence:
    plain, best = rows[0], next(row for row in rows if row["chosen"])
    change = difference(best["test"], plain["test"])
    if not clear(change):
        return None
    return (
        f"On test, p = {best['p']:g} scores {words.scored(best['test'])}, against {words.score(plain['test'])} without "
        f"dropout ({words.change(change)})."
    )


def _too_much(rows: list[Summary], words: Words) -> Sentence:
    """The least p from which on every p clearly and badly hurts."""
    bad: list[Summary] = []
    for row in reversed(rows[1:]):
        change = difference(row["validation"], rows[0]["validation"])
        if not clear(change) or (change["mean"] or 0.0) > -0.1:
            break
        bad.append(row)
    if not bad:
        return None
    return (
        f"Too much dropout hurts: at p = {bad[-1]['p']:g} a network of this depth and width falls to "
        f"{words.score(bad[-1]['validation'])} on validation in the same number of updates."
    )


def _ensemble(rows: list[Summary], words: Words) -> Sentence:
    """One network with its weights scaled against the average of many thinned ones."""
    best = next(row for row in rows if row["chosen"])
    ensemble = best["ensemble"]
    single, many = ensemble["test"][0], ensemble["test"][-1]
    change = difference(many, best["test"])
    if change["mean"] is None or change["error"] is None:
        return None
    networks = f"the average of {ensemble['networks'][-1]} thinned networks"
    if clear(change):
        text = f"At p = {best['p']:g}, {networks} and the one scaled network differ on test by {words.change(change)}."
    elif abs(change["mean"]) + change["error"] < 0.01:
        text = (
            f"The one network with its weights scaled stands in for the ensemble: at p = {best['p']:g}, {networks} "
            f"scores within {words.points(_size(change))} {words.unit} of it on test."
        )
    else:
        return None
    gain = difference(many, single)
    if clear(gain) and (gain["mean"] or 0.0) > 0:
        text += f" A single thinned network scores {words.points(gain)} {words.unit} less than that average."
    return text


def _all_three(rows: list[Summary], words: Words) -> Sentence:
    by = {row["label"]: row["test"] for row in rows}
    change = difference(by["All three"], by["None"])
    if not clear(change):
        return None
    text = (
        f"Together, initialization, regularization and dropout score {words.scored(by['All three'])} on test, against "
        f"{words.score(by['None'])} with none of them ({words.change(change)})."
    )
    rest = difference(by["All three"], by["Initialization"])
    if clear(rest):
        text += f" Over initialization alone, the other two add {words.change(rest)}."
    return text


def _one_by_one(rows: list[Summary], words: Words) -> Sentence:
    """What each ingredient adds."""
    by = {row["label"]: row["test"] for row in rows}
    steps = (("initialization", "Initialization", "None"), ("regularization", "+ regularization", "Initialization"))
    parts = []
    for name, label, base in (*steps, ("dropout", "+ dropout", "Initialization")):
        change = difference(by[label], by[base])
        if clear(change):
            parts.append(f"{name} adds {words.change(change)} over {_BASE[base]}")
    return f"One at a time on test, {_join(parts)}." if parts else None


_BASE = {"None": "none of the three", "Initialization": "initialization alone"}

RULES: dict[str, Sequence[Callable[[Any, Words], Sentence]]] = {
    "together": (_all_three, _one_by_one),
    "initializers": (_scale_of_he, _vanishing_gradient, _best_start("tanh"), _best_start("relu"), _theory),
    "penalties": (_zeros, _sparsest, _best_penalty),
    "dropout": (_gap, _dropout_on_test, _ensemble, _too_much),
}

_NETWORK = {"tanh": "tanh", "relu": "ReLU"}


def _start(rows: list[Summary], activation: str, start: str) -> Summary:
    return next(row for row in rows if (row["activation"], row["start"]) == (activation, start))


def _a_layer(scales: list[float | None]) -> float | None:
    """The factor by which the mean square grows from one hidden layer to the next."""
    hidden = scales[:-1]
    if len(hidden) < 2 or not hidden[0] or not hidden[-1]:
        return None
    return float((hidden[-1] / hidden[0]) ** (2 / (len(hidden) - 1)))


def _clearly_above(a: Estimate, b: Estimate) -> bool:
    change = difference(a, b)
    return clear(change) and (change["mean"] or 0.0) > 0


def _size(change: Estimate) -> Estimate:
    return Estimate(mean=abs(change["mean"] or 0.0), error=None, values=[])


def _join(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
