"""Dense layers trained by backpropagation that is written out by hand."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from wellposed.errors import WellposedError
from wellposed.random import Key
from wellposed.textbook.chapter import (
    DenseInitializer,
    GlorotInitializer,
    Regularizer,
    checked_probability,
    inverted_mask,
)
from wellposed.textbook.functions import ACTIVATIONS, LOSSES, check_choice


@dataclass(eq=False)
class DenseLayer:
    """A dense layer, a = f(x @ w + b), with its backward pass.

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
        check_choice(self.activation, ACTIVATIONS, "activation")
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
    """A multilayer perceptron, trained by w <- w - alpha * (dL/dw + lam * dOmega/dw).

    The regularizer acts on the weights, not on the biases, which start at zero. Dropout follows each hidden layer.

    Args:
        sizes: The number of inputs, of each hidden layer's units, and of outputs.
        activation: The hidden layers' nonlinearity; the last layer has none.
        initializer: What makes the weights; it is given a key for each.
        regularizer: The pair (Omega, dOmega/dw) of a weight, or ``None``.
        lam: The regularizer's strength, a hyperparameter, >= 0.
        p: The probability that a hidden unit is left out of a training step, in [0, 1].
        loss: "squared error" (mean over all entries) or "cross entropy" (targets are class numbers; mean over rows).
        key: Names every random number: the weights and the masks. When ``None``, torch's global generator makes them.
        dtype: A floating-point dtype; torch's default when ``None``.

    Raises:
        WellposedError: If an argument is not as above.

    Example:
        >>> from wellposed.textbook import L2Regularizer
        >>> x = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
        >>> y = torch.tensor([0, 1, 1, 0])
        >>> network = Network(
        ...     [2, 16, 2], activation="tanh", loss="cross entropy", lam=1e-4, regularizer=L2Regularizer, key=Key(0)
        ... )
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
        initializer: DenseInitializer = GlorotInitializer,
        regularizer: Regularizer | None = None,
        lam: float = 0.0,
        p: float = 0.0,
        loss: str = "squared error",
        key: Key | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        if len(sizes) < 2:
            raise WellposedError(f"Network was given sizes {list(sizes)}; expected those of the inputs and the outputs")
        if not lam >= 0 or math.isinf(lam):
            raise WellposedError(f"Network was given lam={lam}; expected a finite number >= 0")
        check_choice(loss, LOSSES, "loss")
        checked_probability(p)
        self.loss, self.regularizer, self.lam, self.p = LOSSES[loss], regularizer, lam, p
        self.step = 0
        self.layers: list[DenseLayer] = []
        for i in range(len(sizes) - 1):
            named = None if key is None else key.fold("w", i)
            w = initializer(sizes[i], sizes[i + 1], key=named, dtype=dtype)
            kind = activation if i < len(sizes) - 2 else "identity"
            self.layers.append(DenseLayer(w, w.new_zeros(sizes[i + 1]), kind))
        self.key = Key(int(torch.randint(2**62, ()))) if key is None else key

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
            masks.append(inverted_mask(a, self.p if hidden else 0.0, self.key.fold("dropout", i), self.step))
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
