"""The words against the figures, over made-up studies: every number and name in a sentence is looked up again."""

import functools
import math
import random
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import pytest
from scipy import stats

from wellposed.study import experiments
from wellposed.study.design import Design
from wellposed.study.estimate import Estimate, difference, seeds_needed
from wellposed.study.methods import PENALTIES, STARTS
from wellposed.study.plotting.figures import figures
from wellposed.study.report import report
from wellposed.study.results.findings import findings
from wellposed.study.results.summary import summarise
from wellposed.study.results.verdict import verdict
from wellposed.study.training.train import Figures, TrainingRun
from wellposed.study.wording import Wording

ROWS = 500
TESTED = ROWS // 5


@dataclass(frozen=True)
class World:
    """What a made-up study would find.

    Attributes:
        score: The score of a run, before noise.
        noise: The standard deviation of each score over the seeds.
        task: What is learned.
        seeds: How many seeds.
        faded: What every layer multiplies the signal's and the gradient's mean square by, by start.
        gap: What test rows score less than training rows without dropout.
        averaged: What the average of thinned networks scores more than the scaled one.
        few: How many of the training rows are few.
        trees_guess: Whether gradient-boosted trees do as guessing does.
    """

    score: Callable[[TrainingRun], float | None]
    noise: float = 0.01
    task: str = "classification"
    seeds: int = 5
    faded: Callable[[str], float] = lambda start: 1.0
    gap: float = 0.06
    averaged: float = 0.0
    few: int | None = 60
    trees_guess: bool = False

    @property
    def measure(self) -> str:
        return {"classification": "accuracy", "uneven": "balanced accuracy", "regression": "R²"}[self.task]


def ladder(run: TrainingRun) -> float:
    """The papers' starts are best, a little of each penalty and of dropout helps, and much of either hurts."""
    score = {"random": 0.3, "torch": 0.5, "glorot_chapter": 0.5, "he_chapter": 0.7}.get(run.start, 0.85)
    decay = 0.1 if run.penalty == "l2" else 20
    return score + (0.05 if run.penalty != "none" else 0) - decay * run.strength - run.p * (run.p - 0.25)


def harm(run: TrainingRun) -> float:
    return 0.9 - 10 * run.strength - run.p + (0.05 if run.start == "random" else 0.0)


def fading(start: str) -> float:
    return {"random": 0.05, "glorot_chapter": 0.051, "torch": 0.3, "he_chapter": 1 / 3}.get(start, 0.97)


WORLDS: dict[str, World] = {
    "clear effects": World(ladder, faded=fading),
    "clear effects on R squared": World(ladder, task="regression", faded=fading, averaged=0.02),
    "clear effects on uneven classes, all rows few": World(ladder, task="uneven", faded=fading, few=None),
    "harm": World(harm, averaged=-0.03),
    "harm on R squared": World(lambda run: harm(run) - 3, task="regression"),
    "what people have is best": World(lambda run: 0.9 if run.start == "torch" else 0.7),
    "noise": World(lambda run: 0.8, noise=0.05),
    "nothing to learn": World(lambda run: 0.12, noise=0.03, trees_guess=True),
    "what trees alone learn": World(lambda run: 0.12, noise=0.03),
    "noise on two seeds": World(lambda run: 0.8, noise=0.05, seeds=2, task="regression"),
    "hints": World(lambda run: 0.8 + 0.004 * (run.p > 0), noise=0.006, task="regression"),
    "ties": World(lambda run: 0.9, noise=0.0, gap=0.0),
    "one row apart on every seed": World(lambda run: 0.9 - (run.start != "he") / TESTED, noise=0.0, seeds=2),
    "less than is printed": World(lambda run: 0.9 + 2e-4 * (run.p > 0), noise=1e-6, task="regression", gap=0.0),
    "perfect": World(lambda run: 1.0, noise=0.0, gap=-0.02),
    "one seed": World(ladder, seeds=1, faded=fading),
    "diverged": World(lambda run: None),
    "diverged on one seed": World(lambda run: None, seeds=1, task="regression"),
    "all but the papers' diverged": World(lambda run: 0.8 if run.start in ("he", "glorot") else None),
    "now and then diverged": World(
        lambda run: None if (run.start, run.seed) in {("he", 1), ("lecun", 0)} else ladder(run), task="regression"
    ),
    "penalties diverged": World(lambda run: None if run.penalty != "none" else 0.8),
    "dropout diverged": World(lambda run: None if run.p else 0.8, task="regression"),
}


