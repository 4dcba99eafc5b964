"""Lines with error bands and bars, axes of scores, losses and strengths, and their descriptions in words."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from wellposed.study.estimate import Estimate
from wellposed.study.plotting.svg import Label, Panel, Style
from wellposed.study.results.summary import Summary
from wellposed.study.wording import Wording

Points = list[tuple[float, float]]
ROWS = {"train": "training", "validation": "validation", "test": "test"}
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Series:
    """The points of one line.

    Attributes:
        label: Stands beside the last point.
        style: How they are drawn.
        points: Where the value is known.
        errors: The standard error of each; nothing where there is none.
    """

    label: str
    style: Style
    points: Points
    errors: tuple[float, ...] = ()


def estimates(
    label: str, style: Style, xs: Sequence[float], ys: Sequence[Estimate], *, scores: Wording | None = None
) -> Series:
    """The means of estimates, where they have one; in percent if they are scores that are written so."""
    scale = 100 if scores and scores.percent else 1
    kept = [(x, y["mean"], y["error"] or 0.0) for x, y in zip(xs, ys, strict=True) if y["mean"] is not None]
    return Series(label, style, [(x, scale * mean) for x, mean, _ in kept], tuple(scale * error for *_, error in kept))


def bands(axes: Any, series: Iterable[Series], *, least: float = -math.inf, **more: Any) -> list[Label]:
    """Draw series as lines in bands of one standard error that end above ``least``; returns their labels."""
    labels = []
    for one in series:
        if one.points:
            xs, ys = xy(one.points)
            low = [max(y - error, least) for y, error in zip(ys, one.errors, strict=True)]
            high = [y + error for y, error in zip(ys, one.errors, strict=True)]
            axes.fill_between(xs, low, high, color=one.style.color, alpha=0.16, linewidth=0)
            axes.plot(xs, ys, **one.style.line(**more))
            labels.append(Label(xs[-1], ys[-1], one.label, one.style.text))
    return labels


def bars(axes: Any, series: Iterable[Series], **more: Any) -> list[Label]:
    """Draw series as marked lines with bars of one standard error; returns their labels."""
    labels = []
    for one in series:
        if one.points:
            axes.errorbar(
                *xy(one.points), yerr=one.errors or None, elinewidth=1.0, **one.style.line(marker="o"), **more
            )
            labels.append(Label(*one.points[-1], one.label, one.style.text))
    return labels


def score_axis(axis: Any, part: str, wording: Wording) -> None:
    """Scores, up to the perfect one; an R squared below 0 is worse than the mean, and far ones end on the edge."""
    perfect = 100 if wording.percent else 1
    low, high = axis.get_data_interval()
    if not (math.isfinite(low) and math.isfinite(high)):
        low, high = 0.0, perfect
    low, room = max(low, -0.2 * perfect), 0.02 * perfect
    axis.set_view_interval(min(low, perfect - room) - room, min(high + room, perfect + room / 4), ignore=True)
    axis.set_label_text(f"{part} {score_unit(wording)}".strip())


def score_unit(wording: Wording) -> str:
    """The name of the score with the unit in which it is drawn."""
    return f"{wording.name}, %" if wording.percent else wording.name


def loss_axis(axes: Any) -> None:
    """Values above 0 by powers of ten; an axis without values keeps a range of its own."""
    if not all(map(math.isfinite, axes.dataLim.intervaly)):
        axes.set_ylim(0.1, 10)
    axes.set_yscale("log")
    powers(axes)


def losses(name: str, title: str, part: str, series: Sequence[Series], **more: Any) -> Panel:
    """A panel of losses on a part of the rows, by update."""
    named = ROWS[part]

    def draw(axes: Any) -> list[Label]:
        labels = bands(axes, series, least=1e-6)
        loss_axis(axes)
        axes.set_xlabel("updates")
        axes.set_ylabel(f"{named} loss")
        return labels

    return Panel(name, title, f"{named.capitalize()} loss: {tell(series)}.", draw, **more)


def strength_axis(axes: Any, rows: Sequence[Summary], *, origin: bool = False) -> None:
    """Lambda along the bottom by powers of ten; with ``origin`` a tick for 0, left of a gap."""
    axes.set_xscale("log")
    strengths = strength_grid(rows)
    least, most = (math.log10(end) for end in (strengths[0], strengths[-1]))
    places = [10.0**power for power in range(math.ceil(least), math.floor(most) + 1)] or [strengths[0]]
    names = [_power(place) for place in places]
    if origin:
        places, names = [no_strength(rows), *places], ["0", *names]
    axes.set_xticks(places, names, minor=False)
    axes.set_xlim((no_strength(rows) if origin else strengths[0]) / 1.3, strengths[-1] * 1.3)
    axes.xaxis.minorticks_off()
    axes.set_xlabel("lambda")


def strength_grid(rows: Sequence[Summary]) -> list[float]:
    """The lambdas that were tried, rising."""
    return sorted({row["strength"] for row in rows if row["strength"]})


def no_strength(rows: Sequence[Summary]) -> float:
    """Where lambda = 0 stands on a logarithmic axis, which has no place for it: left of all others."""
    return strength_grid(rows)[0] / 4


def ticks(axis: Any, places: Sequence[float]) -> None:
    """Set ticks as plain numbers, and no others."""
    axis.set_ticks(places, [f"{place:g}" for place in places])
    axis.minorticks_off()


def powers(axes: Any) -> None:
    """Write numbers on a logarithmic axis, far ones as powers of ten."""
    axes.yaxis.set_major_formatter(lambda value, _: _power(value))
    axes.yaxis.set_minor_formatter(lambda value, _: "")


def _power(value: float) -> str:
    power = f"{value:e}".split("e")[1]
    return f"{value:g}" if 1e-3 < value < 1e4 else "10" + str(int(power)).translate(_RAISED)


def known(pairs: Iterable[tuple[float, float | None]]) -> Points:
    """The pairs that have a value."""
    return [(x, y) for x, y in pairs if y is not None]


def xy(points: Points) -> tuple[list[float], list[float]]:
    """The two coordinates apart."""
    return [x for x, _ in points], [y for _, y in points]


def ends(values: Sequence[float | None]) -> str:
    """In words: the first and the last value."""
    known = [value for value in values if value is not None]
    return f"{known[0]:.3g} to {known[-1]:.3g}" if known else "not finite"


def tell(series: Iterable[Series]) -> str:
    """In words: where each series starts and ends."""
    return "; ".join(f"{one.label} {ends([y for _, y in one.points])}" for one in series)


def span(values: Sequence[float | None]) -> str:
    """In words: the smallest and the largest size."""
    sizes = [abs(value) for value in values if value is not None]
    return f"{min(sizes):.3g} to {max(sizes):.3g}" if sizes else "not finite"
