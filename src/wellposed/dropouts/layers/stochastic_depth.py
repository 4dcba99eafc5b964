"""Stochastic depth: dropout of residual branches and of whole layers."""

from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.compiler import is_dynamo_compiling

from wellposed._torch import is_ordinary
from wellposed.dropouts.layers.thinning import Thinning
from wellposed.dropouts.masks import Mask
from wellposed.dropouts.operator import thin
from wellposed.errors import WellposedError
from wellposed.random.shards import is_sharded


class DropPath(Thinning):
    """Stochastic depth: drop a residual branch with probability p while training, and scale it by 1 / (1 - p) if kept.

    Args:
        p: The probability that the branch is dropped.
        mode: "row" decides for each sample (dimension 0) by itself, "batch" for all samples at once.
        scale_by_keep: Whether to scale; without it, the branch's mean shrinks by 1 - p.
        inplace: Only ``False`` is possible; taken since torch's modules take it.

    Shape:
        (N, ...), and the output is like the input.

    Raises:
        WellposedError: If p is not in [0, 1], ``inplace`` is true, or the mode is neither.

    Example:
        >>> DropPath(0.5)(torch.ones(8, 3, 4)).flatten(1).std(dim=1).max()
        tensor(0.)

    Source: Huang et al. (2016), stochastic depth; Larsson et al. (2017).
    """

    def __init__(
        self,
        p: float = 0.0,
        mode: Literal["row", "batch"] = "row",
        *,
        scale_by_keep: bool = True,
        inplace: bool = False,
    ) -> None:
        super().__init__(p, inplace)
        if mode not in ("row", "batch"):
            raise WellposedError(f"DropPath was given mode={mode!r}; expected 'row' or 'batch'")
        self.mode, self.scale_by_keep = mode, scale_by_keep

    def forward(self, x: Tensor) -> Tensor:
        """Drop ``x`` for some samples; outside training, return ``x`` itself."""
        if not self.training:
            return x
        y = self.thin(x, (0,) if self.mode == "row" else ())
        return y if self.scale_by_keep else y * (1 - (self._rate.to(y.dtype) if is_dynamo_compiling() else self.p))

    def extra_repr(self) -> str:
        """The arguments, as they are printed."""
        return f"p={self.p}, mode={self.mode!r}" + ("" if self.scale_by_keep else ", scale_by_keep=False")


class LayerDrop(Thinning):
    """LayerDrop: run layers one after the other, and skip each with probability p while training.

    Args:
        layers: Modules whose output can be the next one's input.
        p: The probability that a layer is left out.
        inplace: Only ``False`` is possible; taken since torch's modules take it.

    Shape:
        That of the layers. Further arguments are given to every layer.

    Raises:
        WellposedError: If p is not in [0, 1], or ``inplace`` is true.

    Example:
        >>> stack = LayerDrop([nn.Identity(), nn.Identity()], p=0.5)
        >>> stack(torch.ones(3))
        tensor([1., 1., 1.])

    Source: Fan et al. (2020).
    """

    def __init__(self, layers: Iterable[nn.Module], p: float = 0.1, *, inplace: bool = False) -> None:
        super().__init__(p, inplace)
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor, *arguments: Any, **options: Any) -> Tensor:
        """Run the layers that are not left out; outside training, all of them."""
        kept = self._kept(x)
        for layer, keep in zip(self.layers, kept, strict=True):
            if keep:
                x = layer(x, *arguments, **options)
        return x

    def _kept(self, x: Tensor) -> list[bool]:
        if not self.training:
            return [True] * len(self.layers)
        ones = torch.ones(len(self.layers), device="cpu")
        if not is_ordinary(ones):
            thinned = self.thin(ones, batch=-1)
        elif self.p == 0.0:
            thinned = ones
        else:  # with a DTensor all processes have to run the same layers, which a keyed block alone sees to
            key, call, *_ = self.next_stream(x if is_sharded(x) else None)
            thinned = thin(ones, Mask(self.p, key, call))
        mask: list[bool] = (thinned != 0).tolist()
        return mask
