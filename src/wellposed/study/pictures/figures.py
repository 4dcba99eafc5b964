"""The figures of the report, drawn from the figures in ``results.json`` alone."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from wellposed.study.estimate import difference
from wellposed.study.methods import PENALTIES, STARTS
from wellposed.study.pictures import plot
from wellposed.study.pictures.drawing import INK, MUTED, PALETTE, RULE, Label, Look, Panel, look_of
from wellposed.study.results.summary import Summary
from wellposed.study.training.network import ACTIVATIONS
from wellposed.study.training.train import ROWS_WATCHED
from wellposed.study.words import Words


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


def figures(experiments: Summary, words: Words) -> dict[str, list[Figure]]:
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
                tuple(_training(starts, activation) for activation in ACTIVATIONS),
            ),
        ],
        "penalties": [
            Figure(
                "penalties",
                "What a penalty costs and what it removes",
                "Bars are standard errors over the seeds. Filled marks take the penalty by proximal steps, hollow ones "
                "by its gradient.",
                (_validation_by_strength(penalised, words), zeros(penalised)),
            ),
            Figure(
                "path",
                "The path of the largest weights",
                "The weights that are largest without a penalty (first seed), as lambda grows. A cross is a weight "
                "that is exactly zero.",
                tuple(_path(penalised, name) for name in _PENALISED),
            ),
        ],
        "dropout": [
            Figure(
                "curves",
                "Training with dropout",
                f"{words.error_name.capitalize()} of the whole network along the way, for each p, in bands of one "
                f"standard error; on the first {ROWS_WATCHED} rows of each part. Test rows are drawn, and choose "
                "nothing.",
                (_dropout_curve(thinned, "train", words), _dropout_curve(thinned, "test", words)),
            ),
            Figure(
                "gap",
                "The gap, and the ensemble",
                "Left: after training, on all rows. Right: the average of so many thinned networks, against the one "
                f"network with its weights scaled, both on the first {ROWS_WATCHED} test rows. Bars and bands are "
                "standard errors.",
                (gap(thinned, words), _ensemble(thinned, words)),
            ),
        ],
        "together": [
            Figure(
                "together",
                "One at a time, and all three",
                f"{words.error_name.capitalize()} on the test rows. Dots are single seeds, diamonds their means, "
                "bars standard errors.",
                (_together(joint, words),),
            )
        ],
    }


def scales(rows: Sequence[Summary], what: str, activation: str, only: Iterable[str] = tuple(STARTS)) -> Panel:
    """Measured and predicted scale of the signal or the gradient, layer by layer.

    Args:
        rows: The rows of the initializers.
        what: ``"signal"`` or ``"gradient"``.
        activation: Which network.
        only: Which starts.

    Returns:
        The panel.
    """
    drawn = [row for row in rows if row["activation"] == activation and row["start"] in only]

    def draw(axes: Any) -> list[Label]:
        labels = []
        for row in drawn:
            look, scale = STARTS[row["start"]].look, row[what]
            measured, predicted = (plot.known(enumerate(scale[kind], 1)) for kind in ("measured", "predicted"))
            axes.plot(*plot.xy(predicted), **look.line(marker="", linewidth=1.2))
            axes.plot(*plot.xy(measured), **look.line(marker="o", linestyle=""))
            end = 0 if what == "gradient" else -1
            labels += [Label(*(measured or predicted)[end], row["label"], look.color)] if measured or predicted else []
        axes.set_yscale("log")
        plot.powers(axes)
        layers = len(drawn[0][what]["measured"])
        axes.set_xticks(range(1, layers + 1), [*map(str, range(1, layers)), "out"])
        if what == "gradient":
            axes.invert_xaxis()
        axes.set_xlabel("layer")
        axes.set_ylabel(f"{what} (root mean square)")
        return labels

    told = "; ".join(f"{row['label']} {plot.ends(row[what]['measured'])}" for row in drawn)
    title = f"{ACTIVATIONS[activation].label} network"
    return Panel(f"{what}-{activation}", title, f"From the first layer to the outputs: {told}.", draw)


def _training(rows: Sequence[Summary], activation: str) -> Panel:
    series = [
        plot.estimates(row["label"], STARTS[row["start"]].look, row["curve"]["step"], row["curve"]["loss"])
        for row in rows
        if row["activation"] == activation
    ]

    def draw(axes: Any) -> list[Label]:
        labels = plot.bands(axes, series)
        plot.loss_axis(axes)
        axes.set_xlabel("updates")
        axes.set_ylabel("training loss")
        return labels

    title = f"{ACTIVATIONS[activation].label} network"
    return Panel(f"training-{activation}", title, f"Training loss: {plot.tell(series)}.", draw)


def _validation_by_strength(rows: Sequence[Summary], words: Words) -> Panel:
    plain = next(row for row in rows if row["penalty"] == "none")
    series = [
        plot.estimates(
            PENALTIES[name].label,
            PENALTIES[name].look,
            [row["strength"] for row in rows if row["penalty"] == name],
            [row["validation"] for row in rows if row["penalty"] == name],
            errors=True,
        )
        for name in _PENALISED
    ]

    def draw(axes: Any) -> list[Label]:
        labels = plot.bars(axes, series)
        if plain["validation"]["mean"] is not None:
            level, look = 100 * (1 - plain["validation"]["mean"]), PENALTIES["none"].look
            axes.axhline(level, **look.line(marker="", linewidth=1.2))
            labels.append(Label(plot.strength_grid(rows)[-1], level, plain["label"], look.color))
        plot.strength_axis(axes, rows)
        plot.error_axis(axes, "validation", words)
        return labels

    told = "; ".join(
        f"{row['label']} at lambda {row['strength']:g}: {words.score(row['validation'])}"
        for row in rows
        if row["chosen"]
    )
    title = f"Validation {words.error_name} by lambda"
    return Panel("validation-strength", title, f"{words.name}, the best of each: {told}.", draw)


def zeros(rows: Sequence[Summary], only: Iterable[str] = tuple(PENALTIES)) -> Panel:
    """The share of weights that are exactly zero, by lambda."""
    series = []
    for name in _PENALISED:
        if name in only:
            own = [row for row in rows if row["penalty"] == name]
            points = plot.known((row["strength"], row["zero"]["mean"]) for row in own)
            percent = [(x, 100 * zero / own[0]["weights"]) for x, zero in points]
            series.append(plot.Series(PENALTIES[name].label, PENALTIES[name].look, percent))

    def draw(axes: Any) -> list[Label]:
        labels = plot.bars(axes, series)
        plot.strength_axis(axes, rows)
        axes.set_ylabel("weights exactly zero, %")
        axes.set_ylim(-3, 103)
        return labels

    return Panel(
        "zeros", "Weights that are exactly zero", f"Percent of the weights, by lambda: {plot.tell(series)}.", draw
    )


def _path(rows: Sequence[Summary], name: str) -> Panel:
    """The path of the weights from lambda = 0 on; all penalties share one axis."""
    own = [row for row in rows if row["penalty"] in ("none", name)]
    look = PENALTIES[name].look
    sizes = [abs(value) for row in rows for value in row["path"] if value is not None]

    def draw(axes: Any) -> list[Label]:
        axes.axhline(0, color=MUTED, linewidth=0.8)
        # The weight that is largest without a penalty gets the strongest blue, so that the lines can be told apart.
        for rank in range(len(own[0]["path"])):
            points = plot.known((row["strength"] or plot.no_strength(rows), row["path"][rank]) for row in own)
            line = replace(look, color=PALETTE[f"scale{5 - rank // 2}"][0])
            axes.plot(*plot.xy(points), color=line.color, linewidth=1.2)
            left, gone = [(x, y) for x, y in points if y], [(x, y) for x, y in points if not y]
            axes.plot(*plot.xy(left), color=line.color, linestyle="", marker="o", **line.mark(markersize=3.5))
            axes.plot(*plot.xy(gone), color=INK, linestyle="", marker="x", markersize=5.5, zorder=3)
        plot.strength_axis(axes, rows, origin=True)
        top = 1.08 * max(sizes, default=1.0) or 1.0
        axes.set_ylim(-top, top)
        axes.set_ylabel("weight after training")
        return []

    told = "; ".join(f"lambda {row['strength']:g}: {plot.span(row['path'])}" for row in own)
    description = f"Sizes of the followed weights: {told}."
    return Panel(f"path-{name.replace('_', '-')}", PENALTIES[name].label, description, draw, right=0.04)


def _dropout_curve(rows: Sequence[Summary], part: str, words: Words) -> Panel:
    series = [
        plot.estimates(f"p = {row['p']:g}", _shade(row, rows), row["curve"]["step"], row["curve"][part], errors=True)
        for row in rows
    ]

    def draw(axes: Any) -> list[Label]:
        labels = plot.bands(axes, series, least=0.0)
        axes.set_xlabel("updates")
        plot.error_axis(axes, _PART[part], words)
        return labels

    title = f"{_PART[part].capitalize()} {words.error_name}"
    return Panel(f"dropout-{part}", title, f"{words.error_name} in percent: {plot.tell(series)}.", draw, right=0.2)


def gap(rows: Sequence[Summary], words: Words) -> Panel:
    """Training and test error after training, by p."""
    looks = {"train": look_of("blue", filled=False), "test": look_of("blue")}
    # The test rows' scores of rows that were not chosen are kept as gaps alone.
    scores = {"train": [row["train"] for row in rows], "test": [difference(row["train"], row["gap"]) for row in rows]}
    by_p = [row["p"] for row in rows]
    series = [plot.estimates(_PART[part], look, by_p, scores[part], errors=True) for part, look in looks.items()]

    def draw(axes: Any) -> list[Label]:
        low, high = (dict(one.points) for one in series)
        shared = [x for x in low if x in high]
        axes.fill_between(
            shared, [low[x] for x in shared], [high[x] for x in shared], color=RULE, alpha=0.5, linewidth=0
        )
        labels = plot.bars(axes, series)
        axes.set_xlabel("p, the share of hidden units left out")
        plot.error_axis(axes, "", words)
        return labels

    title = f"{words.error_name.capitalize()} by p"
    return Panel("gap-by-p", title, f"{words.error_name} in percent: {plot.tell(series)}.", draw, right=0.2)


def _ensemble(rows: Sequence[Summary], words: Words) -> Panel:
    row = next(row for row in rows if row["chosen"])
    ensemble, networks = row["ensemble"], row["ensemble"]["networks"]
    average = plot.estimates("average", look_of("blue"), networks, ensemble["test"], errors=True)
    same = [ensemble["scaled"]["test"]] * len(networks)
    scaled = plot.estimates("scaled", look_of("grey", filled=False), networks, same, errors=True)

    def draw(axes: Any) -> list[Label]:
        labels = plot.bands(axes, [scaled], least=0.0) + plot.bands(axes, [average], least=0.0, marker="o")
        axes.set_xscale("log", base=2)
        plot.ticks(axes.xaxis, networks)
        axes.set_xlabel("thinned networks averaged")
        plot.error_axis(axes, "test", words)
        return labels

    told = plot.tell([replace(average, label="Average of thinned networks")])
    said = f"{told}; one scaled network: {words.score(ensemble['scaled']['test'])} {words.name}."
    return Panel(
        "ensemble", f"The ensemble at p = {row['p']:g}", f"Test {words.error_name} in percent. {said}", draw, right=0.2
    )


def _together(rows: Sequence[Summary], words: Words) -> Panel:
    def draw(axes: Any) -> list[Label]:
        for place, row in enumerate(reversed(rows)):
            look = look_of("blue") if row["name"] == "all" else look_of("grey")
            values = [100 * (1 - value) for value in row["test"]["values"] if value is not None]
            axes.plot(values, [place] * len(values), "o", color=look.color, alpha=0.45, markersize=4, linewidth=0)
            if row["test"]["mean"] is not None:
                mean, error = 100 * (1 - row["test"]["mean"]), 100 * (row["test"]["error"] or 0.0)
                axes.errorbar(mean, place, xerr=error, fmt="D", color=look.color, markersize=6, linewidth=1.6)
        axes.set_yticks(range(len(rows)), [row["label"] for row in reversed(rows)])
        axes.tick_params(axis="y", length=0, labelcolor=INK, labelsize=9.5)
        axes.grid(axis="y", visible=False)
        axes.grid(axis="x")
        axes.set_ylim(-0.6, len(rows) - 0.4)
        axes.set_xscale("symlog", linthresh=1, linscale=0.4)
        plot.ticks(axes.xaxis, plot.ERRORS)
        plot.within(axes.xaxis, plot.ERRORS)
        axes.set_xlabel(f"test {words.error_name}, %")
        return []

    told = "; ".join(f"{row['label']}: {words.score(row['test'])}" for row in rows)
    return Panel("together", "Test rows", f"{words.name} on test: {told}.", draw, size=(5.2, 2.8), right=0.03, left=1.5)


_PENALISED = tuple(name for name, method in PENALTIES.items() if method.make is not None)
_PART = {"train": "training", "test": "test"}


def _shade(row: Summary, rows: Sequence[Summary]) -> Look:
    if not row["p"]:
        return look_of("grey", filled=False)
    others = [other["p"] for other in rows if other["p"]]
    step = round(4 * others.index(row["p"]) / max(1, len(others) - 1))
    return replace(look_of(f"scale{step + 1}"), faint=True)
