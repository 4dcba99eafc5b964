"""Strengths from other libraries' conventions into ours, and back.

Ours has neither a half nor a mean: ``L1(lam)`` is ``lam * sum |w|`` and ``L2(lam)`` is ``lam * sum w^2``, added to
whatever loss you train with. What follows supposes that loss to be a mean over samples, as torch's and Keras' are by
default.
"""

from wellposed.arguments import nonnegative
from wellposed.errors import WellposedError
from wellposed.penalties.penalty import Penalty
from wellposed.penalties.separable import L1, L2, ElasticNet


def _given(value: float, name: str) -> float:
    number = nonnegative(value, name)
    if not isinstance(number, float):
        raise WellposedError(f"{name} was given a tensor of shape {tuple(number.shape)}; expected a number, float(it)")
    return number


def from_weight_decay(weight_decay: float) -> L2:
    """The L2 that ``torch.optim``'s ``weight_decay`` stands for: ``d * w`` is the gradient of ``d / 2 * sum w^2``.

    With ``mode="gradient"`` it is SGD's and Adam's weight decay, with ``mode="decoupled"`` AdamW's.

    Example:
        >>> from_weight_decay(0.01)
        L2(lam=0.005)
    """
    return L2(_given(weight_decay, "weight_decay") / 2)


def to_weight_decay(penalty: Penalty) -> float:
    """The ``weight_decay`` that stands for an L2 penalty.

    Raises:
        WellposedError: If the penalty is not ``L2`` with a number for its strength.

    Example:
        >>> to_weight_decay(L2(0.005))
        0.01
    """
    if not isinstance(penalty, L2) or not isinstance(penalty.lam, float):
        raise WellposedError(f"to_weight_decay was given {penalty!r}; expected L2 with a number: nothing else is one")
    return 2 * penalty.lam


def from_keras(l1: float = 0.0, l2: float = 0.0) -> ElasticNet:
    """``keras.regularizers.L1L2(l1, l2)``, whose conventions are ours: ``l1 * sum |w| + l2 * sum w^2``.

    Example:
        >>> from_keras(l1=0.01)
        ElasticNet(l1=0.01, l2=0.0)
    """
    return ElasticNet(_given(l1, "l1"), _given(l2, "l2"))


def to_keras(penalty: Penalty) -> dict[str, float]:
    """The arguments of ``keras.regularizers.L1L2`` that stand for L1, L2 or an elastic net.

    Raises:
        WellposedError: If the penalty is another, or its strengths are tensors.

    Example:
        >>> to_keras(L1(0.01))
        {'l1': 0.01, 'l2': 0.0}
    """
    l1, l2 = _strengths(penalty, "to_keras")
    return {"l1": l1, "l2": l2}


def from_lasso(alpha: float) -> L1:
    """scikit-learn's ``Lasso(alpha)``, for the loss ``||y - Xw||^2 / (2n)``: half the mean squared error.

    Example:
        >>> from_lasso(0.1)
        L1(lam=0.1)
    """
    return L1(_given(alpha, "alpha"))


def from_elastic_net(alpha: float, l1_ratio: float = 0.5) -> ElasticNet:
    """scikit-learn's ``ElasticNet(alpha, l1_ratio)``, for half the mean squared error, ``||y - Xw||^2 / (2n)``.

    Its squares carry a half: ``alpha * (1 - l1_ratio) / 2 * ||w||^2``.

    Example:
        >>> from_elastic_net(1.0, l1_ratio=0.5)
        ElasticNet(l1=0.5, l2=0.25)
    """
    alpha, ratio = _given(alpha, "alpha"), _given(l1_ratio, "l1_ratio")
    if ratio > 1:
        raise WellposedError(f"l1_ratio was given {ratio}; expected a number in [0, 1]")
    return ElasticNet(alpha * ratio, alpha * (1 - ratio) / 2)


