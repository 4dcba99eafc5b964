"""Tiny data, a tiny network and the loop by hand that integrations are compared with."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

import wellposed as wp

Batch = tuple[Tensor, Tensor]


def network(hidden: int = 16) -> nn.Sequential:
    """A network with dropout, both torch's and ours; the same weights at each call."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Linear(8, hidden),
            nn.ReLU(),
            nn.Dropout(0.3),
            nn.Linear(hidden, hidden),
            wp.Dropout(0.2),
            nn.Linear(hidden, 2),
        )


def data(rows: int = 96) -> Batch:
    """Features that say which of two classes a row is of."""
    x = wp.random.normal((rows, 8), wp.Key(3))
    return x, (x[:, :3].sum(1) > 0).long()


def batches(size: int = 8, rows: int = 96) -> list[Batch]:
    """The data in batches, in order."""
    x, y = data(rows)
    return list(zip(x.split(size), y.split(size), strict=True))


def by_hand(
    model: nn.Module,
    groups: Iterable[Sequence[Batch]],
    *,
    penalty: Any = None,
    scheme: str | None = "auto",
    seed: int = 5,
    lr: float = 0.05,
    divisor: int = 1,
) -> Any:
    """Train by the loop that is written by hand, a step for each group of micro-batches; gives the penalty's handle.

    Each micro-batch's loss is divided by ``divisor``.
    """
    if scheme is not None:
        wp.initialize(model, scheme, seed=seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.0)
    handle = None if penalty is None else wp.regularize(optimizer, model, penalty)
    model.train()
    for step, group in enumerate(groups):
        optimizer.zero_grad()
        for microbatch, (x, y) in enumerate(group):
            with wp.keyed(seed, step, microbatch):
                loss = nn.functional.cross_entropy(model(x), y)
                (loss / divisor).backward()
        optimizer.step()
    return handle


def in_groups(found: Sequence[Batch], size: int) -> list[Sequence[Batch]]:
    """Batches by steps; the last may have fewer."""
    return [found[start : start + size] for start in range(0, len(found), size)]


def same(one: nn.Module, other: nn.Module) -> bool:
    """Whether two models have the same weights, bit for bit."""
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return all(a.equal(b) for a, b in pairs)
