"""One table of dropout modules; every row goes through every law in test_laws_dropout_modules.py."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import wellposed as wp


@dataclass(frozen=True)
class Case:
    """A module and an input.

    Attributes:
        make: From p to the module.
        shape: The input's shape.
        dims: For what sets elements to zero and scales the rest, the dimensions that the mask varies over.
        keeps_mean: Whether the output's expectation is the output outside training.
        compiles: Whether it is one graph for the compiler.
        graphs: How many graphs serve every p; more than one where the output's shape depends on it, or p may be 0.
        is_learned: Whether p is a parameter, inside (0, 1), and what it is learned from is kept.
        batch: The dimension of the samples, where the output is the outputs of its parts.
    """

    name: str
    make: Callable[[float], nn.Module]
    shape: tuple[int, ...]
    dims: tuple[int, ...] | None = None
    keeps_mean: bool = True
    compiles: bool = True
    batch: int | None = None
    graphs: int = 1
    is_learned: bool = False

    def __str__(self) -> str:
        return self.name


def filled(module: nn.Module) -> nn.Module:
    """The module with weights that do not depend on torch's generator, in float64."""
    module = module.double()
    for name, parameter in module.named_parameters():
        if name.rpartition(".")[2] != "logit":  # that of a learned p
            wp.random.normal_(parameter.detach(), wp.Key(0).fold(name), std=0.5)
    return module


def linear() -> nn.Module:
    return nn.Linear(6, 6)


class Words(nn.Module):
    """An embedding whose dropout is asked for the words 0 to 3, times the input."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.words = wp.EmbeddingDropout(nn.Embedding(4, 6), p)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x * self.words(torch.arange(4))
        return y


class Attending(nn.Module):
    """Attention of the input to itself, by 2 heads."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.linear, self.attend = linear(), wp.AttentionDropout(p)

    def forward(self, x: Tensor) -> Tensor:
        x, query = (each.unflatten(-1, (2, 3)).transpose(1, 2) for each in (x, self.linear(x)))
        y: Tensor = self.attend(query, x, x, is_causal=True)
        return y


class Multihead(nn.Module):
    """The same with projections."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.attention = wp.MultiheadAttention(6, 2, dropout=p, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.attention(x, x, x)[0]
        return y


class Steps(nn.Module):
    """A recurrent cell over a sequence, its recurrent weight thinned once."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.cell = wp.DropConnect(nn.GRUCell(6, 4), p, names=["weight_hh"])

    def forward(self, x: Tensor) -> Tensor:
        step, state = self.cell.thinned(), x.new_zeros(x.shape[1], 4)
        for now in x:
            state = step(now, state)
        return state


class LongShortTerm(nn.LSTMCell):
    """The same by operators that torch can vectorise; its own fused one it cannot."""

    def forward(self, x: Tensor, state: Any = None) -> Any:
        linear = nn.functional.linear
        gates = linear(x, self.weight_ih, self.bias_ih) + linear(state[0], self.weight_hh, self.bias_hh)
        write, keep, new, read = gates.chunk(4, dim=-1)
        memory = keep.sigmoid() * state[1] + write.sigmoid() * new.tanh()
        return read.sigmoid() * memory.tanh(), memory


class Memory(nn.Module):
    """Both states of an LSTM cell, side by side."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.cell = wp.Zoneout(LongShortTerm(6, 4), p, cell_p=p / 2)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat(self.cell(x), dim=-1)


CASES = [
    Case("Dropout", wp.Dropout, (4, 6), dims=(0, 1), batch=0),
    Case("Dropout1d", wp.Dropout1d, (4, 6, 5), dims=(0, 1), batch=0),
    Case("Dropout1d of one", wp.Dropout1d, (6, 5), dims=(0,)),
    Case("Dropout2d", wp.Dropout2d, (4, 6, 2, 2), dims=(0, 1), batch=0),
    Case("Dropout2d of a sequence", wp.Dropout2d, (4, 6, 3), dims=(0, 1), batch=0),
    Case("Dropout3d", wp.Dropout3d, (4, 6, 2, 2, 2), dims=(0, 1), batch=0),
    Case("Dropout3d of one", wp.Dropout3d, (6, 2, 2, 2), dims=(0,)),
    Case("AlphaDropout", wp.AlphaDropout, (4, 6), keeps_mean=False, batch=0),
    Case("FeatureAlphaDropout", wp.FeatureAlphaDropout, (4, 6, 3), keeps_mean=False, batch=0),
    Case("GaussianDropout", wp.GaussianDropout, (4, 6), batch=0),
    Case("DropPath", wp.DropPath, (8, 3, 2), dims=(0,), batch=0),
    Case("DropPath of the batch", lambda p: wp.DropPath(p, "batch"), (4, 3), dims=(), batch=0),
    Case("DropBlock2d", lambda p: wp.DropBlock2d(p, 2), (2, 3, 5, 4), keeps_mean=False),
    Case(
        "DropBlock2d of all channels", lambda p: wp.DropBlock2d(p, 3, couple_channels=True), (3, 2, 4, 4), None, False
    ),
    Case("DropBlock3d", lambda p: wp.DropBlock3d(p, 2), (2, 3, 3, 4, 5), keeps_mean=False),
    Case("DropPath, unscaled", lambda p: wp.DropPath(p, scale_by_keep=False), (8, 3), keeps_mean=False, batch=0),
    Case("TokenDropout", lambda p: wp.TokenDropout(p, prefix=1), (3, 9, 4), keeps_mean=False, batch=0, graphs=3),
    Case("EmbeddingDropout", Words, (3, 4, 6), batch=0),
    Case("LockedDropout", wp.LockedDropout, (5, 3, 4), dims=(1, 2), batch=1),
    Case(
        "LockedDropout, batch first", lambda p: wp.LockedDropout(p, batch_first=True), (3, 5, 4), dims=(0, 2), batch=0
    ),
    Case("DropConnect", lambda p: wp.DropConnect(linear(), p), (4, 6), batch=0),
    Case("DropConnect of two weights", lambda p: wp.DropConnect(nn.Sequential(linear(), linear()), p), (4, 6), batch=0),
    Case("DropConnect of a cell", Steps, (3, 2, 6), keeps_mean=False),
    Case("AttentionDropout", Attending, (3, 4, 6), batch=0),
    Case("MultiheadAttention", Multihead, (3, 4, 6), batch=0),
    Case("Zoneout", lambda p: wp.Zoneout(nn.GRUCell(6, 4), p), (3, 6), batch=0),
    Case("Zoneout of an RNN", lambda p: wp.Zoneout(nn.RNNCell(6, 4), p), (3, 6), batch=0),
    Case("Zoneout of an LSTM cell", Memory, (3, 6), batch=0),
    Case("ConcreteDropout", wp.ConcreteDropout, (4, 6), keeps_mean=False, batch=0, is_learned=True),
    Case("LayerDrop", lambda p: wp.LayerDrop([linear(), linear(), linear()], p), (4, 6), None, False, False, batch=0),
]
THINNING = [case for case in CASES if case.dims is not None]
