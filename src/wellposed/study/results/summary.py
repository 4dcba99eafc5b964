"""The results of a study: means over seeds, choices on validation, and the test scores of what was chosen."""

import math
from collections.abc import Callable, Sequence
from typing import Any

from wellposed.study import experiments
from wellposed.study.design import Design
from wellposed.study.estimate import Estimate, difference, estimate
from wellposed.study.experiments import Case, Done
from wellposed.study.methods import PENALTIES, STARTS
from wellposed.study.training.network import ACTIVATIONS
from wellposed.study.training.train import Figures

Summary = dict[str, Any]
CURVES = ("train loss", "validation loss", "train score", "validation score")


def summarise(design: Design, done: Done) -> Summary:
    """The figures of the four experiments, of the baselines, and what is recommended: plain values that JSON can hold.

    Args:
        design: What was trained.
        done: The figures of every run.

    Returns:
        ``experiments``, a list of rows for each, where ``chosen`` marks what validation chose and ``test`` is
        ``None`` in rows that stood for choice and were not chosen; ``baselines``, a list of rows, and ``few``, the
        same on few rows after PyTorch's default; ``recommended``, the row of ``together`` that is recommended.
    """
    together = _together(design, done)
    return {
        "experiments": {
            "initializers": _initializers(design, done),
            "penalties": _penalties(design, done),
            "dropout": _dropout(design, done),
            "together": together,
        },
        "baselines": _baselines(design, done, None),
        "few": _few(design, done),
        "recommended": next(row for row in together if row["chosen"]),
    }


def _initializers(design: Design, done: Done) -> list[Summary]:
    cases = experiments.initializers(design, done)
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
                | {"curve": _curve(case, done)}
            )
    return rows


def _penalties(design: Design, done: Done) -> list[Summary]:
    cases = [*experiments.unpenalised(design, done), *experiments.penalties(design, done)]
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
                | {"path": _path(case, done), "curve": _curve(case, done)}
            )
    return rows


def _dropout(design: Design, done: Done) -> list[Summary]:
    cases = experiments.dropout(design, done)
    chosen = experiments.best(cases[1:], done)
    rows = []
    for case in cases:
        scores = _scores(case, done, tested=case is chosen or not case.run.p)
        rows.append(
            {"p": case.run.p, "label": case.label, "chosen": case is chosen}
            | scores
            | {"curve": _curve(case, done)}
            | {"gap": difference(_score(case, done, "train"), _score(case, done, "test"))}
            | {"ensemble": _ensemble(case, done)}
        )
    return rows


def _together(design: Design, done: Done) -> list[Summary]:
    chosen = experiments.recommended(design, done)
    return [
        {"name": name, "label": case.label, "start": case.run.start, "penalty": case.run.penalty}
        | {"strength": case.run.strength, "p": case.run.p, "chosen": name == chosen}
        | _scores(case, done, tested=True)
        | {"beside": _beside([done[run]["beside"] for run in case.runs])}
        | {"weights": done[case.run]["weights"]["count"]}
        | {"zero": _over(case, done, lambda figures: figures["weights"]["zero"])}
        | {"curve": _curve(case, done)}
        for name, case in experiments.together(design, done).items()
    ]


BASELINES = {"guess": "no model", "trees": "gradient-boosted trees"}


def _few(design: Design, done: Done) -> list[Summary]:
    """What stands beside penalties and dropout: PyTorch's default alone, and what does without a network."""
    (default,) = experiments.default_on_few(design, done)
    row = {"name": "default", "label": default.label} | _scores(default, done, tested=True)
    return [row, *_baselines(design, done, design.few.rows)]


def _baselines(design: Design, done: Done, rows: int | None) -> list[Summary]:
    """What does without a network, as rows like those of ``together``."""
    runs = [done[run] for run in experiments.baselines(design) if run.rows == rows]
    return [
        {"name": name, "label": label}
        | {part: estimate([figures[name][part] for figures in runs]) for part in ("train", "validation", "test")}
        | {"beside": _beside([figures[name]["beside"] for figures in runs])}
        for name, label in BASELINES.items()
    ]


def _beside(by_seed: Sequence[Figures]) -> Summary:
    return {name: estimate([figures[name] for figures in by_seed]) for name in by_seed[0]}


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
    by_seed = [done[run]["scales"][what] for run in case.runs]
    return {kind: _geometric([scales[kind] for scales in by_seed]) for kind in ("measured", "predicted")}


def _geometric(rows: Sequence[Sequence[float | None]]) -> list[float | None]:
    return [
        None if any(not value for value in layer) else math.exp(math.fsum(math.log(v) for v in layer if v) / len(layer))
        for layer in zip(*rows, strict=True)
    ]


def _curve(case: Case, done: Done) -> Summary:
    """Losses and scores along the way, training beside validation, and at which update each seed's network was kept."""
    curves = [done[run]["curve"] for run in case.runs]
    steps = max((curve["step"] for curve in curves), key=len)

    def at(curve: Figures, name: str, i: int) -> float | None:
        return curve[name][i] if i < len(curve[name]) else None

    return {"step": steps, "kept": [curve.get("kept") for curve in curves]} | {
        name: [estimate([at(curve, name, i) for curve in curves]) for i in range(len(steps))] for name in CURVES
    }
