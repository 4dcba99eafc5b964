"""The module that every dropout of a fixed probability stands on."""

from typing import Any

import torch
from torch import Tensor
from torch.compiler import is_compiling

from wellposed._torch import is_ordinary
from wellposed.dropouts.functional import check_input
from wellposed.dropouts.naming.streams import Stochastic, own_tensor
from wellposed.dropouts.operator import Law, Mask, check_probability, part_of_batch, thin_by_operator, thin_ordinary


class Thinning(Stochastic):
    """A module that drops with probability p while training.

    Attributes:
        p: The probability, in [0, 1]. It may be changed at any time; a compiled graph takes the new one as it is.
    """

    _p: float
    _graphs_rate: Tensor

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
        self._graphs_rate = own_tensor(self._p, torch.float64)

    @property
    def _rate(self) -> Tensor:
        """The same as a tensor: for a graph the one that it reads when it runs, else one of the modes that are on."""
        return self._graphs_rate if is_compiling() else torch.tensor(self._p, dtype=torch.float64, device="cpu")

    def thin(self, x: Tensor, dims: tuple[int, ...] | None = None, batch: int = 0, law: Law = "scaled") -> Tensor:
        """``x`` with a new mask over ``dims``; dimension ``batch`` holds the samples, and none does if it is -1."""
        check_input(type(self).__name__, x)
        if x.is_complex():
            counted = tuple(range(x.dim())) if dims is None else dims
            return torch.view_as_complex(self.thin(torch.view_as_real(x.resolve_conj()), counted, batch, law))
        if is_ordinary(x):
            if self._p == 0.0:
                return x
            key, call, row = self.next_name()
            box = part_of_batch(x, row, batch) if row else None
            return thin_ordinary(x, Mask(self._p, key, call, dims, box, law))
        return thin_by_operator(x, self.next_words(x), self._rate, dims, batch=batch, law=law)

    def extra_repr(self) -> str:
        """The arguments, as they are printed."""
        return f"p={self._p}"

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in super().__getstate__().items() if name != "_graphs_rate"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.p = self._p
