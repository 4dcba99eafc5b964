"""What the scales of signal and gradient say, in plain words: means over the seeds, measured before training."""

import statistics

from wellposed.study.results.summary import Summary
from wellposed.study.training.network import ACTIVATIONS
from wellposed.study.words import count, factor, join, share

_ALIKE = 1.1  # starts whose gradients fade within this factor of each other are named together


def of_he(rows: list[Summary]) -> str | None:
    """Whether the chapter's He loses the signal that the paper's keeps."""
    chapter, paper = (_start(rows, "relu", name)["signal"] for name in ("he_chapter", "he"))
    lost, kept, theory = (_a_layer(scale) for scale in (chapter["measured"], paper["measured"], chapter["predicted"]))
    if lost is None or kept is None or theory is None or not (lost < 0.6 and 0.7 < kept < 1.4):
        return None
    hidden = chapter["measured"][:-1]
    return (
        f"On ReLU, the chapter's He bound multiplies the signal's mean square by {lost:.2f} a layer (theory: "
        f"{theory:.2f}): after {count(len(hidden), 'hidden layer')} it is {factor(hidden[-1] ** 2 / hidden[0] ** 2)} "
        f"of what it was after the first. He's own bound multiplies it by {kept:.2f}."
    )


def vanishing_gradient(rows: list[Summary]) -> str | None:
    """The starts whose gradient fades most on its way back, on the network where one fades most."""
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


def theory(rows: list[Summary]) -> str | None:
    """How far the measured scales are from the predicted ones.

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
        f"Theory predicts the scale of signal and gradient at a layer to within {share(statistics.median(off))} on "
        f"median and {share(max(off))} at worst, over {len(off)} measured scales."
    )


def _start(rows: list[Summary], activation: str, start: str) -> Summary:
    return next(row for row in rows if (row["activation"], row["start"]) == (activation, start))


def _a_layer(scales: list[float | None]) -> float | None:
    """The factor by which the mean square grows from one hidden layer to the next."""
    hidden = scales[:-1]
    if len(hidden) < 2 or not hidden[0] or not hidden[-1]:
        return None
    return float((hidden[-1] / hidden[0]) ** (2 / (len(hidden) - 1)))
