"""Penalties on complex weights as penalties on pairs of real ones, which adaptive optimizers step one by one."""

from wellposed.penalties.group import GroupLasso
from wellposed.penalties.penalty import Penalty
from wellposed.penalties.separable import L1, L2, ElasticNet


def as_real(penalty: Penalty, dimensions: int) -> Penalty | None:
    """The penalty that has the same value on ``torch.view_as_real(w)``, or ``None`` where it is not known.

    The modulus of a complex number is the norm of the pair of its parts, so L1 becomes a group lasso over pairs.

    Args:
        penalty: A penalty on complex weights.
        dimensions: How many dimensions the complex weight has.
    """
    pairs = tuple(range(dimensions))
    match penalty:
        case L1(float(lam)):
            return GroupLasso(lam, pairs)
        case L2(float(lam)):
            return L2(lam)
        case ElasticNet(float(l1), float(l2)):
            return GroupLasso(l1, pairs) + L2(l2)
    return None
