"""``regularization_path``: fits from the strength at which every weight is zero downwards."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from wellposed.arguments import nonnegative
from wellposed.errors import WellposedError
from wellposed.penalties.optim.selection import Where
from wellposed.penalties.path.fits import Fit, Loss
from wellposed.penalties.penalty import Penalty

Data = tuple[Tensor, Tensor]


@dataclass(frozen=True, eq=False)
class PathResult:
    """What a model came to at each strength.

    Args:
        lambdas: The strengths, largest first.
        coefficients: For each penalised parameter its values, of shape (strengths, ...).
        zeros: How many of these values are exactly 0.
        train: The score on the training data.
        validation: The score on the validation data; empty if there were none.
        kkt: How far each fit is from stationary, as :meth:`Penalty.kkt` measures it with a step size that is 1 over the
            loss's curvature: the largest over the parameters.
        states: The model's ``state_dict`` at each strength.
    """

    lambdas: list[float]
    coefficients: dict[str, Tensor]
    zeros: list[int]
    train: list[float]
    validation: list[float]
    kkt: list[float]
    states: list[dict[str, Tensor]] = field(repr=False)

    @property
    def best(self) -> int:
        """Which strength has the least validation score.

        Raises:
            WellposedError: If there were no validation data.
        """
        if not self.validation:
            raise WellposedError(
                "the path was fitted without validation data; give regularization_path(..., validation=(x, y))"
            )
        return min(range(len(self.lambdas)), key=self.validation.__getitem__)

    def to_dict(self) -> dict[str, Any]:
        """Everything but the states, in plain numbers and text, ready for JSON."""
        return {
            "lambdas": self.lambdas,
            "coefficients": {name: values.tolist() for name, values in self.coefficients.items()},
            "zeros": self.zeros,
            "train": self.train,
            "validation": self.validation,
            "kkt": self.kkt,
        }

    def plot(self, most: int = 60) -> Any:
        """Draw coefficients and scores over the strengths. Needs matplotlib.

        Args:
            most: How many coefficients to draw at most: those that grow largest.

        Returns:
            A ``matplotlib.figure.Figure``.
        """
        from matplotlib.figure import Figure

        figure = Figure(figsize=(8, 7), layout="constrained")
        above, below = figure.subplots(2, 1, sharex=True)
        values = torch.cat([v.flatten(1) for v in self.coefficients.values()], 1)
        for i in values.abs().amax(0).argsort(descending=True)[:most].tolist():
            above.plot(self.lambdas, values[:, i].tolist(), linewidth=1)
        above.set_ylabel("weight")
        below.plot(self.lambdas, self.train, label="training")
        if self.validation:
            below.plot(self.lambdas, self.validation, label="validation")
            below.axvline(self.lambdas[self.best], color="grey", linestyle=":", label="least validation score")
        below.set(xlabel="strength", ylabel="score", xscale="log")
        below.invert_xaxis()
        below.legend()
        return figure


def regularization_path(
    model_fn: Callable[[], nn.Module],
    data: Data,
    penalty: Penalty,
    lambdas: Sequence[float] | int = 30,
    *,
    validation: Data | None = None,
    loss: Loss | None = None,
    score: Loss | None = None,
    where: Where = "weights",
    optimizer: Callable[[Any], torch.optim.Optimizer] | None = None,
    steps: int = 2000,
    tolerance: float | None = None,
    smallest: float = 1e-3,
) -> PathResult:
    """Fit a model for one strength after another, each from where the last one ended.

    Strengths multiply ``penalty``, so give it with strength 1, as in ``L1(1.0)``. Training takes all the data at each
    step, with proximal steps, until the fit is stationary or ``steps`` are over. Before the first strength is taken,
    what is not penalised is fitted with all else at zero.

    Args:
        model_fn: Makes the model.
        data: Inputs and targets, as tensors.
        penalty: The penalty at strength 1.
        lambdas: The strengths; or how many to spread evenly in logarithm from the one that just holds all weights at
            zero down to ``smallest`` times it.
        validation: Inputs and targets to score on.
        loss: (outputs, targets) -> scalar; the mean squared error for floating-point targets, the mean cross entropy
            for integers when ``None``.
        score: (outputs, targets) -> scalar, smaller is better; the loss when ``None``.
        where: Which parameters are penalised, as for :func:`regularize`.
        optimizer: Makes the optimizer of a list of parameters; when ``None``, quasi-Newton steps whose size follows the
            loss's curvature. These need a loss that is the same at each evaluation, so dropout needs an optimizer.
        steps: How many steps a strength gets at most.
        tolerance: A fit counts as stationary when its KKT residual is at most this fraction of the largest gradient
            that the penalty holds at zero; 1e-9, or 64 times the model's dtype's eps if that is more, when ``None``.
        smallest: The last strength as a fraction of the first, where they are spread.

    Returns:
        The fits; ``kkt`` says how good they are.

    Raises:
        WellposedError: If an argument is not as above, or all weights are at zero for every strength.

    Warns:
        RuntimeWarning: If fits ended before they were stationary; it names their strengths.

    Example:
        >>> from wellposed.penalties import L1
        >>> x = torch.eye(3)
        >>> y = torch.tensor([[3.0], [1.0], [0.0]])
        >>> fits = regularization_path(lambda: torch.nn.Linear(3, 1, bias=False), (x, y), L1(1.0), 5, smallest=0.1)
        >>> fits.zeros
        [3, 2, 1, 1, 1]

    Source: Friedman, Hastie and Tibshirani (2010).
    """
    given = _given(lambdas)
    if not (isinstance(steps, int) and steps >= 1 and 0 < smallest < 1 and (tolerance is None or tolerance > 0)):
        raise WellposedError(
            f"regularization_path was given steps={steps!r}, tolerance={tolerance!r}, smallest={smallest!r}; expected "
            "steps >= 1, tolerance > 0 and smallest in (0, 1)"
        )
    x, y = data
    criterion = loss or (nn.functional.mse_loss if y.is_floating_point() else nn.functional.cross_entropy)
    model = model_fn()
    fit = Fit(model, criterion, x, y, penalty, where, optimizer, steps, tolerance)
    fit.rest()
    strengths = _spread(fit.lambda_max(), smallest, given) if isinstance(given, int) else given
    judge = score or criterion
    rows = []
    for lam in strengths:
        residual = fit.to(lam)
        rows.append(
            (
                {name: p.detach().clone() for name, p in fit.penalised.items()},
                _judge(model, judge, data),
                None if validation is None else _judge(model, judge, validation),
                residual,
                {name: value.detach().clone() for name, value in model.state_dict().items()},
            )
        )
    fit.warn({lam: row[3] for lam, row in zip(strengths, rows, strict=True)})
    return PathResult(
        strengths,
        {name: torch.stack([row[0][name] for row in rows]) for name in fit.penalised},
        [sum(int((p == 0).sum()) for p in row[0].values()) for row in rows],
        [row[1] for row in rows],
        [row[2] for row in rows if row[2] is not None],
        [row[3] for row in rows],
        [row[4] for row in rows],
    )


def _given(lambdas: Sequence[float] | int) -> list[float] | int:
    """The strengths, largest first, or how many of them to spread."""
    if isinstance(lambdas, int) and not isinstance(lambdas, bool) and lambdas >= 2:
        return lambdas
    if isinstance(lambdas, str) or not isinstance(lambdas, Iterable) or not (several := list(lambdas)):
        raise WellposedError(
            f"regularization_path was given lambdas={lambdas!r}; expected at least 2, or the strengths in a list"
        )
    return sorted((float(nonnegative(lam, "lambdas")) for lam in several), reverse=True)


def _spread(largest: float, smallest: float, count: int) -> list[float]:
    return [largest * smallest ** (i / (count - 1)) for i in range(count)]


@torch.no_grad()
def _judge(model: nn.Module, score: Loss, data: Data) -> float:
    """The score of a model in evaluation mode."""
    was_training = model.training
    model.eval()
    try:
        return float(score(model(data[0]), data[1]))
    finally:
        model.train(was_training)
