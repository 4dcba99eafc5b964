"""The report: one self-contained HTML file."""

from importlib.resources import files
from typing import Any

from wellposed.study.needs import need
from wellposed.study.plotting.figures import figures
from wellposed.study.plotting.svg import css, render
from wellposed.study.results.summary import Summary
from wellposed.study.results.tables import tables
from wellposed.study.training.splits import MOST_SCORED
from wellposed.study.training.train import CHECKS, ROWS_WATCHED
from wellposed.study.wording import Wording, count

EXPERIMENTS = {
    "together": (
        "On all training rows",
        "PyTorch's default, the start that validation chooses, and with it a penalty, dropout, or both.",
    ),
    "initializers": (
        "Initialization",
        "What a weight starts as: how far signal and gradient reach, and how training goes on a deep network, where it "
        "matters most. The names with a bound, in which n is the number of a layer's inputs, are those of a textbook's "
        "chapter on training deep networks; beside them are the papers' own and PyTorch's default.",
    ),
    "penalties": (
        "Regularization",
        "What a weight is pulled towards: what that costs, and what it removes, on few rows, which a network that "
        "starts as He's paper has it would learn by heart.",
    ),
    "dropout": (
        "Dropout",
        "What is left out of a forward pass: how training goes, and what thinned networks say together, on the same "
        "few rows.",
    ),
}


def report(results: Summary) -> str:
    """Render the report.

    Args:
        results: What ``results.json`` holds.

    Returns:
        A whole HTML document without references to anything outside; every name in it is escaped.

    Raises:
        WellposedError: If jinja2 or matplotlib is not installed.
    """
    wording = Wording(results["data"]["measure"])
    drawn = figures(results["experiments"], wording)
    laid_out = tables(results["experiments"], wording)
    sections = [
        {
            "name": name,
            "title": title,
            "lead": lead,
            "figures": [
                (figure, [(panel.title, _drawing(panel)) for panel in figure.panels]) for figure in drawn[name]
            ],
            "tables": [table for table in laid_out if table.experiment == name],
        }
        for name, (title, lead) in EXPERIMENTS.items()
    ]
    template = (files("wellposed.study") / "report.html.jinja").read_text(encoding="utf-8")
    jinja = need("jinja2")
    environment = jinja.Environment(
        autoescape=True, undefined=jinja.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals["count"] = count
    text: str = environment.from_string(template).render(
        results=results,
        checks=CHECKS,
        watched=ROWS_WATCHED,
        scored=MOST_SCORED,
        wording=wording,
        sections=sections,
        light=_safe(css(":root", dark=False)),
        dark=_safe(css(":root", dark=True)),
        found=[
            (title, [finding["text"] for finding in results["findings"] if finding["experiment"] == name])
            for name, (title, _) in EXPERIMENTS.items()
        ],
    )
    return text


def _drawing(panel: Any) -> Any:
    return _safe(render([panel]))


def _safe(text: str) -> Any:
    """Marks what the study itself wrote as markup; what it holds of other people's text is escaped already."""
    return need("markupsafe").Markup(text)
