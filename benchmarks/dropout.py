"""Dropout, forward and with its backward pass: ours, torch's or timm's, and one multiplication.

Run with ``python -m benchmarks.dropout``, or with ``--variants`` for those but element dropout.
"""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

import wellposed as wp
from benchmarks.runner import Row, arguments, table

SIZES = [2**n for n in (0, 3, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26)]
PROMISED_AT, PROMISED = 2**24, 15.0
KEY = wp.Key(0)
P = 0.1

Map = Callable[[Tensor], Tensor]


def functional(x: Tensor) -> Tensor:
    """Our function, its mask named by the caller."""
    return wp.dropout(x, P, key=KEY)


def peer(x: Tensor) -> Tensor:
    """Torch's function."""
    return torch.nn.functional.dropout(x, P)


def floor(x: Tensor) -> Tensor:
    """What reads and writes the same memory."""
    return x * 1.25


def images(x: Tensor) -> Tensor:
    """A batch of up to 16 samples, each of channels of up to 64 elements."""
    samples = min(16, x.numel())
    side = 8 if x.numel() >= 64 * samples else 1
    return x.view(samples, -1, side, side)


def drop_path(x: Tensor) -> Tensor:
    """What timm's ``DropPath`` computes, in timm's steps."""
    keep = 1 - P
    mask = x.new_empty((x.shape[0],) + (1,) * (x.dim() - 1)).bernoulli_(keep).div_(keep)
    return x * mask


@dataclass(frozen=True)
class Case:
    """A dropout of ours, its peer, and the shape that both are given."""

    name: str
    ours: Map
    peer: Map
    shape: Map = lambda x: x


ELEMENTS = [
    Case("dropout", functional, peer),
    Case("Dropout", wp.Dropout(P), torch.nn.Dropout(P)),
]
VARIANTS = [
    Case("Dropout1d", wp.Dropout1d(P), torch.nn.Dropout1d(P), lambda x: images(x).flatten(2)),
    Case("Dropout2d", wp.Dropout2d(P), torch.nn.Dropout2d(P), images),
    Case("Dropout3d", wp.Dropout3d(P), torch.nn.Dropout3d(P), lambda x: images(x).unsqueeze(2)),
    Case("AlphaDropout", wp.AlphaDropout(P), torch.nn.AlphaDropout(P)),
    Case("FeatureAlphaDropout", wp.FeatureAlphaDropout(P), torch.nn.FeatureAlphaDropout(P), images),
    Case("DropPath", wp.DropPath(P), drop_path, images),
]


def forward(drop: Map, x: Tensor, weight: Tensor) -> Tensor:
    """The output alone, for an input that needs no gradient."""
    return drop(x)


def recorded(drop: Map, x: Tensor, weight: Tensor) -> Tensor:
    """The output, recorded for a backward pass."""
    return drop(x.requires_grad_())


def forward_and_backward(drop: Map, x: Tensor, weight: Tensor) -> Tensor:
    """The output and the input's gradient."""
    (gradient,) = torch.autograd.grad(drop(x.requires_grad_()), x, weight)
    return gradient


def rows(cases: list[Case], largest: int) -> Iterator[Row]:
    """A row a case, pass, dtype and size."""
    for case in cases:
        for work in (forward, recorded, forward_and_backward):
            for dtype in (torch.float32, torch.bfloat16):
                for size in SIZES:
                    if size <= 2**largest:
                        x = case.shape(torch.ones(size, dtype=dtype))
                        timed = [
                            partial(work, drop, x.clone(), torch.ones_like(x)) for drop in (case.ours, case.peer, floor)
                        ]
                        fastest = size == PROMISED_AT and dtype == torch.float32 and case in ELEMENTS
                        promised = PROMISED if fastest else 1.0
                        words = f"{case.name} {work.__name__.replace('_', ' ')} {str(dtype).removeprefix('torch.')}"
                        yield Row(words, size, timed[0], timed[1], timed[2], promised)


if __name__ == "__main__":
    variants = "--variants" in sys.argv
    sys.argv = [word for word in sys.argv if word != "--variants"]
    options = arguments(__doc__)
    table("Dropout", rows(VARIANTS if variants else ELEMENTS, options.largest), options.budget)
