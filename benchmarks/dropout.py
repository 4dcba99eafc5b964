"""Dropout, forward and with its backward pass: ours, ``torch.nn.functional.dropout``, and one multiplication.

Run with ``python -m benchmarks.dropout``.
"""

from collections.abc import Callable, Iterator
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


# name, ours, torch's
CASES: list[tuple[str, Map, Map]] = [
    ("dropout", functional, peer),
    ("Dropout", wp.Dropout(P), torch.nn.Dropout(P)),
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


def rows(largest: int) -> Iterator[Row]:
    """A row a case, pass, dtype and size."""
    for name, ours, theirs in CASES:
        for work in (forward, recorded, forward_and_backward):
            for dtype in (torch.float32, torch.bfloat16):
                for size in SIZES:
                    if size <= 2**largest:
                        x, weight = torch.ones(size, dtype=dtype), torch.ones(size, dtype=dtype)
                        timed = [partial(work, drop, x.clone(), weight) for drop in (ours, theirs, floor)]
                        promised = PROMISED if size == PROMISED_AT and dtype == torch.float32 else 1.0
                        words = f"{name} {work.__name__.replace('_', ' ')} {str(dtype).removeprefix('torch.')}"
                        yield Row(words, size, timed[0], timed[1], timed[2], promised)


if __name__ == "__main__":
    options = arguments(__doc__)
    table("Dropout", rows(options.largest), options.budget)
