"""The module that every dropout of a fixed probability stands on."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.compiler import is_compiling, is_dynamo_compiling

from wellposed.dropouts.functional import check_input
from wellposed.dropouts.operator import check_probability, part_of_batch, thin_any
from wellposed.dropouts.scope import _entered, _scope
from wellposed.dropouts.streams import Stochastic, own_key, own_tensor
from wellposed.dropouts.thinning import _apply, is_plain, mask_of, rates_of, thin
from wellposed.random.late import late


class Thinning(Stochastic):
    """A module that drops with probability p while training.

    Attributes:
        p: The probability, in [0, 1]. It may be changed at any time; a compiled graph takes the new one as it is.
    """

    _p: float
    _graphs_rate: Tensor
    _rates: Any

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        self.p = p

    @property
    def p(self) -> float:
        """The probability that something is dropped."""
        return self._p

    @p.setter
    def p(self, p: float) -> None:
        check_probability(type(self).__name__, p)
        self._p = float(p)
        self._rates = self._rates_of(self._p)
        self._graphs_rate = own_tensor(self._p, torch.float64)

    @property
    def _rate(self) -> Tensor:
        """The same as a tensor: for a graph the one that it reads when it runs, else one of the modes that are on."""
        return self._graphs_rate if is_compiling() else torch.tensor(self._p, dtype=torch.float64, device="cpu")

    def _rates_of(self, p: float) -> tuple[float, ...]:
        """The numbers that kernels take for p."""
        return rates_of(p)

    def thin(self, x: Tensor, dims: tuple[int, ...] | None = None, batch: int = 0) -> Tensor:
        """``x`` with a new mask over ``dims``; dimension ``batch`` holds the samples, and none does if it is -1."""
        if not is_dynamo_compiling():
            thinned: Tensor | None = _draw_and_thin(self, x, dims)
            if thinned is not None:
                return thinned
        check_input(type(self).__name__, x)
        if x.is_complex():
            counted = tuple(range(x.dim())) if dims is None else dims
            return torch.view_as_complex(self.thin(torch.view_as_real(x.resolve_conj()), counted, batch))
        if is_plain(x):
            if self._p == 0.0:
                return x
            key, call, row = self.next_name()
            return thin(x, mask_of(self._p, key, call, dims, part_of_batch(x, row, batch) if row else None))
        return thin_any(x, self.next_words(x), self._rate, dims, batch=batch)

    def extra_repr(self) -> str:
        """The arguments, as they are printed."""
        return f"p={self._p}"

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in super().__getstate__().items() if name not in ("_graphs_rate", "_rates")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.p = self._p


def drawing_thinner(apply: Callable[..., Tensor], *kernels: Any) -> Callable[..., Tensor | None]:
    """A builtin of (module, x, dims) that draws a key and thins, if nothing but autograd watches a plain ``x``."""
    from wellposed.random.kernels import plain_thin

    return plain_thin.drawing_thinner(apply, _scope, _entered, own_key, *kernels)


@late
def _draw_and_thin(_module: Thinning, x: Tensor, _dims: tuple[int, ...] | None) -> Callable[..., Tensor | None] | None:
    return drawing_thinner(_apply) if is_plain(x) and x.is_cpu else None
