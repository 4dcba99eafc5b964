"""Panels on regularization: the score, the zeros and the largest weights by lambda."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from wellposed.study.methods import PENALTIES
from wellposed.study.plotting import marks
from wellposed.study.plotting.svg import INK, MUTED, PALETTE, Label, Panel
from wellposed.study.results.summary import Summary
from wellposed.study.wording import Wording

PENALISED = tuple(name for name, method in PENALTIES.items() if method.make is not None)


def validation_by_strength(rows: Sequence[Summary], wording: Wording) -> Panel:
    """The validation score of each penalty by lambda."""
    series = [
        marks.estimates(
            PENALTIES[name].label,
            PENALTIES[name].style,
            [row["strength"] for row in rows if row["penalty"] == name],
            [row["validation"] for row in rows if row["penalty"] == name],
            scores=wording,
        )
        for name in PENALISED
    ]

    def draw(axes: Any) -> list[Label]:
        labels = marks.bars(axes, series)
        labels += _without(axes, rows, marks.strength_grid(rows)[-1], wording)
        marks.strength_axis(axes, rows)
        marks.score_axis(axes.yaxis, "validation", wording)
        return labels

    told = "; ".join(
        f"{row['label']} at lambda {row['strength']:g}: {wording.score(row['validation'])}"
        for row in rows
        if row["chosen"]
    )
    title = f"Validation {wording.name} by lambda"
    return Panel("validation-strength", title, f"{wording.name}, the best of each: {told}.", draw)


def _without(axes: Any, rows: Sequence[Summary], end: float, wording: Wording) -> list[Label]:
    """A line for the network without a penalty, and its label."""
    plain = next(row for row in rows if row["penalty"] == "none")
    if plain["validation"]["mean"] is None:
        return []
    level, style = (100 if wording.percent else 1) * plain["validation"]["mean"], PENALTIES["none"].style
    axes.axhline(level, **style.line(marker="", linewidth=1.2))
    return [Label(end, level, plain["label"], style.color)]


def zeros(rows: Sequence[Summary]) -> Panel:
    """The percentage of weights that are exactly zero, by lambda."""
    series = []
    for name in PENALISED:
        own = [row for row in rows if row["penalty"] == name]
        points = marks.known((row["strength"], row["zero"]["mean"]) for row in own)
        percent = [(x, 100 * zero / own[0]["weights"]) for x, zero in points]
        series.append(marks.Series(PENALTIES[name].label, PENALTIES[name].style, percent))

    def draw(axes: Any) -> list[Label]:
        labels = marks.bars(axes, series)
        marks.strength_axis(axes, rows)
        axes.set_ylabel("weights exactly zero, %")
        axes.set_ylim(-3, 103)
        return labels

    return Panel(
        "zeros", "Weights that are exactly zero", f"Percent of the weights, by lambda: {marks.tell(series)}.", draw
    )


def score_by_zeros(rows: Sequence[Summary], wording: Wording) -> Panel:
    """The validation score against the share of the weights that are zero, along each penalty's grid."""
    series = []
    for name in PENALISED:
        own = [row for row in rows if row["penalty"] == name and row["zero"]["mean"]]
        shares = [100 * row["zero"]["mean"] / row["weights"] for row in own]
        label, style = PENALTIES[name].label, PENALTIES[name].style
        series.append(marks.estimates(label, style, shares, [row["validation"] for row in own], scores=wording))
    series = [one for one in series if max((x for x, _ in one.points), default=0.0) > 1]

    def draw(axes: Any) -> list[Label]:
        labels = marks.bars(axes, series)
        labels += _without(axes, rows, max((x for one in series for x, _ in one.points), default=1.0), wording)
        axes.set_xlabel("weights exactly zero, %")
        marks.score_axis(axes.yaxis, "validation", wording)
        return labels

    told = "; ".join(f"{one.label} " + ", ".join(f"{y:.3g} at {x:.3g} % zero" for x, y in one.points) for one in series)
    title = f"{wording.name[0].upper()}{wording.name[1:]} by zeros"
    return Panel("score-zeros", title, f"Validation {marks.score_unit(wording)}: {told or 'no zeros, 0 %'}.", draw)


def weight_path(rows: Sequence[Summary], name: str) -> Panel:
    """The regularization path of the largest weights, from lambda = 0 on; all penalties have the same upright axis."""
    own = [row for row in rows if row["penalty"] in ("none", name)]
    style = PENALTIES[name].style
    sizes = [abs(value) for row in rows for value in row["path"] if value is not None]

    def draw(axes: Any) -> list[Label]:
        axes.axhline(0, color=MUTED, linewidth=0.8)
        # The weight that is largest without a penalty gets the strongest blue, so that the lines can be told apart.
        for rank in range(len(own[0]["path"])):
            points = marks.known((row["strength"] or marks.no_strength(own), row["path"][rank]) for row in own)
            line = replace(style, color=PALETTE[f"scale{5 - rank // 2}"][0])
            axes.plot(*marks.xy(points), color=line.color, linewidth=1.2)
            left, gone = [(x, y) for x, y in points if y], [(x, y) for x, y in points if not y]
            axes.plot(*marks.xy(left), color=line.color, linestyle="", marker="o", **line.mark(markersize=3.5))
            axes.plot(*marks.xy(gone), color=INK, linestyle="", marker="x", markersize=5.5, zorder=3)
        marks.strength_axis(axes, own, origin=True)
        top = 1.08 * max(sizes, default=1.0) or 1.0
        axes.set_ylim(-top, top)
        axes.set_ylabel("weight after training")
        return []

    told = "; ".join(f"lambda {row['strength']:g}: {marks.span(row['path'])}" for row in own)
    description = f"Sizes of the followed weights: {told}."
    return Panel(f"path-{name.replace('_', '-')}", PENALTIES[name].label, description, draw, right=0.04)
