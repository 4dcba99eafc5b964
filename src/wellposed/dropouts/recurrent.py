"""Dropout of weights, and of what a recurrent cell carries from step to step."""

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any

from torch import Tensor, nn
from torch.func import functional_call

from wellposed.dropouts.base import Thinning
from wellposed.errors import WellposedError

_CELLS = (nn.RNNCell, nn.GRUCell, nn.LSTMCell)


class DropConnect(Thinning):
    """Drop elements of a module's weights while training: each call runs the module with thinned weights.

    The weights themselves are never touched: they are given to the module for the length of the call. Recurrent layers
    run all their steps with one mask; a recurrent cell, which is called once a step, does so through ``thinned``.

    Args:
        module: Any module.
        p: The probability that an element of a weight is dropped.
        names: The parameters that are thinned; every one whose last name starts with "weight" when ``None``.

    Shape:
        That of the module.

    Raises:
        WellposedError: If p is not in [0, 1] or a name is not a parameter's.

    Example:
        >>> import torch
        >>> layer = DropConnect(nn.LSTM(4, 5), 0.5, names=["weight_hh_l0"])
        >>> output, state = layer(torch.ones(7, 2, 4))
        >>> output.shape
        torch.Size([7, 2, 5])

    Source: Wan et al. (2013); for recurrent weights Merity et al. (2018).
    """

    def __init__(self, module: nn.Module, p: float = 0.5, names: Sequence[str] | None = None) -> None:
        super().__init__(p)
        known = [name for name, _ in module.named_parameters()]
        if names is None:
            names = [name for name in known if name.rpartition(".")[2].startswith("weight")]
        if unknown := set(names) - set(known):
            raise WellposedError(f"DropConnect was given names {sorted(unknown)}; expected some of {known}")
        self.module, self.names = module, tuple(names)

    def forward(self, *arguments: Any, **options: Any) -> Any:
        """Run the module, with thinned weights while training."""
        return self.thinned()(*arguments, **options)

    def thinned(self) -> Callable[..., Any]:
        """The module with weights thinned once, to be called several times; outside training, the module itself.

        Example:
            >>> import torch
            >>> cell, hidden = DropConnect(nn.GRUCell(4, 5), 0.5, names=["weight_hh"]), torch.zeros(2, 5)
            >>> step = cell.thinned()
            >>> for x in torch.ones(7, 2, 4):
            ...     hidden = step(x, hidden)
        """
        if not self.training:
            return self.module
        thinned = {name: self.thin(attrgetter(name)(self.module), batch=-1) for name in self.names}
        return lambda *arguments, **options: functional_call(self.module, thinned, arguments, options)

    def extra_repr(self) -> str:
        """The arguments, as they are printed."""
        return f"p={self.p}, names={self.names}"


class Zoneout(Thinning):
    """Keep elements of a recurrent cell's state as they were, with probability p while training.

    The new state is h + kept (h' - h), where h' is what the cell makes of h; outside training h + (1 - p) (h' - h), its
    expectation.

    Args:
        cell: An ``RNNCell``, ``GRUCell`` or ``LSTMCell``.
        p: The probability that an element of the hidden state stays.
        cell_p: The same for an LSTM's cell state; p when ``None``.

    Shape:
        That of the cell; a state that is not given is zero.

    Raises:
        WellposedError: If a probability is not in [0, 1] or the cell is none of the three.

    Example:
        >>> import torch
        >>> cell = Zoneout(nn.LSTMCell(4, 5), 0.1)
        >>> h, c = cell(torch.ones(2, 4))
        >>> h.shape, c.shape
        (torch.Size([2, 5]), torch.Size([2, 5]))

    Source: Krueger et al. (2017).
    """

    def __init__(
        self, cell: nn.RNNCell | nn.GRUCell | nn.LSTMCell, p: float = 0.1, cell_p: float | None = None
    ) -> None:
        super().__init__(p)
        if not isinstance(cell, _CELLS):
            raise WellposedError(f"Zoneout was given {cell!r}; expected an nn.RNNCell, nn.GRUCell or nn.LSTMCell")
        self.cell = cell
        self.memory = Thinning(p if cell_p is None else cell_p) if isinstance(cell, nn.LSTMCell) else None

    def forward(self, x: Tensor, state: Any = None) -> Any:
        """The next state: a tensor, or a pair of tensors for an LSTM cell."""
        if self.memory is None:
            before = x.new_zeros(*x.shape[:-1], self.cell.hidden_size) if state is None else state
            return self._move(self, before, self.cell(x, before))
        if state is None:
            state = 2 * (x.new_zeros(*x.shape[:-1], self.cell.hidden_size),)
        hidden, memory = self.cell(x, state)
        return self._move(self, state[0], hidden), self._move(self.memory, state[1], memory)

    def _move(self, thinning: Thinning, before: Tensor, after: Tensor) -> Tensor:
        step = after - before
        return before + (thinning.thin(step, batch=step.dim() - 2) if self.training else step) * (1 - thinning.p)