def made_up(world: World, run: TrainingRun) -> Figures:
    draw = random.Random(repr(run))
    mean = world.score(run)

    def score(less: float = 0.0) -> float | None:
        if mean is None:
            return None
        value = mean - less + draw.gauss(0, world.noise)
        return value if world.task == "regression" else min(1.0, round(value * TESTED) / TESTED)

    layers, fade = len(run.hidden), math.sqrt(world.faded(run.start))
    predicted = [fade**i for i in range(layers + 1)]
    measured = [scale * math.exp(draw.gauss(0, 0.02)) for scale in predicted]
    steps = [0, run.steps]
    zero = (0.6 if run.penalty == "l1_proximal" else 0.0) * min(1.0, run.strength * 200)
    aside = ("accuracy", "log loss", "area under the curve") if world.task == "uneven" else ()
    return {
        "scales": {
            "signal": {"measured": measured, "predicted": predicted},
            "gradient": {"measured": measured[::-1], "predicted": predicted[::-1]},
        },
        "curve": {"step": steps, "kept": run.steps}
        | {f"{part} loss": [2.0, 0.5 if mean else None] for part in ("train", "validation")}
        | {f"{part} score": [0.1, score()] for part in ("train", "validation")},
        "beside": dict.fromkeys(aside, mean),
        "score": {"train": score(world.gap * (run.p - 1)), "validation": score(), "test": score()},
        "weights": {"count": 1000, "zero": int(1000 * zero) + (run.penalty == "l1" and run.seed == 1), "largest": [3]}
        | {"values": [0.5], "tracked": [0.4 if zero < 0.5 else 0.0] if run.tracked else []},
        "ensemble": {
            "networks": [1, 8],
            "scaled": {"validation": score(0.1), "test": score(0.1)},
            "validation": [score(0.2), score(0.1 - world.averaged)],
            "test": [score(0.2), score(0.1 - world.averaged)],
        }
        if run.p
        else None,
    }


@functools.cache
def studied(name: str) -> dict[str, Any]:
    """The results of a made-up study, wave by wave as a real one."""
    world = WORLDS[name]
    full = TrainingRun(0, (64, 64), steps=400, batch=64)
    strengths: dict[str, tuple[float, ...]] = {
        name: (1e-3, 1e-2) for name, method in PENALTIES.items() if method.make is not None
    }
    few = replace(full, rows=world.few, steps=300) if world.few else full
    deep = TrainingRun(0, (64, 64, 64, 64), scales=True)
    planned = Design(deep, few, full, strengths, (0.1, 0.3, 0.6), world.seeds, 300)
    done: dict[experiments.Run, Figures] = {run: guesses(world, run.seed) for run in experiments.baselines(planned)}
    for wave in experiments.WAVES:
        for case in [case for stage in wave for case in stage(planned, done)]:
            done |= {run: made_up(world, run) for run in case.runs}
    counts = {"classification": [250, 250], "uneven": [400, 100], "regression": []}[world.task]
    found = {
        "data": {"name": "made up", "task": "regression" if not counts else "classification", "rows": ROWS}
        | {"features": 3, "target": "y", "classes": ["no", "yes"][: len(counts)], "counts": counts}
        | {"notes": [], "digest": "0", "measure": world.measure},
        "design": asdict(planned) | {"regimes": planned.regimes},
        "seeds": list(range(world.seeds)),
        "command": "wellposed study",
        "versions": {},
    }
    found |= summarise(planned, done)
    found["verdict"] = verdict(found)
    return found | {"findings": findings(found)}


def guesses(world: World, seed: int) -> Figures:
    aside = ("accuracy", "log loss", "area under the curve") if world.task == "uneven" else ()
    parts = ("train", "validation", "test")
    return {
        name: dict.fromkeys(parts, score + seed / 100) | {"beside": dict.fromkeys(aside, 0.5)}
        for name, score in (("guess", 0.1), ("trees", 0.1 if world.trees_guess else 0.7))
    }


@pytest.fixture(params=WORLDS)
def results(request: pytest.FixtureRequest) -> dict[str, Any]:
    return studied(request.param)


