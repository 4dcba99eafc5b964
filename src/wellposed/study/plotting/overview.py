"""The overview figure of a study, a panel each for initialization, regularization and dropout.

``python -m wellposed.study.plotting.overview RESULTS.json FIGURE.svg`` writes it.
"""

import json
import re
import sys
from pathlib import Path

from wellposed.study.plotting.dropout_panels import gap
from wellposed.study.plotting.initializer_panels import scales
from wellposed.study.plotting.penalty_panels import score_by_zeros
from wellposed.study.plotting.svg import css, render
from wellposed.study.results.summary import Summary
from wellposed.study.wording import Wording

_STARTS = ("random", "he_chapter", "he", "torch")
_MARGIN = 14
_FONT = 'system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif'


def picture(results: Summary) -> str:
    """Draw how far the signal reaches, what zeros cost, and what dropout does to the gap.

    Args:
        results: What ``results.json`` holds.

    Returns:
        An SVG document that is light or dark as its reader is.
    """
    wording, experiments = Wording(results["data"]["measure"]), results["experiments"]
    panels = [
        scales(experiments["initializers"], "signal", "relu", _STARTS),
        score_by_zeros(experiments["penalties"], wording),
        gap(experiments["dropout"], wording),
    ]
    titles = ("Initialization: the signal", "Regularization: weights that are zero", "Dropout: the gap")
    drawn = render([panel.called(title, width=4.95) for panel, title in zip(panels, titles, strict=True)], titled=True)
    style = (
        f"<style>{css(':root', dark=False)}@media(prefers-color-scheme:dark){{{css(':root', dark=True)}}}"
        f"text{{font-family:{_FONT}!important}}</style>"
        f'<rect x="{-_MARGIN}" y="{-_MARGIN}" width="100%" height="100%" rx="8" fill="var(--paper)"/>'
    )
    return (
        re.sub(r'viewBox="0 0 (\S+) (\S+)"', _with_margin, drawn, count=1).replace("</desc>", f"</desc>{style}", 1)
        + "\n"
    )


def _with_margin(view: re.Match[str]) -> str:
    width, height = (float(size) + 2 * _MARGIN for size in view.groups())
    return f'viewBox="{-_MARGIN} {-_MARGIN} {width:g} {height:g}" width="{width:g}" height="{height:g}"'


def main(results: Path, out: Path) -> None:
    """Read a study's results and write its picture."""
    out.write_text(picture(json.loads(results.read_text(encoding="utf-8"))), encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python -m wellposed.study.plotting.overview wellposed-study/digits/results.json study.svg")
    main(Path(sys.argv[1]), Path(sys.argv[2]))
