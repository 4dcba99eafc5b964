"""Monte Carlo dropout on UCI regression sets, by the published protocol and beside the published figures.

Run with ``python -m benchmarks.uci --data FOLDER``, where FOLDER holds a folder a set, as in the data of Gal and
Ghahramani (2016): data.txt, the columns and splits as index_*.txt, and the grid. For each split the first 80 % of the
training rows train and the rest validate; the dropout rate and precision of the best validation log-likelihood train
again on all training rows and are scored once on the test rows. All networks of a set are trained at once, stacked.
"""

import argparse
import itertools
import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import wellposed as wp

# Test RMSE and log-likelihood, each with its standard error over 20 splits (grid search, 2018 update).
PUBLISHED = {
    "yacht": ((0.67, 0.05), (-1.25, 0.01)),
    "energy": ((0.54, 0.06), (-1.21, 0.01)),
    "boston": ((2.90, 0.18), (-2.40, 0.04)),
}
BATCH, LENGTH_SCALE = 128, 1e-2


@dataclass(frozen=True)
class Task:
    """Rows to train on and rows to score.

    Attributes:
        x: Inputs to train on, standardised, (N, D).
        y: Targets to train on, standardised, (N,).
        x_score: Inputs to score, standardised as ``x``, (S, D).
        y_score: Targets to score, in their own unit, (S,).
        mean: What ``y`` has had subtracted.
        std: What it then was divided by.
    """

    x: Tensor
    y: Tensor
    x_score: Tensor
    y_score: Tensor
    mean: float
    std: float


@dataclass(frozen=True)
class Network:
    """A dropout rate, and the precision tau of the noise in the targets' own unit."""

    rate: float
    precision: float


def numbers(path: Path) -> Tensor:
    """A text file of numbers."""
    return torch.from_numpy(np.loadtxt(path))


def task(data: Tensor, columns: Tensor, target: int, train: Tensor, score: Tensor) -> Task:
    """Rows ``train`` and rows ``score`` of ``data``, standardised on the former."""
    x, y = data[train][:, columns], data[train, target]
    shift, scale = x.mean(dim=0), x.std(dim=0, correction=0)
    scale[scale == 0] = 1.0
    mean, std = float(y.mean()), float(y.std(correction=0))
    x_score = (data[score][:, columns] - shift) / scale
    return Task(
        ((x - shift) / scale).float(), ((y - mean) / std).float(), x_score.float(), data[score, target], mean, std
    )


def fit(tasks: list[Task], grid: list[Network], hidden: int, epochs: int, key: wp.Key) -> list[nn.Module]:
    """Train network m of ``grid`` on task m, for all m at once: weights are stacked to (M, in, out)."""
    x, y = torch.stack([task.x for task in tasks]), torch.stack([task.y for task in tasks])
    rates, precisions = torch.tensor([[n.rate, n.precision] for n in grid], dtype=torch.float64).unbind(dim=1)
    rows = x.shape[1]
    decay = (LENGTH_SCALE**2 * (1 - rates) / (2 * rows * precisions)).float()
    sizes = [(x.shape[2], hidden), (hidden, 1)]
    glorot, axes = wp.init.Glorot(distribution="uniform"), wp.init.Axes(out=1, in_=0)
    weights = [
        torch.stack([glorot(size, key.fold("weight", layer, m), axes=axes) for m in range(len(tasks))])
        for layer, size in enumerate(sizes)
    ]
    biases = [torch.zeros(len(tasks), 1, size[1]) for size in sizes]
    optimizer = torch.optim.Adam([w.requires_grad_() for w in (*weights, *biases)], lr=1e-3)
    step = 0
    for epoch in range(epochs):
        order = wp.random.uniform((len(tasks), rows), key.fold("order"), call=epoch).argsort(dim=1)
        for batch in order.split(BATCH, dim=1):
            step += 1
            activation = x.take_along_dim(batch.unsqueeze(-1), dim=1)
            for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
                thinned = wp.dropout(activation.relu() if layer else activation, rates, key=key.fold(layer), call=step)
                activation = torch.baddbmm(bias, thinned, weight)
            errors = (activation.squeeze(-1) - y.take_along_dim(batch, dim=1)).square().mean(dim=1)
            loss = errors + decay * sum(weight.square().sum(dim=(1, 2)) for weight in weights)
            optimizer.zero_grad()
            loss.sum().backward()
            optimizer.step()
    return [
        _one([w[m].detach() for w in weights], [b[m, 0].detach() for b in biases], network.rate)
        for m, network in enumerate(grid)
    ]


