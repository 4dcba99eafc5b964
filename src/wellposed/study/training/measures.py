"""How well a model does: accuracy, balanced accuracy or R squared, and what stands beside them."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from wellposed.study.training.dataset import Dataset
from wellposed.study.wording import NO_BREAK, join

ACCURACY, BALANCED, R_SQUARED = "accuracy", "balanced accuracy", "R²"
_HANDFUL = 15  # rows of a class, a fifth of which are test rows
_FEW_TESTED = 50
_UNEVEN = 3  # classes are uneven where the commonest has more than so many times the rows of the rarest


@dataclass(frozen=True)
class TaskObjective:
    """The loss of a task, its score (1 is perfect), and the outputs that an ensemble averages.

    Attributes:
        loss: The mean loss of outputs and targets.
        score: The score of outputs, (rows, outputs), and targets.
        average: The outputs of an ensemble, (networks, rows, outputs) -> (rows, outputs): the mean, of probabilities
            where there are classes.
    """

    loss: Callable[[Tensor, Tensor], Tensor]
    score: Callable[[Tensor, Tensor], float]
    average: Callable[[Tensor], Tensor]


def measure_of(data: Dataset) -> str:
    """The measure of a dataset: R squared, accuracy, or balanced accuracy where the classes are uneven."""
    if data.task == "regression":
        return R_SQUARED
    counts = np.bincount(data.y, minlength=len(data.classes))
    return BALANCED if counts.max() > _UNEVEN * counts.min() else ACCURACY


def few_rows(data: Dataset) -> list[str]:
    """Notes on what has too few rows for its scores to be told: classes with a handful, and a small test part."""
    notes = []
    counts = np.bincount(data.y, minlength=len(data.classes)) if data.classes else np.empty(0, dtype=np.int64)
    if measure_of(data) == BALANCED:
        most, least = int(counts.argmax()), int(counts.argmin())
        shares = [f"{100 * counts[i] / data.rows:.3g}{NO_BREAK}%" for i in (most, least)]
        notes.append(
            f"The classes are uneven: {shares[0]} of the rows are {data.classes[most]!r}, {shares[1]} are "
            f"{data.classes[least]!r}. So scores are balanced accuracies, the mean over the classes of the share of "
            "their rows that is told right."
        )
    small = [f"{data.classes[i]!r} ({count})" for i, count in enumerate(counts) if count < _HANDFUL]
    if small:
        named = join(small) if len(small) <= 5 else f"{', '.join(small[:5])} and {len(small) - 5} more"
        notes.append(
            f"Classes with a handful of rows: {named}. A fifth of them are test rows: what is said of these classes is "
            "said of a few rows."
        )
    test = data.rows // 5
    if test < _FEW_TESTED:
        one = "" if not data.classes else f"; one row more or less is {100 / test:.1f} points of accuracy"
        notes.append(f"The test rows are {test} a seed{one}. More rows would tell smaller differences.")
    return notes


def objective_of(measure: str, y: Tensor, outputs: int) -> TaskObjective:
    """The objective of a measure.

    Args:
        measure: As :func:`measure_of` names it.
        y: The training targets, which tell how common each class is.
        outputs: How many outputs the network has.
    """
    if measure == R_SQUARED:
        return TaskObjective(
            lambda out, goal: functional.mse_loss(out.squeeze(1), goal), r_squared, lambda out: out.mean(0)
        )
    odds = log_shares(y, outputs) if measure == BALANCED else torch.zeros(outputs)
    score = balanced_accuracy if measure == BALANCED else accuracy
    return TaskObjective(
        functional.cross_entropy,
        lambda out, goal: score(out - odds, goal) if bool(torch.isfinite(out).all()) else float("nan"),
        lambda out: out.log_softmax(2).logsumexp(0) - math.log(len(out)),
    )


def log_shares(y: Tensor, classes: int) -> Tensor:
    """The logarithm of each class's share of the rows, of half a row at least."""
    return (torch.bincount(y, minlength=classes).clamp(min=0.5) / len(y)).log()


def accuracy(outputs: Tensor, y: Tensor) -> float:
    """The share of the rows whose greatest output is their class's."""
    return float((outputs.argmax(1) == y).double().mean())


def balanced_accuracy(outputs: Tensor, y: Tensor) -> float:
    """The mean over classes of the share of their rows whose greatest output is theirs; absent classes do not count.

    Example:
        >>> y = torch.tensor([0, 0, 0, 1])
        >>> accuracy(torch.tensor([[1.0, 0.0]] * 4), y), balanced_accuracy(torch.tensor([[1.0, 0.0]] * 4), y)
        (0.75, 0.5)
    """
    right = (outputs.argmax(1) == y).double()
    counts = torch.bincount(y, minlength=outputs.shape[1])
    shares = torch.bincount(y, weights=right, minlength=outputs.shape[1]) / counts
    return float(shares[counts > 0].mean())


def r_squared(outputs: Tensor, y: Tensor) -> float:
    """1 less the squared errors over those of the mean."""
    residual = (outputs.squeeze(1).double() - y.double()).square().sum()
    spread = (y.double() - y.double().mean()).square().sum()
    return float(1 - residual / spread)


def area_under_curve(logits: Tensor, y: Tensor) -> float:
    """The area under the receiver operating characteristic, the mean over the classes, each against all others.

    It is the probability that a row of the class gets a higher probability of it than a row of another class; half of
    the ties count.

    Example:
        >>> area_under_curve(torch.tensor([[0.0, 1.0], [0.0, 2.0], [0.0, 3.0]]), torch.tensor([0, 1, 1]))
        1.0

    Source: Hand and Till (2001) for the mean over classes; Mann and Whitney (1947) for the ranks.
    """
    areas = []
    for place in range(logits.shape[1]) if logits.shape[1] > 2 else (1,):
        own = y == place
        count = int(own.sum())
        if not 0 < count < len(y):
            continue
        _, tied, many = torch.unique(logits.double().log_softmax(1)[:, place], return_inverse=True, return_counts=True)
        ranks = (many.cumsum(0) - (many - 1) / 2)[tied]
        areas.append((float(ranks[own].sum()) - count * (count + 1) / 2) / (count * (len(y) - count)))
    return sum(areas) / len(areas) if areas else float("nan")


def beside(measure: str, logits: Tensor, y: Tensor) -> dict[str, float]:
    """What stands beside balanced accuracy: plain accuracy, log loss and the area under the curve; else nothing."""
    if measure != BALANCED:
        return {}
    return {
        "accuracy": accuracy(logits, y),
        "log loss": float(functional.cross_entropy(logits.double(), y)),
        "area under the curve": area_under_curve(logits, y),
    }
