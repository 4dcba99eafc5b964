"""One model, fitted to all its data at one strength of a penalty after another."""

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from wellposed.errors import WellposedError
from wellposed.penalties.optim.regularizing import plan_regularize, regularize
from wellposed.penalties.optim.selection import Where
from wellposed.penalties.path.descent import Objective, curvature, descend
from wellposed.penalties.penalty import Penalty
from wellposed.random.shards import is_sharded

Loss = Callable[[Tensor, Tensor], Tensor]
_EVERY = 25  # steps of a given optimizer between looks at how far it is


@dataclass
class Fit:
    """One model and how it is trained.

    Args:
        model: The model.
        loss: (outputs, targets) -> scalar.
        x: The inputs.
        y: The targets.
        penalty: The penalty at strength 1.
        where: Which parameters are penalised.
        make: Makes the optimizer of a list of parameters; ``None`` for :func:`descend`.
        steps: How many steps a fit gets at most.
        tolerance: The fraction of the largest gradient at zero that a residual may be; ``None`` by the model's dtype.
    """

    model: nn.Module
    loss: Loss
    x: Tensor
    y: Tensor
    penalty: Penalty
    where: Where
    make: Callable[[Any], torch.optim.Optimizer] | None
    steps: int
    tolerance: float | None

    def __post_init__(self) -> None:
        sharded = next((name for name, p in self.model.named_parameters() if is_sharded(p)), None)
        if sharded is not None:
            raise WellposedError(
                f"regularization_path was given a model with sharded parameters ({sharded}, ...); it fits models that "
                "one process holds whole: shard none in model_fn"
            )
        self.trained = [p for p in self.model.parameters() if p.requires_grad]
        plan = plan_regularize(self._optimizer(), self.model, self.penalty, where=self.where)
        chosen = {row.name for row in plan if row.penalty is not None}
        self.penalised = {name: p for name, p in self.model.named_parameters() if name in chosen}
        self._held = {id(p) for p in self.penalised.values()}
        self._free = [p for p in self.trained if id(p) not in self._held]
        self._fraction = self.tolerance or max(1e-9, *(64 * torch.finfo(p.dtype).eps for p in self.trained))
        self._goal = math.inf
        if self.make is None:
            self._refuse_chance()

    def rest(self) -> None:
        """Set what is penalised to zero and fit the others."""
        with torch.no_grad():
            for p in self.penalised.values():
                p.zero_()
        self._gradients()
        unfitted = self._pull()
        # The free parameters may start far off, where gradients are large: how good is good enough shows once they fit.
        for _ in range(2 if self._free else 0):
            self._goal = self._fraction * self._pull()
            self._train(self._free, 0.0)
            self._gradients()
        if self._pull() <= self._fraction * unfitted:
            raise WellposedError(
                "the penalised weights have no gradient at zero, so they would stay zero throughout. Where there are "
                "several layers, penalise the first layer alone, as in where='0.weight'"
            )
        self._goal = self._fraction * self._pull()

    def lambda_max(self) -> float:
        """The strength from which on all that is penalised stays at rest."""
        largest = max(self.penalty.lambda_max(p.grad) for p in self.penalised.values() if p.grad is not None)
        # Gradients are known to rounding only, so a little more makes sure that zero is kept.
        return largest * (1 + self._fraction)

    def to(self, lam: float) -> float:
        """Train at one strength from where the model stands, and return the KKT residual."""
        return self._train(self.trained, lam)

    def warn(self, residuals: dict[float, float]) -> None:
        """Warn of the strengths whose fits are not stationary."""
        poor = {lam: residual for lam, residual in residuals.items() if not residual <= self._goal}
        if poor:
            named = ", ".join(f"{lam:.6g} (residual {residual:.2g})" for lam, residual in poor.items())
            warnings.warn(
                f"regularization_path ended with fits that are not stationary, with a residual above {self._goal:.2g}, "
                f"at strengths {named}; give more steps, another optimizer, a greater tolerance, or data of a more "
                "even scale",
                RuntimeWarning,
                stacklevel=3,
            )

    def _train(self, parameters: list[nn.Parameter], lam: float) -> float:
        """Fit ``parameters`` and return the KKT residual."""
        scales = [self._scale(p) for p in parameters]
        if self.make is not None:
            return self._optimize(self._optimizer(parameters), parameters, lam, scales)
        residual = self._residual(parameters, lam, scales)
        if residual > self._goal:
            problem = self._objective(parameters, lam, scales)
            # What is left is measured entry by entry after one more prox, so it aims a little lower.
            end = descend(problem, _packed(parameters) / problem.unit, self._goal / 2, self.steps)
            _unpack(end * problem.unit, parameters)
            residual = self._residual(parameters, lam, scales)
        return residual

    def _scale(self, parameter: nn.Parameter) -> float:
        """The scale of one parameter in which the loss has curvature 1, so that all curve alike."""
        start = _packed([parameter])
        found = curvature(self._objective([parameter], 0.0, [1.0]), start)
        _unpack(start, [parameter])
        return float(found**-0.5)

    def _optimize(
        self, by: torch.optim.Optimizer, parameters: list[nn.Parameter], lam: float, scales: list[float]
    ) -> float:
        held = [(name, p) for name, p in self.penalised.items() if lam and any(p is q for q in parameters)]
        handle = regularize(by, held, lam * self.penalty, where="all") if held else None
        residual = math.inf
        for i in range(self.steps + 1):
            self._gradients()
            if i % _EVERY == 0 or i == self.steps:
                residual = self._residual(parameters, lam, scales)
                if residual <= self._goal:
                    break
            if i < self.steps:
                by.step()
        if handle is not None:
            handle.remove()
        return residual

    def _residual(self, parameters: list[nn.Parameter], lam: float, scales: list[float]) -> float:
        self._gradients()
        scaled = lam * self.penalty
        return max(
            float(scaled.kkt(p.detach(), p.grad, scale**2) if id(p) in self._held else p.grad.abs().amax())
            for p, scale in zip(parameters, scales, strict=True)
            if p.grad is not None
        )

    def _objective(self, parameters: list[nn.Parameter], lam: float, scales: list[float]) -> Objective:
        """Loss and penalty as functions of the parameters' entries, each parameter's counted in its scale."""
        scaled = lam * self.penalty
        unit = torch.cat([torch.full_like(_packed([p]), s) for p, s in zip(parameters, scales, strict=True)])

        def loss(x: Tensor) -> tuple[float, Tensor]:
            _unpack(x * unit, parameters)
            value = self._gradients()
            grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
            return value, _packed(grads) * unit

        def prox(x: Tensor, step: float) -> Tensor:
            moved = [
                scaled.prox(w, step * scale**2) if id(p) in self._held else w
                for w, p, scale in zip(_pieces(x * unit, parameters), parameters, scales, strict=True)
            ]
            return _packed(moved) / unit

        def penalty(x: Tensor) -> float:
            pieces = zip(_pieces(x * unit, parameters), parameters, strict=True)
            return sum(float(scaled.value(w)) for w, p in pieces if id(p) in self._held)

        return Objective(loss, prox, penalty, unit)

    def _pull(self) -> float:
        return max((float(p.grad.abs().amax()) for p in self.penalised.values() if p.grad is not None), default=0.0)

    def _optimizer(self, parameters: list[nn.Parameter] | None = None) -> torch.optim.Optimizer:
        return (self.make or torch.optim.SGD)(self.trained if parameters is None else parameters)

    def _gradients(self) -> float:
        self.model.zero_grad()
        value = self.loss(self.model(self.x), self.y)
        if value.ndim:
            raise WellposedError(f"the loss returned a tensor of shape {tuple(value.shape)}; expected a scalar")
        torch.autograd.backward(value)
        return float(value.detach())

    def _refuse_chance(self) -> None:
        first, second = self._gradients(), self._gradients()
        rounding = max(torch.finfo(p.dtype).eps for p in self.trained)
        if abs(first - second) > 1e3 * rounding * abs(first):
            raise WellposedError(
                f"the loss was {first} at one evaluation and {second} at the next, as with dropout; its own steps "
                "compare losses: give an optimizer, as in optimizer=lambda p: torch.optim.Adam(p, lr=1e-3), or a model "
                "without chance"
            )


def _packed(tensors: Sequence[Tensor]) -> Tensor:
    """All entries in one real vector, in the largest of the tensors' dtypes and at least float32."""
    real = [torch.view_as_real(t) if t.is_complex() else t for t in (t.detach() for t in tensors)]
    return torch.cat([t.reshape(-1).to(torch.promote_types(t.dtype, torch.float32)) for t in real])


def _pieces(x: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """The vector's entries in the tensors' shapes, real where they are real."""
    sizes = [t.numel() * (2 if t.is_complex() else 1) for t in like]
    return [
        torch.view_as_complex(part.view(*t.shape, 2)) if t.is_complex() else part.view(t.shape)
        for part, t in zip(x.split(sizes), like, strict=True)
    ]


@torch.no_grad()
def _unpack(x: Tensor, parameters: Sequence[Tensor]) -> None:
    for piece, p in zip(_pieces(x, parameters), parameters, strict=True):
        p.copy_(piece)
