"""One training run, a pure function of its configuration and the data."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from wellposed import penalties
from wellposed.random.distributions import permutation
from wellposed.random.key import Key
from wellposed.study.methods import PENALTIES, STARTS
from wellposed.study.training.dataset import Dataset
from wellposed.study.training.measures import TaskObjective, beside, measure_of, objective_of
from wellposed.study.training.network import DenseNetwork, DropoutMask, measure, predict
from wellposed.study.training.splits import Split, split

ROWS_MEASURED = 512  # for the scales of signal and gradient
ROWS_WATCHED = 400  # of each part, for the curves and for stopping
CHECKS = 12  # evenly spaced, after the one before training
LARGEST = 10  # weights whose path is followed
ENSEMBLE = (1, 2, 4, 8, 16, 32)  # thinned networks averaged

Figures = dict[str, Any]


@dataclass(frozen=True)
class TrainingRun:
    """The configuration of one run.

    Attributes:
        seed: Names the split, the first weights, the order of the rows and the masks.
        hidden: The width of each hidden layer.
        activation: A key of ``network.ACTIVATIONS``.
        start: A key of ``methods.STARTS``.
        penalty: A key of ``methods.PENALTIES``.
        strength: Its lambda.
        p: The probability that dropout leaves a hidden unit out.
        rows: How many of the training rows are trained on; ``None`` is all.
        steps: How many updates.
        batch: How many rows an update sees.
        rate: AdamW's learning rate.
        scales: Whether the scales of signal and gradient are measured before training.
        tracked: Which weights to report after training, counted through all layers.
    """

    seed: int
    hidden: tuple[int, ...]
    activation: str = "relu"
    start: str = "he"
    penalty: str = "none"
    strength: float = 0.0
    p: float = 0.0
    rows: int | None = None
    steps: int = 300
    batch: int = 32
    rate: float = 1e-3
    scales: bool = False
    tracked: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class Trained:
    """A trained network with what it was trained on.

    Attributes:
        network: As it was at the check that scored best on validation rows; of equal ones, that of the least loss.
        parts: The rows.
        curve: The losses and scores along the way, and at which update the network was kept.
        scales: The measured and predicted scales before training; ``None`` where they were not asked for.
    """

    network: DenseNetwork
    parts: Split
    curve: dict[str, Any]
    scales: dict[str, Any] | None


def execute(run: TrainingRun, data: Dataset) -> Figures:
    """Train one network and measure it.

    Args:
        run: The configuration.
        data: The dataset.

    Returns:
        The figures, plain values that JSON can hold. A number that is not finite, as of training that diverged, is
        ``None``.
    """
    with one_thread():
        figures: Figures = finite(_figures(run, train(run, data), measure_of(data)))
    return figures


def train(run: TrainingRun, data: Dataset) -> Trained:
    """Train one network; on one thread, where the figures are to be the same on any machine load."""
    key, parts = Key(run.seed), split(data, Key(run.seed).fold("split"))
    x, y = parts.some(run.rows)
    objective = objective_of(measure_of(data), y, parts.outputs)
    network = DenseNetwork((parts.inputs, *run.hidden, parts.outputs), run.activation)
    network.start_(STARTS[run.start], key.fold("start"))
    scales = _scales(run, network, x[:ROWS_MEASURED], y[:ROWS_MEASURED], objective) if run.scales else None
    return Trained(network, parts, _descend(run, network, x, y, parts, objective, key), scales)


def _figures(run: TrainingRun, trained: Trained, measure: str) -> Figures:
    network, parts = trained.network, trained.parts
    rows = parts.scored(run.rows)
    objective = objective_of(measure, parts.some(run.rows)[1], parts.outputs)
    outputs = {part: _outputs(network, features) for part, (features, _) in rows.items()}
    weights = torch.cat([weight.flatten() for weight in network.weights()])
    largest = weights.abs().topk(min(LARGEST, weights.numel())).indices
    return {
        "scales": trained.scales,
        "curve": trained.curve,
        "score": {part: objective.score(outputs[part], goal) for part, (_, goal) in rows.items()},
        "beside": beside(measure, outputs["test"], rows["test"][1]),
        "weights": {
            "count": weights.numel(),
            "zero": int((weights == 0).sum()),
            "largest": largest.tolist(),
            "values": weights[largest].tolist(),
            "tracked": weights[list(run.tracked)].tolist(),
        },
        "ensemble": _ensemble(run, network, parts, objective) if run.p else None,
    }


def _scales(run: TrainingRun, network: DenseNetwork, x: Tensor, y: Tensor, objective: TaskObjective) -> dict[str, Any]:
    measured = measure(network, x, y, objective.loss)
    predicted = predict(network, STARTS[run.start], x, measured.gradient[-1])
    return {
        "signal": {"measured": measured.signal, "predicted": predicted.signal},
        "gradient": {"measured": measured.gradient, "predicted": predicted.gradient},
    }


def _descend(
    run: TrainingRun, network: DenseNetwork, x: Tensor, y: Tensor, parts: Split, objective: TaskObjective, key: Key
) -> dict[str, Any]:
    """AdamW on minibatches; the network ends as it was at the check that scored best on validation."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=run.rate, weight_decay=0.0, fused=True)
    method = PENALTIES[run.penalty]
    if method.make is not None:
        penalties.regularize(optimizer, network, method.make(run.strength), mode=method.mode)
    watched = {"train": (x[:ROWS_WATCHED], y[:ROWS_WATCHED])}
    watched["validation"] = (parts.x["validation"][:ROWS_WATCHED], parts.y["validation"][:ROWS_WATCHED])
    checks = {round(run.steps * share / CHECKS) for share in range(CHECKS + 1)}
    curve: dict[str, Any] = {"step": [], **{f"{part} {what}": [] for part in watched for what in ("loss", "score")}}
    batches = _batches(len(x), run.batch, key.fold("batches"))
    kept, best = [parameter.detach().clone() for parameter in network.parameters()], (-math.inf, -math.inf)
    for step in range(run.steps + 1):
        if step in checks:
            curve["step"].append(step)
            for part, (features, goal) in watched.items():
                outputs = _outputs(network, features)
                curve[f"{part} loss"].append(float(objective.loss(outputs, goal)))
                curve[f"{part} score"].append(objective.score(outputs, goal))
            now = (curve["validation score"][-1], -curve["validation loss"][-1])
            if now > best:
                best, curve["kept"] = now, step
                for copy, parameter in zip(kept, network.parameters(), strict=True):
                    copy.copy_(parameter.detach())
        if step == run.steps or not math.isfinite(curve["train loss"][-1]):
            break
        rows = next(batches)
        mask = DropoutMask(run.p, key.fold("dropout"), step) if run.p else None
        loss = objective.loss(network(x[rows], mask), y[rows])
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
    if math.isfinite(curve["train loss"][-1]):  # a network that diverged stays so, to be told as such
        with torch.no_grad():
            for copy, parameter in zip(kept, network.parameters(), strict=True):
                parameter.copy_(copy)
    return curve


