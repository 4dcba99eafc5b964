"""The four experiments, as lists of training runs: initializers, penalties, dropout rates, and all of them together."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from wellposed.study.design import Design
from wellposed.study.estimate import difference, estimate
from wellposed.study.methods import PENALTIES, STARTS
from wellposed.study.training.baselines import BaselineRun
from wellposed.study.training.network import ACTIVATIONS
from wellposed.study.training.train import Figures, TrainingRun

Run = TrainingRun | BaselineRun


@dataclass(frozen=True)
class Case:
    """One configuration of an experiment, run once for each seed.

    Attributes:
        experiment: The experiment's name.
        label: Its name in tables and figures.
        runs: One run a seed.
    """

    experiment: str
    label: str
    runs: tuple[TrainingRun, ...]

    @property
    def run(self) -> TrainingRun:
        """The first seed's run, which tells what all have in common."""
        return self.runs[0]


Done = Mapping[Run, Figures]
Plan = list[Case]


def initializers(design: Design, done: Done) -> Plan:
    """Every initialization, on a deep tanh and on a deep ReLU network."""
    return [
        _case(design, "initializers", f"{start.label}, {activation}", design.deep, activation=activation, start=name)
        for activation in ACTIVATIONS
        for name, start in STARTS.items()
    ]


def dropout(design: Design, done: Done) -> Plan:
    """A grid of p, from no dropout on, on few rows."""
    return [_case(design, "dropout", f"p = {p:g}", design.few, p=p) for p in (0.0, *design.rates)]


def unpenalised(design: Design, done: Done) -> Plan:
    """The same network without a penalty, whose largest weights the penalised runs report."""
    return [_case(design, "penalties", PENALTIES["none"].label, design.few)]


def default_on_few(design: Design, done: Done) -> Plan:
    """On few rows, what people have: PyTorch's default start alone."""
    return [_case(design, "penalties", STARTS["torch"].label, design.few, start="torch")]


def penalties(design: Design, done: Done) -> Plan:
    """Every penalty over its grid of lambda, on few rows, reporting the weights that are largest without one."""
    (plain,) = unpenalised(design, done)
    tracked = [tuple(done[run]["weights"]["largest"]) for run in plain.runs]
    return [
        Case(
            "penalties",
            f"{PENALTIES[name].label}, lambda = {strength:g}",
            tuple(
                replace(run, penalty=name, strength=strength, tracked=weights)
                for run, weights in zip(plain.runs, tracked, strict=True)
            ),
        )
        for name, strengths in design.strengths.items()
        for strength in strengths
    ]


def unchanged(design: Design, done: Done) -> Plan:
    """On all rows, what people have, PyTorch's default start alone; and the start that validation chose, alone."""
    starts = {"torch": STARTS["torch"].label} | {(name := chosen_start(design, done)): STARTS[name].label}
    return [_case(design, "together", label, design.full, start=start) for start, label in starts.items()]


def single(design: Design, done: Done) -> Plan:
    """On all rows, the chosen penalty alone and dropout alone, each also weaker, since more rows need less of it."""
    start, share = chosen_start(design, done), _weaker(design)
    best_p = best(dropout(design, done)[1:], done).run.p
    chosen = best(penalties(design, done), done).run
    strengths = dict.fromkeys((chosen.strength, float(f"{chosen.strength * share:.2g}")))
    return [
        *(_penalised(design, start, chosen.penalty, strength) for strength in strengths),
        *(_thinned(design, start, p) for p in dict.fromkeys((best_p, float(f"{best_p / 2:.2g}")))),
    ]


def both(design: Design, done: Done) -> Plan:
    """On all rows, the better of the penalties with the better p."""
    penalised, thinned = best_single(design, done)
    run = penalised.run
    label = f"{PENALTIES[run.penalty].label}, lambda = {run.strength:g}, p = {thinned.run.p:g}"
    changes = {"start": run.start, "penalty": run.penalty, "strength": run.strength, "p": thinned.run.p}
    return [_case(design, "together", label, design.full, **changes)]


