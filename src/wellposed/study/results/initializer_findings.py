"""The findings on initialization: the scales of signal and gradient before training, and the scores after it."""

import statistics
from collections.abc import Callable

from wellposed.study.results.judge import Judge, Sentence
from wellposed.study.results.summary import Summary
from wellposed.study.training.network import ACTIVATIONS
from wellposed.study.wording import count, factor, join, percentage

_ALIKE = 1.1  # initializations whose gradients fade within this factor of each other are named together


def of_he(rows: list[Summary], judge: Judge) -> Sentence:
    """The decay of the signal's mean square under the textbook's bound for He, against the paper's."""
    chapter, paper = (_start(rows, "relu", name)["signal"] for name in ("he_chapter", "he"))
    lost, kept, theory = (_a_layer(scale) for scale in (chapter["measured"], paper["measured"], chapter["predicted"]))
    if lost is None or kept is None or theory is None or not (lost < 0.6 and 0.7 < kept < 1.4):
        return None
    hidden = chapter["measured"][:-1]
    return (
        f"On ReLU, weights within ±√(2/n), which some textbooks call He's, multiply the signal's mean square by "
        f"{lost:.2f} a layer (theory: {theory:.2f}): after {count(len(hidden), 'hidden layer')} it is "
        f"{factor(hidden[-1] ** 2 / hidden[0] ** 2)} of what it was after the first. He's own bound, ±√(6/n), "
        f"multiplies it by {kept:.2f}."
    )


def vanishing_gradient(rows: list[Summary], judge: Judge) -> Sentence:
    """The initializations under which the gradient vanishes fastest, on the network where it does."""
    faded = []
    for row in rows:
        gradient = row["gradient"]["measured"]
        if len(gradient) > 2 and gradient[0] and gradient[-2]:
            faded.append((gradient[0] / gradient[-2], row))
    if not faded:
        return None
    least, worst = min(faded, key=lambda entry: entry[0])
    if least > 0.1:
        return None
    alike = [
        (ratio, row) for ratio, row in faded if row["activation"] == worst["activation"] and ratio <= _ALIKE * least
    ]
    return (
        f"On the {ACTIVATIONS[worst['activation']].label} network the gradient fades most with "
        f"{join([row['label'] for _, row in alike])}: at the first layer it is "
        f"{factor(least)}{'' if len(alike) == 1 else ' or little more'} as large as at the last hidden one."
    )


def best_start(activation: str) -> Callable[[list[Summary], Judge], Sentence]:
    """The rule that compares the initializations by the test score, on the network with one activation function."""

    def sentence(rows: list[Summary], judge: Judge) -> Sentence:
        wording, network = judge.wording, f"On the {ACTIVATIONS[activation].label} network"
        rivals = [row for row in rows if row["activation"] == activation]
        best = next(row for row in rivals if row["chosen"])
        lost = [row for row in rivals if row["validation"]["mean"] is None or row["test"]["mean"] is None]
        worse = [row for row in rivals if row is not best and judge.above(best["test"], row["test"])]
        if len(lost) == len(rivals):
            return f"{network} training diverged with every initializer{_on_a_seed(best)}."
        parts = []
        if worse:
            behind = join([f"{row['label']} ({wording.score(row['test'])})" for row in worse])
            parts.append(
                f"{network} validation chooses {best['label']}: {wording.scored(best['test'])} on test. Of the "
                f"{len(rivals) - 1} other initializers {len(worse)} {'is' if len(worse) == 1 else 'are'} clearly "
                f"behind: {behind}."
            )
        if lost:
            parts.append(
                f"{'Training' if parts else f'{network} training'} diverged with "
                f"{join([row['label'] for row in lost])}{_on_a_seed(best)}."
            )
        return " ".join(parts) or None

    return sentence


def theory(rows: list[Summary], judge: Judge) -> Sentence:
    """The relative errors of the predicted scales of signal and gradient.

    The gradient at the outputs is where the prediction starts from, and no evidence of it.
    """
    off = [
        abs(measured / predicted - 1)
        for row in rows
        for scale, end in ((row["signal"], None), (row["gradient"], -1))
        for measured, predicted in zip(scale["measured"][:end], scale["predicted"][:end], strict=True)
        if measured and predicted
    ]
    if not off or statistics.median(off) > 0.25:
        return None
    return (
        f"Theory predicts the scale of signal and gradient at a layer to within {percentage(statistics.median(off))} "
        f"on median and {percentage(max(off))} at worst, over {len(off)} measured scales."
    )


def _on_a_seed(row: Summary) -> str:
    return "" if len(row["test"]["values"]) == 1 else ", on one seed at least"


def _start(rows: list[Summary], activation: str, start: str) -> Summary:
    return next(row for row in rows if (row["activation"], row["start"]) == (activation, start))


def _a_layer(scales: list[float | None]) -> float | None:
    """The factor by which the mean square grows from one hidden layer to the next."""
    hidden = scales[:-1]
    if len(hidden) < 2 or not hidden[0] or not hidden[-1]:
        return None
    return float((hidden[-1] / hidden[0]) ** (2 / (len(hidden) - 1)))
