"""Shards: the local shard of a distributed tensor, and where it lies in the whole."""

import math
import sys
from typing import Any

from torch import Tensor

from wellposed._torch import PLAIN_TYPES
from wellposed.errors import WellposedError
from wellposed.random.box import Box


def is_sharded(tensor: Tensor) -> bool:
    """Whether a tensor is a DTensor."""
    if type(tensor) in PLAIN_TYPES:
        return False
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(tensor, module.DTensor)


def local_block(tensor: Tensor, box: Box | None = None) -> tuple[Tensor, Box | None]:
    """The local shard of a tensor, and where it lies in the whole.

    Args:
        tensor: Any tensor.
        box: Where it lies, if it is not a DTensor, which knows that itself.

    Returns:
        The local shard of a DTensor, and its box; any other tensor itself, with the box as it was given.

    Raises:
        WellposedError: If the tensor stores its values in another form, or a DTensor is given with a box, has partial
            placements, or is sharded so that a local shard is not a block.

    Example:
        >>> import torch
        >>> local_block(torch.zeros(2, 3))[0].shape
        torch.Size([2, 3])
    """
    if not is_sharded(tensor):
        if type(tensor) not in PLAIN_TYPES and (hasattr(tensor, "__tensor_flatten__") or _has_no_memory(tensor)):
            raise WellposedError(
                f"a tensor of type {type(tensor).__name__} was given, which stores its values in another form, such as "
                "a quantised one; fill the plain tensor that it is made from, and convert that"
            )
        return tensor, box
    whole: Any = tensor
    if box is not None:
        raise WellposedError(f"a DTensor was given with {box}; give no box, since a DTensor knows its place")
    if any(placement.is_partial() for placement in whole.placements):
        raise WellposedError(
            f"a DTensor with placements {whole.placements} was given, of which a process holds terms of a sum; "
            "expected sharded or replicated placements"
        )
    if _is_interleaved(whole):
        raise WellposedError(
            f"a DTensor of shape {tuple(whole.shape)} with placements {whole.placements} was given, of which a process "
            "holds rows that do not lie side by side; expected shards that are blocks, such as those of even sharding"
        )
    return whole.to_local(), Box(tuple(whole.shape), _offset(whole))


def gathered(tensor: Tensor) -> Tensor:
    """A tensor as a whole: a DTensor's shards or terms of a sum are brought together, for which all have to call it."""
    given: Any = tensor
    whole: Tensor = given.full_tensor() if is_sharded(tensor) else tensor
    return whole


def total(values: Tensor, like: Tensor) -> Tensor:
    """Sum numbers over the processes that have different shards of a tensor (an all-reduce); all have to call it.

    Args:
        values: This process's numbers.
        like: The tensor; of one that is not a DTensor there is one shard.

    Returns:
        The sums, the same in each process.
    """
    if not is_sharded(like):
        return values
    from torch.distributed.tensor import DTensor, Partial, Replicate

    whole: Any = like
    terms = [Replicate() if placement.is_replicate() else Partial() for placement in whole.placements]
    values = values.to(whole.device_mesh.device_type)
    return DTensor.from_local(values, whole.device_mesh, terms, run_check=False).full_tensor()


def _has_no_memory(tensor: Tensor) -> bool:
    return tensor.is_cpu and tensor.numel() > 0 and tensor.data_ptr() == 0


def _offset(whole: Any) -> tuple[int, ...]:
    """Where the local shard starts; empty for a process outside the mesh, which has none."""
    mesh, place = whole.device_mesh, whole.device_mesh.get_coordinate()
    if place is None:
        return ()
    sizes, offset = list(whole.shape), [0] * whole.ndim
    sharded = [
        (i, p.dim, getattr(p, "split_factor", 1) > 1) for i, p in enumerate(whole.placements) if hasattr(p, "dim")
    ]
    # What a mesh dimension shards in strides, it sharded after the mesh dimensions that follow.
    for i, dim, _ in [s for s in sharded if not s[2]] + [s for s in reversed(sharded) if s[2]]:
        size = -(-sizes[dim] // mesh.size(i))
        start = min(size * place[i], sizes[dim])
        offset[dim] += start
        sizes[dim] = min(size, sizes[dim] - start)
    return tuple(offset)


def _is_interleaved(whole: Any) -> bool:
    """Whether a dimension was sharded unevenly, and by a later mesh dimension first, so that shards are not blocks."""
    placements, mesh = whole.placements, whole.device_mesh
    for i, placement in enumerate(placements):
        stride = getattr(placement, "split_factor", 1)
        if stride == 1:
            continue
        same = [j for j, other in enumerate(placements) if getattr(other, "dim", None) == placement.dim]
        inner = math.prod(mesh.size(j) for j in same if j > i)
        outer = math.prod(mesh.size(j) for j in same if j <= i)
        if stride != inner or whole.shape[placement.dim] % (inner * outer):
            return True
    return False
