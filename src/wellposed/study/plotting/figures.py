"""The figures of the report, drawn from ``results.json`` alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from wellposed.study.plotting import marks
from wellposed.study.plotting.dropout_panels import ensemble, error_curve, gap
from wellposed.study.plotting.initializer_panels import scales, training_loss
from wellposed.study.plotting.penalty_panels import PENALISED, validation_by_strength, weight_path, zeros
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
                "measured, lines are theory. Hollow marks and dashed lines are the chapter's bounds.",
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
                "The loss on training rows: means over the seeds in bands of one standard error.",
                tuple(training_loss(starts, activation) for activation in ACTIVATIONS),
            ),
        ],
        "penalties": [
            Figure(
                "penalties",
                "What a penalty costs and what it removes",
                "Bars are standard errors over the seeds. Filled marks take the penalty by proximal steps, hollow ones "
                "by its gradient.",
                (validation_by_strength(penalised, wording), zeros(penalised)),
            ),
            Figure(
                "path",
                "The path of the largest weights",
                "The weights that are largest without a penalty (first seed), as lambda grows. A cross is a weight "
                "that is exactly zero.",
                tuple(weight_path(penalised, name) for name in PENALISED),
            ),
        ],
        "dropout": [
            Figure(
                "curves",
                "Training with dropout",
                f"{wording.error_name.capitalize()} of the whole network along the way, for each p, in bands of one "
                f"standard error; on the first {ROWS_WATCHED} rows of each part. Test rows are drawn, and choose "
                "nothing.",
                (error_curve(thinned, "train", wording), error_curve(thinned, "test", wording)),
            ),
            Figure(
                "gap",
                "The gap, and the ensemble",
                "Left: after training, on all rows. Right: the average of so many thinned networks, against the one "
                f"network with its weights scaled, both on the first {ROWS_WATCHED} test rows. Bars and bands are "
                "standard errors.",
                (gap(thinned, wording), ensemble(thinned, wording)),
            ),
        ],
        "together": [
            Figure(
                "together",
                "One at a time, and all three",
                f"{wording.error_name.capitalize()} on the test rows. Dots are single seeds, diamonds their means, "
                "bars standard errors.",
                (_together(joint, wording),),
            )
        ],
    }


def _together(rows: Sequence[Summary], wording: Wording) -> Panel:
    def draw(axes: Any) -> list[Label]:
        for place, row in enumerate(reversed(rows)):
            style = style_of("blue") if row["name"] == "all" else style_of("grey")
            values = [100 * (1 - value) for value in row["test"]["values"] if value is not None]
            axes.plot(values, [place] * len(values), "o", color=style.color, alpha=0.45, markersize=4, linewidth=0)
            if row["test"]["mean"] is not None:
                mean, error = 100 * (1 - row["test"]["mean"]), 100 * (row["test"]["error"] or 0.0)
                axes.errorbar(mean, place, xerr=error, fmt="D", color=style.color, markersize=6, linewidth=1.6)
        axes.set_yticks(range(len(rows)), [row["label"] for row in reversed(rows)])
        axes.tick_params(axis="y", length=0, labelcolor=INK, labelsize=9.5)
        axes.grid(axis="y", visible=False)
        axes.grid(axis="x")
        axes.set_ylim(-0.6, len(rows) - 0.4)
        axes.set_xscale("symlog", linthresh=1, linscale=0.4)
        marks.ticks(axes.xaxis, marks.ERRORS)
        marks.within(axes.xaxis, marks.ERRORS)
        axes.set_xlabel(f"test {wording.error_name}, %")
        return []

    told = "; ".join(f"{row['label']}: {wording.score(row['test'])}" for row in rows)
    return Panel(
        "together", "Test rows", f"{wording.name} on test: {told}.", draw, size=(5.2, 2.8), right=0.03, left=1.5
    )
