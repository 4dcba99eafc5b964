"""What the study compares: a table a kind, a row a method; hollow are the chapter's bounds and updates by gradient."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from wellposed import init, penalties
from wellposed.study.pictures.drawing import Look, look_of
from wellposed.study.training.network import Start


@dataclass(frozen=True)
class Method:
    """A penalty, how it is drawn, and how the optimizer takes it in."""

    label: str
    look: Look
    make: Callable[[float], penalties.Penalty] | None = None
    mode: Literal["gradient", "proximal"] = "gradient"


_third = init.VarianceScaling(1 / 3, "fan_in", "uniform")

STARTS: Mapping[str, Start] = {
    "random": Start("Random (chapter)", look_of("grey", filled=False), init.Random(0.1)),
    "glorot_chapter": Start("Glorot (chapter)", look_of("blue", filled=False), init.Glorot(bound="chapter")),
    "he_chapter": Start("He (chapter)", look_of("vermilion", filled=False), init.He(bound="chapter")),
    "glorot": Start("Glorot (paper)", look_of("blue"), init.Glorot()),
    "he": Start("He (paper)", look_of("vermilion"), init.He()),
    "lecun": Start("LeCun", look_of("green"), init.LeCun()),
    # torch.nn.Linear draws weights and biases from +-1/sqrt(fan_in).
    "torch": Start("PyTorch default", look_of("purple"), _third, bias=_third.at),
}

PENALTIES: Mapping[str, Method] = {
    "none": Method("No penalty", look_of("grey")),
    "l2": Method("L2", look_of("blue", filled=False), penalties.L2),
    "l1": Method("L1, gradient", look_of("vermilion", filled=False), penalties.L1),
    "l1_proximal": Method("L1, proximal", look_of("vermilion"), penalties.L1, "proximal"),
    "elastic_net": Method("Elastic net", look_of("green"), lambda lam: penalties.ElasticNet(lam, lam), "proximal"),
}
