"""The initializations and the penalties that a study compares, one a row.

A hollow marker stands for one of the chapter's own bounds or gradient updates, a filled one for the paper's bound or a
proximal step.
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
    mode: Literal["gradient", "proximal"] = "gradient"


_third = init.VarianceScaling(1 / 3, "fan_in", "uniform")

STARTS: Mapping[str, Initialization] = {
    "random": Initialization("Random (chapter)", style_of("grey", filled=False), init.Random(0.1)),
    "glorot_chapter": Initialization("Glorot (chapter)", style_of("blue", filled=False), init.Glorot(bound="chapter")),
    "he_chapter": Initialization("He (chapter)", style_of("vermilion", filled=False), init.He(bound="chapter")),
    "glorot": Initialization("Glorot (paper)", style_of("blue"), init.Glorot()),
    "he": Initialization("He (paper)", style_of("vermilion"), init.He()),
    "lecun": Initialization("LeCun", style_of("green"), init.LeCun()),
    # torch.nn.Linear draws weights and biases from +-1/sqrt(fan_in).
    "torch": Initialization("PyTorch default", style_of("purple"), _third, bias=_third.at),
}

PENALTIES: Mapping[str, Method] = {
    "none": Method("No penalty", style_of("grey")),
    "l2": Method("L2", style_of("blue", filled=False), penalties.L2),
    "l1": Method("L1, gradient", style_of("vermilion", filled=False), penalties.L1),
    "l1_proximal": Method("L1, proximal", style_of("vermilion"), penalties.L1, "proximal"),
    "elastic_net": Method("Elastic net", style_of("green"), lambda lam: penalties.ElasticNet(lam, lam), "proximal"),
}
