"""The step sizes of each optimizer's latest step, which make the metric of the proximal step after it.

An optimizer moves a weight by -D m, where m estimates the gradient and D is diagonal. For the penalised problem to keep
its solution, the prox has to be taken in the metric D^-1, that is with step sizes D.

Source: Yun, Lozano and Yang (2021) for proximal steps in an adaptive metric.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from wellposed.arguments import Number, nonnegative
from wellposed.errors import WellposedError
from wellposed.penalties.computing.root_step import RootStep

Step = Number | RootStep
StepSize = Callable[[dict[str, Any], dict[str, Any], Tensor], Step]
"""(group, state, parameter) -> D: a number, or a tensor of the parameter's shape."""


@dataclass(frozen=True)
class Metric:
    """How to read an optimizer's step sizes.

    Args:
        name: What it is called in messages.
        step: The step sizes of one parameter, after the optimizer's step.
        diagonal: Whether they differ from element to element.
        options: What it reads of a parameter group.
        trusted: Whether its step sizes are known to be numbers >= 0.
    """

    name: str
    step: StepSize
    diagonal: bool = True
    options: tuple[str, ...] = ("lr",)
    trusted: bool = True

    def refuse_misfits(self, optimizer: torch.optim.Optimizer) -> None:
        """Refuse an optimizer of which the step sizes cannot be read, before it moves anything.

        Raises:
            WellposedError: If a group lacks an option, or has a momentum from which there is no way back.
        """
        for group in optimizer.param_groups:
            missing = [option for option in self.options if option not in group]
            if missing:
                raise WellposedError(
                    f"{type(optimizer).__name__} was given the metric of {self.name}, which reads {', '.join(missing)} "
                    f"but has {', '.join(sorted(set(group) - {'params'}))}; name an optimizer that it steps "
                    "like, give a callable (group, state, parameter) -> step sizes, or use mode='gradient'"
                )
            if "momentum" in self.options and not group["momentum"] < 1:
                raise WellposedError(
                    f"{type(optimizer).__name__} has momentum={group['momentum']}, under which its steps never settle; "
                    "expected less than 1 for mode='proximal'"
                )

    def of(self, group: dict[str, Any], state: dict[str, Any], parameter: Tensor) -> Step:
        """The step sizes of one parameter, after the optimizer's step.

        Raises:
            WellposedError: If the optimizer keeps another state than the one whose metric this is.
        """
        try:
            step = self.step(group, state, parameter)
        except KeyError as error:
            raise WellposedError(
                f"the metric of {self.name} reads {error}, which the optimizer does not keep (it keeps "
                f"{', '.join(map(str, state)) or 'nothing'}); name an optimizer that it steps like"
            ) from error
        # What a callable of the user's gives is looked at where a look does not wait for an accelerator.
        if self.trusted or isinstance(step, RootStep) or (isinstance(step, Tensor) and not step.is_cpu):
            return step
        return nonnegative(step, "the metric's step size")


def learning_rate(group: dict[str, Any]) -> Number:
    """A group's learning rate, without the dimension of one that a tensor may have."""
    lr: Number = group["lr"]
    return lr.reshape(()) if isinstance(lr, Tensor) else lr


def sgd(group: dict[str, Any], state: dict[str, Any], parameter: Tensor) -> Step:
    """The step size lr * (1 - dampening) / (1 - momentum).

    The momentum buffer of a steady gradient g settles at g * (1 - dampening) / (1 - momentum), with Nesterov's variant
    too; a threshold of lr alone would solve the problem with a strength (1 - momentum) times too small.
    """
    settled: float = (1 - group["dampening"]) / (1 - group["momentum"]) if group["momentum"] else 1.0
    return learning_rate(group) * settled


def adam(group: dict[str, Any], state: dict[str, Any], parameter: Tensor) -> Step:
    """Adam and AdamW: lr / (sqrt(v / (1 - beta2^t)) + eps), v the gradient's mean square (AMSGrad: its largest)."""
    second = state["max_exp_avg_sq" if group["amsgrad"] else "exp_avg_sq"]
    return RootStep(learning_rate(group), second, (1 - group["betas"][1] ** _steps(state)) ** -0.5, group["eps"])


def nadam(group: dict[str, Any], state: dict[str, Any], parameter: Tensor) -> Step:
    """NAdam: as Adam, times what its two momentum terms weigh a steady gradient by between them."""
    steps, (beta1, beta2) = _steps(state), group["betas"]
    now, later = (beta1 * (1 - 0.5 * 0.96 ** (t * group["momentum_decay"])) for t in (steps, steps + 1))
    product = _read(state["mu_product"])
    weight = (1 - now) / (1 - product) + later * (1 - beta1**steps) / (1 - product * later)
    return RootStep(learning_rate(group) * weight, state["exp_avg_sq"], (1 - beta2**steps) ** -0.5, group["eps"])