class Facts:
    """The figures, said by words that are looked up in sentences."""

    def __init__(self, results: dict[str, Any]) -> None:
        self.wording, self.rows = Wording(results["data"]["measure"]), results["experiments"]
        self.seeds, self.few = len(results["seeds"]), results["design"]["regimes"]["few"]["rows"]
        self.tested = min(results["data"]["counts"]) * 2 / 5 if "balanced" in self.wording.name else TESTED

    def chosen(self, experiment: str, **which: str) -> dict[str, Any]:
        (row,) = (r for r in self.rows[experiment] if r["chosen"] and which.items() <= r.items())
        return dict(row)

    def plain(self, experiment: str) -> dict[str, Any]:
        dial = "p" if experiment == "dropout" else "strength"
        return dict(next(row for row in self.rows[experiment] if not row[dial]))

    def together(self, name: str) -> Estimate:
        row: dict[str, Estimate] = next(row for row in self.rows["together"] if row["name"] == name)
        return row["test"]

    def told_apart(self, change: Estimate) -> bool:
        return told_apart(change, self.tested)


def told_apart(change: Estimate, tested: float = TESTED) -> bool:
    """A t test at 5 %, of a score that moves by a row of the test part at least."""
    values = [value for value in change["values"] if value is not None]
    if len(values) < max(2, len(change["values"])):
        return False
    error = max(float(stats.sem(values)), 0.5 / tested)
    return bool(abs(sum(values) / len(values)) > stats.t.ppf(0.975, len(values) - 1) * error)


def all_of_it(facts: Facts, text: str) -> None:
    row = facts.chosen("together")
    change = difference(row["test"], facts.together("default"))
    assert facts.told_apart(change)
    assert f"scores {facts.wording.scored(row['test'])} on test" in text
    assert f"against {facts.wording.score(facts.together('default'))} with PyTorch's default start" in text
    assert facts.wording.change(change) in text
    is_named(row, text.partition(" scores ")[0])


def is_named(row: dict[str, Any], text: str) -> None:
    """A network is said to have the start, the penalty, the lambda and the p that it has, and no others."""
    assert (STARTS[row["start"]].label if row["start"] != "torch" else "PyTorch's default") in text
    for name, method in PENALTIES.items():
        assert (f"{method.label} at lambda = " in text) == (name == row["penalty"] != "none")
    if row["strength"]:
        assert f"at lambda = {row['strength']:.2g}" in text
    assert ("dropout" in text) == bool(row["p"])
    if row["p"]:
        assert f"dropout at p = {row['p']:g}" in text


INGREDIENTS = {
    "the start that validation chooses": ("start", "default"),
    "a penalty": ("penalty", "start"),
    "dropout": ("dropout", "start"),
    "a penalty and dropout together": ("both", "start"),
}


def one_by_one(facts: Facts, text: str) -> None:
    said = {}
    for part in text.partition("on test: ")[2].removesuffix(".").split("; "):
        called, verb = re.split(" (adds|takes) ", part)[:2]
        name, base = INGREDIENTS[called]
        change = difference(facts.together(name), facts.together(base))
        assert facts.told_apart(change)
        assert verb == ("adds" if (change["mean"] or 0) > 0 else "takes")
        assert facts.wording.amount(change) in part
        assert part.endswith("PyTorch's default" if base == "default" else "that start alone")
        said[called] = name
    for called, (name, base) in INGREDIENTS.items():
        assert (called in said) == facts.told_apart(difference(facts.together(name), facts.together(base)))


def he(facts: Facts, text: str) -> None:
    rows = {row["start"]: row for row in facts.rows["initializers"] if row["activation"] == "relu"}
    lost, theory, layers, kept = map(float, re.findall(r"\d+\.\d\d|(?<=after )\d+", text))
    assert "±√(2/n)" in STARTS["he_chapter"].label
    told = (("he_chapter", "measured", lost), ("he_chapter", "predicted", theory), ("he", "measured", kept))
    for row, kind, said in told:
        hidden = rows[row]["signal"][kind][:-1]
        assert (hidden[-1] / hidden[0]) ** (2 / (len(hidden) - 1)) == pytest.approx(said, abs=0.006)
    assert layers == len(hidden)


