"""Dropout of weights, and of the hidden state of recurrent cells."""

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from wellposed._torch import is_ordinary
from wellposed.dropouts.functional import check_beside, check_input
from wellposed.dropouts.layers.thinning import Thinning
from wellposed.dropouts.linear import linear
from wellposed.dropouts.masks import Mask, part_of_batch, stream_tensor
from wellposed.dropouts.operator import thin, thin_by_operator
from wellposed.dropouts.sharding.blockwise import Placed, arrived, thin_blocks
from wellposed.errors import WellposedError
from wellposed.random.key import Key
from wellposed.random.shards import is_sharded

_CELLS = (nn.RNNCell, nn.GRUCell, nn.LSTMCell)


class DropConnect(Thinning):
    """DropConnect: drop elements of a module's weights, rather than of its outputs, while training.

    Each call runs the module with newly thinned weights; its parameters themselves do not change. Recurrent layers
    run all their steps with one mask; a recurrent cell, which is called once a step, does so through ``thinned``.

    Args:
        module: Any module.
        p: The probability that an element of a weight is dropped.
        names: The parameters that are thinned, or the only one; when ``None``, every one of two dimensions or more
            whose own name has "weight" in it. The key of a weight's stream is that of the module plus
            ``Key(0).fold(name)``, so its mask does not depend on which others are thinned.
        inplace: Only ``False`` is possible; taken since torch's modules take it.

    Shape:
        That of the module.

    Raises:
        WellposedError: If p is not in [0, 1], ``inplace`` is true, a name is not a parameter's, or there is
            nothing to thin.

    Example:
        >>> import torch
        >>> layer = DropConnect(nn.LSTM(4, 5), 0.5, names=["weight_hh_l0"])
        >>> output, state = layer(torch.ones(7, 2, 4))
        >>> output.shape
        torch.Size([7, 2, 5])

    Source: Wan et al. (2013); for recurrent weights Merity et al. (2018).
    """

    def __init__(
        self, module: nn.Module, p: float = 0.5, names: str | Sequence[str] | None = None, *, inplace: bool = False
    ) -> None:
        super().__init__(p, inplace)
        known = [name for name, _ in module.named_parameters()]
        if names is None:
            names = _weights(module)
        elif isinstance(names, str):
            names = (names,)
        if unknown := set(names) - set(known):
            raise WellposedError(f"DropConnect was given names {sorted(unknown)}; expected some of {known}")
        if not names:
            raise WellposedError(f"DropConnect was given no weight to thin; expected names, some of {known}")
        self._offsets = {name: Key(0).fold(name).seed for name in names}
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
        weights = {name: attrgetter(name)(self.module) for name in self.names}
        for weight in weights.values():
            check_input("DropConnect", weight)
        thinned = self._thinned({name: weight.resolve_conj() for name, weight in weights.items()})
        return lambda *arguments, **options: functional_call(self.module, thinned, arguments, options)

    def _thinned(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """All the weights, thinned by one draw of the module's stream, which checkpointing repeats as one."""
        if any(map(is_sharded, weights.values())):
            key, call, *_ = self.next_stream(next(filter(is_sharded, weights.values())))
            return {
                name: thin_blocks(x, Mask(self._p, (key + self._offsets[name]) % 2**64, call), Placed())
                for name, x in weights.items()
            }
        if not all(map(is_ordinary, weights.values())):
            stream = self.next_stream_tensor(next(iter(weights.values())))
            offsets = {name: stream_tensor(offset, 0) for name, offset in self._offsets.items()}
            return {
                name: _by_parts(
                    x, lambda x, dims, o=offsets[name]: thin_by_operator(x, stream + o, self._rate, dims, batch=-1)
                )
                for name, x in weights.items()
            }
        if self._p == 0.0:
            return weights
        key, call, *_ = self.next_stream()
        keys = {name: (key + offset) % 2**64 for name, offset in self._offsets.items()}
        return {
            name: _by_parts(x, lambda x, dims, key=keys[name]: thin(x, Mask(self._p, key, call, dims)))
            for name, x in weights.items()
        }

    def extra_repr(self) -> str:
        """The arguments, as they are printed."""
        return f"p={self.p}, names={self.names}"


def _by_parts(x: Tensor, thinned: Callable[..., Tensor]) -> Tensor:
    """Thin a weight; of a complex one, an element is dropped or kept whole."""
    if not x.is_complex():
        return thinned(x, None)
    return torch.view_as_complex(thinned(torch.view_as_real(x), tuple(range(x.dim()))))


def _weights(module: nn.Module) -> list[str]:
    """The names of the parameters that are thinned by default."""
    names = []
    for name, parameter in module.named_parameters():
        path = name.split(".")
        if "parametrizations" in path:
            tensor = path[path.index("parametrizations") + 1]
            if "weight" in tensor:
                raise WellposedError(
                    f"DropConnect found that {tensor!r} is made from {name!r} by a parametrisation; what it is made "
                    f"from can be thinned, with names=[{name!r}], but not what is made"
                )
        elif "weight" in path[-1] and parameter.dim() > 1:
            names.append(name)
    return names


class Zoneout(Thinning):
    """Zoneout: keep elements of a recurrent cell's state from the step before, with probability p while training.

    The new state is h' where kept and h elsewhere, where h' is what the cell makes of h; outside training
    h + (1 - p) (h' - h), its expectation.

    Args:
        cell: An ``RNNCell``, ``GRUCell`` or ``LSTMCell``.
        p: The probability that an element of the hidden state stays.
        cell_p: The same for an LSTM's cell state; p when ``None``.
        inplace: Only ``False`` is possible; taken since torch's modules take it.

    Shape:
        That of the cell; a state that is not given is zero.

    Raises:
        WellposedError: If a probability is not in [0, 1], ``inplace`` is true, or the cell is none of the three.

    Example:
        >>> import torch
        >>> cell = Zoneout(nn.LSTMCell(4, 5), 0.1)
        >>> h, c = cell(torch.ones(2, 4))
        >>> h.shape, c.shape
        (torch.Size([2, 5]), torch.Size([2, 5]))

    Source: Krueger et al. (2017).
    """

    def __init__(
        self,
        cell: nn.RNNCell | nn.GRUCell | nn.LSTMCell,
        p: float = 0.1,
        cell_p: float | None = None,
        *,
        inplace: bool = False,
    ) -> None:
        super().__init__(p, inplace)
        if not isinstance(cell, _CELLS):
            raise WellposedError(f"Zoneout was given {cell!r}; expected an nn.RNNCell, nn.GRUCell or nn.LSTMCell")
        self.cell = cell
        self.memory = Thinning(p if cell_p is None else cell_p) if isinstance(cell, nn.LSTMCell) else None

    def forward(self, x: Tensor, state: Any = None) -> Any:
        """The next state: a tensor, or a pair of tensors for an LSTM cell."""
        check_beside("Zoneout", self.cell, x)
        if self.memory is None:
            before = x.new_zeros(*x.shape[:-1], self.cell.hidden_size) if state is None else state
            return self._move(self, before, self.cell(x, before))
        if state is None:
            state = 2 * (x.new_zeros(*x.shape[:-1], self.cell.hidden_size),)
        hidden, memory = self.cell(x, state)
        return self._move(self, state[0], hidden), self._move(self.memory, state[1], memory)

    def _move(self, thinning: Thinning, before: Tensor, after: Tensor) -> Tensor:
        if not self.training:
            return before + (after - before) * (1 - thinning.p)
        check_input("Zoneout", after)
        after = arrived(after)
        batch = after.dim() - 2
        if is_ordinary(after) or is_sharded(after):
            p = thinning.p
            if p == 0.0:
                return after
            key, call, row, placed, _ = thinning.next_stream(after, batch)
            if placed is not None:
                ones = torch.ones_like(after.detach())
                return torch.where(thin_blocks(ones, Mask(p, key, call), placed) != 0, after, before)

            def thinned(ones: Tensor) -> Tensor:
                return thin(ones, Mask(p, key, call, None, part_of_batch(ones, row, batch)))
        else:
            stream, rate = thinning.next_stream_tensor(after.detach()), thinning._rate

            def thinned(ones: Tensor) -> Tensor:
                return thin_by_operator(ones, stream, rate, batch=batch)

        def kept(x: Tensor) -> Tensor:
            return thinned(torch.ones(x.shape, dtype=torch.float32, device=x.device)) != 0

        def choose(states: Tensor) -> Tensor:
            new, old = states.unbind()
            return torch.where(kept(new), new, old)

        def give(grad: Tensor) -> Tensor:
            moved = kept(grad)
            return torch.stack([torch.where(moved, grad, 0.0), torch.where(moved, 0.0, grad)])

        return linear(torch.stack([after, before]), choose, give)
