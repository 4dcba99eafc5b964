"""``WellposedClassifier``: a dense network that tells classes, in scikit-learn's manner."""

from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import column_or_1d
from torch import Tensor
from torch.nn import functional

from wellposed.errors import WellposedError
from wellposed.sklearn.estimator import Estimator, Floats


class WellposedClassifier(ClassifierMixin, Estimator):  # type: ignore[misc]
    """A dense network as a classifier: initialized by a scheme, penalised by proximal steps, thinned by dropout.

    Features are standardised by what they are in the rows that are fitted first. What comes out is a function of the
    rows, the settings and ``random_state``.

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
        validation_fraction: The share of the rows that are held out, of each class alike.
        patience: How many epochs without a lower loss on them end the training.
        warm_start: Whether ``fit`` goes on from where the network is.
        samples: How many thinned networks standard deviations are taken from.
        device: Where the network is trained.
        random_state: An integer, from which all that is random follows; ``None`` or a ``RandomState`` to draw one from.

    Attributes:
        classes_: The classes, sorted.
        trainer_: The network, its losses, and its optimizer.
        n_features_in_: How many features there are.
        feature_names_in_: Their names, of a frame that has them.

    Raises:
        WellposedError: In ``fit``, if a setting is not as above.

    Example:
        >>> from sklearn.datasets import load_iris
        >>> import wellposed as wp
        >>> x, y = load_iris(return_X_y=True)
        >>> model = WellposedClassifier((32,), penalty=wp.L1(1e-3), learning_rate=0.01, max_epochs=50).fit(x, y)
        >>> bool(model.score(x, y) > 0.9), model.predict_proba(x).shape
        (True, (150, 3))
    """

    _is_numeric = False

    def partial_fit(
        self,
        X: ArrayLike,  # noqa: N803
        y: ArrayLike,
        classes: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """Go through these rows once, holding none out.

        Args:
            X: Features, (rows, features).
            y: Classes, (rows,).
            classes: All classes there are; needed the first time.
            sample_weight: How much each row counts, (rows,).

        Returns:
            The estimator.
        """
        if classes is None and not hasattr(self, "classes_"):
            raise WellposedError("classes must be passed on the first call to partial_fit: classes=[...], all of them")
        if classes is not None and hasattr(self, "classes_") and not np.array_equal(np.unique(classes), self.classes_):
            raise WellposedError(
                f"`classes={np.unique(classes)}` is not the same as on last call to partial_fit, was: {self.classes_}"
            )
        return self._partial_fit(X, y, sample_weight, classes)

    def predict(self, X: ArrayLike) -> NDArray[Any]:  # noqa: N803
        """The likeliest class of each row, (rows,)."""
        outputs = self._outputs(X)
        return np.asarray(self.classes_[outputs.argmax(axis=1)])

    def predict_proba(self, X: ArrayLike, return_std: bool = False) -> Any:  # noqa: N803
        """The probability of each class, (rows, classes).

        Args:
            X: Features, (rows, features).
            return_std: Whether to return the mean and the standard deviation over thinned networks instead (Monte Carlo
                dropout: Gal and Ghahramani, 2016).

        Returns:
            The probabilities; or their means and standard deviations.
        """
        if return_std:
            sampled = self._sampled(X).softmax(dim=-1)
            return sampled.mean(dim=0).numpy(), sampled.std(dim=0).numpy()
        return torch.from_numpy(self._outputs(X)).softmax(dim=-1).numpy()

    def predict_log_proba(self, X: ArrayLike) -> Floats:  # noqa: N803
        """The logarithm of the probability of each class, (rows, classes)."""
        return torch.from_numpy(self._outputs(X)).log_softmax(dim=-1).numpy()

    @staticmethod
    def _loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return functional.cross_entropy(outputs, targets, reduction="none")

    def _checked_targets(self, y: NDArray[Any]) -> NDArray[Any]:
        check_classification_targets(y)
        flat: NDArray[Any] = column_or_1d(y, warn=True)
        return flat

    def _settle_targets(self, y: NDArray[Any], classes: Any) -> int:
        self.classes_ = np.unique(y if classes is None else classes)
        return len(self.classes_)

    def _targets(self, y: NDArray[Any]) -> Tensor:
        return self._classes_of(y)

    def _classes_of(self, y: NDArray[Any]) -> Tensor:
        places = np.searchsorted(self.classes_, y).clip(max=len(self.classes_) - 1)
        unknown = np.unique(y[self.classes_[places] != y])
        if len(unknown):
            raise WellposedError(f"y holds {unknown[:5].tolist()}; expected the classes {self.classes_.tolist()}")
        return torch.from_numpy(places.astype(np.int64))
