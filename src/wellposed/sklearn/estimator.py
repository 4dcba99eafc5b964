"""What ``WellposedClassifier`` and ``WellposedRegressor`` have in common: a dense network in scikit-learn's manner."""

import warnings
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.utils import check_array, check_consistent_length, check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor, nn
from torch.func import functional_call

from wellposed.arguments import integer, real
from wellposed.dropouts import Dropout, monte_carlo
from wellposed.errors import WellposedError
from wellposed.init import Initializer, Zeros, initialize
from wellposed.penalties import Penalty
from wellposed.random.distributions import permutation
from wellposed.random.key import Key
from wellposed.sklearn.scaling import Scaling
from wellposed.sklearn.trainer import Rows, Trainer

Floats = NDArray[np.float64]
ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh, "gelu": nn.GELU, "silu": nn.SiLU, "selu": nn.SELU, "elu": nn.ELU}


class Estimator(BaseEstimator):  # type: ignore[misc]
    """A dense network on standardised features, trained by AdamW."""

    def __init__(
        self,
        hidden: Sequence[int] = (128, 128),
        *,
        activation: str = "relu",
        scheme: Any = "auto",
        penalty: Penalty | Mapping[str, Penalty | None] | None = None,
        where: Any = "weights",
        mode: str = "proximal",
        dropout: float = 0.0,
        learning_rate: float = 1e-3,
        weight_decay: float = 0.0,
        batch_size: int = 64,
        max_epochs: int = 200,
        early_stopping: bool = True,
        validation_fraction: float = 0.15,
        patience: int = 20,
        warm_start: bool = False,
        samples: int = 100,
        device: Any = "cpu",
        random_state: Any = 0,
    ) -> None:
        self.hidden = hidden
        self.activation = activation
        self.scheme = scheme
        self.penalty = penalty
        self.where = where
        self.mode = mode
        self.dropout = dropout
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.batch_size = batch_size
        self.max_epochs = max_epochs
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.warm_start = warm_start
        self.samples = samples
        self.device = device
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:  # noqa: N803
        """Train the network; from the start, or on from where it is with ``warm_start``.

        Args:
            X: Features, (rows, features): numbers, without gaps.
            y: Targets, (rows,) or, of a regression, (rows, targets) too.
            sample_weight: How much each row counts, (rows,).

        Returns:
            The estimator.
        """
        self._check_settings()
        again = self.warm_start and hasattr(self, "trainer_")
        x, y, weight = self._checked(X, y, sample_weight, reset=not again)
        if not again:
            self._begin(x, y, None)
        rows = self._rows(x, y, weight)
        which = self._held_out(y) if self.early_stopping else None
        held_out = None
        if which is not None:
            rows, held_out = rows[~which], rows[which]
        self.trainer_.run(
            rows, held_out, epochs=self.max_epochs, batch=min(self.batch_size, len(rows.x)), patience=self.patience
        )
        return self

    def _partial_fit(self, x: Any, y: Any, sample_weight: Any, classes: Any) -> Self:
        """Go through these rows once."""
        self._check_settings()
        first = not hasattr(self, "trainer_")
        x, y, weight = self._checked(x, y, sample_weight, reset=first)
        if first:
            self._begin(x, y, classes)
        rows = self._rows(x, y, weight)
        self.trainer_.run(rows, None, epochs=1, batch=min(self.batch_size, len(x)), patience=1)
        return self

    def _checked(self, x: Any, y: Any, weight: Any, *, reset: bool) -> tuple[Floats, NDArray[Any], Floats | None]:
        x, y = validate_data(self, x, y, reset=reset, dtype=np.float64, multi_output=True, y_numeric=self._is_numeric)
        if weight is not None:
            weight = check_array(weight, ensure_2d=False, dtype=np.float64, input_name="sample_weight")
            if weight.ndim != 1:
                raise WellposedError(f"sample_weight was given with shape {weight.shape}; expected one number a row")
            check_consistent_length(x, weight)
            if (weight < 0).any() or not weight.any():
                raise WellposedError("sample_weight was given with negative numbers, or zeros alone; expected weights")
        return x, self._checked_targets(y), weight

    def _begin(self, x: Floats, y: NDArray[Any], classes: Any) -> None:
        """Settle what is settled once: the key, the scale of the features, the targets, and the network's start."""
        given = self.random_state
        seed = given if isinstance(given, int) else int(check_random_state(given).randint(2**31 - 1))
        self.key_ = Key(seed)
        self.scaling_ = Scaling.of(x)
        outputs = self._settle_targets(y, classes)
        network = self._network(x.shape[1], outputs)
        if isinstance(self.scheme, Initializer):
            initialize(network, rules={"*.weight": self.scheme, "*.bias": Zeros()}, seed=self.key_.fold("start"))
        else:
            initialize(network, self.scheme, seed=self.key_.fold("start"))
        self.trainer_ = Trainer(
            network.to(self.device),
            self._loss,
            self.key_,
            {"lr": self.learning_rate, "weight_decay": self.weight_decay},
            self.penalty,
            {"where": self.where, "mode": self.mode},
        )

    def _network(self, inputs: int, outputs: int) -> nn.Sequential:
        layers: list[nn.Module] = []
        widths = (inputs, *self.hidden)
        for fan_in, fan_out in pairwise(widths):
            layers += [nn.Linear(fan_in, fan_out, device="meta").to_empty(device="cpu"), ACTIVATIONS[self.activation]()]
            if self.dropout:
                layers.append(Dropout(self.dropout))
        return nn.Sequential(*layers, nn.Linear(widths[-1], outputs, device="meta").to_empty(device="cpu"))

    def _rows(self, x: Floats, y: NDArray[Any], weight: Floats | None) -> Rows:
        counts = None if weight is None else torch.from_numpy(weight / weight.mean()).float().to(self.device)
        return Rows(self._inputs(x), self._targets(y).to(self.device), counts)

    def _inputs(self, x: Floats) -> Tensor:
        return torch.from_numpy(self.scaling_(x)).float().to(self.device)

    def _held_out(self, y: NDArray[Any]) -> Tensor | None:
        """Which rows are held out, each class by its share; ``None``, with a warning, where they are too few."""
        classes = self._classes_of(y)
        order = permutation(len(y), self.key_.fold("held out"), call=self.trainer_.epochs)
        dealt = order[torch.sort(classes[order], stable=True).indices]
        count = max(1, round(self.validation_fraction * len(y)))
        which = torch.zeros(len(y), dtype=torch.bool)
        which[dealt[((torch.arange(count) + 0.5) * (len(y) / count)).long()]] = True
        lost = set(classes.tolist()) - set(classes[~which].tolist())
        if count < len(set(classes.tolist())) or which.all() or lost:
            warnings.warn(
                f"{len(y)} rows are too few to hold out {self.validation_fraction} of them with a row of each class, "
                f"so all are trained on for {self.max_epochs} epochs; give more rows, or early_stopping=False",
                UserWarning,
                stacklevel=3,
            )
            return None
        return which

    def _given(self, x: Any) -> Tensor:
        """The inputs of rows to predict for."""
        check_is_fitted(self)
        return self._inputs(validate_data(self, x, reset=False, dtype=np.float64))

    def _outputs(self, x: Any) -> Floats:
        """The network's outputs in float64, in which no other rows of a batch show in a row's last digits."""
        rows = self._given(x)
        exact = torch.float32 if rows.device.type == "mps" else torch.float64
        network = self.trainer_.network
        with torch.no_grad():
            values = {name: value.to(exact) for name, value in network.state_dict().items()}
            outputs: Tensor = functional_call(network, values, (rows.to(exact),))
        return np.asarray(outputs.double().cpu().numpy())

    def _sampled(self, x: Any) -> Tensor:
        """The outputs of thinned networks, (samples, rows, outputs)."""
        rows = self._given(x)
        if not self.dropout:
            raise WellposedError(
                f"{type(self).__name__} was asked for standard deviations and has dropout=0, so all of its samples "
                "are alike; fit it with dropout=0.1, say"
            )
        drawn = monte_carlo(self.trainer_.network, rows, samples=self.samples, seed=self.key_.fold("samples"))
        sampled: Tensor = drawn.samples
        return sampled.double().cpu()

    @property
    def coefs_(self) -> list[NDArray[np.float32]]:
        """The weights of each layer, (inputs, outputs)."""
        return [layer.weight.detach().cpu().numpy().T for layer in self._linears()]

    @property
    def intercepts_(self) -> list[NDArray[np.float32]]:
        """The biases of each layer."""
        return [layer.bias.detach().cpu().numpy() for layer in self._linears()]

    @property
    def sparsity_(self) -> list[float]:
        """The share of exact zeros among the weights of each layer, in [0, 1]."""
        return [float((weights == 0).mean()) for weights in self.coefs_]

    @property
    def features_used_(self) -> NDArray[np.bool_]:
        """Which features reach the network, by a weight that is not zero."""
        return np.asarray((self.coefs_[0] != 0).any(axis=1))

    @property
    def n_epochs_(self) -> int:
        """How often the rows have been gone through."""
        return int(self.trainer_.epochs)

    def _linears(self) -> list[nn.Linear]:
        check_is_fitted(self)
        return [layer for layer in self.trainer_.network.children() if isinstance(layer, nn.Linear)]

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "trainer_")

    def _check_settings(self) -> None:
        name = type(self).__name__
        if isinstance(self.hidden, str) or not isinstance(self.hidden, Sequence | np.ndarray):
            raise WellposedError(f"{name} was given hidden={self.hidden!r}; expected the width of each hidden layer")
        for width in self.hidden:
            integer(width, f"{name}(hidden)", 1, 2**31)
        if self.activation not in ACTIVATIONS:
            raise WellposedError(
                f"{name} was given activation={self.activation!r}; expected one of {', '.join(ACTIVATIONS)}"
            )
        for count in ("batch_size", "max_epochs", "patience", "samples"):
            integer(getattr(self, count), f"{name}({count})", 1, 2**31)
        if not 0 < real(self.validation_fraction, f"{name}(validation_fraction)") < 1:
            raise WellposedError(
                f"{name} was given validation_fraction={self.validation_fraction}; expected a share between 0 and 1"
            )
        if not 0 <= real(self.dropout, f"{name}(dropout)") < 1:
            raise WellposedError(f"{name} was given dropout={self.dropout}; expected a probability in [0, 1)")

    _is_numeric: bool

    @staticmethod
    @abstractmethod
    def _loss(outputs: Tensor, targets: Tensor) -> Tensor: ...

    @abstractmethod
    def _checked_targets(self, y: NDArray[Any]) -> NDArray[Any]: ...

    @abstractmethod
    def _settle_targets(self, y: NDArray[Any], classes: Any) -> int: ...

    @abstractmethod
    def _targets(self, y: NDArray[Any]) -> Tensor: ...

    @abstractmethod
    def _classes_of(self, y: NDArray[Any]) -> Tensor: ...