def best_single(design: Design, done: Done) -> tuple[Case, Case]:
    """On all rows, the penalty alone and dropout alone that validation chose."""
    cases = single(design, done)
    return best([c for c in cases if not c.run.p], done), best([c for c in cases if c.run.p], done)


def together(design: Design, done: Done) -> dict[str, Case]:
    """On all rows, the simplest first: PyTorch's default, the chosen start, with a penalty, with dropout, with both."""
    plain, penalised, thinned = unchanged(design, done), *best_single(design, done)
    cases = {"default": plain[0], "start": plain[-1], "penalty": penalised, "dropout": thinned}
    return cases | {"both": both(design, done)[0]}


def recommended(design: Design, done: Done) -> str:
    """The simplest network of ``together`` that is within one standard error of the best on validation.

    Source: Breiman, Friedman, Olshen and Stone (1984), section 3.4.3, for the rule.
    """
    scores = {name: estimate(_validation(case, done)) for name, case in together(design, done).items()}
    finest = max(scores.values(), key=lambda score: float("-inf") if score["mean"] is None else score["mean"])
    for name, score in scores.items():
        less = difference(finest, score)
        if less["mean"] is not None and less["mean"] <= (less["error"] or 0.0):
            return name
    return "default"


Stage = Callable[[Design, Done], Plan]
# The configurations of one wave may depend on the figures of the waves before it.
WAVES: Sequence[Sequence[Stage]] = (
    (initializers, dropout, unpenalised, default_on_few),
    (penalties, unchanged),
    (single,),
    (both,),
)


def size(design: Design) -> int:
    """The most runs that a study takes; runs that experiments share are counted once."""
    grids = len(design.rates) + sum(map(len, design.strengths.values()))
    few = 2 + (
        len(baselines(design)) > design.seeds
    )  # two networks, and the models without one where rows are left out
    return (len(ACTIVATIONS) * len(STARTS) + grids + few + 7 + 1) * design.seeds


def baselines(design: Design) -> list[BaselineRun]:
    """What does without a network, one run a seed on all training rows, and one on few."""
    return [BaselineRun(seed, rows) for rows in dict.fromkeys((None, design.few.rows)) for seed in range(design.seeds)]


def chosen_start(design: Design, done: Done) -> str:
    """The initialization that validation chooses on the ReLU network."""
    return best([case for case in initializers(design, done) if case.run.activation == "relu"], done).run.start


def best(cases: Sequence[Case], done: Done) -> Case:
    """The case of the highest mean score on validation; one that diverged on a seed comes last."""
    return max(cases, key=lambda case: validation(case, done))


def validation(case: Case, done: Done) -> float:
    """The mean score on validation, minus infinity if training diverged on a seed."""
    mean = estimate(_validation(case, done))["mean"]
    return float("-inf") if mean is None else mean


def _validation(case: Case, done: Done) -> list[float | None]:
    return [done[run]["score"]["validation"] for run in case.runs]


def _weaker(design: Design) -> float:
    """How much weaker a penalty is tried on all rows: a penalty is a prior, and weighs less the more rows there are."""
    return design.few.rows / design.rows if design.few.rows else 1 / 3


def _penalised(design: Design, start: str, penalty: str, strength: float) -> Case:
    label = f"{PENALTIES[penalty].label}, lambda = {strength:g}"
    return _case(design, "together", label, design.full, start=start, penalty=penalty, strength=strength)


def _thinned(design: Design, start: str, p: float) -> Case:
    return _case(design, "together", f"p = {p:g}", design.full, start=start, p=p)


def _case(design: Design, experiment: str, label: str, common: TrainingRun, **changes: Any) -> Case:
    return Case(experiment, label, tuple(replace(common, seed=seed, **changes) for seed in range(design.seeds)))
