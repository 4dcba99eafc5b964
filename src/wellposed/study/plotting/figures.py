"""The figures of the report, drawn from ``results.json`` alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from wellposed.study.plotting import marks
from wellposed.study.plotting.dropout_panels import ensemble, gap
from wellposed.study.plotting.dropout_panels import loss_curve as dropout_loss
from wellposed.study.plotting.initializer_panels import loss_curve, scales
from wellposed.study.plotting.penalty_panels import (
    PENALISED,
    score_by_zeros,
    validation_by_strength,
    weight_path,
    zeros,
)
from wellposed.study.plotting.svg import INK, Label, Panel, style_of
from wellposed.study.results.summary import Summary
from wellposed.study.training.network import ACTIVATIONS
from wellposed.study.training.train import ROWS_WATCHED
from wellposed.study.wording import Wording


@dataclass(frozen=True)
class Figure:
    """Panels under one heading.

    Attributes:
        name: Unique in the report.
        heading: What the figure is about.
        caption: How to read it.
        panels: The drawings.
    """

    name: str
    heading: str
    caption: str
    panels: tuple[Panel, ...]


def figures(experiments: Summary, wording: Wording) -> dict[str, list[Figure]]:
    """The figures of each experiment."""
    starts, penalised = experiments["initializers"], experiments["penalties"]
    thinned, joint = experiments["dropout"], experiments["together"]
    return {
        "initializers": [
            Figure(
                "signal",
                "The signal, layer by layer",
                "Root mean square of what each layer hands to its activation function, before training. Marks are "
                "measured, lines are theory; a start that suits the network keeps its line level. Hollow marks and "
                "dashed lines are the textbook's bounds, named by them.",
                tuple(scales(starts, "signal", activation) for activation in ACTIVATIONS),
            ),
            Figure(
                "gradient",
                "The gradient, layer by layer",
                "Root mean square of the gradient at the same places, before training, from the outputs back to the "
                "first layer.",
                tuple(scales(starts, "gradient", activation) for activation in ACTIVATIONS),
            ),
            Figure(
                "training",
                "Training",
                "The loss on training and on validation rows: means over the seeds in bands of one standard error. "
                "The network is kept as it was where it scored best on validation rows.",
                tuple(
                    loss_curve(starts, activation, part)
                    for part in ("train", "validation")
                    for activation in ACTIVATIONS
                ),
            ),
        ],
        "penalties": [
            Figure(
                "penalties",
                "What a penalty costs and what it removes",
                "Bars are standard errors over the seeds. Filled marks take the penalty by proximal steps, hollow ones "
                "by its gradient or beside the optimizer's step." + _tie(penalised, "validation"),
                (
                    validation_by_strength(penalised, wording),
                    zeros(penalised),
                    score_by_zeros(penalised, wording),
                ),
            ),
            Figure(
                "path",
                "The path of the largest weights",
                "The weights that are largest without a penalty (first seed), as lambda grows. Look for crosses: a "
                "cross is a weight that is exactly zero.",
                tuple(weight_path(penalised, name) for name in PENALISED),
            ),
        ],
        "dropout": [
            Figure(
                "curves",
                "Training with dropout",
                "The loss of the whole network along the way, for each p, in bands of one standard error; on the first "
                f"{ROWS_WATCHED} rows of each part.",
                (dropout_loss(thinned, "train"), dropout_loss(thinned, "validation")),
            ),
            Figure(
                "gap",
                "The gap, and the ensemble",
                "Left: after training, on all rows. Right: the average of so many thinned networks, against the one "
                f"network with its weights scaled, both on the first {ROWS_WATCHED} test rows. Bars and bands are "
                "standard errors." + _tie(thinned, "validation"),
                (gap(thinned, wording), ensemble(thinned, wording)),
            ),
        ],
        "together": [
            Figure(
                "together",
                "One at a time, and all of it",
                f"{wording.name[0].upper()}{wording.name[1:]} on the test rows. Dots are single seeds, diamonds their "
                "means, bars standard errors." + _tie(joint, "test"),
                (_together(joint, wording),),
            )
        ],
    }


def _tie(rows: Sequence[Summary], part: str) -> str:
    """A sentence where the scores are too near to each other to choose by."""
    scores = [row[part] for row in rows if row[part] and row[part]["mean"] is not None]
    means, errors = [score["mean"] for score in scores], [score["error"] or 0.0 for score in scores]
    if len(means) < 2 or max(means) - min(means) > max(errors):
        return ""
    return f" All {part} scores lie within one standard error of each other: they tell nothing apart."


def _together(rows: Sequence[Summary], wording: Wording) -> Panel:
    scale, names = (100 if wording.percent else 1), [_called(row) for row in reversed(rows)]

    def draw(axes: Any) -> list[Label]:
        for place, row in enumerate(reversed(rows)):
            style = style_of("blue") if row["chosen"] else style_of("grey")
            values = [scale * value for value in row["test"]["values"] if value is not None]
            axes.plot(values, [place] * len(values), "o", color=style.color, alpha=0.45, markersize=4, linewidth=0)
            if row["test"]["mean"] is not None:
                mean, error = scale * row["test"]["mean"], scale * (row["test"]["error"] or 0.0)
                axes.errorbar(mean, place, xerr=error, fmt="D", color=style.color, markersize=6, linewidth=1.6)
        axes.set_yticks(range(len(rows)), names)
        axes.tick_params(axis="y", length=0, labelcolor=INK, labelsize=9.5)
        axes.grid(axis="y", visible=False)
        axes.grid(axis="x")
        axes.set_ylim(-0.6, len(rows) - 0.4)
        marks.score_axis(axes.xaxis, "test", wording)
        return []

    told = "; ".join(f"{_called(row)}: {wording.score(row['test'])}" for row in rows)
    return Panel(
        "together", "Test rows", f"{wording.name} on test: {told}.", draw, size=(5.2, 2.8), right=0.03, left=1.5
    )


def _called(row: Summary) -> str:
    names = {"default": "PyTorch's default", "start": "chosen start", "penalty": "with a penalty"}
    return {**names, "dropout": "with dropout", "both": "with both"}[row["name"]]
