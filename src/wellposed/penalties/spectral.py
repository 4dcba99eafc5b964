"""Penalties on the singular values of a weight, seen as a matrix of a layer's outputs by all that makes them."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from wellposed.arguments import Number
from wellposed.errors import WellposedError
from wellposed.models.fans import LINEAR, Axes, Matrices, matrices
from wellposed.penalties.constraints.projections import onto_l1_ball
from wellposed.penalties.layouts import LayoutPenalty
from wellposed.penalties.proximal import Traits
from wellposed.penalties.separable import soft_threshold


def matrices_of(w: Tensor, axes: Axes | None, owner: object) -> Matrices:
    """How ``w`` is read as matrices: without axes as one, of its first dimension by all the others.

    Raises:
        WellposedError: If it has fewer than two dimensions, or the axes do not fit it.
    """
    if w.ndim < 2:
        raise WellposedError(f"{owner!r} was given a weight of shape {tuple(w.shape)}; expected two dimensions or more")
    return matrices(w.shape, LINEAR if axes is None else axes)


@dataclass(frozen=True, eq=False, repr=False)
class NuclearNorm(LayoutPenalty):
    """The sum of singular values, whose prox lowers the rank.

    Omega(w) = lam * sum_k sigma_k(w). The prox soft-thresholds the singular values. The subgradient is U V^T over the
    singular values that are not 0. On an accelerator each use waits for torch's singular value decomposition.

    Args:
        lam: The strength, >= 0.
        axes: What the weight's dimensions are for, as for initializers; ``None`` is those of the layer that it is put
            on, and outputs by inputs elsewhere. Of a stack of matrices (experts, groups of a convolution, packed
            projections) each counts by itself.

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
    axes: Axes | None = None
    strengths: ClassVar[tuple[str, ...]] = ("lam",)
    traits = Traits(separable=False)

    def _value(self, w: Tensor) -> Tensor:
        total: Tensor = torch.linalg.svdvals(matrices_of(w, self.axes, self).of(w)).sum()
        return self.lam * total

    def _grad(self, w: Tensor) -> Tensor:
        m = matrices_of(w, self.axes, self)
        u, s, vh = svd(m.of(w))
        alive = s > s.amax(-1, keepdim=True) * torch.finfo(s.dtype).eps * max(m.rows, m.columns)
        return m.weight(self.lam * (u * alive.unsqueeze(-2)) @ vh, w.shape)

    def _prox(self, w: Tensor, step: Number) -> Tensor:
        m = matrices_of(w, self.axes, self)
        u, s, vh = svd(m.of(w))
        return m.weight((u * soft_threshold(s, step * self.lam).unsqueeze(-2)) @ vh, w.shape)


@dataclass(frozen=True, eq=False, repr=False)
class SpectralNorm(LayoutPenalty):
    """The largest singular value: how much the layer can stretch its input.

    Omega(w) = lam * sigma_1(w). The prox lowers the largest singular values to one level, step * lam in all. The
    gradient is u_1 v_1^T. On an accelerator each use waits for torch's singular value decomposition.

    Args:
        lam: The strength, >= 0.
        axes: As for :class:`NuclearNorm`; but the groups of a convolution are one layer, of which the largest counts.

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
    axes: Axes | None = None
    strengths: ClassVar[tuple[str, ...]] = ("lam",)
    traits = Traits(separable=False)

    def _value(self, w: Tensor) -> Tensor:
        largest: Tensor = torch.linalg.matrix_norm(matrices_of(w, self.axes, self).of(w), 2)
        return self.lam * self._by_layer(largest.unsqueeze(-1)).amax(-1).sum()

    def _grad(self, w: Tensor) -> Tensor:
        m = matrices_of(w, self.axes, self)
        u, s, vh = svd(m.of(w))
        layers = self._by_layer(s)
        first = torch.zeros_like(layers).scatter(-1, layers.argmax(-1, keepdim=True), 1.0)
        return m.weight(self.lam * (u * (first * (layers > 0)).view_as(s).unsqueeze(-2)) @ vh, w.shape)

    def _prox(self, w: Tensor, step: Number) -> Tensor:
        # Moreau: what the prox takes off is the projection onto the dual norm's ball.
        m = matrices_of(w, self.axes, self)
        u, s, vh = svd(m.of(w))
        layers = self._by_layer(s)
        lowered = (layers - onto_l1_ball(layers, step * self.lam)).view_as(s)
        return m.weight((u * lowered.unsqueeze(-2)) @ vh, w.shape)

    def _by_layer(self, s: Tensor) -> Tensor:
        """Singular values with those of a layer's groups, of which its matrix is the diagonal, in one row."""
        groups = 1 if self.axes is None else self.axes.groups
        return s.reshape(s.shape[0] // groups, groups * s.shape[1])


@dataclass(frozen=True, eq=False, repr=False)
class SoftOrthogonality(LayoutPenalty):
    """How far the rows (or the columns, if there are fewer of them) are from orthonormal.

    ``Omega(w) = lam * ||w w^T - I||^2`` over the smaller side. It is smooth, and neither convex nor with a known prox.

    Args:
        lam: The strength, >= 0.
        axes: As for :class:`NuclearNorm`.

    Raises:
        WellposedError: If ``lam`` is negative, NaN or infinite; when it is used, if a weight has fewer than two
            dimensions.

    Example:
        >>> SoftOrthogonality(1.0).value(torch.tensor([[0.0, 1.0], [2.0, 0.0]]))
        tensor(9.)

    Source: Brock, Lim, Ritchie and Weston (2017); Bansal, Chen and Wang (2018).
    """

    lam: Number
    axes: Axes | None = None
    strengths: ClassVar[tuple[str, ...]] = ("lam",)
    traits = Traits(convex=False, smooth=True, separable=False, prox=False)

    def _excess(self, w: Tensor) -> tuple[Tensor, Tensor]:
        """The matrices, the smaller sides first; their products with themselves less the identity."""
        m = matrices_of(w, self.axes, self)
        sides = m.of(w).mT if m.rows > m.columns else m.of(w)
        return sides, sides @ sides.mH - torch.eye(sides.shape[-2], dtype=w.dtype, device=w.device)

    def _value(self, w: Tensor) -> Tensor:
        return self.lam * self._excess(w)[1].abs().square().sum()

    def _grad(self, w: Tensor) -> Tensor:
        m = matrices_of(w, self.axes, self)
        sides, excess = self._excess(w)
        slope = 4 * self.lam * excess @ sides
        return m.weight(slope.mT if m.rows > m.columns else slope, w.shape)


def svd(m: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The thin singular value decompositions of matrices; NaN, not an error, where one holds NaN or infinity."""
    try:
        u, s, vh = torch.linalg.svd(m, full_matrices=False)
    except RuntimeError:
        if m.isfinite().all():
            raise
        u, s, vh = torch.linalg.svd(torch.zeros_like(m), full_matrices=False)
        u, s, vh = u * torch.nan, s * torch.nan, vh * torch.nan
    return u, s, vh
