"""The results of a study: means over seeds, choices on validation, and the test scores of what was chosen."""

import math
from collections.abc import Callable, Sequence
from typing import Any

from wellposed.study import experiments
from wellposed.study.estimate import Estimate, difference, estimate
from wellposed.study.experiments import Case, Done, Settings
from wellposed.study.methods import PENALTIES, STARTS
from wellposed.study.training.network import ACTIVATIONS
from wellposed.study.training.train import Figures

Summary = dict[str, Any]


def summarise(settings: Settings, done: Done) -> Summary:
    """The figures of the four experiments, plain values that JSON can hold.

    Args:
        settings: What was asked.
        done: The figures of every run.

    Returns:
        A list of rows for each experiment. ``chosen`` marks what validation chose; ``test`` is
        ``None`` in rows that stood for choice and were not chosen.
    """
    return {
        "initializers": _initializers(settings, done),
        "penalties": _penalties(settings, done),
        "dropout": _dropout(settings, done),
        "together": _together(settings, done),
    }


def _initializers(settings: Settings, done: Done) -> list[Summary]:
    cases = experiments.initializers(settings, done)
    rows = []
    for activation in ACTIVATIONS:
        rivals = [case for case in cases if case.run.activation == activation]
        chosen = experiments.best(rivals, done)
        for case in rivals:
            start = STARTS[case.run.start]
            rows.append(
                {"activation": activation, "start": case.run.start, "label": start.label, "chosen": case is chosen}
                | _scores(case, done, tested=True)
                | {"signal": _scales(case, done, "signal"), "gradient": _scales(case, done, "gradient")}
                | {"curve": _curve(case, done, ("loss", "validation"))}
            )
    return rows


def _penalties(settings: Settings, done: Done) -> list[Summary]:
    cases = [*experiments.unpenalised(settings, done), *experiments.penalties(settings, done)]
    rows = []
    for name, method in PENALTIES.items():
        rivals = [case for case in cases if case.run.penalty == name]
        chosen = experiments.best(rivals, done)
        for case in rivals:
            rows.append(
                {"penalty": name, "label": method.label, "strength": case.run.strength, "chosen": case is chosen}
                | _scores(case, done, tested=case is chosen)
                | {"weights": done[case.run]["weights"]["count"]}
                | {"zero": _over(case, done, lambda figures: figures["weights"]["zero"])}
                | {"path": _path(case, done)}
            )
    return rows


def _dropout(settings: Settings, done: Done) -> list[Summary]:
    cases = experiments.dropout(settings, done)
    chosen = experiments.best(cases[1:], done)
    rows = []
    for case in cases:
        scores = _scores(case, done, tested=case is chosen or not case.run.p)
        rows.append(
            {"p": case.run.p, "label": case.label, "chosen": case is chosen}
            | scores
            | {"curve": _curve(case, done, ("loss", "train", "validation", "test"))}
            | {"gap": difference(_score(case, done, "train"), _score(case, done, "test"))}
            | {"ensemble": _ensemble(case, done)}
        )
    return rows


def _together(settings: Settings, done: Done) -> list[Summary]:
    return [
        {"name": name, "label": case.label, "start": case.run.start, "penalty": case.run.penalty}
        | {"strength": case.run.strength, "p": case.run.p}
        | _scores(case, done, tested=True)
        for name, case in experiments.together(settings, done).items()
    ]


def _ensemble(case: Case, done: Done) -> Summary | None:
    first = done[case.run]["ensemble"]
    if first is None:
        return None
    by_seed = [done[run]["ensemble"] for run in case.runs]
    parts = ("validation", "test")
    return (
        {"networks": first["networks"]}
        | {
            part: [estimate(values) for values in zip(*(ensemble[part] for ensemble in by_seed), strict=True)]
            for part in parts
        }
        | {"scaled": {part: estimate([ensemble["scaled"][part] for ensemble in by_seed]) for part in parts}}
    )


def _path(case: Case, done: Done) -> list[float | None]:
    """The weights that are largest without a penalty, in the first seed's run."""
    weights: Summary = done[case.run]["weights"]
    path: list[float | None] = weights["tracked" if case.run.tracked else "values"]
    return path


def _over(case: Case, done: Done, figure: Callable[[Figures], float | None]) -> Estimate:
    return estimate([figure(done[run]) for run in case.runs])


def _score(case: Case, done: Done, part: str) -> Estimate:
    return _over(case, done, lambda figures: figures["score"][part])


def _scores(case: Case, done: Done, *, tested: bool) -> Summary:
    parts = ("train", "validation", "test") if tested else ("train", "validation")
    return {part: _score(case, done, part) for part in parts} | ({} if tested else {"test": None})


def _scales(case: Case, done: Done, what: str) -> Summary:
    """The geometric mean over seeds, layer by layer: scales multiply from layer to layer."""
    return {kind: _geometric([done[run][what][kind] for run in case.runs]) for kind in ("measured", "predicted")}


def _geometric(rows: Sequence[Sequence[float | None]]) -> list[float | None]:
    return [
        None if any(not value for value in layer) else math.exp(math.fsum(math.log(v) for v in layer if v) / len(layer))
        for layer in zip(*rows, strict=True)
    ]


def _curve(case: Case, done: Done, names: Sequence[str]) -> Summary:
    curves = [done[run]["curve"] for run in case.runs]
    steps = max((curve["step"] for curve in curves), key=len)

    def at(curve: Figures, name: str, i: int) -> float | None:
        return curve[name][i] if i < len(curve[name]) else None

    return {"step": steps} | {
        name: [estimate([at(curve, name, i) for curve in curves]) for i in range(len(steps))] for name in names
    }
