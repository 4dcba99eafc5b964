"""What the study compares: a table a kind, a row a method."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from wellposed import init, penalties
from wellposed.study.network import Start


@dataclass(frozen=True)
class Method:
    """A penalty and how the optimizer takes it in."""

    label: str
    make: Callable[[float], penalties.Penalty] | None = None
    mode: Literal["gradient", "proximal"] = "gradient"


_third = init.VarianceScaling(1 / 3, "fan_in", "uniform")

STARTS: Mapping[str, Start] = {
    "random": Start("Random (chapter)", init.Random(0.1)),
    "glorot_chapter": Start("Glorot (chapter)", init.Glorot(bound="chapter")),
    "he_chapter": Start("He (chapter)", init.He(bound="chapter")),
    "glorot": Start("Glorot (paper)", init.Glorot()),
    "he": Start("He (paper)", init.He()),
    "lecun": Start("LeCun", init.LeCun()),
    # torch.nn.Linear draws weights and biases from +-1/sqrt(fan_in).
    "torch": Start("PyTorch default", _third, bias=_third.at),
}

PENALTIES: Mapping[str, Method] = {
    "none": Method("No penalty"),
    "l2": Method("L2", penalties.L2),
    "l1": Method("L1, gradient", penalties.L1),
    "l1_proximal": Method("L1, proximal", penalties.L1, "proximal"),
    "elastic_net": Method("Elastic net", lambda lam: penalties.ElasticNet(lam, lam), "proximal"),
}
