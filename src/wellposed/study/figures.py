"""The figures of the report, drawn from the figures in ``results.json`` alone."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from wellposed.study.drawing import INK, MUTED, PALETTE, RULE, Label, Panel
from wellposed.study.estimate import Estimate
from wellposed.study.summary import Summary
from wellposed.study.words import Words


@dataclass(frozen=True)
class Look:
    """How one thing is drawn, wherever it is drawn: what the chapter does is hollow and dashed."""

    color: str
    filled: bool = True
    faint: bool = False

    @property
    def text(self) -> str:
        """The colour of the label: the line's, unless that is too faint to read."""
        return INK if self.faint else self.color

    def line(self, **more: Any) -> dict[str, Any]:
        """The keyword arguments of a line with markers."""
        face = self.color if self.filled else PALETTE["paper"][0]
        return {"color": self.color, "linestyle": "-" if self.filled else (0, (4, 2)), "markerfacecolor": face} | more


def _look(name: str, *, filled: bool = True) -> Look:
    return Look(PALETTE[name][0], filled)


STARTS = {
    "random": _look("grey", filled=False),
    "glorot_chapter": _look("blue", filled=False),
    "he_chapter": _look("vermilion", filled=False),
    "glorot": _look("blue"),
    "he": _look("vermilion"),
    "lecun": _look("green"),
    "torch": _look("purple"),
}
PENALTIES = {
    "none": _look("grey"),
    "l2": _look("blue", filled=False),
    "l1": _look("vermilion", filled=False),
    "l1_proximal": _look("vermilion"),
    "elastic_net": _look("green"),
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
            measured, predicted = (_points(enumerate(scale[kind], 1)) for kind in ("measured", "predicted"))
            axes.plot(*_xy(predicted), **look.line(marker="", linewidth=1.2))
            axes.plot(*_xy(measured), **look.line(marker="o", linestyle=""))
            end = 0 if what == "gradient" else -1
            labels += [Label(*(measured or predicted)[end], row["label"], look.color)] if measured or predicted else []
        axes.set_yscale("log")
        _powers(axes)
        layers = len(drawn[0][what]["measured"])
        axes.set_xticks(range(1, layers + 1), [*map(str, range(1, layers)), "out"])
        if what == "gradient":
            axes.invert_xaxis()
        axes.set_xlabel("layer")
        axes.set_ylabel(f"{what} (root mean square)")
        return labels

    told = "; ".join(f"{row['label']} {_ends(row[what]['measured'])}" for row in drawn)
    title = f"{NETWORKS[activation]} network"
    return Panel(f"{what}-{activation}", title, f"From the first layer to the outputs: {told}.", draw)


def _training(rows: Sequence[Summary], activation: str) -> Panel:
    drawn = [row for row in rows if row["activation"] == activation]
    series = [(row["label"], STARTS[row["start"]], _means(row["curve"]["step"], row["curve"]["loss"])) for row in drawn]

    def draw(axes: Any) -> list[Label]:
        axes.set_xlabel("updates")
        axes.set_ylabel("training loss")
        axes.set_yscale("log")
        labels = _lines(axes, series)
        _powers(axes)
        return labels

    return Panel(f"training-{activation}", f"{NETWORKS[activation]} network", f"Training loss: {_tell(series)}.", draw)


def _validation_by_strength(rows: Sequence[Summary], words: Words) -> Panel:
    plain = next(row for row in rows if row["penalty"] == "none")
    names = [name for name in PENALTIES if name != "none"]

    def draw(axes: Any) -> list[Label]:
        labels = []
        if plain["validation"]["mean"] is not None:
            level = 100 * (1 - plain["validation"]["mean"])
            axes.axhline(level, **PENALTIES["none"].line(marker="", linewidth=1.2))
            labels.append(Label(_strengths(rows)[-1], level, plain["label"], PENALTIES["none"].color))
        for name in names:
            own = [row for row in rows if row["penalty"] == name]
            labels += _bars(axes, own, "strength", "validation", own[0]["label"], PENALTIES[name])
        _strength_axis(axes, rows)
        _error_axis(axes, "validation", words)
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
        labels = _lines(axes, series, marker="o")
        _strength_axis(axes, rows)
        axes.set_ylabel("weights exactly zero, %")
        axes.set_ylim(-3, 103)
        return labels

    return Panel("zeros", "Weights that are exactly zero", f"Percent of the weights, by lambda: {_tell(series)}.", draw)


def _path(rows: Sequence[Summary], name: str) -> Panel:
    own = [row for row in rows if row["penalty"] == name and row["path"]]

    def draw(axes: Any) -> list[Label]:
        axes.axhline(0, color=MUTED, linewidth=0.8)
        # The strongest first weight gets the strongest blue, so that the lines can be told apart.
        for rank in range(len(own[0]["path"]) if own else 0):
            points = _points((row["strength"], row["path"][rank]) for row in own)
            shade = PALETTE[f"scale{5 - rank // 2}"][0]
            axes.plot(*_xy(points), color=shade, marker="o", markersize=3, linewidth=1.2)
        _strength_axis(axes, rows)
        axes.set_ylabel("weight after training")
        return []

    label = next(row["label"] for row in rows if row["penalty"] == name)
    told = "; ".join(f"lambda {row['strength']:g}: {_range(row['path'])}" for row in own)
    return Panel(f"path-{name.replace('_', '-')}", label, f"Sizes of the followed weights: {told}.", draw, right=0.04)


def _dropout_curve(rows: Sequence[Summary], part: str, words: Words) -> Panel:
    series = [
        (f"p = {row['p']:g}", _shade(row, rows), _errors(_means(row["curve"]["step"], row["curve"][part])))
        for row in rows
    ]

    def draw(axes: Any) -> list[Label]:
        labels = _lines(axes, series)
        axes.set_xlabel("updates")
        _error_axis(axes, _PART[part], words)
        return labels

    title = f"{_PART[part].capitalize()} {words.error_name}"
    return Panel(f"dropout-{part}", title, f"{words.error_name} in percent: {_tell(series)}.", draw, right=0.2)


def gap(rows: Sequence[Summary], words: Words) -> Panel:
    """Training and test error after training, by p."""
    looks = {"train": _look("blue", filled=False), "test": _look("blue")}
    series = []
    for part, look in looks.items():
        ends = [(row["p"], row["curve"][part][-1]["mean"]) for row in rows]
        series.append((_PART[part], look, _errors(_points(ends))))

    def draw(axes: Any) -> list[Label]:
        (_, _, low), (_, _, high) = series
        shared = [(x, y, dict(high)[x]) for x, y in low if x in dict(high)]
        axes.fill_between(*zip(*shared, strict=True), color=RULE, alpha=0.5, linewidth=0) if shared else None
        labels = _lines(axes, series, marker="o")
        axes.set_xlabel("p, the share of hidden units left out")
        _error_axis(axes, "", words)
        return labels

    title = f"{words.error_name.capitalize()} by p"
    return Panel("gap-by-p", title, f"{words.error_name} in percent: {_tell(series)}.", draw, right=0.2)


def _ensemble(rows: Sequence[Summary], words: Words) -> Panel:
    row = next(row for row in rows if row["chosen"])
    ensemble, look = row["ensemble"], _look("blue")
    points = _errors(_means(ensemble["networks"], ensemble["test"]))
    scaled = None if row["test"]["mean"] is None else 100 * (1 - row["test"]["mean"])

    def draw(axes: Any) -> list[Label]:
        labels = _lines(axes, [("average", look, points)], marker="o")
        if scaled is not None:
            axes.axhline(scaled, color=INK, linewidth=1.2, linestyle=(0, (1, 2)))
            labels.append(Label(ensemble["networks"][-1], scaled, "scaled", INK))
        axes.set_xscale("log", base=2)
        _ticks(axes.xaxis, ensemble["networks"])
        axes.set_xlabel("thinned networks averaged")
        axes.set_ylabel(f"test {words.error_name}, %")
        return labels

    told = _tell([("Average of thinned networks", look, points)])
    said = f"{told}; one scaled network: {words.score(row['test'])} {words.name}."
    return Panel(
        "ensemble", f"The ensemble at p = {row['p']:g}", f"Test {words.error_name} in percent. {said}", draw, right=0.2
    )


def _together(rows: Sequence[Summary], words: Words) -> Panel:
    def draw(axes: Any) -> list[Label]:
        for place, row in enumerate(reversed(rows)):
            look = _look("blue") if row["label"] == "All three" else _look("grey")
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
        _ticks(axes.xaxis, _ERRORS)
        _within(axes.xaxis, _ERRORS)
        axes.set_xlabel(f"test {words.error_name}, %")
        return []

    told = "; ".join(f"{row['label']}: {words.score(row['test'])}" for row in rows)
    return Panel("together", "Test rows", f"{words.name} on test: {told}.", draw, size=(5.2, 2.8), right=0.03, left=1.4)


_ERRORS = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
_PART = {"train": "training", "test": "test"}
_Points = list[tuple[float, float]]
_Series = tuple[str, Look, _Points]


def _lines(axes: Any, series: Iterable[_Series], **more: Any) -> list[Label]:
    labels = []
    for label, look, points in series:
        if points:
            axes.plot(*_xy(points), **look.line(**more))
            labels.append(Label(*points[-1], label, look.text))
    return labels


def _bars(axes: Any, rows: Sequence[Summary], x: str, y: str, label: str, look: Look) -> list[Label]:
    known = [row for row in rows if row[y]["mean"] is not None]
    if not known:
        return []
    xs, ys = [row[x] for row in known], [100 * (1 - row[y]["mean"]) for row in known]
    errors = [100 * (row[y]["error"] or 0.0) for row in known]
    axes.errorbar(xs, ys, yerr=errors, elinewidth=1.0, **look.line(marker="o"))
    return [Label(xs[-1], ys[-1], label, look.color)]


def _shade(row: Summary, rows: Sequence[Summary]) -> Look:
    if not row["p"]:
        return _look("grey", filled=False)
    others = [other["p"] for other in rows if other["p"]]
    step = round(4 * others.index(row["p"]) / max(1, len(others) - 1))
    return replace(_look(f"scale{step + 1}"), faint=True)


def _error_axis(axes: Any, part: str, words: Words) -> None:
    """Errors in percent: even steps up to 1 %, and by powers above, so that 2 % and 80 % are both read."""
    axes.set_yscale("symlog", linthresh=1, linscale=0.5)
    _ticks(axes.yaxis, _ERRORS)
    _within(axes.yaxis, _ERRORS)
    axes.set_ylabel(f"{part} {words.error_name}, %".strip())


def _strength_axis(axes: Any, rows: Sequence[Summary]) -> None:
    axes.set_xscale("log")
    strengths = _strengths(rows)
    axes.set_xticks(strengths, [f"{s:.0e}".replace("e-0", "e-").replace("e+00", "") for s in strengths], minor=False)
    axes.xaxis.minorticks_off()
    axes.set_xlabel("lambda")


def _strengths(rows: Sequence[Summary]) -> list[float]:
    return sorted({row["strength"] for row in rows if row["strength"]})


def _ticks(axis: Any, places: Sequence[float]) -> None:
    axis.set_ticks(places, [f"{place:g}" for place in places])
    axis.minorticks_off()


def _within(axis: Any, places: Sequence[float]) -> None:
    """End the axis on ticks: the nearest outside what is drawn."""
    low, high = axis.get_data_interval()
    bottom = max((place for place in places if place <= low), default=places[0])
    top = min((place for place in places if place >= high and place > bottom), default=places[-1])
    axis.set_view_interval(bottom, top, ignore=True)


def _powers(axes: Any) -> None:
    raised = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")

    def text(value: float, _: int) -> str:
        power = f"{value:e}".split("e")[1]
        return f"{value:g}" if 1e-3 < value < 1e4 else "10" + str(int(power)).translate(raised)

    axes.yaxis.set_major_formatter(text)
    axes.yaxis.set_minor_formatter(lambda value, _: "")


def _points(pairs: Iterable[tuple[float, float | None]]) -> _Points:
    return [(x, y) for x, y in pairs if y is not None]


def _means(xs: Sequence[float], ys: Sequence[Estimate]) -> _Points:
    return _points((x, y["mean"]) for x, y in zip(xs, ys, strict=True))


def _errors(points: _Points) -> _Points:
    return [(x, 100 * (1 - y)) for x, y in points]


def _xy(points: _Points) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]


def _ends(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{known[0]:.3g} to {known[-1]:.3g}" if known else "not finite"


def _tell(series: Iterable[_Series]) -> str:
    return "; ".join(f"{label} {_ends([y for _, y in points])}" for label, _, points in series)


def _range(values: Sequence[float | None]) -> str:
    sizes = [abs(value) for value in values if value is not None]
    return f"{min(sizes):.3g} to {max(sizes):.3g}" if sizes else "not finite"
