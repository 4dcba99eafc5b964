"""What a study trains, made from the data: three regimes, and the grids of lambda and p."""

import math
from dataclasses import dataclass, replace

import torch
from torch.nn import functional

from wellposed import penalties
from wellposed.random.key import Key
from wellposed.study.methods import PENALTIES
from wellposed.study.training.dataset import Dataset
from wellposed.study.training.splits import split
from wellposed.study.training.train import TrainingRun, one_thread

# Fractions of lambda_max. Several layers share one lambda, and end from a tenth of it on, or nearly.
_FRACTIONS = (0.03, 0.008, 0.002)
# How often e divides a weight that nothing but decay moves, over a whole run.
_DECAYS = (3.0, 1.0, 0.3)
_FEWEST, _MOST_FEW = 100, 1000  # rows that are few
_OF_RAREST = 10  # rows of the rarest class that few rows should have


@dataclass(frozen=True)
class Settings:
    """What a user may set; ``None`` is made from the data.

    Attributes:
        hidden: The width of each hidden layer of the network that is regularized and recommended.
        deep: The same of the network on which initializers are compared.
        seeds: How many seeds, from 0.
        steps: Updates of every run.
        rows: How many training rows are few, for regularization and dropout to be compared on.
        rate: AdamW's learning rate.
        rates: The grid of p.
    """

    hidden: tuple[int, ...] = (128,) * 4
    deep: tuple[int, ...] = (64,) * 10
    seeds: int = 5
    steps: int | None = None
    rows: int | None = None
    rate: float = 1e-3
    rates: tuple[float, ...] = (0.1, 0.3, 0.5)


@dataclass(frozen=True)
class Design:
    """A study of one dataset: what its runs have in common, and its grids.

    Attributes:
        deep: The run that the initializers vary: depth tells one start from another.
        few: The run that penalties and p vary: wide, long, and on rows few enough to be learned by heart.
        full: The run on all training rows, which the recommendation varies.
        strengths: The grid of lambda of each penalty.
        rates: The grid of p.
        seeds: How many seeds.
        rows: How many training rows there are.
    """

    deep: TrainingRun
    few: TrainingRun
    full: TrainingRun
    strengths: dict[str, tuple[float, ...]]
    rates: tuple[float, ...]
    seeds: int
    rows: int

    @property
    def regimes(self) -> dict[str, dict[str, int | float]]:
        """What each kind of run trains on and for how long."""
        return {name: self._told(run) for name, run in (("deep", self.deep), ("few", self.few), ("full", self.full))}

    def _told(self, run: TrainingRun) -> dict[str, int | float]:
        rows = run.rows or self.rows
        epochs = run.steps / max(1, rows // run.batch)
        return {
            "rows": rows,
            "batch": run.batch,
            "updates": run.steps,
            "epochs": round(epochs, 1 if epochs >= 1 else 2),
        }


def design(settings: Settings, data: Dataset) -> Design:
    """Make a study's design from its data.

    - Four hidden layers of 128 units have hundreds of weights for each of few rows. Started by He, which keeps the
      signal of ReLU as large as it was, they learn these rows by heart: there is something to regularize.
    - Few rows are 100, or as many as have ten of the rarest class, at most 1,000 and at most half of them all; where
      there are not so many, all are few.
    - A batch is about twice the square root of the rows, a power of two from 32 to 256.
    - A run has 120 updates on the deep network, 250 on few rows, and 15 epochs on all rows, but 200 to 1,000 updates.
    - The grid of lambda goes down from lambda_max, from which on a linear model of the same inputs stays at zero; that
      of L2 from the lambda that alone would take a weight to e^-3 of itself over a run.

    Args:
        settings: What the user has set.
        data: The data.

    Returns:
        The design.
    """
    with one_thread():
        parts = split(data, Key(0).fold("split"))
        total = len(parts.x["train"])
        few = settings.rows or _few(parts.y["train"], parts.outputs)
        rows = few if few <= total / (1 if settings.rows else 2) and few < total else None
        largest = _lambda_max(*parts.some(rows))
    deep = TrainingRun(0, settings.deep, steps=settings.steps or 120, batch=64, rate=settings.rate, scales=True)
    short = TrainingRun(
        0, settings.hidden, rows=rows, steps=settings.steps or 250, batch=_batch(rows or total), rate=settings.rate
    )
    batch = _batch(total)
    updates = settings.steps or min(1000, max(200, math.ceil(15 * total / batch)))
    full = replace(short, rows=None, steps=updates, batch=batch) if rows else short
    decays = tuple(_rounded(decay / (2 * short.rate * short.steps)) for decay in _DECAYS)
    falls = tuple(_rounded(fraction * largest) for fraction in _FRACTIONS)
    strengths = {
        name: decays if method.mode == "decoupled" else falls
        for name, method in PENALTIES.items()
        if method.make is not None
    }
    return Design(deep, short, full, strengths, settings.rates, settings.seeds, total)


def _few(y: torch.Tensor, outputs: int) -> int:
    if outputs == 1:
        return _FEWEST
    rarest = int(torch.bincount(y, minlength=outputs).clamp(min=1).min())
    return min(_MOST_FEW, max(_FEWEST, math.ceil(_OF_RAREST * len(y) / rarest)))


def _batch(rows: int) -> int:
    return int(min(256, max(32, 2 ** round(math.log2(2 * math.sqrt(rows))))))


def _lambda_max(x: torch.Tensor, y: torch.Tensor) -> float:
    """The least lambda of L1 that holds a linear model at zero, from its gradient there."""
    outputs = int(y.max()) + 1 if y.dtype == torch.int64 else 1
    weight = torch.zeros(outputs, x.shape[1], requires_grad=True)
    if y.dtype == torch.int64:
        bias = (torch.bincount(y, minlength=outputs) / len(y)).clamp(min=1e-6).log()
        loss = functional.cross_entropy(x @ weight.T + bias, y)
    else:
        loss = functional.mse_loss((x @ weight.T).squeeze(1), y - y.mean())
    (gradient,) = torch.autograd.grad(loss, weight)
    return penalties.L1(1.0).lambda_max(gradient) or 1.0


def _rounded(value: float) -> float:
    """To two digits, as it is printed."""
    return float(f"{value:.2g}")
