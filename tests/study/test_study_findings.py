"""The words against the figures, over made-up studies: every number and name in a sentence is looked up again."""

import functools
import math
import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from scipy import stats

from wellposed.study import experiments
from wellposed.study.estimate import Estimate, difference
from wellposed.study.experiments import Settings
from wellposed.study.report import report
from wellposed.study.results.findings import findings
from wellposed.study.results.summary import summarise
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
    """

    score: Callable[[TrainingRun], float | None]
    noise: float = 0.01
    task: str = "classification"
    seeds: int = 5
    faded: Callable[[str], float] = lambda start: 1.0
    gap: float = 0.06
    averaged: float = 0.0


def ladder(run: TrainingRun) -> float:
    """The papers' starts are best, a little of each penalty and of dropout helps, and much of either hurts."""
    score = {"random": 0.3, "torch": 0.5, "glorot_chapter": 0.5, "he_chapter": 0.7}.get(run.start, 0.85)
    return score + (0.05 if run.penalty != "none" else 0) - 20 * run.strength - run.p * (run.p - 0.25)


def harm(run: TrainingRun) -> float:
    return 0.9 - 10 * run.strength - run.p + (0.05 if run.start == "random" else 0.0)


def fading(start: str) -> float:
    return {"random": 0.05, "glorot_chapter": 0.051, "torch": 0.3, "he_chapter": 1 / 3}.get(start, 0.97)


