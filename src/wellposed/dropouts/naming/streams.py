"""``Stochastic``: the module that draws a new mask in each call, and the RNG stream that it draws from.

Inside a ``keyed`` block the block's scope tells the stream. Outside, one int64 a call is drawn from torch's default CPU
generator: it is the key, and the call number is 0. ``torch.manual_seed`` governs that generator, and activation
checkpointing, which restores it, repeats the mask.
"""

import threading
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.compiler import is_compiling
from torch.utils.dlpack import from_dlpack

from wellposed import _torch
from wellposed.dropouts.functional import check_kind
from wellposed.dropouts.naming.nesting import check_no_other_thread, current_scope, open_scopes
from wellposed.dropouts.naming.stream_operator import enlisted
from wellposed.dropouts.sharding.blockwise import Placed
from wellposed.dropouts.sharding.places import Where
from wellposed.errors import WellposedError
from wellposed.random.shards import is_sharded


class Drawn(NamedTuple):
    """The stream of a mask, and which part of a larger mask it is.

    Attributes:
        key: The 64 bits of the key.
        call: The call number.
        row: The input's first row in a larger batch.
        placed: Where the input lies, if it is more than rows of a batch.
        shift: A scalar on a device that is to be added to the call number.
    """

    key: int
    call: int
    row: int = 0
    placed: Placed | None = None
    shift: Tensor | None = None