def _one(weights: list[Tensor], biases: list[Tensor], rate: float) -> nn.Module:
    layers: list[nn.Module] = []
    for weight, bias in zip(weights, biases, strict=True):
        linear = nn.Linear(*weight.shape)
        linear.weight.data, linear.bias.data = weight.t().contiguous(), bias.clone()
        layers += [wp.Dropout(rate), linear, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def score(model: nn.Module, task: Task, network: Network, samples: int) -> tuple[float, float]:
    """RMSE of the mean prediction, and mean log-likelihood of a mixture of a normal a sample."""
    predicted = wp.monte_carlo(model, task.x_score, samples=samples).samples.squeeze(-1).double() * task.std + task.mean
    errors = task.y_score - predicted
    rmse = (task.y_score - predicted.mean(dim=0)).square().mean().sqrt()
    exponents = torch.logsumexp(-0.5 * network.precision * errors.square(), dim=0)
    likelihood = exponents - math.log(samples) + 0.5 * math.log(network.precision / (2 * math.pi))
    return float(rmse), float(likelihood.mean())


def run(folder: Path, splits: int, samples: int, multiplier: int) -> tuple[Tensor, Tensor]:
    """Test RMSE and log-likelihood of every split."""
    key = wp.Key(0).fold(folder.name)
    data, columns = numbers(folder / "data.txt"), numbers(folder / "index_features.txt").long()
    target = int(numbers(folder / "index_target.txt"))
    hidden, epochs = (int(numbers(folder / f"{name}.txt")) for name in ("n_hidden", "n_epochs"))
    epochs *= multiplier
    rates, precisions = (numbers(folder / f"{name}.txt").tolist() for name in ("dropout_rates", "tau_values"))
    grid = [Network(*pair) for pair in itertools.product(rates, precisions)]
    trains, tests = (
        [numbers(folder / f"index_{part}_{split}.txt").long() for split in range(splits)] for part in ("train", "test")
    )
    halves = [train.tensor_split([int(0.8 * len(train))]) for train in trains]
    tried = [network for network in grid for _ in range(splits)]
    tasks = [task(data, columns, target, *half) for half in halves] * len(grid)
    models = fit(tasks, tried, hidden, epochs, key.fold("validate"))
    found = [score(*each, samples)[1] for each in zip(models, tasks, tried, strict=True)]
    best = [grid[i] for i in torch.tensor(found).view(len(grid), splits).argmax(dim=0).tolist()]
    tasks = [task(data, columns, target, *rows) for rows in zip(trains, tests, strict=True)]
    models = fit(tasks, best, hidden, epochs, key.fold("test"))
    scores = [score(*each, samples) for each in zip(models, tasks, best, strict=True)]
    rmse, likelihood = torch.tensor(scores, dtype=torch.float64).unbind(dim=1)
    return rmse, likelihood


def main() -> None:
    """Print a table, a set at a time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds a folder a set")
    parser.add_argument("--sets", nargs="+", default=list(PUBLISHED), choices=PUBLISHED)
    parser.add_argument("--splits", type=int, default=20)
    parser.add_argument("--samples", type=int, default=1000, help="thinned networks a prediction")
    parser.add_argument("--epochs", type=int, default=100, help="times what n_epochs.txt says")
    options = parser.parse_args()
    print("| set | figure | ours | published | difference, in published standard errors | seconds |")
    print("| --- | --- | --- | --- | --: | --: |")
    for name in options.sets:
        start = time.perf_counter()
        figures = run(options.data / name, options.splits, options.samples, options.epochs)
        seconds = time.perf_counter() - start
        for words, values, (mean, error) in zip(("RMSE", "log-likelihood"), figures, PUBLISHED[name], strict=True):
            ours = f"{float(values.mean()):.3f} +- {float(values.std()) / math.sqrt(len(values)):.3f}"
            away = (float(values.mean()) - mean) / error
            print(f"| {name} | {words} | {ours} | {mean} +- {error} | {away:+.1f} | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main()
