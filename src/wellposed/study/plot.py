"""The parts that figures are drawn of: looks, lines, axes, and what they say in words."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from wellposed.study.drawing import INK, PALETTE, Label
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


def look_of(name: str, *, filled: bool = True) -> Look:
    """The look of a colour of the palette."""
    return Look(PALETTE[name][0], filled)


ERRORS = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
Points = list[tuple[float, float]]
Series = tuple[str, Look, Points]


def lines(axes: Any, series: Iterable[Series], **more: Any) -> list[Label]:
    """Draw series as lines; returns their labels."""
    labels = []
    for label, look, points in series:
        if points:
            axes.plot(*xy(points), **look.line(**more))
            labels.append(Label(*points[-1], label, look.text))
    return labels


def bars(axes: Any, rows: Sequence[Summary], x: str, y: str, label: str, look: Look) -> list[Label]:
    """Draw a score of rows as errors with standard errors; returns the label."""
    known = [row for row in rows if row[y]["mean"] is not None]
    if not known:
        return []
    xs, ys = [row[x] for row in known], [100 * (1 - row[y]["mean"]) for row in known]
    errors = [100 * (row[y]["error"] or 0.0) for row in known]
    axes.errorbar(xs, ys, yerr=errors, elinewidth=1.0, **look.line(marker="o"))
    return [Label(xs[-1], ys[-1], label, look.color)]


def error_axis(axes: Any, part: str, words: Words) -> None:
    """Errors in percent: even steps up to 1 %, and by powers above, so that 2 % and 80 % are both read."""
    axes.set_yscale("symlog", linthresh=1, linscale=0.5)
    ticks(axes.yaxis, ERRORS)
    within(axes.yaxis, ERRORS)
    axes.set_ylabel(f"{part} {words.error_name}, %".strip())


def strength_axis(axes: Any, rows: Sequence[Summary]) -> None:
    """Lambda along the bottom, a tick for each that was tried."""
    axes.set_xscale("log")
    strengths = strength_grid(rows)
    axes.set_xticks(strengths, [f"{s:.0e}".replace("e-0", "e-").replace("e+00", "") for s in strengths], minor=False)
    axes.xaxis.minorticks_off()
    axes.set_xlabel("lambda")


def strength_grid(rows: Sequence[Summary]) -> list[float]:
    """The lambdas that were tried, rising."""
    return sorted({row["strength"] for row in rows if row["strength"]})


def ticks(axis: Any, places: Sequence[float]) -> None:
    """Set ticks as plain numbers, and no others."""
    axis.set_ticks(places, [f"{place:g}" for place in places])
    axis.minorticks_off()


def within(axis: Any, places: Sequence[float]) -> None:
    """End the axis on ticks: the nearest outside what is drawn."""
    low, high = axis.get_data_interval()
    bottom = max((place for place in places if place <= low), default=places[0])
    top = min((place for place in places if place >= high and place > bottom), default=places[-1])
    axis.set_view_interval(bottom, top, ignore=True)


def powers(axes: Any) -> None:
    """Write numbers on a logarithmic axis, far ones as powers of ten."""
    raised = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")

    def text(value: float, _: int) -> str:
        power = f"{value:e}".split("e")[1]
        return f"{value:g}" if 1e-3 < value < 1e4 else "10" + str(int(power)).translate(raised)

    axes.yaxis.set_major_formatter(text)
    axes.yaxis.set_minor_formatter(lambda value, _: "")


def known(pairs: Iterable[tuple[float, float | None]]) -> Points:
    """The pairs that have a value."""
    return [(x, y) for x, y in pairs if y is not None]


def means(xs: Sequence[float], ys: Sequence[Estimate]) -> Points:
    """The means of estimates, where they have one."""
    return known((x, y["mean"]) for x, y in zip(xs, ys, strict=True))


def to_errors(points: Points) -> Points:
    """Scores to errors in percent."""
    return [(x, 100 * (1 - y)) for x, y in points]


def xy(points: Points) -> tuple[list[float], list[float]]:
    """The two coordinates apart."""
    return [x for x, _ in points], [y for _, y in points]


def ends(values: Sequence[float | None]) -> str:
    """In words: the first and the last value."""
    known = [value for value in values if value is not None]
    return f"{known[0]:.3g} to {known[-1]:.3g}" if known else "not finite"


def tell(series: Iterable[Series]) -> str:
    """In words: where each series starts and ends."""
    return "; ".join(f"{label} {ends([y for _, y in points])}" for label, _, points in series)


def span(values: Sequence[float | None]) -> str:
    """In words: the smallest and the largest size."""
    sizes = [abs(value) for value in values if value is not None]
    return f"{min(sizes):.3g} to {max(sizes):.3g}" if sizes else "not finite"
