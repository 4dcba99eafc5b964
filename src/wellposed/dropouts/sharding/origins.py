"""Where a plain tensor comes from: whether it is the local part of a DTensor, as autograd's graph has recorded it.

Tensor parallelism hands plain tensors from one layer to the next, as ``ColwiseParallel`` does by default. Nothing in
such a tensor says that it is a part, but its graph leads back to the DTensor whose local part was taken. Through
functions of elements alone its place stays the same; through others the place is lost, and that is told, too.
"""

import re
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from wellposed._torch import forward_hooks, taken_from
from wellposed.models.copying import is_fully_sharded
from wellposed.random.shards import blocks_held, is_sharded


class Origin(NamedTuple):
    """What a plain tensor is of a larger one.

    Attributes:
        mesh: The mesh that the larger one is distributed over; ``None`` if the graph shows no DTensor.
        placements: How; of a tensor that is whole on every process, all are replicated.
        shape: The shape of the larger one; ``None`` where the tensor's own place in it is lost.
        is_hidden: Whether there is no graph to tell.
        has_gaps: Whether something of what it is made from has none.
    """

    mesh: Any = None
    placements: tuple[Any, ...] = ()
    shape: tuple[int, ...] | None = None
    is_hidden: bool = False
    has_gaps: bool = False

    @property
    def is_part(self) -> bool:
        """Whether the tensor, or what it is made from, is a shard."""
        return any(hasattr(placement, "dim") for placement in self.placements)


Known = dict[Any, Origin]
_NOWHERE, _HIDDEN = Origin(), Origin(is_hidden=True)
# Autograd's nodes of functions whose result has, at each index, what they make of their inputs there.
_OF_ELEMENTS = re.compile(
    r"_?("
    r"Abs|Add|Addcdiv|Addcmul|Alias|Celu|Clamp|ClampMax|ClampMin|Clone|Div|Elu|Erf|Exp|Expand|Gelu|"
    r"Hardshrink|Hardsigmoid|Hardswish|Hardtanh|LeakyRelu|Log|LogSigmoid|MaskedFill|Mish|Mul|"
    r"NativeDropout|Neg|Pow|Reciprocal|Relu|RreluWithNoise|Rsqrt|Sigmoid|Silu|Softplus|Softshrink|Sqrt|Sub|"
    r"Tanh|Thin|Threshold|ToCopy|Where"
    r")Backward\d*|_LinearBackward|GeneratedBackwardFor_wellposed_dropout_defaultBackward"
)


def origin_of(x: Tensor, known: Known) -> Origin:
    """Where a plain tensor comes from.

    Args:
        x: The tensor.
        known: The origins of autograd's nodes that were looked at before, to which those are added that are looked at.
    """
    node = x.grad_fn
    if node is None:
        return _NOWHERE if x.requires_grad and torch.is_grad_enabled() else _HIDDEN
    waiting = [node]
    while waiting:
        node = waiting[-1]
        if node in known:
            waiting.pop()
            continue
        local_part = taken_from(node)
        if local_part is not None:
            mesh, placements, shape = local_part
            known[node] = Origin(mesh, tuple(placements), tuple(shape))
            continue
        before = [parent for parent, _ in node.next_functions if parent is not None]
        new = [parent for parent in before if parent not in known]
        waiting += new
        if not new:
            has_gaps = len(before) < len(node.next_functions)
            known[node] = _joined(node.name(), [known[parent] for parent in before], has_gaps)
    origin = known[x.grad_fn]
    is_settled = not origin.is_part or origin.shape is None
    if is_settled or blocks_held(origin.shape or (), origin.mesh, origin.placements, tuple(x.shape)) is not None:
        return origin
    return origin._replace(shape=None)


def _joined(name: str, origins: list[Origin], has_gaps: bool) -> Origin:
    """The origin of what a function makes of tensors."""
    is_hidden = name == _CHECKPOINT or any(origin.is_hidden for origin in origins)
    has_gaps = has_gaps or any(origin.has_gaps for origin in origins)
    found = [origin for origin in origins if origin.mesh is not None]
    parts = {(origin.mesh, origin.placements, origin.shape) for origin in found if origin.is_part}
    if not parts:
        return (found[0] if found else _NOWHERE)._replace(is_hidden=is_hidden, has_gaps=has_gaps)
    mesh, placements, shape = next(iter(parts))
    keeps_place = len(parts) == 1 and _OF_ELEMENTS.fullmatch(name) is not None
    return Origin(mesh, placements, shape if keeps_place else None, is_hidden, has_gaps)


_CHECKPOINT = "CheckpointFunctionBackward"  # of the reentrant kind, which runs a segment without a graph


def is_tensor_parallel(model: nn.Module) -> bool:
    """Whether layers of a model may hand one another shards as plain tensors."""
    modules = list(model.modules())
    if any(_is_of_a_style(hook) for module in modules for hooks in forward_hooks(module) for hook in hooks.values()):
        return True
    return any(map(is_sharded, model.parameters())) and not any(map(is_fully_sharded, modules))


def _is_of_a_style(hook: Any) -> bool:
    """Whether a hook is one of those that ``parallelize_module`` and ``distribute_module`` register."""
    return str(getattr(hook, "__module__", "")).startswith("torch.distributed.tensor")
