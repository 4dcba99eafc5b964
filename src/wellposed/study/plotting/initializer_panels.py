"""Panels on initialization: the scales of signal and gradient, and the losses."""

from collections.abc import Iterable, Sequence
from typing import Any

from wellposed.study.methods import STARTS
from wellposed.study.plotting import marks
from wellposed.study.plotting.svg import Label, Panel
from wellposed.study.results.summary import Summary
from wellposed.study.training.network import ACTIVATIONS


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
            style, scale = STARTS[row["start"]].style, row[what]
            measured, predicted = (marks.known(enumerate(scale[kind], 1)) for kind in ("measured", "predicted"))
            axes.plot(*marks.xy(predicted), **style.line(marker="", linewidth=1.2))
            axes.plot(*marks.xy(measured), **style.line(marker="o", linestyle=""))
            end = 0 if what == "gradient" else -1
            labels += [Label(*(measured or predicted)[end], row["label"], style.color)] if measured or predicted else []
        axes.set_yscale("log")
        marks.powers(axes)
        layers = len(drawn[0][what]["measured"])
        axes.set_xticks(range(1, layers + 1), [*map(str, range(1, layers)), "out"])
        if what == "gradient":
            axes.invert_xaxis()
        axes.set_xlabel("layer")
        axes.set_ylabel(f"{what} (root mean square)")
        return labels

    told = "; ".join(f"{row['label']} {marks.ends(row[what]['measured'])}" for row in drawn)
    title = f"{ACTIVATIONS[activation].label} network"
    return Panel(f"{what}-{activation}", title, f"From the first layer to the outputs: {told}.", draw)


def loss_curve(rows: Sequence[Summary], activation: str, part: str) -> Panel:
    """The training or the validation loss by update, for each initialization."""
    series = [
        marks.estimates(row["label"], STARTS[row["start"]].style, row["curve"]["step"], row["curve"][f"{part} loss"])
        for row in rows
        if row["activation"] == activation
    ]
    title = f"{ACTIVATIONS[activation].label} network, {marks.ROWS[part]} rows"
    return marks.losses(f"{part}-{activation}", title, part, series)