class Stochastic(nn.Module):
    """A module that draws a new mask of dropout each time it is called in training mode.

    Args:
        inplace: Taken since torch's dropout modules take it; only ``False`` is possible.

    Attributes:
        stream: The name of the RNG stream that ``keyed`` draws the masks from; ``None`` stands for the module's path in
            the model that is called.

    Raises:
        WellposedError: If ``inplace`` is true.
    """

    stream: str | None = None
    owner: Any = None  # who draws, where a module stands in for a function
    _keyed_nodes: tuple[int, int, int] | None  # a thread, and the first of its nodes and the one after the last
    _number: int
    _graphs_number: Tensor

    def __init__(self, inplace: bool = False) -> None:
        nn.Module.__init__(self)  # and not torch's dropout, which some extend too, and which has its own p and inplace
        self.inplace = inplace
        self._enlist()

    @property
    def inplace(self) -> bool:
        """``False``, since the output never takes the place of the input."""
        return False

    @inplace.setter
    def inplace(self, inplace: bool) -> None:
        if inplace:
            raise WellposedError(
                f"{type(self).__name__} was given inplace={inplace!r}; expected False. No mask is stored for the "
                "backward pass, so writing over the input would save little, and the layer that made the input may "
                "need it for its own gradient; leave inplace out"
            )

    def next_stream(self, x: Tensor | None = None, batch: int = 0) -> Drawn:
        """The stream of the next mask, without a shift.

        Args:
            x: The tensor that the mask is for; ``None`` where the mask is the same however that lies, as of weights.
            batch: Its dimension that holds the samples; -1 if none does.

        Raises:
            WellposedError: If it is a DTensor outside of all ``keyed`` blocks, or where it lies is not known.
        """
        drawn = self.next_shifted_stream(x, batch, can_shift=False)
        if drawn.shift is None:
            return drawn
        return drawn._replace(call=(drawn.call + int(drawn.shift)) % 2**64, shift=None)

    def next_shifted_stream(self, x: Tensor | None = None, batch: int = 0, *, can_shift: bool = True) -> Drawn:
        """The same, with a scalar on the device that is added to the call number, where a ``keyed`` block has one.

        Args:
            x: The tensor that the mask is for, as above.
            batch: Its dimension that holds the samples.
            can_shift: Whether what draws can leave that to the device, so that a captured graph draws anew.
        """
        scope = current_scope()
        shift = None if scope is None else scope.device_step
        if (
            torch.cuda.is_initialized()
            and torch.cuda.is_current_stream_capturing()
            and not (can_shift and shift is not None)
        ):
            raise WellposedError(
                f"{self} is being captured in a CUDA graph, which would repeat the mask of this call whenever it is "
                "replayed; what only drops and scales can be captured in wp.keyed(seed, step) with a step in a tensor "
                'on the device, all else by torch.compile(mode="reduce-overhead"), or use wellposed.dropout with '
                "a key if one mask is what you want"
            )
        if scope is None:
            if open_scopes:
                check_no_other_thread(self)
            if _torch.backward_pass() != -1:
                self._refuse_to_guess()
            if x is not None and is_sharded(x):
                raise WellposedError(
                    f"{type(self).__name__} was given a DTensor outside of all wp.keyed blocks, where each process "
                    "draws from its own generator, so that their masks would not be parts of one; call it in a "
                    "wp.keyed block"
                )
            return Drawn(draw_key(), 0)
        key, call = scope.next_stream(self, self.stream, self.owner)
        where = Where(scope.row) if x is None else scope.where(self, x, batch)
        return Drawn(key, call, *where, shift)

    def next_stream_tensor(self, x: Tensor) -> Tensor:
        """The same as the int64 tensor (key, call, row) that operators take, for an ``x`` of any kind but DTensors.

        Args:
            x: The tensor that the mask is for.
        """
        check_kind(type(self).__name__, x)
        # A graph is given the tensor that it reads each time it runs; else it is a tensor of the modes that are on.
        number = self._graphs_number if is_compiling() else torch.tensor(self._number, device="cpu")
        stream: Tensor = torch.ops.wellposed.stream(x, number)
        return stream

    def __prepare_scriptable__(self) -> nn.Module:
        raise WellposedError(
            f"{type(self).__name__} was given to torch.jit.script, which compiles no dropout of wellposed's; in "
            "evaluation mode torch.jit.trace and torch.export take it, or put torch's dropout back where "
            "wp.convert_dropout took it, by wp.convert_dropout(model, back=True)"
        )

    def _refuse_to_guess(self) -> None:
        """Draw in a recomputation only if the forward pass drew from torch's generator, and that has been restored."""
        node = _torch.node_number()
        _, first, last = self._keyed_nodes or (0, 0, 0)
        if last > 0 and (node is None or first <= node < last):
            raise WellposedError(
                f"{self} ran forward in a wp.keyed block and runs again in a backward pass outside of it (activation "
                "checkpointing); call backward inside the block, or pass context_fn=wp.checkpoint_context to "
                "torch.utils.checkpoint.checkpoint; what ran outside of all blocks between two of them needs its "
                "backward pass before the second"
            )
        if _torch.generator_is_restored() is False:
            raise WellposedError(
                f"{self} runs again in a backward pass under activation checkpointing with preserve_rng_state=False, "
                "which would give another mask; pass preserve_rng_state=True to torch.utils.checkpoint.checkpoint, or "
                "train inside wp.keyed"
            )

    def _enlist(self) -> None:
        self._number = enlisted(self)
        self._graphs_number = own_tensor(self._number, torch.int64)
        self._keyed_nodes = None

    def __getstate__(self) -> dict[str, Any]:
        own = ("_number", "_graphs_number", "_keyed_nodes")
        return {name: value for name, value in self.__dict__.items() if name not in own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._enlist()


def own_tensor(value: float, dtype: torch.dtype) -> Tensor:
    """A scalar tensor with memory, also under modes that fake tensors, in which models may be made."""
    return from_dlpack(np.array(value, _NUMPY[dtype]))


_NUMPY = {torch.int64: np.int64, torch.float64: np.float64}


def draw_key() -> int:
    """Draw a key's 64 bits from torch's default CPU generator."""
    return int(_drawn.number.random_()) % 2**64


class _Drawn(threading.local):
    """The tensor that a thread draws keys into; making a new one for each key would take longer than drawing."""

    def __init__(self) -> None:
        with torch.inference_mode(mode=False):  # in which the first key may be drawn, and later ones outside
            self.number = own_tensor(0, torch.int64)


_drawn = _Drawn()
