"""``Thinning``: the base class of dropout modules with a fixed probability."""

from typing import Any

import torch
from torch import Tensor
from torch.compiler import is_compiling

from wellposed._torch import is_ordinary, only_calls_are_watched, transforms_are_active, unwatched
from wellposed.dropouts.functional import check_input
from wellposed.dropouts.masks import Law, Mask, check_probability, part_of_batch
from wellposed.dropouts.naming.nesting import current_scope
from wellposed.dropouts.naming.streams import Stochastic, own_tensor
from wellposed.dropouts.operator import thin, thin_by_operator, thin_ordinary
from wellposed.dropouts.sharding.blockwise import Placed, arrived, thin_blocks
from wellposed.random.shards import is_sharded


class Thinning(Stochastic):
    """The base class of modules that drop something with probability p while training.

    Args:
        p: The probability, in [0, 1].
        inplace: Taken since torch's dropout modules take it; only ``False`` is possible.

    Attributes:
        p: The probability. It may be changed at any time, and a change causes no recompilation.

    Raises:
        WellposedError: If p is not in [0, 1], or ``inplace`` is true.
    """

    _p: float
    _graphs_rate: Tensor

    def __init__(self, p: float = 0.5, inplace: bool = False) -> None:
        super().__init__(inplace)
        self.p = p

    @property
    def p(self) -> float:
        """The probability that something is dropped."""
        return self._p

    @p.setter
    def p(self, p: float) -> None:
        self._p = check_probability(type(self).__name__, p)
        self._graphs_rate = own_tensor(self._p, torch.float64)

    @property
    def _rate(self) -> Tensor:
        """The probability as a tensor: in a graph the one that it reads as it runs, else one of the active modes."""
        return self._graphs_rate if is_compiling() else torch.tensor(self._p, dtype=torch.float64, device="cpu")

    def thin(self, x: Tensor, dims: tuple[int, ...] | None = None, batch: int = 0, law: Law = "scaled") -> Tensor:
        """Drop elements of a tensor with a new mask, and scale the others.

        Args:
            x: The tensor.
            dims: The dimensions that the mask varies over; ``None`` for all.
            batch: The dimension that holds the samples; -1 if none does.
            law: What becomes of the elements, see ``Mask``.

        Returns:
            A tensor like ``x``.
        """
        if only_calls_are_watched(x):
            with unwatched():
                return self.thin(x, dims, batch, law)
        check_input(type(self).__name__, x)
        if x.is_complex() and not is_sharded(x):
            counted = tuple(range(x.dim())) if dims is None else dims
            return torch.view_as_complex(self.thin(torch.view_as_real(x.resolve_conj()), counted, batch, law))
        is_plain = is_ordinary(x)
        if not is_plain:
            x = arrived(x)
            is_plain = is_ordinary(x)
        if is_plain or self._is_placed(x):
            if self._p == 0.0:
                return x
            key, call, row, placed, shift = self.next_shifted_stream(x, batch)
            box = part_of_batch(x, row, batch) if row else None
            mask = Mask(self._p, key, call, dims, box, law, shift)
            if placed is not None:
                return thin_blocks(x, mask, placed)
            return thin_ordinary(x, mask) if is_plain else thin(x, mask)
        if is_sharded(x):
            key, call, _, placed, shift = self.next_shifted_stream(x, batch)
            return thin_blocks(x, Mask(self._p, key, call, dims, None, law, shift), placed or Placed())
        return thin_by_operator(x, self.next_stream_tensor(x), self._rate, dims, batch=batch, law=law)

    def _is_placed(self, x: Tensor) -> bool:
        """Whether a plain tensor that a mode watches is drawn for at once, since where it lies is not the mode's."""
        if is_sharded(x) or is_compiling() or transforms_are_active():
            return False
        scope = current_scope()
        return scope is not None and scope.places is not None

    def extra_repr(self) -> str:
        """The arguments, as they are printed."""
        return f"p={self._p}"

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in super().__getstate__().items() if name != "_graphs_rate"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.p = self._p
