"""Sharded tensors and models in a process of many, and what they may not do there."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode


def any_placements(chance: random.Random, mesh: tuple[int, ...], dims: int) -> list[Any]:
    """Placements on a mesh of a tensor of so many dimensions: whole, split, or split in strides."""
    from torch.distributed.tensor import Replicate, Shard
    from torch.distributed.tensor.placement_types import _StridedShard

    kinds: list[Any] = [
        lambda dim: Replicate(),
        Shard,
        Shard,
        lambda dim: _StridedShard(dim, split_factor=chance.randint(2, 5)),
    ]
    return [chance.choice(kinds)(chance.randrange(dims)) for _ in mesh]


def split_by_torch(whole: Tensor, mesh: Any, placements: list[Any]) -> Tensor:
    """What torch leaves of a tensor to this rank."""
    for size, place, placement in zip(mesh.shape, mesh.get_coordinate(), placements, strict=True):
        if not placement.is_replicate():
            whole = placement._split_tensor(whole, size, with_padding=False, contiguous=True)[0][place]
    return whole


def torch_gathers(placements: list[Any]) -> bool:
    """Whether torch's full_tensor can be relied on: it fails for some shards whose rows were split again in strides."""
    strided = {placement.dim for placement in placements if hasattr(placement, "split_factor")}
    return all(sum(getattr(placement, "dim", None) == dim for placement in placements) == 1 for dim in strided)


def unfilled(shape: tuple[int, ...], mesh: Any, placements: list[Any], dtype: torch.dtype | None = None) -> Any:
    """A sharded tensor of NaN, made without a word to other processes."""
    from torch.distributed.tensor import DTensor

    whole = torch.empty(shape, dtype=dtype, device="meta")
    local = torch.full_like(split_by_torch(whole, mesh, placements), torch.nan, device="cpu")
    return DTensor.from_local(local, mesh, placements, run_check=False, shape=whole.shape, stride=whole.stride())


class _Silence(TorchDispatchMode):
    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function.namespace in ("c10d", "_c10d_functional", "c10d_functional", "_dtensor", "symm_mem"):
            raise AssertionError(f"{function} sends to other processes")
        return NotImplemented if any(issubclass(t, _dtensor()) for t in types) else function(*args, **(kwargs or {}))


def _dtensor() -> type:
    from torch.distributed.tensor import DTensor

    return DTensor


@contextmanager
def silence() -> Iterator[None]:
    """Nothing may be sent to other processes, and no groups of them may be made."""
    groups = len(dist.distributed_c10d._world.pg_map)
    mode: Any = _Silence
    with mode():
        yield
    assert len(dist.distributed_c10d._world.pg_map) == groups, "a group of processes was made"


def full(tensor: Any) -> Tensor:
    """A tensor as a whole, in every process."""
    whole: Tensor = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return whole.detach()


def differing(model: nn.Module, whole: nn.Module) -> list[str]:
    """The parameters that are not bit for bit those of the unsharded model."""
    wanted = dict(whole.named_parameters())
    found = dict(model.named_parameters())
    assert found.keys() == wanted.keys()
    return [name for name, weight in found.items() if not torch.equal(full(weight), wanted[name])]
