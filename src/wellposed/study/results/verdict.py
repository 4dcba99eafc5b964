"""The verdict of a study: what helped, what made no clear difference, what hurt, beside what each is held against."""

from dataclasses import dataclass
from typing import Literal

from wellposed.study.estimate import Estimate, difference, seeds_needed
from wellposed.study.methods import PENALTIES
from wellposed.study.results.joint_findings import named
from wellposed.study.results.judge import Judge, judge_of
from wellposed.study.results.summary import Summary
from wellposed.study.training.network import ACTIVATIONS
from wellposed.study.wording import DIVERGED, Wording, count, join, number

Kind = Literal["helped", "unclear", "hurt"]
LINES: dict[Kind, str] = {"helped": "Helped", "unclear": "Made no clear difference", "hurt": "Hurt"}


@dataclass(frozen=True)
class Item:
    """One thing that was tried, and what it is held against.

    Attributes:
        name: Which of the three it belongs to.
        label: What was tried, and on what.
        score: Its test score.
        base: What it is held against.
        against: The test score of that.
    """

    name: str
    label: str
    score: Estimate
    base: str
    against: Estimate

    @property
    def change(self) -> Estimate:
        """The difference, seed by seed."""
        return difference(self.score, self.against)


def verdict(results: Summary) -> Summary:
    """The verdict of a study.

    Args:
        results: What ``results.json`` holds so far.

    Returns:
        ``lines``, three of them with ``kind`` and ``text``; ``items``, what the lines are made of; ``baselines``, a row
        for each network and model that the numbers stand beside, with its ``label`` and ``test`` score; ``beside``, a
        sentence on the same after few rows, and one on the recommended network beside them.
    """
    judge = judge_of(results)
    sorted_items: dict[Kind, list[Item]] = {kind: [] for kind in LINES}
    items = _items(results)
    for item in items:
        sorted_items[_kind(item, judge)].append(item)
    lines = [
        {"kind": kind, "text": f"{LINES[kind]}: {'; '.join(_said(item, kind, judge) for item in found) or 'nothing'}."}
        for kind, found in sorted_items.items()
    ]
    return {
        "lines": lines,
        "beside": [*_on_few(results, judge.wording), _best(results, judge)],
        "baselines": _beside(results),
        "items": [
            {"name": item.name, "label": item.label, "kind": _kind(item, judge), "base": item.base}
            | {"test": item.score, "against": item.against, "change": item.change}
            | {"seeds": None if judge.clear(item.change) else seeds_needed(item.change, judge.step)}
            for item in items
        ],
    }


def _items(results: Summary) -> list[Item]:
    experiments, regimes = results["experiments"], results["design"]["regimes"]
    few, full = (count(regimes[name]["rows"], "row") for name in ("few", "full"))
    depth = count(len(results["design"]["deep"]["hidden"]), "hidden layer")
    items = []
    for activation, known in ACTIVATIONS.items():
        rows = [row for row in experiments["initializers"] if row["activation"] == activation]
        default = next(row for row in rows if row["start"] == "torch")
        other = _best_of([row for row in rows if row is not default])
        label = f"the start {other['label']} on {depth} of {known.label}"
        items.append(Item("initialization", label, other["test"], "PyTorch's default", default["test"]))
    penalties, dropout = experiments["penalties"], experiments["dropout"]
    best = _best_of([row for row in penalties if row["chosen"] and row["strength"]])
    label = f"{best['label']} at lambda = {number(best['strength'])} on {few}"
    items.append(Item("regularization", label, best["test"], "no penalty", penalties[0]["test"]))
    thinned = next(row for row in dropout if row["chosen"])
    items.append(
        Item("dropout", f"dropout at p = {thinned['p']:g} on {few}", thinned["test"], "none", dropout[0]["test"])
    )
    if few != full:
        _, start, penalised, dropped, _ = experiments["together"]
        label = f"{PENALTIES[penalised['penalty']].label} at lambda = {number(penalised['strength'])} on all {full}"
        items.append(Item("regularization", label, penalised["test"], "no penalty", start["test"]))
        label = f"dropout at p = {dropped['p']:g} on all {full}"
        items.append(Item("dropout", label, dropped["test"], "none", start["test"]))
    return items


