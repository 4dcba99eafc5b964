"""Shards: what a process holds of a distributed tensor, and where that lies in the whole."""

import itertools
import sys
from typing import Any, NamedTuple

from torch import Tensor

from wellposed._torch import PLAIN_TYPES
from wellposed.errors import WellposedError
from wellposed.random.box import Box

Runs = list[tuple[int, int]]
"""Ranges of indices, each the first and the one after the last."""


class _Split(NamedTuple):
    """One split of a dimension: into how many parts, and which is held; of how many equal pieces, each on its own."""

    dim: int
    parts: int
    held: int
    factor: int


def is_sharded(tensor: Tensor) -> bool:
    """Whether a tensor is a DTensor."""
    if type(tensor) in PLAIN_TYPES:
        return False
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(tensor, module.DTensor)


def local_blocks(tensor: Tensor, box: Box | None = None) -> list[tuple[Tensor, Box | None]]:
    """The blocks of the whole that this process holds of a tensor, and where each lies in it.

    Args:
        tensor: Any tensor.
        box: Where it lies, if it is not a DTensor, which knows that itself.

    Returns:
        Views of a DTensor's local shard with their boxes: one where its rows lie side by side, several where it was
        sharded in strides, none where it is empty. Any other tensor itself, with the box as it was given.

    Raises:
        WellposedError: If the tensor stores its values in another form, or a DTensor is given with a box, has partial
            placements, or has a local shard of another shape than its placements give.

    Example:
        >>> import torch
        >>> [block.shape for block, box in local_blocks(torch.zeros(2, 3))]
        [torch.Size([2, 3])]
    """
    if not is_sharded(tensor):
        if type(tensor) not in PLAIN_TYPES and (hasattr(tensor, "__tensor_flatten__") or _has_no_memory(tensor)):
            raise WellposedError(
                f"a tensor of type {type(tensor).__name__} was given, which stores its values in another form, such as "
                "a quantised one; fill the plain tensor that it is made from, and convert that"
            )
        return [(tensor, box)]
    whole: Any = tensor
    if box is not None:
        raise WellposedError(f"a DTensor was given with {box}; give no box, since a DTensor knows its place")
    held = runs_held(tensor)
    if whole.device_mesh.get_coordinate() is None:
        return []
    local = whole.to_local()
    everything = tuple(slice(0, size) for size in local.shape)
    return [(local if inner == everything else local[inner], box) for inner, box in _blocks(tuple(whole.shape), held)]


def runs_held(tensor: Tensor) -> list[Runs]:
    """The indices that this process holds of a DTensor in each dimension: ranges, in the local shard's order.

    Raises:
        WellposedError: If it has partial placements, or a local shard of another shape than its placements give.
    """
    whole: Any = tensor
    if any(placement.is_partial() for placement in whole.placements):
        raise WellposedError(
            f"a DTensor with placements {whole.placements} was given, of which a process holds terms of a sum; "
            "expected sharded or replicated placements"
        )
    if whole.device_mesh.get_coordinate() is None:
        return [[] for _ in whole.shape]
    shape, local = tuple(whole.shape), tuple(whole.to_local().shape)
    held = _runs_held(shape, whole.device_mesh, whole.placements, local)
    if held is None:
        raise WellposedError(
            f"a DTensor of shape {shape} with placements {whole.placements} on {whole.device_mesh} was given, whose "
            f"local shard has shape {local}; expected the shard that these placements give"
        )
    return held


def blocks_held(
    shape: tuple[int, ...], mesh: Any, placements: Any, local: tuple[int, ...]
) -> list[tuple[tuple[slice, ...], Box]] | None:
    """Where the blocks lie that this process holds of a whole, in its local shard and in the whole.

    Args:
        shape: The shape of the whole.
        mesh: The mesh that it is distributed over.
        placements: How; terms of a sum count as whole.
        local: The shape of the local shard.

    Returns:
        Slices of the local shard, and boxes; ``None`` if these placements give a shard of another shape.
    """
    held = _runs_held(shape, mesh, placements, local)
    return None if held is None else _blocks(shape, held)


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


def _blocks(shape: tuple[int, ...], held: list[Runs]) -> list[tuple[tuple[slice, ...], Box]]:
    """Every choice of one run in each dimension."""
    blocks = [tuple(zip(*block, strict=True)) for block in itertools.product(*map(_placed, held))]
    return [(inner, Box(shape, outer)) for inner, outer in blocks] if shape else [((), Box((), ()))]


def _runs_held(shape: tuple[int, ...], mesh: Any, placements: Any, local: tuple[int, ...]) -> list[Runs] | None:
    """The indices that this process holds in each dimension, if they are as many as the local shard has."""
    place = mesh.get_coordinate()
    splits = [
        _Split(placement.dim, mesh.size(i), place[i], getattr(placement, "split_factor", 1))
        for i, placement in enumerate(placements)
        if hasattr(placement, "dim")
    ]
    # Torch defines a strided placement as one that comes first. What fully_shard makes of a shard of tensor parallelism
    # came last: the same rows, but for few of them on many processes, where the local shard's shape tells.
    plain = [split for split in splits if split.factor == 1]
    last = [split._replace(factor=1) for split in reversed(splits) if split.factor > 1]
    for order in (splits, [*plain, *last]):
        held = [_runs(size, [s for s in order if s.dim == dim]) for dim, size in enumerate(shape)]
        sizes = tuple(sum(end - first for first, end in runs) for runs in held)
        if sizes == local or (0 in sizes and 0 in local):  # of nothing, fully_shard keeps no shape
            return held
    return None


def _runs(size: int, splits: list[_Split]) -> Runs:
    """The indices that are left of a dimension when it is split again and again."""
    runs = [(0, size)]
    for split in splits:
        pieces = [_part(runs, split.factor, j) for j in range(split.factor)]
        runs = [run for piece in pieces for run in _part(piece, split.parts, split.held)]
    return runs


def _part(runs: Runs, parts: int, index: int) -> Runs:
    """One of the equal parts of runs, of which the last may be shorter or empty, as ``torch.chunk`` makes them."""
    size = -(-sum(end - first for first, end in runs) // parts)
    start, stop, passed, found = size * index, size * (index + 1), 0, []
    for first, end in runs:
        low, high = first + max(start - passed, 0), min(first + stop - passed, end)
        if low < high:
            found.append((low, high))
        passed += end - first
    return found


def _placed(runs: Runs) -> list[tuple[slice, int]]:
    """Where each run lies in the local shard, and where it starts in the whole; runs that touch are one."""
    joined: Runs = []
    for first, end in runs:
        if joined and joined[-1][1] == first:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((first, end))
    ends = itertools.accumulate(end - first for first, end in joined)
    return [(slice(at - end + first, at), first) for at, (first, end) in zip(ends, joined, strict=True)]
