"""The chapter by hand: initialization, regularization and dropout in a network trained by written-out backpropagation.

Everything here favours reading over speed, and nothing uses autograd. The dense layer multiplies ``x @ w``, so weights
are ``(in, out)``, the transpose of PyTorch's. Where the chapter and a paper differ, the chapter's formula stands here
and the paper's in ``wellposed.init`` and ``wellposed.penalties``.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from wellposed.arguments import integer
from wellposed.errors import WellposedError
from wellposed.random import Key, bernoulli, uniform

Regularizer = Callable[[Tensor], tuple[Tensor, Tensor]]
"""A weight -> the pair (Omega, dOmega/dw)."""


_KEY = Key(0)


class Initializer(Protocol):
    """(inputdim, units) -> a weight of that shape."""

    def __call__(self, inputdim: int, units: int, *, key: Key = ..., dtype: torch.dtype | None = ...) -> Tensor:
        """Make the weight of a layer."""


def RandomInitializer(  # noqa: N802
    inputdim: int, units: int, *, key: Key = _KEY, dtype: torch.dtype | None = None
) -> Tensor:
    """Small random weights, whatever the layer's size: uniform on [-0.1, 0.1).

    Args:
        inputdim: How many inputs the layer has.
        units: How many outputs.
        key: The stream that the numbers come from; give each layer its own.
        dtype: A floating-point dtype; torch's default when ``None``.

    Returns:
        A tensor of shape ``(inputdim, units)``.

    Raises:
        WellposedError: If a size is not a positive integer.

    Example:
        >>> w = RandomInitializer(3, 5)
        >>> w.shape, bool((w.abs() <= 0.1).all())
        (torch.Size([3, 5]), True)
    """
    return _uniform(inputdim, units, 0.1, key, dtype)


def GlorotInitializer(  # noqa: N802
    inputdim: int, units: int, *, key: Key = _KEY, dtype: torch.dtype | None = None
) -> Tensor:
    """Weights uniform on [-sqrt(1/n), sqrt(1/n)), n = inputdim.

    This is the heuristic that Glorot and Bengio argue against; their own bound, sqrt(6 / (inputdim + units)), is
    ``wp.init.Glorot()``.

    Args:
        inputdim: How many inputs the layer has.
        units: How many outputs.
        key: The stream that the numbers come from; give each layer its own.
        dtype: A floating-point dtype; torch's default when ``None``.

    Returns:
        A tensor of shape ``(inputdim, units)``.

    Raises:
        WellposedError: If a size is not a positive integer.

    Example:
        >>> bool((GlorotInitializer(100, 5).abs() <= 0.1).all())
        True

    Source: the first formula of Glorot and Bengio (2010).
    """
    return _uniform(inputdim, units, math.sqrt(1 / _size(inputdim, "inputdim")), key, dtype)


def HeInitializer(  # noqa: N802
    inputdim: int, units: int, *, key: Key = _KEY, dtype: torch.dtype | None = None
) -> Tensor:
    """Weights uniform on [-sqrt(2/n), sqrt(2/n)), n = inputdim.

    Their variance is 2 / (3n). He et al. need 2 / n, the bound sqrt(6/n), which is ``wp.init.He()``.

    Args:
        inputdim: How many inputs the layer has.
        units: How many outputs.
        key: The stream that the numbers come from; give each layer its own.
        dtype: A floating-point dtype; torch's default when ``None``.

    Returns:
        A tensor of shape ``(inputdim, units)``.

    Raises:
        WellposedError: If a size is not a positive integer.

    Example:
        >>> bool((HeInitializer(200, 5).abs() <= 0.1).all())
        True

    Source: after He et al. (2015).
    """
    return _uniform(inputdim, units, math.sqrt(2 / _size(inputdim, "inputdim")), key, dtype)


def L1Regularizer(w: Tensor) -> tuple[Tensor, Tensor]:  # noqa: N802
    """The sum of absolute values and its gradient, +1 where w >= 0 and -1 where w < 0.

    The gradient at exactly 0 is taken as +1, so no step ends at zero; a proximal step of ``wp.L1`` does.

    Args:
        w: A weight of any shape.

    Returns:
        The pair (Omega, dOmega/dw): a scalar and a tensor of ``w``'s shape.

    Example:
        >>> L1Regularizer(torch.tensor([-2.0, 0.0, 3.0]))
        (tensor(5.), tensor([-1.,  1.,  1.]))
    """
    return w.abs().sum(), torch.where(w >= 0, 1.0, -1.0).to(w.dtype)


def L2Regularizer(w: Tensor) -> tuple[Tensor, Tensor]:  # noqa: N802
    """The sum of squares and its gradient 2 w.

    Args:
        w: A weight of any shape.

    Returns:
        The pair (Omega, dOmega/dw): a scalar and a tensor of ``w``'s shape.

    Example:
        >>> L2Regularizer(torch.tensor([-2.0, 0.0, 3.0]))
        (tensor(13.), tensor([-4.,  0.,  6.]))
    """
    return w.square().sum(), 2 * w


def dropout(a: Tensor, p: float, key: Key, *, call: int = 0) -> Tensor:
    """Leave out each hidden unit with probability ``p``, and divide the others by the keep probability 1 - p.

    The division keeps the expected value, so that nothing has to be rescaled when the network is used.

    Args:
        a: Activations, of any shape.
        p: The probability to drop, in [0, 1].
        key: The stream that the mask comes from.
        call: Which mask of the stream: the training step.

    Returns:
        A tensor of ``a``'s shape: ``a * m / (1 - p)``, m = 0 for what is left out and 1 elsewhere.

    Raises:
        WellposedError: If ``p`` is outside [0, 1].

    Example:
        >>> dropout(torch.ones(1000), 0.5, Key(1)).unique()
        tensor([0., 2.])

    Source: Srivastava et al. (2014).
    """
    return a * _mask(a, p, key, call)


class Activation(NamedTuple):
    """A nonlinearity a = f(z).

    Args:
        f: The function.
        slope: f'(z), from the pair (z, a).
    """

    f: Callable[[Tensor], Tensor]
    slope: Callable[[Tensor, Tensor], Tensor]


ACTIVATIONS = {
    "identity": Activation(lambda z: z, lambda z, a: torch.ones_like(z)),
    "relu": Activation(lambda z: z.clamp(min=0), lambda z, a: (z > 0).to(z.dtype)),
    "sigmoid": Activation(lambda z: 1 / (1 + (-z).exp()), lambda z, a: a * (1 - a)),
    "tanh": Activation(torch.tanh, lambda z, a: 1 - a * a),
}


class Loss(NamedTuple):
    """How wrong the outputs are.

    Args:
        value: (outputs, targets) -> L, a scalar.
        slope: (outputs, targets) -> dL/d(outputs).
        check: Raises for targets that do not fit the outputs.
    """

    value: Callable[[Tensor, Tensor], Tensor]
    slope: Callable[[Tensor, Tensor], Tensor]
    check: Callable[[Tensor, Tensor], None]


def _softmax(out: Tensor) -> Tensor:
    e = (out - out.amax(1, keepdim=True)).exp()
    return e / e.sum(1, keepdim=True)


def _one_hot(out: Tensor, y: Tensor) -> Tensor:
    return (y[:, None] == torch.arange(out.shape[1], device=y.device)).to(out.dtype)


def _cross_entropy(out: Tensor, y: Tensor) -> Tensor:
    return (out.logsumexp(1) - (out * _one_hot(out, y)).sum(1)).mean()


def _check_values(out: Tensor, y: Tensor) -> None:
    if y.shape != out.shape:
        raise WellposedError(f"the targets have shape {tuple(y.shape)}; expected the outputs' shape {tuple(out.shape)}")


def _check_classes(out: Tensor, y: Tensor) -> None:
    if y.shape != out.shape[:1] or y.is_floating_point() or not ((y >= 0) & (y < out.shape[1])).all():
        raise WellposedError(
            f"the targets have shape {tuple(y.shape)} and dtype {y.dtype}; expected {len(out)} class numbers, integers "
            f"in [0, {out.shape[1]})"
        )


LOSSES = {
    "squared error": Loss(
        lambda out, y: (out - y).square().mean(), lambda out, y: 2 * (out - y) / out.numel(), _check_values
    ),
    "cross entropy": Loss(_cross_entropy, lambda out, y: (_softmax(out) - _one_hot(out, y)) / len(out), _check_classes),
}


@dataclass(eq=False)
class DenseLayer:
    """a = f(x @ w + b).

    Args:
        w: The weight, of shape (inputdim, units).
        b: The bias, of shape (units,).
        activation: One of "identity", "relu", "sigmoid", "tanh".

    Raises:
        WellposedError: If the shapes do not fit or the activation is not known.

    Example:
        >>> layer = DenseLayer(torch.eye(2), torch.zeros(2), "relu")
        >>> z, a = layer.forward(torch.tensor([[1.0, -2.0]]))
        >>> a
        tensor([[1., 0.]])
        >>> dx, dw, db = layer.backward(torch.tensor([[1.0, -2.0]]), z, a, torch.ones(1, 2))
        >>> dw
        tensor([[ 1.,  0.],
                [-2., -0.]])
    """

    w: Tensor
    b: Tensor
    activation: str = "relu"

    def __post_init__(self) -> None:
        _choice(self.activation, ACTIVATIONS, "activation")
        if self.w.ndim != 2 or self.b.shape != self.w.shape[1:]:
            raise WellposedError(
                f"DenseLayer was given w of shape {tuple(self.w.shape)} and b of shape {tuple(self.b.shape)}; "
                "expected (inputdim, units) and (units,)"
            )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The pair (z, a), with z = x @ w + b and a = f(z), for x of shape (rows, inputdim)."""
        if x.ndim != 2 or x.shape[1] != self.w.shape[0]:
            raise WellposedError(
                f"DenseLayer was given x of shape {tuple(x.shape)}; expected (rows, {self.w.shape[0]})"
            )
        z = x @ self.w + self.b
        return z, ACTIVATIONS[self.activation].f(z)

    def backward(self, x: Tensor, z: Tensor, a: Tensor, da: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """From dL/da to (dL/dx, dL/dw, dL/db) by the chain rule, given what :meth:`forward` saw and made."""
        dz = da * ACTIVATIONS[self.activation].slope(z, a)
        return dz @ self.w.T, x.T @ dz, dz.sum(0)


class Gradients(NamedTuple):
    """The cost C = L + lam * Omega of one batch, and its gradient for each layer's weight and bias."""

    cost: Tensor
    dw: list[Tensor]
    db: list[Tensor]


class Network:
    """Dense layers, trained by w <- w - alpha * (dL/dw + lam * dOmega/dw).

    The regularizer acts on the weights, not on the biases, which start at zero. Dropout follows each hidden layer.

    Args:
        sizes: The number of inputs, of each hidden layer's units, and of outputs.
        activation: The hidden layers' nonlinearity; the last layer has none.
        initializer: What makes the weights.
        regularizer: The pair (Omega, dOmega/dw) of a weight, or ``None``.
        lam: The regularizer's strength, a hyperparameter, >= 0.
        p: The probability that a hidden unit is left out of a training step, in [0, 1].
        loss: "squared error" (mean over all entries) or "cross entropy" (targets are class numbers; mean over rows).
        key: Names every random number: the weights and the masks.
        dtype: A floating-point dtype; torch's default when ``None``.

    Raises:
        WellposedError: If an argument is not as above.

    Example:
        >>> x = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
        >>> y = torch.tensor([0, 1, 1, 0])
        >>> network = Network([2, 16, 2], activation="tanh", loss="cross entropy", lam=1e-4, regularizer=L2Regularizer)
        >>> costs = [network.train_step(x, y, alpha=0.5) for _ in range(500)]
        >>> network.predict(x).argmax(1)
        tensor([0, 1, 1, 0])

    Source: Rumelhart, Hinton and Williams (1986) for backpropagation.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        *,
        activation: str = "relu",
        initializer: Initializer = GlorotInitializer,
        regularizer: Regularizer | None = None,
        lam: float = 0.0,
        p: float = 0.0,
        loss: str = "squared error",
        key: Key = _KEY,
        dtype: torch.dtype | None = None,
    ) -> None:
        if len(sizes) < 2:
            raise WellposedError(f"Network was given sizes {list(sizes)}; expected those of the inputs and the outputs")
        if not lam >= 0 or math.isinf(lam):
            raise WellposedError(f"Network was given lam={lam}; expected a finite number >= 0")
        _choice(loss, LOSSES, "loss")
        _probability(p)
        self.loss, self.regularizer, self.lam, self.p, self.key = LOSSES[loss], regularizer, lam, p, key
        self.step = 0
        self.layers: list[DenseLayer] = []
        for i in range(len(sizes) - 1):
            w = initializer(sizes[i], sizes[i + 1], key=key.fold("w", i), dtype=dtype)
            kind = activation if i < len(sizes) - 2 else "identity"
            self.layers.append(DenseLayer(w, w.new_zeros(sizes[i + 1]), kind))

    def predict(self, x: Tensor) -> Tensor:
        """The outputs for ``x`` of shape (rows, inputs), with every unit taking part."""
        for layer in self.layers:
            x = layer.forward(x)[1]
        return x

    def gradients(self, x: Tensor, y: Tensor) -> Gradients:
        """The cost of a batch and its gradients, by hand, with the dropout masks of the present step.

        Args:
            x: Inputs, of shape (rows, inputs).
            y: Targets: of the outputs' shape for "squared error", class numbers of shape (rows,) for "cross entropy".

        Returns:
            The cost C = L + lam * Omega and its gradients.

        Raises:
            WellposedError: If the inputs or the targets do not fit the network.
        """
        inputs, seen, masks = [x], [], []
        for i, layer in enumerate(self.layers):
            z, a = layer.forward(inputs[-1])
            hidden = i < len(self.layers) - 1
            masks.append(_mask(a, self.p if hidden else 0.0, self.key.fold("dropout", i), self.step))
            seen.append((z, a))
            inputs.append(a * masks[-1])
        self.loss.check(inputs[-1], y)
        cost, da = self.loss.value(inputs[-1], y), self.loss.slope(inputs[-1], y)
        dw, db = [], []
        for layer, before, (z, a), mask in reversed(list(zip(self.layers, inputs, seen, masks, strict=False))):
            da, dwi, dbi = layer.backward(before, z, a, da * mask)
            if self.regularizer is not None:
                omega, slope = self.regularizer(layer.w)
                cost, dwi = cost + self.lam * omega, dwi + self.lam * slope
            dw.append(dwi)
            db.append(dbi)
        return Gradients(cost, dw[::-1], db[::-1])

    def train_step(self, x: Tensor, y: Tensor, alpha: float) -> float:
        """Take one step of gradient descent on a batch.

        Args:
            x: Inputs, as for :meth:`gradients`.
            y: Targets, as for :meth:`gradients`.
            alpha: The learning rate, > 0.

        Returns:
            The cost before the step.

        Raises:
            WellposedError: If ``alpha`` is not a positive number.
        """
        if not 0 < alpha < math.inf:
            raise WellposedError(f"train_step was given alpha={alpha}; expected a finite number > 0")
        cost, dw, db = self.gradients(x, y)
        for layer, dwi, dbi in zip(self.layers, dw, db, strict=True):
            layer.w = layer.w - alpha * dwi
            layer.b = layer.b - alpha * dbi
        self.step += 1
        return float(cost)


def _uniform(inputdim: int, units: int, bound: float, key: Key, dtype: torch.dtype | None) -> Tensor:
    shape = (_size(inputdim, "inputdim"), _size(units, "units"))
    return uniform(shape, key, -bound, bound, dtype=dtype)


def _size(value: int, name: str) -> int:
    size = integer(value, name, -(2**63), 2**63)
    if size < 1:
        raise WellposedError(f"{name} was given {size}; expected an integer >= 1")
    return size


def _probability(p: float) -> float:
    if not 0 <= p <= 1:
        raise WellposedError(f"p was given {p}; expected a probability in [0, 1]")
    return p


def _mask(a: Tensor, p: float, key: Key, call: int) -> Tensor:
    if _probability(p) == 1:
        return torch.zeros_like(a)
    left_out = bernoulli(tuple(a.shape), key, p, call=call, device=a.device)
    return (~left_out).to(a.dtype) / (1 - p)


def _choice(given: str, table: dict[str, Activation] | dict[str, Loss], name: str) -> None:
    if given not in table:
        raise WellposedError(f"{name} was given {given!r}; expected one of {', '.join(map(repr, table))}")