def to_elastic_net(penalty: Penalty) -> dict[str, float]:
    """The arguments of scikit-learn's ``ElasticNet``, for half the mean squared error; with l1_ratio 1 it is ``Lasso``.

    Raises:
        WellposedError: If the penalty is not L1, L2 or an elastic net, or its strengths are tensors.

    Example:
        >>> to_elastic_net(ElasticNet(0.5, 0.25))
        {'alpha': 1.0, 'l1_ratio': 0.5}
    """
    l1, l2 = _strengths(penalty, "to_elastic_net")
    alpha = l1 + 2 * l2
    return {"alpha": alpha, "l1_ratio": l1 / alpha if alpha else 1.0}


def from_ridge(alpha: float, samples: int) -> L2:
    """scikit-learn's ``Ridge(alpha)``, whose loss is the sum ``||y - Xw||^2``, for half the mean squared error.

    Args:
        alpha: scikit-learn's strength.
        samples: The number n of samples that it is fitted on.

    Example:
        >>> from_ridge(2.0, samples=100)
        L2(lam=0.01)
    """
    return L2(_given(alpha, "alpha") / (2 * _count(samples)))


def to_ridge(penalty: Penalty, samples: int) -> dict[str, float]:
    """The argument of scikit-learn's ``Ridge`` on ``samples`` samples, for half the mean squared error.

    Raises:
        WellposedError: If the penalty is not L2 with a number for its strength.

    Example:
        >>> to_ridge(L2(0.01), samples=100)
        {'alpha': 2.0}
    """
    l1, l2 = _strengths(penalty, "to_ridge")
    if l1:
        raise WellposedError(f"to_ridge was given {penalty!r}; expected L2: a ridge has no absolute values")
    return {"alpha": 2 * _count(samples) * l2}


def from_logistic_c(c: float, samples: int, *, l1_ratio: float = 0.0) -> Penalty:
    """scikit-learn's ``LogisticRegression(C=c, l1_ratio=l1_ratio)``, for the mean cross entropy.

    It minimises ``C * sum of losses + (1 - l1_ratio) / 2 * ||w||^2 + l1_ratio * sum |w|``.

    Args:
        c: scikit-learn's inverse strength, > 0.
        samples: The number n of samples that it is fitted on.
        l1_ratio: The fraction of L1, in [0, 1].

    Example:
        >>> from_logistic_c(0.5, samples=100, l1_ratio=1.0)
        ElasticNet(l1=0.02, l2=0.0)
    """
    if not _given(c, "c") > 0:
        raise WellposedError(f"c was given {c}; expected a number > 0")
    return from_elastic_net(1 / (c * _count(samples)), l1_ratio)


def to_logistic_c(penalty: Penalty, samples: int) -> dict[str, float]:
    """The arguments of scikit-learn's ``LogisticRegression`` on ``samples`` samples, for the mean cross entropy.

    Raises:
        WellposedError: If the penalty is not L1, L2 or an elastic net, its strengths are tensors, or it is nothing.

    Example:
        >>> to_logistic_c(L1(0.02), samples=100)
        {'C': 0.5, 'l1_ratio': 1.0}
    """
    same = to_elastic_net(penalty)
    if not same["alpha"]:
        raise WellposedError(f"to_logistic_c was given {penalty!r}; expected a strength > 0: C is its inverse")
    return {"C": 1 / (same["alpha"] * _count(samples)), "l1_ratio": same["l1_ratio"]}


def _strengths(penalty: Penalty, asked: str) -> tuple[float, float]:
    """The strengths of ``sum |w|`` and ``sum w^2``."""
    if not isinstance(penalty, Penalty) or penalty.elastic is None:
        raise WellposedError(f"{asked} was given {penalty!r}; expected L1, L2 or ElasticNet with numbers for strengths")
    return penalty.elastic


def _count(samples: int) -> int:
    if isinstance(samples, bool) or not isinstance(samples, int) or samples < 1:
        raise WellposedError(f"samples was given {samples!r}; expected an integer >= 1")
    return samples