def _batches(rows: int, size: int, key: Key) -> Iterator[Tensor]:
    epoch = 0
    while True:
        order = permutation(rows, key, call=epoch)
        full = max(1, rows // size)
        yield from order[: full * size].tensor_split(full)
        epoch += 1


def _outputs(network: DenseNetwork, x: Tensor) -> Tensor:
    with torch.no_grad():
        outputs: Tensor = network(x)
    return outputs


def _ensemble(run: TrainingRun, network: DenseNetwork, parts: Split, objective: TaskObjective) -> dict[str, Any]:
    """The scores of averages of thinned networks, and of one network with its weights scaled, on the same rows."""
    key = Key(run.seed).fold("ensemble")
    scores: dict[str, Any] = {"networks": list(ENSEMBLE), "scaled": {}}
    with torch.no_grad():
        for part in ("validation", "test"):
            x, y = parts.x[part][:ROWS_WATCHED], parts.y[part][:ROWS_WATCHED]
            thinned = torch.stack([network(x, DropoutMask(run.p, key, call)) for call in range(max(ENSEMBLE))])
            scores["scaled"][part] = objective.score(network(x), y)
            scores[part] = [objective.score(objective.average(thinned[:count]), y) for count in ENSEMBLE]
    return scores


@contextmanager
def one_thread() -> Iterator[None]:
    """Computes on one thread: sums that are split over threads differ in their last bits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def finite(value: Any) -> Any:
    """Plain values with ``None`` for numbers that are not finite."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: finite(entry) for name, entry in value.items()}
    return [finite(entry) for entry in value] if isinstance(value, list) else value
