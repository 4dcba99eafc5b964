"""Panels on dropout: losses while training, the generalization gap, and the ensemble."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from wellposed.study.estimate import difference
from wellposed.study.plotting import marks
from wellposed.study.plotting.svg import RULE, Label, Panel, Style, style_of
from wellposed.study.results.summary import Summary
from wellposed.study.wording import Wording


def loss_curve(rows: Sequence[Summary], part: str) -> Panel:
    """The loss while training, on training or validation rows, for each p."""
    series = [
        marks.estimates(f"p = {row['p']:g}", _shade(row, rows), row["curve"]["step"], row["curve"][f"{part} loss"])
        for row in rows
    ]
    return marks.losses(f"dropout-{part}", f"{marks.ROWS[part].capitalize()} loss", part, series, right=0.2)


def gap(rows: Sequence[Summary], wording: Wording) -> Panel:
    """The score on training and on test rows, by p."""
    styles = {"train": style_of("blue", filled=False), "test": style_of("blue")}
    # The test rows' scores of rows that were not chosen are kept as gaps alone.
    scores = {"train": [row["train"] for row in rows], "test": [difference(row["train"], row["gap"]) for row in rows]}
    by_p = [row["p"] for row in rows]
    series = [
        marks.estimates(marks.ROWS[part], style, by_p, scores[part], scores=wording) for part, style in styles.items()
    ]

    def draw(axes: Any) -> list[Label]:
        low, high = (dict(one.points) for one in series)
        shared = [x for x in low if x in high]
        axes.fill_between(
            shared, [low[x] for x in shared], [high[x] for x in shared], color=RULE, alpha=0.5, linewidth=0
        )
        labels = marks.bars(axes, series)
        axes.set_xlabel("p, the fraction of hidden units left out")
        marks.score_axis(axes.yaxis, "", wording)
        return labels

    title = f"{wording.name[0].upper()}{wording.name[1:]} by p"
    return Panel("gap-by-p", title, f"{marks.score_unit(wording)}: {marks.tell(series)}.", draw, right=0.2)


def ensemble(rows: Sequence[Summary], wording: Wording) -> Panel:
    """The score of the average of n thinned networks, by n, against one network with its weights scaled."""
    row = next(row for row in rows if row["chosen"])
    ensemble, networks = row["ensemble"], row["ensemble"]["networks"]
    average = marks.estimates("average", style_of("blue"), networks, ensemble["test"], scores=wording)
    same = [ensemble["scaled"]["test"]] * len(networks)
    scaled = marks.estimates("scaled", style_of("grey", filled=False), networks, same, scores=wording)

    def draw(axes: Any) -> list[Label]:
        labels = marks.bands(axes, [scaled]) + marks.bands(axes, [average], marker="o")
        axes.set_xscale("log", base=2)
        marks.ticks(axes.xaxis, networks)
        axes.set_xlabel("thinned networks averaged")
        marks.score_axis(axes.yaxis, "test", wording)
        return labels

    told = marks.tell([replace(average, label="Average of thinned networks")])
    said = f"{told}; one scaled network: {wording.score(ensemble['scaled']['test'])} {wording.name}."
    return Panel(
        "ensemble",
        f"The ensemble at p = {row['p']:g}",
        f"Test {marks.score_unit(wording)}. {said}",
        draw,
        right=0.2,
    )


def _shade(row: Summary, rows: Sequence[Summary]) -> Style:
    if not row["p"]:
        return style_of("grey", filled=False)
    others = [other["p"] for other in rows if other["p"]]
    step = round(4 * others.index(row["p"]) / max(1, len(others) - 1))
    return replace(style_of(f"scale{step + 1}"), faint=True)
