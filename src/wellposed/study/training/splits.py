"""Training, validation and test rows of a dataset, and its columns as the inputs of a network."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wellposed import random
from wellposed.random.key import Key
from wellposed.study.training.columns import Column
from wellposed.study.training.dataset import MOST_LEVELS, Dataset

PARTS: Mapping[str, float] = {"train": 0.6, "validation": 0.2, "test": 0.2}


@dataclass(frozen=True, eq=False)
class Split:
    """The rows of a dataset in three parts, as a network takes them.

    Attributes:
        rows: For each part of ``PARTS`` the indices of its rows, int64.
        x: For each part its features, float32 (rows, inputs).
        y: For each part its targets: int64 (rows,), or float32 (rows,) standardised on the training rows.
        outputs: How many outputs a network needs.
    """

    rows: dict[str, Tensor]
    x: dict[str, Tensor]
    y: dict[str, Tensor]
    outputs: int

    @property
    def inputs(self) -> int:
        """How many inputs a network needs."""
        return self.x["train"].shape[1]


def split(data: Dataset, key: Key) -> Split:
    """Split a dataset by a keyed permutation of its rows and prepare it.

    Whatever is fitted (means, deviations, the texts that get an input) is fitted on the training rows alone.

    Args:
        data: The dataset.
        key: Names the permutation.

    Returns:
        The three parts.
    """
    order = permutation(data.rows, key)
    cuts = [round(data.rows * share) for share in np.cumsum(list(PARTS.values()))][:-1]
    rows = dict(zip(PARTS, torch.tensor_split(order, cuts), strict=True))
    train = rows["train"].numpy()
    blocks = [_standardised(c, train) if c.levels is None else _one_hot(c, train) for c in data.features]
    x = torch.from_numpy(np.concatenate(blocks, axis=1).astype(np.float32))
    if data.task == "classification":
        y, outputs = torch.from_numpy(data.y), len(data.classes)
    else:
        mean, deviation = data.y[train].mean(), data.y[train].std()
        y, outputs = torch.from_numpy(((data.y - mean) / (deviation or 1.0)).astype(np.float32)), 1
    return Split(rows, {part: x[i] for part, i in rows.items()}, {part: y[i] for part, i in rows.items()}, outputs)


def permutation(n: int, key: Key, *, call: int = 0) -> Tensor:
    """A keyed permutation of 0 .. n - 1: the order that sorts the key's words, ties by index.

    Args:
        n: How many there are.
        key: Names the permutation.
        call: Lets one key serve many permutations.

    Returns:
        int64 (n,).

    Example:
        >>> permutation(5, Key(0)).sort().values
        tensor([0, 1, 2, 3, 4])
    """
    wording = random.bits((n,), key, call=call).to(torch.int64)
    return torch.sort(wording, stable=True).indices


def _standardised(column: Column, train: NDArray[Any]) -> NDArray[np.float64]:
    seen = column.values[train]
    seen = seen[~np.isnan(seen)]
    if not len(seen) or np.ptp(seen) == 0:
        return np.zeros((len(column.values), 1))
    scale = np.abs(seen).max()  # first to [-1, 1], so that the squares of huge values do not overflow
    values, seen = column.values / scale, seen / scale
    standardised: NDArray[np.float64] = np.nan_to_num((values - seen.mean()) / seen.std(), nan=0.0)
    return standardised[:, None]


def _one_hot(column: Column, train: NDArray[Any]) -> NDArray[np.float64]:
    seen = column.values[train]
    levels = column.levels or ()
    counts = np.bincount(seen[seen >= 0], minlength=len(levels))
    commonest = np.argsort(-counts, kind="stable")[:MOST_LEVELS]
    place = np.full(len(levels) + 1, -1)
    place[np.sort(commonest)] = np.arange(len(commonest))
    place[:-1][counts == 0] = -1  # a text that training never saw has no trained weight: no input stands for it
    place[-1] = place[commonest[0]]
    hot: NDArray[np.bool_] = place[column.values][:, None] == np.arange(len(commonest))
    return hot.astype(np.float64)
