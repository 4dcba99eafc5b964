"""The figures of the report, drawn from the figures in ``results.json`` alone."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from wellposed.study import plot
from wellposed.study.drawing import INK, MUTED, PALETTE, RULE, Label, Panel
from wellposed.study.summary import Summary
from wellposed.study.words import Words

STARTS = {
    "random": plot.look_of("grey", filled=False),
    "glorot_chapter": plot.look_of("blue", filled=False),
    "he_chapter": plot.look_of("vermilion", filled=False),
    "glorot": plot.look_of("blue"),
    "he": plot.look_of("vermilion"),
    "lecun": plot.look_of("green"),
    "torch": plot.look_of("purple"),
}
PENALTIES = {
    "none": plot.look_of("grey"),
    "l2": plot.look_of("blue", filled=False),
    "l1": plot.look_of("vermilion", filled=False),
    "l1_proximal": plot.look_of("vermilion"),
    "elastic_net": plot.look_of("green"),
}
NETWORKS = {"tanh": "tanh", "relu": "ReLU"}


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
                tuple(scales(starts, "signal", activation) for activation in NETWORKS),
            ),
            Figure(
                "gradient",
                "The gradient, layer by layer",
                "Root mean square of the gradient at the same places, before training, from the outputs back to the "
                "first layer.",
                tuple(scales(starts, "gradient", activation) for activation in NETWORKS),
            ),
            Figure(
                "training",
                "Training",
                "The loss on the training rows, mean over the seeds.",
                tuple(_training(starts, activation) for activation in NETWORKS),
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
                "The ten weights that are largest without a penalty (first seed), as lambda grows.",
                tuple(_path(penalised, name) for name in PENALTIES if name != "none"),
            ),
        ],
        "dropout": [
            Figure(
                "curves",
                "Training with dropout",
                "Error of the whole network along the way, for each p. Test rows are drawn, and choose nothing.",
                (_dropout_curve(thinned, "train", words), _dropout_curve(thinned, "test", words)),
            ),
            Figure(
                "gap",
                "The gap, and the ensemble",
                "Left: errors after training. Right: the average of so many thinned networks, against the one network "
                "with its weights scaled.",
                (gap(thinned, words), _ensemble(thinned, words)),
            ),
        ],
        "together": [
            Figure(
                "together",
                "One at a time, and all three",
                "Error on the test rows. Dots are single seeds, diamonds their means, bars standard errors.",
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
            look, scale = STARTS[row["start"]], row[what]
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
    title = f"{NETWORKS[activation]} network"
    return Panel(f"{what}-{activation}", title, f"From the first layer to the outputs: {told}.", draw)


def _training(rows: Sequence[Summary], activation: str) -> Panel:
    drawn = [row for row in rows if row["activation"] == activation]
    series = [
        (row["label"], STARTS[row["start"]], plot.means(row["curve"]["step"], row["curve"]["loss"])) for row in drawn
    ]

    def draw(axes: Any) -> list[Label]:
        axes.set_xlabel("updates")
        axes.set_ylabel("training loss")
        axes.set_yscale("log")
        labels = plot.lines(axes, series)
        plot.powers(axes)
        return labels

    return Panel(
        f"training-{activation}", f"{NETWORKS[activation]} network", f"Training loss: {plot.tell(series)}.", draw
    )


def _validation_by_strength(rows: Sequence[Summary], words: Words) -> Panel:
    plain = next(row for row in rows if row["penalty"] == "none")
    names = [name for name in PENALTIES if name != "none"]

    def draw(axes: Any) -> list[Label]:
        labels = []
        if plain["validation"]["mean"] is not None:
            level = 100 * (1 - plain["validation"]["mean"])
            axes.axhline(level, **PENALTIES["none"].line(marker="", linewidth=1.2))
            labels.append(Label(plot.strength_grid(rows)[-1], level, plain["label"], PENALTIES["none"].color))
        for name in names:
            own = [row for row in rows if row["penalty"] == name]
            labels += plot.bars(axes, own, "strength", "validation", own[0]["label"], PENALTIES[name])
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
    names = [name for name in PENALTIES if name != "none" and name in only]
    series = []
    for name in names:
        own = [row for row in rows if row["penalty"] == name]
        points = [
            (row["strength"], row["zero"]["mean"] / row["weights"]) for row in own if row["zero"]["mean"] is not None
        ]
        series.append((own[0]["label"], PENALTIES[name], [(x, 100 * y) for x, y in points]))

    def draw(axes: Any) -> list[Label]:
        labels = plot.lines(axes, series, marker="o")
        plot.strength_axis(axes, rows)
        axes.set_ylabel("weights exactly zero, %")
        axes.set_ylim(-3, 103)
        return labels

    return Panel(
        "zeros", "Weights that are exactly zero", f"Percent of the weights, by lambda: {plot.tell(series)}.", draw
    )


def _path(rows: Sequence[Summary], name: str) -> Panel:
    own = [row for row in rows if row["penalty"] == name and row["path"]]

    def draw(axes: Any) -> list[Label]:
        axes.axhline(0, color=MUTED, linewidth=0.8)
        # The strongest first weight gets the strongest blue, so that the lines can be told apart.
        for rank in range(len(own[0]["path"]) if own else 0):
            points = plot.known((row["strength"], row["path"][rank]) for row in own)
            shade = PALETTE[f"scale{5 - rank // 2}"][0]
            axes.plot(*plot.xy(points), color=shade, marker="o", markersize=3, linewidth=1.2)
        plot.strength_axis(axes, rows)
        axes.set_ylabel("weight after training")
        return []

    label = next(row["label"] for row in rows if row["penalty"] == name)
    told = "; ".join(f"lambda {row['strength']:g}: {plot.span(row['path'])}" for row in own)
    return Panel(f"path-{name.replace('_', '-')}", label, f"Sizes of the followed weights: {told}.", draw, right=0.04)


def _dropout_curve(rows: Sequence[Summary], part: str, words: Words) -> Panel:
    series = [
        (f"p = {row['p']:g}", _shade(row, rows), plot.to_errors(plot.means(row["curve"]["step"], row["curve"][part])))
        for row in rows
    ]

    def draw(axes: Any) -> list[Label]:
        labels = plot.lines(axes, series)
        axes.set_xlabel("updates")
        plot.error_axis(axes, _PART[part], words)
        return labels

    title = f"{_PART[part].capitalize()} {words.error_name}"
    return Panel(f"dropout-{part}", title, f"{words.error_name} in percent: {plot.tell(series)}.", draw, right=0.2)


def gap(rows: Sequence[Summary], words: Words) -> Panel:
    """Training and test error after training, by p."""
    looks = {"train": plot.look_of("blue", filled=False), "test": plot.look_of("blue")}
    series = []
    for part, look in looks.items():
        ends = [(row["p"], row["curve"][part][-1]["mean"]) for row in rows]
        series.append((_PART[part], look, plot.to_errors(plot.known(ends))))

    def draw(axes: Any) -> list[Label]:
        (_, _, low), (_, _, high) = series
        shared = [(x, y, dict(high)[x]) for x, y in low if x in dict(high)]
        axes.fill_between(*zip(*shared, strict=True), color=RULE, alpha=0.5, linewidth=0) if shared else None
        labels = plot.lines(axes, series, marker="o")
        axes.set_xlabel("p, the share of hidden units left out")
        plot.error_axis(axes, "", words)
        return labels

    title = f"{words.error_name.capitalize()} by p"
    return Panel("gap-by-p", title, f"{words.error_name} in percent: {plot.tell(series)}.", draw, right=0.2)


def _ensemble(rows: Sequence[Summary], words: Words) -> Panel:
    row = next(row for row in rows if row["chosen"])
    ensemble, look = row["ensemble"], plot.look_of("blue")
    points = plot.to_errors(plot.means(ensemble["networks"], ensemble["test"]))
    scaled = None if row["test"]["mean"] is None else 100 * (1 - row["test"]["mean"])

    def draw(axes: Any) -> list[Label]:
        labels = plot.lines(axes, [("average", look, points)], marker="o")
        if scaled is not None:
            axes.axhline(scaled, color=INK, linewidth=1.2, linestyle=(0, (1, 2)))
            labels.append(Label(ensemble["networks"][-1], scaled, "scaled", INK))
        axes.set_xscale("log", base=2)
        plot.ticks(axes.xaxis, ensemble["networks"])
        axes.set_xlabel("thinned networks averaged")
        axes.set_ylabel(f"test {words.error_name}, %")
        return labels

    told = plot.tell([("Average of thinned networks", look, points)])
    said = f"{told}; one scaled network: {words.score(row['test'])} {words.name}."
    return Panel(
        "ensemble", f"The ensemble at p = {row['p']:g}", f"Test {words.error_name} in percent. {said}", draw, right=0.2
    )


def _together(rows: Sequence[Summary], words: Words) -> Panel:
    def draw(axes: Any) -> list[Label]:
        for place, row in enumerate(reversed(rows)):
            look = plot.look_of("blue") if row["label"] == "All three" else plot.look_of("grey")
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
    return Panel("together", "Test rows", f"{words.name} on test: {told}.", draw, size=(5.2, 2.8), right=0.03, left=1.4)


_PART = {"train": "training", "test": "test"}


def _shade(row: Summary, rows: Sequence[Summary]) -> plot.Look:
    if not row["p"]:
        return plot.look_of("grey", filled=False)
    others = [other["p"] for other in rows if other["p"]]
    step = round(4 * others.index(row["p"]) / max(1, len(others) - 1))
    return replace(plot.look_of(f"scale{step + 1}"), faint=True)
