"""The study's dense network, and the root mean square of its signals and gradients, measured and predicted."""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from wellposed import dropouts, init
from wellposed.random.key import Key
from wellposed.study.plotting.svg import Style


@dataclass(frozen=True)
class NamedActivation:
    """An activation function and its name in figures.

    Attributes:
        label: Its name in tables and figures.
        function: Elementwise.
    """

    label: str
    function: Callable[[Tensor], Tensor]


ACTIVATIONS: Mapping[str, NamedActivation] = {
    "tanh": NamedActivation("tanh", torch.tanh),
    "relu": NamedActivation("ReLU", torch.relu),
}


@dataclass(frozen=True)
class Initialization:
    """The initializers of a network's weights and biases, and their style in figures.

    Attributes:
        label: Its name in tables and figures.
        style: How it is drawn.
        weight: The initializer of each weight.
        bias: That of each bias, given the shape of its layer's weight; zeros unless said.
    """

    label: str
    style: Style
    weight: init.Initializer
    bias: Callable[[Sequence[int]], init.Initializer] = lambda shape: init.Zeros()


@dataclass(frozen=True)
class DropoutMask:
    """The dropout mask of one forward pass: each hidden unit is dropped with probability p, as key and call say."""

    p: float
    key: Key
    call: int


class DenseNetwork(nn.Module):
    """Dense layers with one activation function between them.

    Args:
        sizes: Inputs, the width of each hidden layer, outputs.
        activation: A key of ``ACTIVATIONS``.
    """

    def __init__(self, sizes: Sequence[int], activation: str) -> None:
        super().__init__()
        # On the meta device torch's own initialization does not draw from the global generator.
        self.layers = nn.ModuleList(nn.Linear(i, o, device="meta").to_empty(device="cpu") for i, o in pairwise(sizes))
        self.activation = activation

    def start_(self, start: Initialization, key: Key) -> "DenseNetwork":
        """Initialize every weight and bias in place; each layer has a key of its own."""
        for number, layer in enumerate(self._linears()):
            start.weight.fill_(layer.weight, key.fold(number, "weight"))
            start.bias(layer.weight.shape).fill_(layer.bias, key.fold(number, "bias"))
        return self

    def forward(self, x: Tensor, mask: DropoutMask | None = None) -> Tensor:
        """The outputs, shape (rows, outputs), of the network thinned by a dropout mask where one is given."""
        return self._forward(x, mask)[-1]

    def signals(self, x: Tensor) -> list[Tensor]:
        """The pre-activations of each layer, and the outputs last."""
        return self._forward(x, None)

    def weights(self) -> list[Tensor]:
        """The weights, detached, first layer first; they share memory with the network."""
        return [layer.weight.detach() for layer in self._linears()]

    def _linears(self) -> list[nn.Linear]:
        return [layer for layer in self.layers if isinstance(layer, nn.Linear)]

    def _forward(self, x: Tensor, mask: DropoutMask | None) -> list[Tensor]:
        activate = ACTIVATIONS[self.activation].function
        *hidden, last = self.layers
        signals = []
        for number, layer in enumerate(hidden):
            signals.append(layer(x))
            x = activate(signals[-1])
            if mask is not None:
                x = dropouts.dropout(x, mask.p, key=_units(mask.key, number), call=mask.call)
        signals.append(last(x))
        return signals


@dataclass(frozen=True)
class Scales:
    """Root mean squares of pre-activations and of their gradients, one a layer, the outputs last.

    Attributes:
        signal: Of the pre-activations.
        gradient: Of the gradient of one example's loss with respect to them.
    """

    signal: list[float]
    gradient: list[float]


def measure(network: DenseNetwork, x: Tensor, y: Tensor, loss: Callable[[Tensor, Tensor], Tensor]) -> Scales:
    """Measure the scales of a network's signals and gradients.

    Args:
        network: The network.
        x: Rows to send through it.
        y: Their targets.
        loss: The mean loss of outputs and targets.

    Returns:
        The measured scales.
    """
    signals = network.signals(x)
    gradients = torch.autograd.grad(loss(signals[-1], y) * len(x), signals)
    return Scales([_rms(s) for s in signals], [_rms(g) for g in gradients])


def predict(network: DenseNetwork, start: Initialization, x: Tensor, output_gradient: float) -> Scales:
    r"""Predict the scales that a network has before training, from its shape and its initializer's variance.

    With q_l the second moment of layer l's pre-activations, z ~ N(0, 1), and var_l the variance of layer l's weights,

    - forward: q_1 = fan_in var_1 mean(x^2), q_{l+1} = fan_in var_{l+1} E[phi(sqrt(q_l) z)^2], plus var(bias);
    - backward: g_l = fan_out var_{l+1} E[phi'(sqrt(q_l) z)^2] g_{l+1}, from the measured second moment at the outputs.

    Args:
        network: The network; its shape matters, its values do not.
        start: How it is initialized.
        x: The rows that are sent through it.
        output_gradient: The measured root mean square of the gradient at the outputs.

    Returns:
        The predicted scales.

    Source: Glorot & Bengio (2010), section 4.2; He et al. (2015), section 2.2; Poole et al. (2016) for the quadrature.
    """
    shapes = [tuple(weight.shape) for weight in network.weights()]
    variances = [start.weight.std_for(shape) ** 2 for shape in shapes]
    moments: list[float] = []
    carried = float(x.double().square().mean())
    for shape, variance in zip(shapes, variances, strict=True):
        bias = start.bias(shape).std_for((shape[0],)) ** 2
        moments.append(shape[1] * variance * carried + bias)
        carried = second_moment(network.activation, math.sqrt(moments[-1]))
    gradients = [output_gradient**2]
    for level in range(len(shapes) - 1, 0, -1):
        slope = second_moment(network.activation, math.sqrt(moments[level - 1]), derivative=True)
        gradients.append(shapes[level][0] * variances[level] * slope * gradients[-1])
    return Scales([math.sqrt(q) for q in moments], [math.sqrt(g) for g in reversed(gradients)])


@functools.lru_cache(maxsize=4096)
def second_moment(activation: str, scale: float, *, derivative: bool = False) -> float:
    """E[phi(scale z)^2] or E[phi'(scale z)^2] for z ~ N(0, 1), by quadrature.

    Args:
        activation: A key of ``ACTIVATIONS``.
        scale: The standard deviation of the pre-activations.
        derivative: Take phi' rather than phi.

    Returns:
        The second moment.

    Example:
        >>> round(second_moment("relu", 2.0), 9), round(second_moment("relu", 2.0, derivative=True), 9)
        (2.0, 0.5)
    """
    phi = ACTIVATIONS[activation].function
    if scale == 0:
        return float(derivative)
    moment = init.gain(lambda z: phi(scale * z), moment="backward" if derivative else "forward") ** -2
    return moment / scale**2 if derivative else moment


@functools.lru_cache(maxsize=4096)
def _units(key: Key, layer: int) -> Key:
    return key.fold(layer)


def _rms(values: Tensor) -> float:
    return math.sqrt(float(values.detach().double().square().mean()))
