"""Matplotlib panels as inline SVG, in one palette for light and dark pages, with labels beside their lines."""

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from html import escape
from typing import Any

from wellposed.study.needs import need

# Of each colour: on light paper, on dark. The hues are told apart by people who do not see red and green alike
# (after Okabe & Ito, 2008); the five blues are one scale, from faint to strong.
PALETTE: dict[str, tuple[str, str]] = {
    "ink": ("#1f2430", "#e6e9ef"),
    "muted": ("#5d6675", "#a2abba"),
    "rule": ("#d9dde4", "#363d4a"),
    "paper": ("#fffffe", "#14171d"),
    "grey": ("#6c7480", "#98a1b0"),
    "blue": ("#0b6cb8", "#5ab0f0"),
    "vermilion": ("#cf5300", "#ff8f4f"),
    "green": ("#007f5f", "#35c79c"),
    "purple": ("#9a4290", "#dc8fd0"),
    "scale1": ("#8fb8dd", "#44719f"),
    "scale2": ("#6aa1d2", "#4c7fb3"),
    "scale3": ("#4688c4", "#6099d2"),
    "scale4": ("#276dae", "#82b6e8"),
    "scale5": ("#0b4f8c", "#b4d7f8"),
}
INK, MUTED, RULE = (PALETTE[name][0] for name in ("ink", "muted", "rule"))


@dataclass(frozen=True)
class Style:
    """The colour and marker of one method in every figure: filled with a solid line, or hollow and dashed."""

    color: str
    filled: bool = True
    faint: bool = False

    @property
    def text(self) -> str:
        """The colour of the label: the line's, unless that is too faint to read."""
        return INK if self.faint else self.color

    def line(self, **more: Any) -> dict[str, Any]:
        """The keyword arguments of a line with markers."""
        return {"color": self.color, "linestyle": "-" if self.filled else (0, (4, 2))} | self.mark() | more

    def mark(self, **more: Any) -> dict[str, Any]:
        """The keyword arguments of markers."""
        return {"markerfacecolor": self.color if self.filled else PALETTE["paper"][0]} | more


def style_of(name: str, *, filled: bool = True) -> Style:
    """The style in a colour of the palette."""
    return Style(PALETTE[name][0], filled)


_LABEL_GAP = 12.5  # points between the labels of neighbouring lines


@dataclass(frozen=True)
class Label:
    """A label at the right end of a line, in data coordinates."""

    x: float
    y: float
    text: str
    color: str


@dataclass(frozen=True)
class Panel:
    """One pair of axes.

    Attributes:
        name: Unique among the drawings of a page; made of letters, digits and dashes.
        title: Stands above the drawing.
        description: What it shows, in words, for screen readers.
        draw: Draws on matplotlib axes; what it returns is written beside the lines.
        size: Width and height in inches.
        right: The fraction of the width that the labels on the right take.
        left: The inches that the axis on the left takes.
    """

    name: str
    title: str
    description: str
    draw: Callable[[Any], Sequence[Label]]
    size: tuple[float, float] = (4.7, 3.3)
    right: float = 0.27
    left: float = 0.62

    def called(self, title: str, *, width: float) -> "Panel":
        """The same panel under another title and of another width."""
        return replace(self, title=title, size=(width, self.size[1]))


def css(selector: str, dark: bool) -> str:
    """The palette as CSS custom properties."""
    return f"{selector}{{{''.join(f'--{name}:{pair[dark]};' for name, pair in PALETTE.items())}}}"


def render(panels: Sequence[Panel], *, titled: bool = False) -> str:
    """Draw panels side by side as one SVG element, whose colours are the CSS custom properties of the palette.

    Args:
        panels: What to draw.
        titled: Write each panel's title above it.

    Returns:
        The element, the same for the same panels: with a role, a title and a description, and with ids of its own.
    """
    matplotlib, figures = need("matplotlib"), need("matplotlib.figure")
    name = panels[0].name
    width, height = sum(panel.size[0] for panel in panels), panels[0].size[1]
    with matplotlib.rc_context(_STYLE | {"svg.hashsalt": name}):
        figure = figures.Figure(figsize=(width, height))
        start = 0.0
        for panel in panels:
            own = panel.size[0] * (1 - panel.right) - panel.left
            foot, head = 0.54 / height, (0.45 if titled else 0.12) / height
            axes = figure.add_axes(((start + panel.left) / width, foot, own / width, 1 - foot - head))
            for side in ("top", "right"):
                axes.spines[side].set_visible(False)
            axes.grid(axis="y", zorder=0)
            if titled:
                axes.text(
                    -panel.left / own, 1.06, panel.title, transform=axes.transAxes, fontsize=11.5, fontweight="bold"
                )
            _beside(axes, panel.draw(axes))
            start += panel.size[0]
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    title = ". ".join(panel.title for panel in panels)
    return _inline(buffer.getvalue(), name, title, " ".join(panel.description for panel in panels))


_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": RULE,
    "axes.labelsize": 9.5,
    "axes.linewidth": 0.8,
    "axes.axisbelow": True,
    "xtick.color": RULE,
    "ytick.color": RULE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.6,
    "lines.markersize": 4.5,
    "lines.solid_capstyle": "round",
}


def _beside(axes: Any, labels: Sequence[Label]) -> None:
    """Write labels on the right, moved apart where lines end close to each other."""
    if not labels:
        return
    axes.get_xlim(), axes.get_ylim()  # settles the limits, on which the heights depend
    to_points = 72 / axes.figure.dpi
    low, high = (edge * to_points for edge in (axes.get_window_extent().y0, axes.get_window_extent().y1))
    wanted = [min(max(axes.transData.transform((label.x, label.y))[1] * to_points, low), high) for label in labels]
    order = sorted(range(len(labels)), key=wanted.__getitem__)
    for i, y in zip(order, _apart([wanted[i] for i in order], high), strict=True):
        place = (1.04, (y - low) / (high - low))
        axes.text(*place, labels[i].text, color=labels[i].color, transform=axes.transAxes, va="center")


def _apart(heights: Sequence[float], ceiling: float) -> list[float]:
    """Heights in rising order, moved as little as keeps them a gap apart: overlapping groups share their middle."""
    groups: list[tuple[float, int]] = []  # the mean of what its members want, and how many they are
    for height in heights:
        group = (height, 1)
        while groups and group[0] - groups[-1][0] < _LABEL_GAP * (group[1] + groups[-1][1]) / 2:
            mean, size = groups.pop()
            group = ((mean * size + group[0] * group[1]) / (size + group[1]), size + group[1])
        groups.append(group)
    placed = [mean + (i - (size - 1) / 2) * _LABEL_GAP for mean, size in groups for i in range(size)]
    excess = max(0.0, placed[-1] - ceiling)
    return [height - excess for height in placed]


def _inline(svg: str, name: str, title: str, description: str) -> str:
    body = svg[svg.index("<svg") :]
    body = re.sub(r"\s*<metadata>.*?</metadata>|\s*<defs>\s*<style.*?</style>\s*</defs>", "", body, flags=re.DOTALL)
    body = re.sub(r'\b(id="|href="#|url\(#)', rf"\g<1>{name}-", body)
    for color, (light, _) in PALETTE.items():
        body = body.replace(light, f"var(--{color})")
    view = re.search(r'viewBox="[^"]*"', body)
    opening = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'{view.group() if view else ""} role="img" aria-labelledby="{name}-title {name}-description">'
        f'<title id="{name}-title">{escape(title)}</title>'
        f'<desc id="{name}-description">{escape(description)}</desc>'
    )
    return opening + body[body.index(">") + 1 :].rstrip()
