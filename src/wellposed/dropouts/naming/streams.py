"""``Stochastic``: the module that draws a new mask in each call, and the RNG stream that it draws from.

Inside a ``keyed`` block the block's scope tells the stream. Outside, one int64 a call is drawn from torch's default CPU
generator: it is the key, and the call number is 0. ``torch.manual_seed`` governs that generator, and activation
checkpointing, which restores it, repeats the mask.

A compiled graph asks for the stream when it runs, by the operator ``wellposed::stream``, so that neither a new step nor
a new seed causes a recompilation. The operator takes the input that the mask is for, or two draws would be merged into
one, and carries the tag that tells compilers never to draw again when they recompute. The module is a number in a
tensor, since graphs are not specialised on the values of tensors.
"""

import functools
import itertools
import os
import threading
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

import numpy as np
import torch
from torch import Tensor, nn
from torch.compiler import is_compiling
from torch.utils.dlpack import from_dlpack

from wellposed import _torch
from wellposed.dropouts.functional import check_kind
from wellposed.dropouts.masks import stream_tensor
from wellposed.dropouts.naming.nesting import check_no_other_thread, current_scope, open_scopes
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
        self._number = next(_numbers)
        _modules[self._number] = self
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

# Numbers of one process mean nothing in another, which may load its graphs: each starts elsewhere.
_numbers = itertools.count(int.from_bytes(os.urandom(8)) >> 2)
_modules: WeakValueDictionary[int, Stochastic] = WeakValueDictionary()


def draw_key() -> int:
    """Draw a key's 64 bits from torch's default CPU generator."""
    return int(_drawn.number.random_()) % 2**64


class _Drawn(threading.local):
    """The tensor that a thread draws keys into; making a new one for each key would take longer than drawing."""

    def __init__(self) -> None:
        with torch.inference_mode(mode=False):  # in which the first key may be drawn, and later ones outside
            self.number = own_tensor(0, torch.int64)


_drawn = _Drawn()


_library: Any = torch.library.Library("wellposed", "FRAGMENT")
_library.define(
    "stream(Tensor x, Tensor module, int place=0) -> Tensor",
    tags=(torch.Tag.nondeterministic_seeded, torch.Tag.pt2_compliant_tag, torch.Tag.cudagraph_unsafe),
)


@torch.library.impl(_library, "stream", "CompositeExplicitAutograd")
def _stream(x: Tensor, module: Tensor, place: int = 0) -> Tensor:
    owner = _modules.get(int(module.item()))
    if owner is None:
        raise WellposedError(
            "a graph has a dropout module that is not in this process, or is no more, so it has no mask; export or "
            "trace the model in evaluation mode, model.eval(), or call wellposed.dropout with a key in it"
        )
    if _torch.backward_pass() != -1 and current_scope() is None and _torch.generator_is_restored() is None:
        raise WellposedError(
            f"a compiled graph draws the mask of {owner} again in its backward pass, which cannot give the same mask; "
            "set torch._functorch.config.activation_memory_budget above 0, or train inside wp.keyed"
        )
    key, call, row, placed, _ = owner.next_stream(x if x.dim() else None)
    if placed is not None:
        raise WellposedError(
            f"{owner} drops a shard of a larger tensor, which a compiled graph, a function transform or a mode that "
            "watches every operator cannot be told; run the layer without them, or tell wp.keyed rows alone"
        )
    return stream_tensor(key, call, row)


@torch.library.register_fake("wellposed::stream", lib=_library)  # type: ignore[untyped-decorator]
def _fake(x: Tensor, module: Tensor, place: int = 0) -> Tensor:
    _save_always()
    return torch.empty(3, dtype=torch.int64, device="cpu")


@functools.cache
def _save_always() -> None:
    """Have compilers save streams for the backward pass; to save memory some would draw them again, despite the tag.

    It is done when something is first traced, since the tracer takes long to import.
    """
    from torch.fx.experimental.proxy_tensor import ProxyTorchDispatchMode
    from torch.utils.checkpoint import CheckpointPolicy

    def trace(mode: Any, operator: Any, types: Any, arguments: Any, options: Any) -> Any:
        place = len(mode.tracer.graph.nodes)
        stream = mode.__torch_dispatch__(operator, types, (*arguments[:2], place), options or {})
        for node in reversed(mode.tracer.graph.nodes):
            if node.target is operator:
                node.meta["recompute"] = CheckpointPolicy.MUST_SAVE
                break
        return stream

    torch.library.register_torch_dispatch("wellposed::stream", ProxyTorchDispatchMode, trace, lib=_library)


@torch.library.impl(_library, "stream", "FuncTorchVmapMode")
def _vmap(x: Tensor, module: Tensor, place: int = 0) -> Tensor:
    """Draw as the randomness of the innermost vmap says, also where the input is not batched, as a weight is."""
    vmap = _torch.innermost_vmap()
    randomness = vmap.randomness()
    if randomness == "error":
        raise RuntimeError(
            "vmap: dropout draws a random number, which vmap's randomness='error' forbids; "
            "pass randomness='different' or 'same' to vmap, or use wellposed.dropout with a key"
        )
    with _torch.below_vmap():
        scope = None if is_compiling() else current_scope()
        if scope is not None and scope.shift is not None:
            shift, dim = _torch.unbatched(scope.shift, vmap)
            if dim is not None:  # this vmap's samples are those of Monte Carlo, whose calls are numbered by the shift
                streams = torch.ops.wellposed.stream(module, module) + shift.movedim(dim, 0)
                return _torch.batched(streams, vmap)
        if randomness == "same":
            return torch.ops.wellposed.stream(module, module)  # type: ignore[no-any-return]
        streams = [torch.ops.wellposed.stream(module, module) for _ in range(vmap.batch_size())]
        return _torch.batched(torch.stack(streams), vmap)
