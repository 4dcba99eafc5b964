"""Pictures of a network, whole or thinned by dropout: on matplotlib's axes, or as TikZ for a paper."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

from wellposed.errors import WellposedError

if TYPE_CHECKING:
    import matplotlib.axes

GAP = 2.5  # between layers, in distances between neighbouring units
Masks = Sequence[Tensor | None]


class Unit(NamedTuple):
    """A unit of a drawn network: where it stands, and whether a mask kept it."""

    layer: int
    number: int
    x: float
    y: float
    kept: bool


def draw_network(axes: "matplotlib.axes.Axes", sizes: Sequence[int], masks: Masks | None = None) -> None:
    """Draw a network on matplotlib's axes; what a mask left out is hollow and has no connections.

    Args:
        axes: Where to draw.
        sizes: The number of inputs, of each hidden layer's units, and of outputs.
        masks: A tensor of shape (units,) for each layer, zero where a unit is left out, or ``None`` for a whole layer.
            Without masks the network is drawn whole.

    Raises:
        WellposedError: If the masks do not fit the sizes.

    Example:
        >>> import torch
        >>> import matplotlib.pyplot as plt
        >>> figure, axes = plt.subplots()
        >>> draw_network(axes, [3, 4, 2], [None, torch.tensor([1, 0, 1, 1]), None])
        >>> len(axes.patches)  # a circle a unit
        9
        >>> plt.close(figure)
    """
    from matplotlib.patches import Circle

    units = _units(sizes, masks)
    for a, b in _connections(units):
        axes.plot([a.x, b.x], [a.y, b.y], color="0.6", linewidth=0.8, zorder=1)
    for unit in units:
        face, edge, style = ("#0072b2", "#0072b2", "-") if unit.kept else ("white", "0.6", ":")
        axes.add_patch(Circle((unit.x, unit.y), 0.3, facecolor=face, edgecolor=edge, linestyle=style, zorder=2))
    axes.set_aspect("equal")
    axes.autoscale_view()
    axes.set_axis_off()


def tikz_network(sizes: Sequence[int], masks: Masks | None = None) -> str:
    r"""A network as a LaTeX document of one TikZ picture; what a mask left out is dashed and has no connections.

    Args:
        sizes: The number of inputs, of each hidden layer's units, and of outputs.
        masks: As for :func:`draw_network`.

    Returns:
        The source of a document for ``pdflatex``.

    Raises:
        WellposedError: If the masks do not fit the sizes.

    Example:
        >>> import torch
        >>> source = tikz_network([3, 4, 2], [None, torch.tensor([1, 0, 1, 1]), None])
        >>> source.count(r"\node[kept]"), source.count(r"\node[left out]"), source.count(r"\draw")
        (8, 1, 15)
    """
    units = _units(sizes, masks)
    nodes = [
        rf"  \node[{'kept' if unit.kept else 'left out'}] ({_name(unit)}) at ({unit.x:g}, {unit.y:g}) {{}};"
        for unit in units
    ]
    connections = [rf"  \draw ({_name(a)}) -- ({_name(b)});" for a, b in _connections(units)]
    return "\n".join([_HEAD, *nodes, *connections, _FOOT])


_HEAD = r"""\documentclass{article}
\usepackage{tikz}
\pagestyle{empty}
\begin{document}
\begin{tikzpicture}[
  every node/.style={circle, draw, minimum size=6mm, inner sep=0pt},
  kept/.style={fill=black!15},
  left out/.style={dashed, draw=black!50},
]"""
_FOOT = r"""\end{tikzpicture}
\end{document}
"""


def _units(sizes: Sequence[int], masks: Masks | None) -> list[Unit]:
    masks = [None] * len(sizes) if masks is None else masks
    shapes = [None if mask is None else tuple(mask.shape) for mask in masks]
    if len(shapes) != len(sizes) or any(
        shape not in (None, (size,)) for shape, size in zip(shapes, sizes, strict=True)
    ):
        raise WellposedError(
            f"a network of sizes {list(sizes)} was given masks of shapes {shapes}; expected for each layer None or a "
            "mask of shape (units,)"
        )
    return [
        Unit(layer, number, GAP * layer, (size - 1) / 2 - number, mask is None or bool(mask[number]))
        for layer, (size, mask) in enumerate(zip(sizes, masks, strict=True))
        for number in range(size)
    ]


def _connections(units: Sequence[Unit]) -> Iterator[tuple[Unit, Unit]]:
    kept = [unit for unit in units if unit.kept]
    return ((a, b) for a in kept for b in kept if b.layer == a.layer + 1)


def _name(unit: Unit) -> str:
    return f"u-{unit.layer}-{unit.number}"
