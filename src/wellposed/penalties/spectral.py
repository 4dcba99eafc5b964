"""Penalties on the singular values of a weight, seen as a matrix of its first dimension by all the others."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from wellposed.arguments import Number
from wellposed.errors import WellposedError
from wellposed.penalties.constraints.projections import onto_l1_ball
from wellposed.penalties.penalty import Penalty
from wellposed.penalties.proximal import Traits
from wellposed.penalties.separable import soft_threshold


def as_matrix(w: Tensor, owner: object) -> Tensor:
    """``w`` as a matrix of its first dimension by all the others.

    Raises:
        WellposedError: If it has fewer than two dimensions.
    """
    if w.ndim < 2:
        raise WellposedError(f"{owner!r} was given a weight of shape {tuple(w.shape)}; expected two dimensions or more")
    return w.flatten(1)


@dataclass(frozen=True, eq=False, repr=False)
class NuclearNorm(Penalty):
    """The sum of singular values, whose prox lowers the rank.

    Omega(w) = lam * sum_k sigma_k(w). The prox soft-thresholds the singular values. The subgradient is U V^T over the
    singular values that are not 0. On an accelerator each use waits for torch's singular value decomposition.

    Args:
        lam: The strength, >= 0.

    Raises:
        WellposedError: If ``lam`` is negative, NaN or infinite; when it is used, if a weight has fewer than two
            dimensions.

    Example:
        >>> NuclearNorm(1.0).prox(torch.diag(torch.tensor([3.0, 0.5])), step=1.0)
        tensor([[2., 0.],
                [0., 0.]])

    Source: Cai, Candes and Shen (2010).
    """

    lam: Number
    strengths: ClassVar[tuple[str, ...]] = ("lam",)
    traits = Traits(separable=False)

    def _value(self, w: Tensor) -> Tensor:
        total: Tensor = torch.linalg.svdvals(as_matrix(w, self)).sum()
        return self.lam * total

    def _grad(self, w: Tensor) -> Tensor:
        u, s, vh = svd(as_matrix(w, self))
        alive = s > s.amax(-1, keepdim=True) * torch.finfo(s.dtype).eps * max(w.shape)
        scaled: Tensor = self.lam * (u * alive)
        return (scaled @ vh).view_as(w)

    def _prox(self, w: Tensor, step: Number) -> Tensor:
        u, s, vh = svd(as_matrix(w, self))
        return ((u * soft_threshold(s, step * self.lam)) @ vh).view_as(w)


@dataclass(frozen=True, eq=False, repr=False)
class SpectralNorm(Penalty):
    """The largest singular value: how much the layer can stretch its input.

    Omega(w) = lam * sigma_1(w). The prox lowers the largest singular values to one level, step * lam in all. The
    gradient is u_1 v_1^T. On an accelerator each use waits for torch's singular value decomposition.

    Args:
        lam: The strength, >= 0.

    Raises:
        WellposedError: If ``lam`` is negative, NaN or infinite; when it is used, if a weight has fewer than two
            dimensions.

    Example:
        >>> SpectralNorm(1.0).prox(torch.diag(torch.tensor([3.0, 0.5])), step=1.0)
        tensor([[2.0000, 0.0000],
                [0.0000, 0.5000]])

    Source: Yoshida and Miyato (2017) for the penalty on networks; Parikh and Boyd (2014) for the prox.
    """

    lam: Number
    strengths: ClassVar[tuple[str, ...]] = ("lam",)
    traits = Traits(separable=False)

    def _value(self, w: Tensor) -> Tensor:
        largest: Tensor = torch.linalg.matrix_norm(as_matrix(w, self), 2)
        return self.lam * largest

    def _grad(self, w: Tensor) -> Tensor:
        u, s, vh = svd(as_matrix(w, self))
        scaled: Tensor = self.lam * (s[0] > 0) * u[:, :1]
        return (scaled @ vh[:1]).view_as(w)

    def _prox(self, w: Tensor, step: Number) -> Tensor:
        # Moreau: what the prox takes off is the projection onto the dual norm's ball.
        u, s, vh = svd(as_matrix(w, self))
        return ((u * (s - onto_l1_ball(s, step * self.lam))) @ vh).view_as(w)


@dataclass(frozen=True, eq=False, repr=False)
class SoftOrthogonality(Penalty):
    """How far the rows (or the columns, if there are fewer of them) are from orthonormal.

    Omega(w) = lam * ||w w^T - I||^2 over the smaller side. It is smooth, and neither convex nor with a known prox.

    Args:
        lam: The strength, >= 0.

    Raises:
        WellposedError: If ``lam`` is negative, NaN or infinite; when it is used, if a weight has fewer than two
            dimensions.

    Example:
        >>> SoftOrthogonality(1.0).value(torch.tensor([[0.0, 1.0], [2.0, 0.0]]))
        tensor(9.)

    Source: Brock, Lim, Ritchie and Weston (2017); Bansal, Chen and Wang (2018).
    """

    lam: Number
    strengths: ClassVar[tuple[str, ...]] = ("lam",)
    traits = Traits(convex=False, smooth=True, separable=False, prox=False)

    def _excess(self, w: Tensor) -> tuple[Tensor, Tensor, bool]:
        """The matrix, its smaller side first; its product with itself less the identity; whether it was turned."""
        m = as_matrix(w, self)
        turned = m.shape[0] > m.shape[1]
        m = m.mT if turned else m
        return m, m @ m.mH - torch.eye(m.shape[0], dtype=m.dtype, device=m.device), turned

    def _value(self, w: Tensor) -> Tensor:
        return self.lam * self._excess(w)[1].abs().square().sum()

    def _grad(self, w: Tensor) -> Tensor:
        m, excess, turned = self._excess(w)
        slope = 4 * self.lam * excess @ m
        return (slope.mT if turned else slope).reshape(w.shape)


def svd(m: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The thin singular value decomposition; NaN throughout, not an error, where the matrix holds NaN or infinity."""
    try:
        u, s, vh = torch.linalg.svd(m, full_matrices=False)
    except RuntimeError:
        if m.isfinite().all():
            raise
        u, s, vh = torch.linalg.svd(torch.zeros_like(m), full_matrices=False)
        u, s, vh = u * torch.nan, s * torch.nan, vh * torch.nan
    return u, s, vh