def fades(facts: Facts, text: str) -> None:
    activation = "relu" if "the ReLU network" in text else "tanh"
    named = re.split(", | and ", text.split("with ")[1].split(":")[0])
    ratio = {
        row["label"]: row["gradient"]["measured"][0] / row["gradient"]["measured"][-2]
        for row in facts.rows["initializers"]
        if row["activation"] == activation
    }
    said = re.search(r"it is 1/([\d,]+)( or little more)? as large", text)
    assert said
    assert 1 / min(ratio.values()) == pytest.approx(float(said[1].replace(",", "")), abs=0.51)
    assert max(ratio[name] for name in named) <= 1.1 * min(ratio.values())
    assert all(ratio[name] > 1.1 * min(ratio.values()) for name in ratio.keys() - named)
    assert bool(said[2]) == (len(named) > 1)


def starts(facts: Facts, text: str) -> None:
    activation = "relu" if "ReLU network" in text else "tanh"
    rivals = [row for row in facts.rows["initializers"] if row["activation"] == activation]
    lost = {row["label"] for row in rivals if None in row["test"]["values"]}
    best = next(row for row in rivals if row["chosen"])
    assert ("with every initializer" in text) == (len(lost) == len(rivals))
    if "with every initializer" in text:
        assert "chooses" not in text
    elif "diverged" in text:
        named = text.split("diverged with ")[1].removesuffix(".").removesuffix(", on one seed at least")
        assert set(re.split(", | and ", named)) == lost
    else:
        assert not lost
    assert ("on one seed at least" in text) == ("diverged" in text and facts.seeds > 1)
    if "chooses" in text:
        assert f"chooses {best['label']}: {facts.wording.scored(best['test'])} on test" in text
        behind = [
            row
            for row in rivals
            if facts.told_apart(c := difference(best["test"], row["test"])) and (c["mean"] or 0) > 0
        ]
        assert f"other initializers {len(behind)} {'is' if len(behind) == 1 else 'are'} clearly behind: " in text
        for row in rivals:
            told = f"{row['label']} ({facts.wording.score(row['test'])})"
            assert (told in text) == (row in behind)


def theory(facts: Facts, text: str) -> None:
    pairs = [
        (m, p)
        for row in facts.rows["initializers"]
        for m, p in [
            *zip(row["signal"]["measured"], row["signal"]["predicted"], strict=True),
            *list(zip(row["gradient"]["measured"], row["gradient"]["predicted"], strict=True))[:-1],
        ]
    ]
    worst = max(abs(m / p - 1) for m, p in pairs)
    said = re.search(r"and ([\d.]+)\s% at worst, over (\d+) ", text)
    assert said
    assert float(said[1]) == pytest.approx(100 * worst, rel=0.06)
    assert int(said[2]) == len(pairs)


def zeros(facts: Facts, text: str) -> None:
    left = max(value for row in facts.rows["penalties"] if row["penalty"] == "l1" for value in row["zero"]["values"])
    assert (f"leaves at most {left:,.0f} of" if left else "leaves none of") in text
    row = facts.chosen("penalties", penalty="l1_proximal")
    assert row["validation"]["mean"] is not None
    assert f"{row['zero']['mean'] / 10:.0f}" in re.split(r"Proximal steps set ", text)[1]
    assert f"chooses ({row['strength']:.2g})" in text


def sparse(facts: Facts, text: str) -> None:
    strength = re.search(r"lambda = ([\d.e-]+)\)", text)
    assert strength
    row = next(
        row
        for row in facts.rows["penalties"]
        if row["penalty"] == "l1_proximal" and row["strength"] == float(strength[1])
    )
    change = difference(row["validation"], facts.plain("penalties")["validation"])
    assert (change["mean"] or 0) > -0.02
    assert facts.wording.change(change) in text
    assert facts.told_apart(change) == ("no clear difference" not in text)


def penalty(facts: Facts, text: str) -> None:
    row = next(r for r in facts.rows["penalties"] if r["chosen"] and f"chooses {r['label']} at" in text)
    means = [r["validation"]["mean"] for r in facts.rows["penalties"] if r["strength"]]
    assert row["validation"]["mean"] == max(mean for mean in means if mean is not None)
    change = difference(row["test"], facts.plain("penalties")["test"])
    assert facts.told_apart(change)
    assert facts.wording.change(change) in text
    assert f"after {facts.few} training rows" in text


