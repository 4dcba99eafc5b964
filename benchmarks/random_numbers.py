"""Filling tensors with random numbers: ours, torch's own operators, and ``fill_``.

Run with ``python -m benchmarks.random_numbers``.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

import wellposed as wp
from benchmarks.runner import SMALL, Row, arguments, table

SIZES = [2**n for n in (0, 3, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26)]
PROMISED_AT = 2**24
KEY = wp.Key(0)

# name, dtype, ours, torch's, and how many times faster ours is promised to be at 2^24 elements
CASES: list[tuple[str, torch.dtype, Callable[[Tensor], Any], Callable[[Tensor], Any], float]] = [
    ("uniform", torch.float32, lambda t: wp.random.uniform_(t, KEY), lambda t: t.uniform_(), 10),
    ("normal", torch.float32, lambda t: wp.random.normal_(t, KEY), lambda t: t.normal_(), 4.5),
    (
        "truncated normal, 2 sigma",
        torch.float32,
        lambda t: wp.random.truncated_normal_(t, KEY),
        lambda t: torch.nn.init.trunc_normal_(t),
        45,
    ),
    ("Bernoulli", torch.float32, lambda t: wp.random.bernoulli_(t, KEY), lambda t: t.bernoulli_(0.5), 45),
    ("uniform", torch.bfloat16, lambda t: wp.random.uniform_(t, KEY), lambda t: t.uniform_(), 1),
    ("normal", torch.bfloat16, lambda t: wp.random.normal_(t, KEY), lambda t: t.normal_(), 1),
    (
        "truncated normal, 100 sigma",
        torch.bfloat16,
        lambda t: wp.random.truncated_normal_(t, KEY, std=0.02),
        lambda t: torch.nn.init.trunc_normal_(t, std=0.02),
        1,
    ),
    ("uniform", torch.float64, lambda t: wp.random.uniform_(t, KEY), lambda t: t.uniform_(), 1),
    ("normal", torch.float64, lambda t: wp.random.normal_(t, KEY), lambda t: t.normal_(), 1),
    ("Bernoulli", torch.bool, lambda t: wp.random.bernoulli_(t, KEY), lambda t: t.bernoulli_(0.5), 1),
]


def rows(largest: int) -> Iterator[Row]:
    """A row a case and size."""
    for name, dtype, ours, peer, promised in CASES:
        for size in SIZES:
            if size <= 2**largest:
                t = torch.empty(size, dtype=dtype)
                yield Row(
                    f"{name} {str(dtype).removeprefix('torch.')}",
                    size,
                    partial(ours, t),
                    partial(peer, t),
                    partial(t.fill_, 1),
                    promised if size == PROMISED_AT else 1,
                    1e-6 if size < SMALL else 0.0,
                )


if __name__ == "__main__":
    options = arguments(__doc__)
    table("Random numbers", rows(options.largest), options.budget)