WORLDS: dict[str, World] = {
    "clear effects": World(ladder, faded=fading),
    "clear effects on R squared": World(ladder, task="regression", faded=fading, averaged=0.02),
    "harm": World(harm, averaged=-0.03),
    "harm on R squared": World(lambda run: harm(run) - 3, task="regression"),
    "noise": World(lambda run: 0.8, noise=0.05),
    "noise on two seeds": World(lambda run: 0.8, noise=0.05, seeds=2, task="regression"),
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
        return min(1.0, round(value * TESTED) / TESTED) if world.task == "classification" else value

    layers, fade = len(run.hidden), math.sqrt(world.faded(run.start))
    predicted = [fade**i for i in range(layers + 1)]
    measured = [scale * math.exp(draw.gauss(0, 0.02)) for scale in predicted]
    steps = [0, run.steps]
    zero = {"l1_proximal": 0.6, "elastic_net": 0.5}.get(run.penalty, 0.0) * min(1.0, run.strength * 200)
    return {
        "signal": {"measured": measured, "predicted": predicted},
        "gradient": {"measured": measured[::-1], "predicted": predicted[::-1]},
        "curve": {"step": steps, "loss": [2.0, 0.5 if mean else None]}
        | {part: [0.1, score()] for part in ("train", "validation", "test")},
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
    settings = Settings(hidden=(64, 64, 64, 64), seeds=world.seeds, strengths=(1e-3, 1e-2), rates=(0.1, 0.3, 0.6))
    done: dict[TrainingRun, Figures] = {}
    for wave in experiments.WAVES:
        for case in [case for stage in wave for case in stage(settings, done)]:
            done |= {run: made_up(world, run) for run in case.runs}
    for case in experiments.together(settings, done).values():
        done |= {run: made_up(world, run) for run in case.runs}
    found = {
        "data": {"name": "made up", "task": world.task, "rows": ROWS, "features": 3, "target": "y", "classes": []}
        | {"notes": [], "digest": "0"},
        "settings": {"hidden": list(settings.hidden), "steps": 300, "batch": 64, "rate": 0.1, "clip": settings.clip},
        "seeds": list(range(world.seeds)),
        "command": "wellposed study",
        "versions": {},
        "experiments": summarise(settings, done),
    }
    return found | {"findings": findings(found)}


@pytest.fixture(params=WORLDS)
def results(request: pytest.FixtureRequest) -> dict[str, Any]:
    return studied(request.param)


class Facts:
    """The figures, said by words that are looked up in sentences."""

    def __init__(self, results: dict[str, Any]) -> None:
        self.wording, self.rows = Wording(results["data"]["task"]), results["experiments"]
        self.seeds = len(results["seeds"])

    def chosen(self, experiment: str, **which: str) -> dict[str, Any]:
        (row,) = (r for r in self.rows[experiment] if r["chosen"] and which.items() <= r.items())
        return dict(row)

    def plain(self, experiment: str) -> dict[str, Any]:
        dial = "p" if experiment == "dropout" else "strength"
        return dict(next(row for row in self.rows[experiment] if not row[dial]))

    def together(self, name: str) -> Estimate:
        row: dict[str, Estimate] = next(row for row in self.rows["together"] if row["name"] == name)
        return row["test"]


def told_apart(change: Estimate) -> bool:
    """A t test at 5 %, of a score that moves by a row of the test part at least."""
    values = [value for value in change["values"] if value is not None]
    if len(values) < max(2, len(change["values"])):
        return False
    error = max(float(stats.sem(values)), 0.5 / TESTED)
    return bool(abs(sum(values) / len(values)) > stats.t.ppf(0.975, len(values) - 1) * error)


def all_three(facts: Facts, text: str) -> None:
    whole, none, start = (facts.together(name) for name in ("all", "none", "initialization"))
    change = difference(whole, none)
    assert told_apart(change)
    assert facts.wording.scored(whole) in text
    assert f"against {facts.wording.score(none)}" in text
    assert facts.wording.change(change) in text
    if "The other two" in text:
        rest = difference(whole, start)
        assert told_apart(rest)
        assert (" add " in text) == ((rest["mean"] or 0) > 0)
        assert (" take " in text) == ((rest["mean"] or 0) < 0)


def one_by_one(facts: Facts, text: str) -> None:
    for part in text.removeprefix("One at a time, on test: ").removesuffix(".").split("; "):
        name, verb = part.split()[:2]
        base = "none" if name == "initialization" else "initialization"
        change = difference(facts.together(name), facts.together(base))
        assert told_apart(change)
        assert verb == ("adds" if (change["mean"] or 0) > 0 else "takes")
        assert facts.wording.amount(change) in part


def he(facts: Facts, text: str) -> None:
    rows = {row["start"]: row for row in facts.rows["initializers"] if row["activation"] == "relu"}
    lost, theory, layers, kept = map(float, re.findall(r"\d+\.\d\d|(?<=after )\d+", text))
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
        behind = [r for r in rivals if told_apart(c := difference(best["test"], r["test"])) and (c["mean"] or 0) > 0]
        least = min(behind, key=lambda row: row["test"]["mean"])
        assert f"other initializers {len(behind)} {'is' if len(behind) == 1 else 'are'} clearly behind" in text
        assert facts.wording.score(least["test"]) in text


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
    assert told_apart(change) == ("no clear difference" not in text)


def penalty(facts: Facts, text: str) -> None:
    row = next(r for r in facts.rows["penalties"] if r["chosen"] and f"chooses {r['label']} at" in text)
    means = [r["validation"]["mean"] for r in facts.rows["penalties"] if r["strength"]]
    assert row["validation"]["mean"] == max(mean for mean in means if mean is not None)
    change = difference(row["test"], facts.plain("penalties")["test"])
    assert told_apart(change)
    assert facts.wording.change(change) in text


def gap(facts: Facts, text: str) -> None:
    plain, row = facts.plain("dropout")["gap"], facts.chosen("dropout")["gap"]
    assert told_apart(difference(row, plain))
    assert f"from {facts.wording.points(plain)} to {facts.wording.points(row)} " in text
    sizes = min(plain["mean"], row["mean"]) >= 0 and row["mean"] - plain["mean"]
    assert ("moves" if not sizes else "narrows" if sizes < 0 else "widens") in text


def dropped(facts: Facts, text: str) -> None:
    change = difference(facts.chosen("dropout")["test"], facts.plain("dropout")["test"])
    assert told_apart(change)
    assert facts.wording.change(change) in text


def together(facts: Facts, text: str) -> None:
    ensemble = facts.chosen("dropout")["ensemble"]
    change = difference(ensemble["test"][-1], ensemble["scaled"]["test"])
    clear = "no clear difference" not in text
    assert told_apart(change) == clear
    assert (facts.wording.amount(change) if clear else facts.wording.change(change)) in text
    if clear:
        assert (" more than the one" in text) == ((change["mean"] or 0) > 0)
    if "A single" in text:
        gain = difference(ensemble["test"][-1], ensemble["test"][0])
        assert told_apart(gain)
        assert f"scores {facts.wording.amount(gain)} less than that average" in text


def too_much(facts: Facts, text: str) -> None:
    said = re.search(r"at p = ([\d.]+) ", text)
    assert said
    for row in facts.rows["dropout"]:
        if row["p"] >= float(said[1]):
            change = difference(row["validation"], facts.plain("dropout")["validation"])
            assert told_apart(change)
            assert (change["mean"] or 0) <= -0.1
    row = next(row for row in facts.rows["dropout"] if row["p"] == float(said[1]))
    assert f"scores {facts.wording.score(row['validation'])} on validation" in text


SENTENCES: dict[str, Callable[[Facts, str], None]] = {
    "Together, initialization": all_three,
    "One at a time": one_by_one,
    "On ReLU, the chapter's He": he,
    "On the (tanh|ReLU) network the gradient": fades,
    "On the (tanh|ReLU) network (validation|training)": starts,
    "Theory predicts": theory,
    "L1 by the chapter's": zeros,
    "With ": sparse,
    "Of all penalties": penalty,
    "Dropout at the p": gap,
    "On test, p": dropped,
    "(The one network|At p = )": together,
    "Too much dropout": too_much,
}


def test_every_sentence_is_true_of_the_figures(results: dict[str, Any]) -> None:
    facts = Facts(results)
    for finding in results["findings"]:
        (check,) = (check for start, check in SENTENCES.items() if re.match(start, finding["text"]))
        check(facts, finding["text"])


def test_sentences_are_whole(results: dict[str, Any]) -> None:
    for finding in results["findings"]:
        text = finding["text"].replace("\u00a0", " ")
        assert text.endswith(".")
        assert not re.search(r"None|nan|inf\b|  |\u22120\.0+\b|of diverged|adds? \u2212|initializers 1 are", text)
        if len(results["seeds"]) == 1:
            assert "±" not in text


def test_the_report_is_drawn_whatever_was_found(results: dict[str, Any]) -> None:
    assert "</html>" in report(results)


@pytest.mark.parametrize("start", SENTENCES)
def test_every_sentence_is_said_of_some_world(start: str) -> None:
    assert any(re.match(start, finding["text"]) for name in WORLDS for finding in studied(name)["findings"])


@pytest.mark.parametrize("name", ["ties", "one row apart on every seed", "less than is printed", "perfect", "one seed"])
def test_nothing_is_made_of_nothing(name: str) -> None:
    scored = r"Together|One at a time|On the \w+ network validation|Of all|Dropout at|On test|Too much|At p"
    assert [finding["text"] for finding in studied(name)["findings"] if re.match(scored, finding["text"])] == []