def gap(facts: Facts, text: str) -> None:
    plain, row = facts.plain("dropout")["gap"], facts.chosen("dropout")["gap"]
    assert facts.told_apart(difference(row, plain))
    assert f"from {facts.wording.points(plain)} to {facts.wording.points(row)} " in text
    sizes = min(plain["mean"], row["mean"]) >= 0 and row["mean"] - plain["mean"]
    assert ("moves" if not sizes else "narrows" if sizes < 0 else "widens") in text


def dropped(facts: Facts, text: str) -> None:
    change = difference(facts.chosen("dropout")["test"], facts.plain("dropout")["test"])
    assert facts.told_apart(change)
    assert f"After {facts.few} training rows" in text
    assert facts.wording.change(change) in text


def together(facts: Facts, text: str) -> None:
    ensemble = facts.chosen("dropout")["ensemble"]
    change = difference(ensemble["test"][-1], ensemble["scaled"]["test"])
    clear = "no clear difference" not in text
    assert facts.told_apart(change) == clear
    assert (facts.wording.amount(change) if clear else facts.wording.change(change)) in text
    if clear:
        assert (" more than the one" in text) == ((change["mean"] or 0) > 0)
    if "A single" in text:
        gain = difference(ensemble["test"][-1], ensemble["test"][0])
        assert facts.told_apart(gain)
        assert f"scores {facts.wording.amount(gain)} less than that average" in text


def too_much(facts: Facts, text: str) -> None:
    said = re.search(r"at p = ([\d.]+) ", text)
    assert said
    for row in facts.rows["dropout"]:
        if row["p"] >= float(said[1]):
            change = difference(row["validation"], facts.plain("dropout")["validation"])
            assert facts.told_apart(change)
            assert (change["mean"] or 0) <= -0.1
    row = next(row for row in facts.rows["dropout"] if row["p"] == float(said[1]))
    assert f"scores {facts.wording.score(row['validation'])} on validation" in text


SENTENCES: dict[str, Callable[[Facts, str], None]] = {
    "On all training rows": all_of_it,
    "One at a time": one_by_one,
    "On ReLU, weights": he,
    "On the (tanh|ReLU) network the gradient": fades,
    "On the (tanh|ReLU) network (validation|training)": starts,
    "Theory predicts": theory,
    "L1 by its gradient": zeros,
    "With ": sparse,
    "Of all penalties": penalty,
    "Dropout at the p": gap,
    "After ": dropped,
    "(The one network|At p = )": together,
    "Too much dropout": too_much,
}


def test_every_sentence_is_true_of_the_figures(results: dict[str, Any]) -> None:
    facts = Facts(results)
    for finding in results["findings"]:
        (check,) = (check for start, check in SENTENCES.items() if re.match(start, finding["text"]))
        check(facts, finding["text"])


def test_sentences_are_whole(results: dict[str, Any]) -> None:
    verdict_texts = [line["text"] for line in results["verdict"]["lines"]] + results["verdict"]["beside"]
    for text in [finding["text"] for finding in results["findings"]] + verdict_texts:
        text = text.replace("\u00a0", " ")
        assert text.endswith(".")
        assert not re.search(r"None|nan|inf\b|  |\u22120\.0+\b|of diverged|adds? \u2212|initializers 1 are", text)
        if len(results["seeds"]) == 1:
            assert not re.search(r"± \d", text)


def test_the_report_is_drawn_whatever_was_found(results: dict[str, Any]) -> None:
    recommended = results["recommended"] | {"code": "wp.initialize(model)  # <b>"}
    told = report(results | {"recommended": recommended})
    assert "</html>" in told
    assert "# &lt;b&gt;" in told


def test_scores_that_tell_nothing_apart_are_said_to() -> None:
    def told(name: str) -> bool:
        drawn = figures(studied(name)["experiments"], Wording("accuracy"))
        return any("tell nothing apart" in figure.caption for figure in drawn["together"])

    assert told("ties")
    assert not told("clear effects")


@pytest.mark.parametrize("start", SENTENCES)
def test_every_sentence_is_said_of_some_world(start: str) -> None:
    assert any(re.match(start, finding["text"]) for name in WORLDS for finding in studied(name)["findings"])


