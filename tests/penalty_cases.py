"""The table of penalties that the shared laws run over: a new row gets every law."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from wellposed.penalties import L1, L2, ElasticNet, Penalty
from wellposed.random import Key, normal


@dataclass(frozen=True)
class Case:
    """A penalty and a shape of weight to try it on."""

    penalty: Penalty
    shape: tuple[int, ...] = (2, 3)

    def weight(self, call: int = 0, std: float = 1.5) -> Tensor:
        """A float64 weight, another for each call number."""
        return normal(self.shape, Key(20).fold(repr(self.penalty)), std=std, call=call, dtype=torch.float64)


WEIGHTS = torch.tensor([[0.2, 0.0, 1.0], [3.0, 0.5, 0.1]], dtype=torch.float64)

CASES = {
    "l1": Case(L1(0.7)),
    "l1-none": Case(L1(0.0)),
    "l1-weighted": Case(L1(WEIGHTS)),
    "l2": Case(L2(0.3)),
    "l2-weighted": Case(L2(WEIGHTS)),
    "elastic-net": Case(ElasticNet(0.4, 0.3)),
    "l1+l2": Case(L1(0.4) + L2(0.3)),
}


def rows(**traits: bool) -> pytest.MarkDecorator:
    """Parametrise a law over the rows whose penalties have the given traits."""
    chosen = [
        pytest.param(case, id=name)
        for name, case in CASES.items()
        if all(getattr(case.penalty.traits, trait) is wanted for trait, wanted in traits.items())
    ]
    assert chosen
    return pytest.mark.parametrize("case", chosen)