def _best_of(rows: list[Summary]) -> Summary:
    return max(rows, key=lambda row: float("-inf") if (mean := row["validation"]["mean"]) is None else mean)


def _kind(item: Item, judge: Judge) -> Kind:
    change = item.change
    if item.score["mean"] is None and item.against["mean"] is not None:
        return "hurt"
    if item.score["mean"] is not None and item.against["mean"] is None:
        return "helped"
    if not judge.clear(change):
        return "unclear"
    return "helped" if (change["mean"] or 0.0) > 0 else "hurt"


def _said(item: Item, kind: Kind, judge: Judge) -> str:
    wording = judge.wording
    score, against = wording.score(item.score), wording.score(item.against)
    if item.change["mean"] is None:
        return f"{item.label} ({score}, against {against} with {item.base})"
    doubt = f"; {_doubt(item.change, judge)}" if kind == "unclear" else ""
    return f"{item.label} ({score}, against {against} with {item.base}: {wording.change(item.change)}{doubt})"


def _doubt(change: Estimate, judge: Judge) -> str:
    """Why a difference is not clear, and how many seeds would tell one like it."""
    if change["error"] is None:
        return "one seed tells nothing from chance, five would be a start"
    seeds = seeds_needed(change, judge.step)
    if seeds is None:
        return "not even 100 seeds would tell so little"
    return f"about {count(seeds, 'seed')} would tell such a difference"


def _best(results: Summary, judge: Judge) -> str:
    wording, default, chosen = judge.wording, results["experiments"]["together"][0], results["recommended"]
    score = DIVERGED if chosen["test"]["mean"] is None else wording.scored(chosen["test"])
    rule = "the simplest network within one standard error of the best on validation"
    layers = count(len(results["design"]["full"]["hidden"]), "hidden layer")
    text = f"Recommended for {layers}, as {rule}: {named(chosen)}, {score} on test. "
    rows = ([] if chosen["name"] == "default" else [default]) + results["baselines"]
    return f"{text}Beside it: {_without(rows, results, wording)}.{_nothing_learned(results, judge)}"


def _nothing_learned(results: Summary, judge: Judge) -> str:
    chosen, by = results["recommended"]["test"], {row["name"]: row["test"] for row in results["baselines"]}
    if difference(chosen, by["guess"])["error"] is None or judge.above(chosen, by["guess"]):
        return ""
    if judge.above(by["trees"], by["guess"]):
        return f" The seeds do not tell it from {_guess(results)}, and the trees they do: more updates may, by --steps."
    doubt = _doubt(difference(chosen, by["guess"]), judge)
    return f" The seeds tell neither it nor the trees from {_guess(results)}; {doubt}."


def _on_few(results: Summary, wording: Wording) -> list[str]:
    few, full = (results["design"]["regimes"][name]["rows"] for name in ("few", "full"))
    return (
        [f"Beside these, on {count(few, 'row')}: {_without(results['few'], results, wording)}."] if few != full else []
    )


def _without(rows: list[Summary], results: Summary, wording: Wording) -> str:
    """The scores of what goes without any of the three, in words."""
    by = {row["name"]: row for row in rows}
    called = {"default": "PyTorch's default alone", "trees": "gradient-boosted trees", "guess": _guess(results)}
    return join([f"{wording.score(by[name]['test'])} with {words}" for name, words in called.items() if name in by])


def _guess(results: Summary) -> str:
    data = results["data"]
    if not data["classes"]:
        return "the mean for every row"
    return f"the commonest class, {data['classes'][data['counts'].index(max(data['counts']))]!r}, for every row"


def _beside(results: Summary) -> list[Summary]:
    wording = Wording(results["data"]["measure"])
    default, chosen = results["experiments"]["together"][0], results["recommended"]
    rows = [(f"recommended: {named(chosen)}", chosen)]
    if chosen["name"] != "default":
        rows.append(("PyTorch's default start, no penalty, no dropout", default))
    by = {row["name"]: row for row in results["baselines"]}
    rows += [("gradient-boosted trees (scikit-learn)", by["trees"]), (_guess(results), by["guess"])]
    return [
        {"label": label, "test": row["test"], "score": wording.score(row["test"]), "beside": row["beside"]}
        for label, row in rows
    ]
