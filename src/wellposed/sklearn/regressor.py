"""``WellposedRegressor``: a dense network that predicts numbers, in scikit-learn's manner."""

from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import RegressorMixin
from torch import Tensor

from wellposed.sklearn.estimator import Estimator, Floats
from wellposed.sklearn.scaling import Scaling


class WellposedRegressor(RegressorMixin, Estimator):  # type: ignore[misc]
    """A dense network as a regressor: initialized by a scheme, penalised by proximal steps, thinned by dropout.

    Features and targets are standardised by what they are in the rows that are fitted first; the loss is the mean
    squared error. What comes out is a function of the rows, the settings and ``random_state``.

    Args:
        hidden: The width of each hidden layer; empty for a linear model.
        activation: "relu", "tanh", "gelu", "silu", "selu" or "elu".
        scheme: How the network starts, as for ``wp.initialize``; or an initializer for its weights.
        penalty: A penalty, or several by globs on ``"0.weight"``, ``"0.bias"`` and so on, as for ``wp.regularize``.
        where: Which parameters it acts on.
        mode: How it acts; "proximal" gives exact zeros.
        dropout: The probability that a hidden unit is dropped while training.
        learning_rate: AdamW's.
        weight_decay: AdamW's.
        batch_size: How many rows an update sees.
        max_epochs: How often the rows are gone through at most.
        early_stopping: Whether to hold rows out and to keep the network that was best on them.
        validation_fraction: The share of the rows that are held out.
        patience: How many epochs without a lower loss on them end the training.
        warm_start: Whether ``fit`` goes on from where the network is.
        samples: How many thinned networks standard deviations are taken from.
        device: Where the network is trained.
        random_state: An integer, from which all that is random follows; ``None`` or a ``RandomState`` to draw one from.

    Attributes:
        trainer_: The network, its losses, and its optimizer.
        n_features_in_: How many features there are.
        feature_names_in_: Their names, of a frame that has them.

    Raises:
        WellposedError: In ``fit``, if a setting is not as above.

    Example:
        >>> from sklearn.datasets import load_diabetes
        >>> x, y = load_diabetes(return_X_y=True)
        >>> model = WellposedRegressor((32,), dropout=0.1, max_epochs=30).fit(x, y)
        >>> mean, std = model.predict(x, return_std=True)
        >>> mean.shape, bool((std > 0).all())
        ((442,), True)
    """

    _is_numeric = True

    def partial_fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:  # noqa: N803
        """Go through these rows once, holding none out.

        Args:
            X: Features, (rows, features).
            y: Targets, (rows,) or (rows, targets).
            sample_weight: How much each row counts, (rows,).

        Returns:
            The estimator.
        """
        return self._partial_fit(X, y, sample_weight, None)

    def predict(self, X: ArrayLike, return_std: bool = False) -> Any:  # noqa: N803
        """The predicted targets, (rows,) or (rows, targets).

        Args:
            X: Features, (rows, features).
            return_std: Whether to return the mean and the standard deviation over thinned networks instead (Monte Carlo
                dropout: Gal and Ghahramani, 2016). It is what the network does not know, without the targets' noise.

        Returns:
            The predictions; or their means and standard deviations.
        """
        if return_std:
            sampled = self._sampled(X)
            spread = sampled.std(dim=0).numpy() * self._target_scaling.spread
            return self._shaped(self._target_scaling.back(sampled.mean(dim=0).numpy())), self._shaped(spread)
        outputs = self._outputs(X)
        return self._shaped(self._target_scaling.back(outputs))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def _shaped(self, values: Floats) -> Floats:
        return values[:, 0] if self._is_flat else values

    @staticmethod
    def _loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs - targets).square().mean(dim=1)

    def _checked_targets(self, y: NDArray[Any]) -> NDArray[Any]:
        return y.astype(np.float64)

    def _settle_targets(self, y: NDArray[Any], classes: Any) -> int:
        self._is_flat = y.ndim == 1
        self._target_scaling = Scaling.of(y.reshape(len(y), -1))
        return len(self._target_scaling.mean)

    def _targets(self, y: NDArray[Any]) -> Tensor:
        return torch.from_numpy(self._target_scaling(y.reshape(len(y), -1))).float()

    def _classes_of(self, y: NDArray[Any]) -> Tensor:
        return torch.zeros(len(y), dtype=torch.int64)
