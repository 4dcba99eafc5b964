"""The operator ``wellposed::stream``: how a graph asks a dropout module for the stream of its next mask.

It is asked when the graph runs, so that neither a new step nor a new seed causes a recompilation. It takes the input
that the mask is for, or two draws would be merged into one, and carries the tag that tells compilers never to draw
again when they recompute. The module is a number in a tensor, since graphs are not specialised on the values of
tensors.
"""

import functools
import itertools
import os
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn
from torch.compiler import is_compiling

from wellposed import _torch
from wellposed.dropouts.masks import stream_tensor
from wellposed.dropouts.naming.nesting import current_scope
from wellposed.errors import WellposedError

# Numbers of one process mean nothing in another, which may load its graphs: each starts elsewhere.
_numbers = itertools.count(int.from_bytes(os.urandom(8)) >> 2)
_modules: WeakValueDictionary[int, Any] = WeakValueDictionary()


def enlisted(module: nn.Module) -> int:
    """The number by which graphs ask for a module that draws, as long as it is there."""
    number = next(_numbers)
    _modules[number] = module
    return number


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