@pytest.mark.parametrize("name", ["ties", "one row apart on every seed", "less than is printed", "perfect", "one seed"])
def test_nothing_is_made_of_nothing(name: str) -> None:
    scored = r"On all|One at a time|On the \w+ network validation|Of all|Dropout at|After|Too much|At p"
    assert [finding["text"] for finding in studied(name)["findings"] if re.match(scored, finding["text"])] == []


HELD = {
    "initialization": ("initializers", "PyTorch's default"),
    "regularization": ("penalties", "no penalty"),
    "dropout": ("dropout", "none"),
}


def test_the_verdict_sorts_what_was_tried_by_what_the_seeds_tell(results: dict[str, Any]) -> None:
    facts, found = Facts(results), results["verdict"]
    assert [line["kind"] for line in found["lines"]] == ["helped", "unclear", "hurt"]
    texts = {line["kind"]: line["text"] for line in found["lines"]}
    assert len({item["label"] for item in found["items"]}) == len(found["items"])
    for item in found["items"]:
        score, base, change = item["test"], item["against"], item["change"]
        assert change == difference(score, base)
        lost = (score["mean"] is None, base["mean"] is None)
        if True in lost and lost != (True, True):
            expected = "hurt" if lost[0] else "helped"
        elif not facts.told_apart(change):
            expected = "unclear"
        else:
            expected = "helped" if (change["mean"] or 0) > 0 else "hurt"
        assert item["kind"] == expected
        for kind, text in texts.items():
            assert (item["label"] in text) == (kind == expected)
        said = texts[expected].partition(item["label"])[2]
        assert said.startswith(
            f" ({facts.wording.score(score)}, against {facts.wording.score(base)} with {item['base']}"
        )
        if change["mean"] is not None:
            assert f": {facts.wording.change(change)}" in said.partition(";")[0]
    for kind, text in texts.items():
        assert text.endswith(": nothing.") == (kind not in {item["kind"] for item in found["items"]})


def test_the_verdict_holds_each_against_what_goes_without(results: dict[str, Any]) -> None:
    rows, together = results["experiments"], {row["name"]: row for row in results["experiments"]["together"]}
    for item in results["verdict"]["items"]:
        if item["name"] == "initialization":
            activation = "relu" if "ReLU" in item["label"] else "tanh"
            rivals = [row for row in rows["initializers"] if row["activation"] == activation]
            default = next(row for row in rivals if row["start"] == "torch")
            assert item["against"] == default["test"]
            others = [row for row in rivals if row is not default]
            best = max(others, key=lambda row: -9.0 if row["validation"]["mean"] is None else row["validation"]["mean"])
            assert best["label"] in item["label"]
            assert item["test"] == best["test"]
        elif "on all" in item["label"]:
            assert item["against"] == together["start"]["test"]
            assert item["test"] == together["penalty" if item["name"] == "regularization" else "dropout"]["test"]
        else:
            plain = rows["penalties" if item["name"] == "regularization" else "dropout"][0]
            assert not plain.get("strength")
            assert not plain.get("p")
            assert item["against"] == plain["test"]
    names = [item["name"] for item in results["verdict"]["items"]]
    twice = results["design"]["regimes"]["few"] != results["design"]["regimes"]["full"]
    assert names.count("regularization") == names.count("dropout") == 1 + twice


def test_a_doubt_says_how_many_seeds_would_tell(results: dict[str, Any]) -> None:
    text = results["verdict"]["lines"][1]["text"].replace("\u00a0", " ")
    for item in results["verdict"]["items"]:
        if item["kind"] != "unclear" or item["change"]["mean"] is None:
            continue
        said = text.partition(item["label"].replace("\u00a0", " "))[2].partition(")")[0]
        if len(results["seeds"]) == 1:
            assert "one seed tells nothing" in said
        elif item["seeds"] is None:
            assert "not even 100 seeds" in said
        else:
            assert f"about {item['seeds']} seeds would tell" in said
            assert item["seeds"] > len(results["seeds"])


