"""A model fitted over a range of strengths, from where the penalty holds every weight at zero downwards."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from wellposed.errors import WellposedError
from wellposed.penalties.attach import Handle, regularize
from wellposed.penalties.base import Penalty
from wellposed.penalties.checks import strength
from wellposed.penalties.plan import Where

Loss = Callable[[Tensor, Tensor], Tensor]
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
        kkt: How far each fit is from stationary, as :meth:`Penalty.kkt` measures it: the largest over the parameters.
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
            raise WellposedError("the path was fitted without validation data; give path(..., validation=(x, y))")
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


def path(
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
    tolerance: float = 1e-6,
    smallest: float = 1e-3,
) -> PathResult:
    """Fit a model for one strength after another, each from where the last one ended.

    Strengths multiply ``penalty``, so give it with strength 1: ``path(model_fn, data, L1(1.0))``. Training takes all
    the data at each step, with proximal steps, until the fit is stationary or ``steps`` are over.

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
        optimizer: Makes the optimizer of a list of parameters; Adam with lr 0.05 when ``None``.
        steps: How many steps a strength gets at most.
        tolerance: A fit counts as stationary when its KKT residual is at most this share of the largest gradient that
            the penalty holds at zero.
        smallest: The last strength as a share of the first, where they are spread.

    Returns:
        The fits; ``kkt`` says how good they are.

    Raises:
        WellposedError: If an argument is not as above, or all weights are at zero for every strength.

    Example:
        >>> from wellposed.penalties import L1
        >>> x = torch.eye(3)
        >>> y = torch.tensor([[3.0], [1.0], [0.0]])
        >>> fits = path(lambda: torch.nn.Linear(3, 1, bias=False), (x, y), L1(1.0), 5, smallest=0.1)
        >>> fits.zeros
        [3, 2, 1, 1, 1]

    Source: Friedman, Hastie and Tibshirani (2010).
    """
    x, y = data
    criterion = loss or (nn.functional.mse_loss if y.is_floating_point() else nn.functional.cross_entropy)
    model = model_fn()
    make = optimizer or (lambda parameters: torch.optim.Adam(parameters, lr=0.05))
    if not (isinstance(steps, int) and steps >= 1 and 0 < smallest < 1 and tolerance > 0):
        raise WellposedError(
            f"path was given steps={steps!r}, tolerance={tolerance!r}, smallest={smallest!r}; expected steps >= 1, "
            "tolerance > 0 and smallest in (0, 1)"
        )
    fit = _Fit(model, make, criterion, x, y, penalty, where, steps, tolerance)
    largest = fit.lambda_max()
    if isinstance(lambdas, int):
        if lambdas < 2:
            raise WellposedError(f"path was given lambdas={lambdas}; expected at least 2, or the strengths themselves")
        strengths = [largest * smallest ** (i / (lambdas - 1)) for i in range(lambdas)]
    else:
        strengths = sorted((float(strength(lam, "lambdas")) for lam in lambdas), reverse=True)
    judge = score or criterion
    rows = []
    for lam in strengths:
        residual = fit.to(lam, largest)
        rows.append(
            (
                {name: p.detach().clone() for name, p in fit.penalised.items()},
                judge_on(model, judge, data),
                None if validation is None else judge_on(model, judge, validation),
                residual,
                {name: value.detach().clone() for name, value in model.state_dict().items()},
            )
        )
    return PathResult(
        strengths,
        {name: torch.stack([row[0][name] for row in rows]) for name in fit.penalised},
        [sum(int((p == 0).sum()) for p in row[0].values()) for row in rows],
        [row[1] for row in rows],
        [row[2] for row in rows if row[2] is not None],
        [row[3] for row in rows],
        [row[4] for row in rows],
    )


@torch.no_grad()
def judge_on(model: nn.Module, score: Loss, data: Data) -> float:
    """The score of a model in evaluation mode."""
    was_training = model.training
    model.eval()
    try:
        return float(score(model(data[0]), data[1]))
    finally:
        model.train(was_training)


@dataclass
class _Fit:
    """One model and how it is trained."""

    model: nn.Module
    make: Callable[[Any], torch.optim.Optimizer]
    loss: Loss
    x: Tensor
    y: Tensor
    penalty: Penalty
    where: Where
    steps: int
    tolerance: float

    def __post_init__(self) -> None:
        handle = self._attach(self._optimizer(), 1.0)
        handle.remove()
        chosen = {row.name for row in handle.plan if row.penalty is not None}
        self.penalised = {name: p for name, p in self.model.named_parameters() if name in chosen}

    def lambda_max(self) -> float:
        """The strength from which on all penalised weights are zero, once the others are fitted."""
        with torch.no_grad():
            for p in self.penalised.values():
                p.zero_()
        held = {id(p) for p in self.penalised.values()}
        free = [p for p in self.model.parameters() if p.requires_grad and id(p) not in held]
        if free:
            optimizer = self.make(free)
            for _ in range(self.steps):
                self._gradients()
                optimizer.step()
        self._gradients()
        pulls = [self.penalty.lambda_max(p.grad) for p in self.penalised.values() if p.grad is not None]
        largest = max(pulls, default=0.0)
        if largest == 0:
            raise WellposedError(
                "path found no gradient on the penalised weights at zero; they would stay zero throughout"
            )
        # The others are fitted to rounding only, so a hair more makes sure that zero is kept.
        return largest * (1 + 1e-9)

    def to(self, lam: float, largest: float) -> float:
        """Train at one strength from where the model stands, and return the KKT residual."""
        optimizer = self._optimizer()
        handle = self._attach(optimizer, lam)
        residual = math.inf
        every = 25
        for step in range(self.steps + 1):
            self._gradients()
            if step % every == 0 or step == self.steps:
                residual = self._residual(lam)
                if residual <= self.tolerance * largest:
                    break
            if step < self.steps:
                optimizer.step()
        handle.remove()
        return residual

    def _residual(self, lam: float) -> float:
        penalty = lam * self.penalty
        residuals = [float(penalty.kkt(p.detach(), p.grad)) for p in self.penalised.values() if p.grad is not None]
        held = {id(p) for p in self.penalised.values()}
        free = [float(p.grad.abs().amax()) for p in self.model.parameters() if p.grad is not None and id(p) not in held]
        return max(residuals + free)

    def _optimizer(self) -> torch.optim.Optimizer:
        return self.make([p for p in self.model.parameters() if p.requires_grad])

    def _attach(self, optimizer: torch.optim.Optimizer, lam: float) -> Handle:
        return regularize(optimizer, self.model, lam * self.penalty, where=self.where)

    def _gradients(self) -> None:
        self.model.zero_grad()
        value = self.loss(self.model(self.x), self.y)
        if value.ndim:
            raise WellposedError(f"the loss returned a tensor of shape {tuple(value.shape)}; expected a scalar")
        torch.autograd.backward(value)
