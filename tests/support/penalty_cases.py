"""The table of penalties that the shared laws run over: a new row gets every law."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from wellposed.init import Axes
from wellposed.penalties import (
    L0,
    L1,
    L2,
    MCP,
    SCAD,
    AdaptiveL1,
    ElasticNet,
    GroupLasso,
    GroupMCP,
    Heads,
    Huber,
    LHalf,
    LogSum,
    LTwoThirds,
    NuclearNorm,
    Penalty,
    SoftOrthogonality,
    SparseGroupLasso,
    SpectralNorm,
    Towards,
    constraints,
)
from wellposed.penalties.layouts import SideBySide
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
    "elastic-net-weighted": Case(ElasticNet(WEIGHTS, torch.tensor(0.3, dtype=torch.float64))),
    "l1+l2": Case(L1(0.4) + L2(0.3)),
    "huber": Case(Huber(0.8, delta=0.5)),
    "l0": Case(L0(0.6)),
    "l-half": Case(LHalf(0.7)),
    "mcp": Case(MCP(0.8, gamma=1.5)),
    "mcp-weighted": Case(MCP(WEIGHTS, gamma=1.5)),
    "scad": Case(SCAD(0.6, a=2.6)),
    "scad-scaled": Case(1.5 * SCAD(0.6, a=2.6)),
    "mcp+l2": Case(MCP(0.8, gamma=1.5) + L2(0.2)),
    "towards": Case(Towards(ElasticNet(0.4, 0.3), WEIGHTS)),
    "adaptive-l1": Case(AdaptiveL1(0.5, reference=WEIGHTS, eps=0.1)),
    "group-lasso": Case(GroupLasso(0.9)),
    "group-lasso-columns": Case(GroupLasso(0.5, groups="columns", root_size=True), (3, 2, 2)),
    "group-lasso-kernels": Case(GroupLasso(0.9, groups="kernels"), (2, 2, 3)),
    "group-lasso-all": Case(GroupLasso(1.9, groups="all"), (6,)),
    "group-lasso-labels": Case(GroupLasso(0.9, groups=torch.tensor([[0, 7, 0], [7, 7, 2]]), root_size=True)),
    "group-lasso-heads": Case(GroupLasso(0.9, groups=Heads(2, packed=2)), (4, 2)),
    "group-lasso+l2": Case(GroupLasso(0.9) + L2(0.2)),
    "sparse-group-lasso": Case(SparseGroupLasso(0.3, 0.5)),
    "sparse-group-lasso-weighted": Case(SparseGroupLasso(WEIGHTS, torch.tensor(0.5, dtype=torch.float64))),
    "group-mcp": Case(GroupMCP(0.8, gamma=2.0)),
    "l-two-thirds": Case(LTwoThirds(0.7)),
    "log-sum": Case(LogSum(0.9, eps=0.3)),
    "log-sum-weighted": Case(LogSum(WEIGHTS, eps=1.5)),
    "group-lasso-axes": Case(GroupLasso(0.9, groups="columns", axes=Axes(groups=2)), (4, 2)),
    "group-mcp-axes": Case(GroupMCP(0.8, gamma=2.0, groups="filters", axes=Axes(1, 0, groups=2, grouped=0)), (4, 2)),
    "nuclear-axes": Case(NuclearNorm(0.7, axes=Axes(out=2, in_=1, batch=0)), (2, 3, 2)),
    "spectral-axes": Case(SpectralNorm(0.7, axes=Axes(groups=2)), (4, 2)),
    "soft-orthogonality-axes": Case(SoftOrthogonality(0.2, axes=Axes(out=1, in_=0, groups=2)), (2, 4)),
    "side-by-side": Case(SideBySide(tuple((GroupLasso(0.9, groups="columns"), (0, i, i + 2)) for i in (0, 2))), (4, 2)),
    "nuclear": Case(NuclearNorm(0.7)),
    "nuclear-conv": Case(NuclearNorm(0.7), (3, 2, 1)),
    "spectral": Case(SpectralNorm(0.7)),
    "soft-orthogonality": Case(SoftOrthogonality(0.2)),
    "soft-orthogonality-tall": Case(SoftOrthogonality(0.2), (3, 2)),
    "non-negative": Case(constraints.NonNegative()),
    "interval": Case(constraints.Interval(-0.4, 0.9)),
    "linf-ball": Case(constraints.LinfBall(0.8)),
    "l1-ball": Case(constraints.L1Ball(1.2)),
    "l2-ball": Case(constraints.L2Ball(1.2)),
    "max-norm": Case(constraints.MaxNorm(0.9)),
    "unit-norm": Case(constraints.UnitNorm()),
    "simplex-of-columns": Case(constraints.Simplex(1.5, dim=0)),
    "l0-ball": Case(constraints.L0Ball(2)),
    "min-max-norm": Case(constraints.MinMaxNorm(0.7, 0.9)),
    "stiefel-axes": Case(constraints.Stiefel(axes=Axes(groups=2)), (4, 2)),
    "simplex": Case(constraints.Simplex(1.5)),
    "stiefel": Case(constraints.Stiefel()),
    "stiefel-tall": Case(constraints.Stiefel(), (3, 2)),
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