def test_recommended_is_the_simplest_within_a_standard_error_of_the_best(results: dict[str, Any]) -> None:
    rows = results["experiments"]["together"]
    assert [row["name"] for row in rows] == ["default", "start", "penalty", "dropout", "both"]
    (chosen,) = (row for row in rows if row["chosen"])
    assert results["recommended"] == chosen
    trained = [row for row in rows if row["validation"]["mean"] is not None]
    if not trained:
        assert chosen["name"] == "default"
        return
    best = max(trained, key=lambda row: row["validation"]["mean"])

    def near(row: dict[str, Any]) -> bool:
        less = difference(best["validation"], row["validation"])
        return less["mean"] is not None and less["mean"] <= (less["error"] or 0)

    assert near(chosen)
    assert not any(near(row) for row in rows[: rows.index(chosen)])


def test_the_recommended_network_stands_beside_the_baselines(results: dict[str, Any]) -> None:
    facts, text, chosen = Facts(results), results["verdict"]["beside"][-1], results["recommended"]
    layers = len(results["design"]["full"]["hidden"])
    assert text.startswith(f"Recommended for {layers} hidden layers, ")
    is_named(chosen, text.partition(" on test")[0])
    if chosen["test"]["mean"] is not None:
        assert f"{facts.wording.scored(chosen['test'])} on test" in text
    by = {row["name"]: row for row in results["baselines"]}
    assert f"{facts.wording.score(by['trees']['test'])} with gradient-boosted trees" in text
    guess = "the mean for every row" if results["data"]["task"] == "regression" else "the commonest class, 'no'"
    assert f"{facts.wording.score(by['guess']['test'])} with {guess}" in text
    above = difference(chosen["test"], by["guess"]["test"])
    told = facts.told_apart(above) and (above["mean"] or 0) > 0
    lost = above["error"] is not None and not told
    trees = difference(by["trees"]["test"], by["guess"]["test"])
    grown = facts.told_apart(trees) and (trees["mean"] or 0) > 0
    assert ("The seeds tell neither it nor the trees from" in text) == (lost and not grown)
    assert ("and the trees they do" in text) == (lost and grown)
    default = f"{facts.wording.score(facts.together('default'))} with PyTorch's default alone"
    assert (default in text) == (chosen["name"] != "default")
    for row in results["verdict"]["baselines"]:
        assert row["score"] == facts.wording.score(row["test"])
        assert set(row["beside"]) == (
            {"accuracy", "log loss", "area under the curve"} if "balanced" in facts.wording.name else set()
        )


def test_what_was_tried_on_few_rows_stands_beside_the_baselines_too(results: dict[str, Any]) -> None:
    facts, found = Facts(results), results["verdict"]["beside"]
    few, full = (results["design"]["regimes"][name]["rows"] for name in ("few", "full"))
    assert len(found) == 1 + (few != full)
    if few != full:
        assert found[0].startswith(f"Beside these, on {few} rows: ")
        for row, words in zip(results["few"], ("PyTorch's default", "the commonest", "gradient-boosted"), strict=True):
            words = "the mean" if "commonest" in words and results["data"]["task"] == "regression" else words
            assert f"{facts.wording.score(row['test'])} with {words}" in found[0]


@pytest.mark.parametrize("kind", ["helped", "unclear", "hurt"])
def test_every_kind_of_verdict_is_given_in_some_world(kind: str) -> None:
    for name in ("initialization", "regularization", "dropout"):
        found = {
            item["name"] for world in WORLDS for item in studied(world)["verdict"]["items"] if item["kind"] == kind
        }
        assert name in found


@pytest.mark.parametrize("spread", [0.5, 1.0, 2.0])
def test_so_many_seeds_tell_a_difference_of_this_size_and_no_fewer(spread: float) -> None:
    change = difference(estimate_of(1.0, spread, 5), estimate_of(0.0, 0.0, 5))
    seeds = seeds_needed(change)
    assert seeds is not None
    deviation = float(stats.tstd(change["values"]))
    for count in (seeds, seeds - 1):
        quantile = stats.t.ppf(0.975, count - 1) if count > 1 else math.inf
        assert (quantile * deviation / math.sqrt(count) < 1.0) == (count == seeds)


def estimate_of(mean: float, spread: float, seeds: int) -> Estimate:
    values = [mean + spread * (place - (seeds - 1) / 2) for place in range(seeds)]
    return Estimate(mean=mean, error=float(stats.sem(values)) if spread else 0.0, values=list(values))
