"""Training, validation and test rows of a dataset, and its columns as the inputs of a network."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from wellposed.random.distributions import permutation
from wellposed.random.key import Key
from wellposed.study.training.dataset import Dataset
from wellposed.study.training.encoding import Encoding, fit

PARTS: Mapping[str, float] = {"train": 0.6, "validation": 0.2, "test": 0.2}
MOST_SCORED = 10_000  # rows of a part: to score more takes longer than to train, and tells little more
_MOST_SPARE = 2000  # training rows that serve as test rows where they are not trained on
_TURNS = torch.tensor([0, 1, 0, 2, 0])  # how five rows of a class are dealt to the parts


@dataclass(frozen=True, eq=False)
class Split:
    """The rows of a dataset in three parts, as a network takes them.

    Attributes:
        rows: For each part of ``PARTS`` the indices of its rows, int64.
        x: For each part its features, float32 (rows, inputs).
        y: For each part its targets: int64 (rows,), or float32 (rows,) standardised on the training rows.
        outputs: How many outputs a network needs.
        encodings: How each column became inputs.
        center: The mean and the standard deviation of a regression's target on the training rows; else (0, 1).
    """

    rows: dict[str, Tensor]
    x: dict[str, Tensor]
    y: dict[str, Tensor]
    outputs: int
    encodings: tuple[Encoding, ...]
    center: tuple[float, float]

    @property
    def inputs(self) -> int:
        """How many inputs a network needs."""
        return self.x["train"].shape[1]

    def some(self, rows: int | None) -> tuple[Tensor, Tensor]:
        """Features and targets of so many training rows, each class by its share; of all of them for ``None``."""
        if rows is None:
            return self.x["train"], self.y["train"]
        picked = self._picked(rows)
        return self.x["train"][picked], self.y["train"][picked]

    def unseen(self, rows: int | None) -> tuple[Tensor, Tensor]:
        """Features and targets of the test rows, and of training rows that are not among so many."""
        spare = (~self._picked(rows)).nonzero().squeeze(1)[:_MOST_SPARE]
        x, y = (torch.cat([values["test"], values["train"][spare]]) for values in (self.x, self.y))
        return x, y

    def scored(self, rows: int | None) -> dict[str, tuple[Tensor, Tensor]]:
        """Features and targets of the rows of each part on which what was trained on so many rows is scored."""
        x, y = self.some(rows)
        return {
            "train": (x[:MOST_SCORED], y[:MOST_SCORED]),
            "validation": (self.x["validation"], self.y["validation"]),
            "test": self.unseen(rows),
        }

    def _picked(self, rows: int | None) -> Tensor:
        y = self.y["train"]
        if rows is None or rows >= len(y):
            return torch.ones(len(y), dtype=torch.bool)
        dealt = _by_class(y) if self.outputs > 1 else torch.arange(len(y))
        picked = torch.zeros(len(y), dtype=torch.bool)
        picked[dealt[((torch.arange(rows) + 0.5) * (len(y) / rows)).long()]] = True
        return picked


@lru_cache(maxsize=1)  # runs come seed by seed
def split(data: Dataset, key: Key) -> Split:
    """Split a dataset by a keyed permutation of its rows, class by class, and prepare it.

    Of any five rows of a class that follow each other three are for training, one is for validation and one for the
    test: each part has each class by its share, to within a row. Validation and test rows beyond ``MOST_SCORED`` are
    training rows. Whatever is fitted (means, deviations, the texts that
    get an input) is fitted on the training rows alone.

    Args:
        data: The dataset.
        key: Names the permutation.

    Returns:
        The three parts.
    """
    order = permutation(data.rows, key)
    y = torch.from_numpy(data.y)
    classes = data.task == "classification"
    turn = torch.empty(data.rows, dtype=torch.int64)
    turn[_by_class(y[order]) if classes else slice(None)] = _TURNS[torch.arange(data.rows) % len(_TURNS)]
    for place in (1, 2):
        turn[(turn == place).nonzero().squeeze(1)[MOST_SCORED:]] = 0
    rows = {part: order[turn == place] for place, part in enumerate(PARTS)}
    train = rows["train"].numpy()
    encodings = tuple(fit(column, train) for column in data.features)
    blocks = [encoding(column) for encoding, column in zip(encodings, data.features, strict=True)]
    x = torch.from_numpy(np.concatenate(blocks, axis=1).astype(np.float32))
    center = (0.0, 1.0)
    if not classes:
        center = (float(data.y[train].mean()), float(data.y[train].std()) or 1.0)
        y = torch.from_numpy(((data.y - center[0]) / center[1]).astype(np.float32))
    outputs = len(data.classes) if classes else 1
    x_parts, y_parts = ({part: values[i] for part, i in rows.items()} for values in (x, y))
    return Split(rows, x_parts, y_parts, outputs, encodings, center)


def _by_class(y: Tensor) -> Tensor:
    """The places of the first class's rows in their order, then those of the second's, and so on."""
    return torch.sort(y, stable=True).indices
