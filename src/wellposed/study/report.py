"""The report: one self-contained HTML file."""

from importlib.resources import files
from typing import Any

from wellposed.study.needs import need
from wellposed.study.plotting.figures import figures
from wellposed.study.plotting.svg import css, render
from wellposed.study.results.summary import Summary
from wellposed.study.results.tables import tables
from wellposed.study.wording import Wording, count

EXPERIMENTS = {
    "together": ("All three against none", "What each ingredient adds, and what they do together."),
    "initializers": (
        "Initialization",
        "What a weight starts as: how far signal and gradient reach, and how training goes.",
    ),
    "penalties": ("Regularization", "What a weight is pulled towards: what that costs, and what it removes."),
    "dropout": (
        "Dropout",
        "What is left out of a forward pass: how training goes, and what thinned networks say together.",
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
    wording = Wording(results["data"]["task"])
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
