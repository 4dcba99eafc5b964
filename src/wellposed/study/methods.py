"""The initializations and the penalties that a study compares, one a row.

A hollow marker stands for one of the textbook's bounds or for no proximal step, a filled one for the paper's bound or
for proximal steps. In the labels n is fan_in, the number of inputs of a layer.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from wellposed import init, penalties
from wellposed.study.plotting.svg import Style, style_of
from wellposed.study.training.network import Initialization


@dataclass(frozen=True)
class Method:
    """A penalty, its style in figures, and the mode in which ``wp.regularize`` applies it."""

    label: str
    style: Style
    make: Callable[[float], penalties.Penalty] | None = None
    mode: Literal["gradient", "decoupled", "proximal"] = "gradient"


_third = init.VarianceScaling(1 / 3, "fan_in", "uniform")

STARTS: Mapping[str, Initialization] = {
    "random": Initialization("Random ±0.1", style_of("grey", filled=False), init.Random(0.1)),
    "glorot_chapter": Initialization("Glorot ±√(1/n)", style_of("blue", filled=False), init.Glorot(bound="chapter")),
    "he_chapter": Initialization("He ±√(2/n)", style_of("vermilion", filled=False), init.He(bound="chapter")),
    "glorot": Initialization("Glorot (paper)", style_of("blue"), init.Glorot()),
    "he": Initialization("He (paper)", style_of("vermilion"), init.He()),
    "lecun": Initialization("LeCun", style_of("green"), init.LeCun()),
    # torch.nn.Linear draws weights and biases from +-1/sqrt(fan_in).
    "torch": Initialization("PyTorch default", style_of("purple"), _third, bias=_third.at),
}

PENALTIES: Mapping[str, Method] = {
    "none": Method("No penalty", style_of("grey")),
    # Beside AdamW's step, which is its weight decay: lambda w^2 decays w by 2 lambda times the learning rate.
    "l2": Method("L2, decoupled", style_of("blue", filled=False), penalties.L2, "decoupled"),
    "l1": Method("L1, gradient", style_of("vermilion", filled=False), penalties.L1),
    "l1_proximal": Method("L1, proximal", style_of("vermilion"), penalties.L1, "proximal"),
}