def radam(group: dict[str, Any], state: dict[str, Any], parameter: Tensor) -> Step:
    """RAdam: lr * r * sqrt(1 - beta2^t) / (sqrt(v) + eps) once the rectifier r is defined, lr before."""
    steps, beta = _steps(state), group["betas"][1]
    limit = 2 / (1 - beta) - 1
    length = limit - 2 * steps * beta**steps / (1 - beta**steps)
    if isinstance(length, Tensor):
        rectifier = ((length - 4) * (length - 2) * limit / ((limit - 4) * (limit - 2) * length)).clamp(min=0) ** 0.5
        adaptive = (
            learning_rate(group) * rectifier * (1 - beta**steps) ** 0.5 / (state["exp_avg_sq"].sqrt() + group["eps"])
        )
        return torch.where(length > 5, adaptive, learning_rate(group))
    if length <= 5:
        return learning_rate(group)
    rectifier = ((length - 4) * (length - 2) * limit / ((limit - 4) * (limit - 2) * length)) ** 0.5
    return RootStep(learning_rate(group) * rectifier * (1 - beta**steps) ** 0.5, state["exp_avg_sq"], 1.0, group["eps"])


def adamax(group: dict[str, Any], state: dict[str, Any], parameter: Tensor) -> Step:
    """Adamax: lr / u, u the decayed maximum of the gradient's size, which holds eps already."""
    largest = state["exp_inf"]
    step: Tensor = learning_rate(group) / (torch.view_as_real(largest) if largest.is_complex() else largest)
    return step


def rmsprop(group: dict[str, Any], state: dict[str, Any], parameter: Tensor) -> Step:
    """RMSprop: lr / (1 - momentum) / (sqrt(v) + eps), v less the squared mean gradient when centred."""
    second = state["square_avg"]
    if group["centered"]:
        mean = state["grad_avg"]
        if second.is_complex():
            second, mean = torch.view_as_real(second), torch.view_as_real(mean)
        second = second.addcmul(mean, mean, value=-1)
    return RootStep(learning_rate(group) / (1 - group["momentum"]), second, 1.0, group["eps"])


def adagrad(group: dict[str, Any], state: dict[str, Any], parameter: Tensor) -> Step:
    """Adagrad: lr / (1 + (t - 1) * lr_decay) / (sqrt(sum of squares) + eps)."""
    lr = learning_rate(group) / (1 + (_steps(state) - 1) * group["lr_decay"])
    return RootStep(lr, state["sum"], 1.0, group["eps"])


METRICS: dict[type[torch.optim.Optimizer], Metric] = {
    torch.optim.SGD: Metric("SGD", sgd, diagonal=False, options=("lr", "momentum", "dampening")),
    torch.optim.Adam: Metric("Adam", adam, options=("lr", "betas", "eps", "amsgrad")),
    torch.optim.AdamW: Metric("AdamW", adam, options=("lr", "betas", "eps", "amsgrad")),
    torch.optim.NAdam: Metric("NAdam", nadam, options=("lr", "betas", "eps", "momentum_decay")),
    torch.optim.RAdam: Metric("RAdam", radam, options=("lr", "betas", "eps")),
    torch.optim.Adamax: Metric("Adamax", adamax),
    torch.optim.RMSprop: Metric("RMSprop", rmsprop, options=("lr", "momentum", "eps", "centered")),
    torch.optim.Adagrad: Metric("Adagrad", adagrad, options=("lr", "lr_decay", "eps")),
}


def euclidean(group: dict[str, Any], state: dict[str, Any], parameter: Tensor) -> Step:
    """The learning rate, whatever the optimizer."""
    return learning_rate(group)


EUCLIDEAN = Metric("euclidean", euclidean, diagonal=False)
"""One step size, the learning rate, whatever the optimizer: a plain projected step for constraints."""

GivenMetric = type[torch.optim.Optimizer] | StepSize | Literal["euclidean"] | None


def metric_for(optimizer: torch.optim.Optimizer, given: GivenMetric) -> Metric:
    """The metric of ``optimizer``: the one that is known for exactly its type, or the one that the user names.

    Args:
        optimizer: The optimizer.
        given: ``None``, a known optimizer type to treat it as, "euclidean", or a callable that returns the step sizes.

    Raises:
        WellposedError: If the metric is unknown. It is never guessed, since a wrong one solves another problem.
    """
    if given == "euclidean":
        return EUCLIDEAN
    kind = type(optimizer) if given is None else given
    if isinstance(kind, type):
        if kind in METRICS:
            return METRICS[kind]
        known = ", ".join(t.__name__ for t in METRICS)
        raise WellposedError(
            f"the metric of {kind.__name__} is not known, and mode='proximal' needs it (known: {known}); name the one "
            "to take, as in metric=torch.optim.SGD, give a callable (group, state, parameter) -> step sizes, or use "
            "mode='gradient'"
        )
    if not callable(kind):
        raise WellposedError(f"metric was given {kind!r}; expected an optimizer type, 'euclidean' or a callable")
    return Metric(getattr(kind, "__name__", repr(kind)), kind, options=(), trusted=False)


def _steps(state: dict[str, Any]) -> Any:
    return _read(state["step"])


def _read(count: Any) -> Any:
    """A number that an optimizer keeps, left as a tensor where reading it would wait for an accelerator."""
    return count.item() if isinstance(count, Tensor) and count.is_cpu else count
