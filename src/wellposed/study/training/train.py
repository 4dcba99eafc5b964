"""One training run, a pure function of its configuration and the data."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from wellposed import penalties
from wellposed.random.key import Key
from wellposed.study.methods import PENALTIES, STARTS
from wellposed.study.training.dataset import Dataset
from wellposed.study.training.network import DenseNetwork, DropoutMask, measure, predict
from wellposed.study.training.splits import PARTS, Split, permutation, split

ROWS_MEASURED = 512  # for the scales of signal and gradient
ROWS_WATCHED = 400  # of each part, for the curves
CHECKS = 10  # evenly spaced, after the one before training
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
        steps: How many updates.
        batch: How many rows an update sees.
        rate: The learning rate.
        clip: The longest gradient of the loss; a longer one is scaled down to this norm.
        tracked: Which weights to report after training, counted through all layers.
    """

    seed: int
    hidden: tuple[int, ...]
    activation: str = "relu"
    start: str = "he"
    penalty: str = "none"
    strength: float = 0.0
    p: float = 0.0
    steps: int = 400
    batch: int = 64
    rate: float = 0.1
    clip: float = 2.0
    tracked: tuple[int, ...] = ()


@dataclass(frozen=True)
class TaskObjective:
    """The loss of a task, its score (1 is perfect), and the outputs that an ensemble averages."""

    loss: Callable[[Tensor, Tensor], Tensor]
    score: Callable[[Tensor, Tensor], float]
    average: Callable[[Tensor], Tensor]


def execute(run: TrainingRun, data: Dataset) -> Figures:
    """Train one network and measure it.

    Args:
        run: The configuration.
        data: The dataset.

    Returns:
        The figures, plain values that JSON can hold. A number that is not finite, as of training that diverged, is
        ``None``.
    """
    with _one_thread():
        figures: Figures = _finite(_execute(run, data))
    return figures


def _execute(run: TrainingRun, data: Dataset) -> Figures:
    key, objective = Key(run.seed), OBJECTIVES[data.task]
    parts = split(data, key.fold("split"))
    network = DenseNetwork((parts.inputs, *run.hidden, parts.outputs), run.activation)
    start = STARTS[run.start]
    network.start_(start, key.fold("start"))
    x, y = parts.x["train"][:ROWS_MEASURED], parts.y["train"][:ROWS_MEASURED]
    measured = measure(network, x, y, objective.loss)
    predicted = predict(network, start, x, measured.gradient[-1])
    curve = _train(run, network, parts, objective, key)
    weights = torch.cat([weight.flatten() for weight in network.weights()])
    return {
        "signal": {"measured": measured.signal, "predicted": predicted.signal},
        "gradient": {"measured": measured.gradient, "predicted": predicted.gradient},
        "curve": curve,
        "score": {part: objective.score(_outputs(network, parts.x[part]), parts.y[part]) for part in PARTS},
        "weights": {
            "count": weights.numel(),
            "zero": int((weights == 0).sum()),
            "largest": (largest := weights.abs().topk(min(LARGEST, weights.numel())).indices).tolist(),
            "values": weights[largest].tolist(),
            "tracked": weights[list(run.tracked)].tolist(),
        },
        "ensemble": _ensemble(run, network, parts, objective, key) if run.p else None,
    }


def _train(
    run: TrainingRun, network: DenseNetwork, parts: Split, objective: TaskObjective, key: Key
) -> dict[str, list[Any]]:
    """Minibatch gradient descent; returns the loss and the scores along the way."""
    optimizer = torch.optim.SGD(network.parameters(), lr=run.rate)
    method = PENALTIES[run.penalty]
    if method.make is not None:
        penalties.regularize(optimizer, network, method.make(run.strength), mode=method.mode)
    watched = {part: (parts.x[part][:ROWS_WATCHED], parts.y[part][:ROWS_WATCHED]) for part in PARTS}
    stops = {round(run.steps * share / CHECKS) for share in range(CHECKS + 1)}
    curve: dict[str, list[Any]] = {"step": [], "loss": [], **{part: [] for part in PARTS}}
    batches = _batches(len(parts.x["train"]), run.batch, key.fold("batches"))
    for step in range(run.steps + 1):
        if step in stops:
            outputs = {part: _outputs(network, x) for part, (x, _) in watched.items()}
            curve["step"].append(step)
            curve["loss"].append(float(objective.loss(outputs["train"], watched["train"][1])))
            for part, (_, y) in watched.items():
                curve[part].append(objective.score(outputs[part], y))
        if step == run.steps or not math.isfinite(curve["loss"][-1]):
            break
        rows = next(batches)
        mask = DropoutMask(run.p, key.fold("dropout"), step) if run.p else None
        loss = objective.loss(network(parts.x["train"][rows], mask), parts.y["train"][rows])
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        # Or one learning rate would not do for every initialization: on squared errors the paper's He could diverge.
        nn.utils.clip_grad_norm_(network.parameters(), run.clip)
        optimizer.step()
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


def _ensemble(
    run: TrainingRun, network: DenseNetwork, parts: Split, objective: TaskObjective, key: Key
) -> dict[str, Any]:
    """The scores of averages of thinned networks, and of one network with its weights scaled, on the same rows."""
    key = key.fold("ensemble")
    scores: dict[str, Any] = {"networks": list(ENSEMBLE), "scaled": {}}
    with torch.no_grad():
        for part in ("validation", "test"):
            x, y = parts.x[part][:ROWS_WATCHED], parts.y[part][:ROWS_WATCHED]
            thinned = [objective.average(network(x, DropoutMask(run.p, key, call))) for call in range(max(ENSEMBLE))]
            totals = torch.stack(thinned).cumsum(0)
            scores["scaled"][part] = objective.score(network(x), y)
            scores[part] = [objective.score(totals[count - 1] / count, y) for count in ENSEMBLE]
    return scores


def _accuracy(outputs: Tensor, y: Tensor) -> float:
    # Outputs that hold a NaN or an infinity have no greatest one.
    return float((outputs.argmax(1) == y).double().mean()) if bool(torch.isfinite(outputs).all()) else math.nan


def _r_squared(outputs: Tensor, y: Tensor) -> float:
    residual = (outputs.squeeze(1).double() - y.double()).square().sum()
    spread = (y.double() - y.double().mean()).square().sum()
    return float(1 - residual / spread)


OBJECTIVES = {
    "classification": TaskObjective(functional.cross_entropy, _accuracy, lambda outputs: outputs.softmax(1)),
    "regression": TaskObjective(lambda outputs, y: functional.mse_loss(outputs.squeeze(1), y), _r_squared, lambda o: o),
}


@contextmanager
def _one_thread() -> Iterator[None]:
    # Sums that are split over threads differ in their last bits; one thread makes a run the same on any machine load.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: _finite(entry) for name, entry in value.items()}
    return [_finite(entry) for entry in value] if isinstance(value, list) else value
