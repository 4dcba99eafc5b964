"""What a process holds of a sharded weight: tensors cut as it is, and sums over all that hold parts of it."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed
from torch import Tensor

from wellposed.random.shards import Runs, gathered, is_sharded, runs_held


def local(tensor: Tensor) -> Tensor:
    """What this process holds of a tensor: of a DTensor its shard, which autograd can lead back to it."""
    if not is_sharded(tensor):
        return tensor
    whole: Any = tensor
    here = whole.to_local()
    here = here.wait() if hasattr(here, "wait") else here  # what is still on its way
    outside: Tensor = here if whole.device_mesh.get_coordinate() is not None else here.view([0] * whole.ndim)
    return outside


def placed_like(there: Tensor, values: Tensor) -> Tensor:
    """Values in the dtype, on the device and, if it is sharded, in the placements of a tensor of their shape."""
    if not is_sharded(there):
        return gathered(values).to(there)
    shard = Shard.of(there)
    return shard.like(shard.part(values).to(local(there)).clone())


@dataclass(frozen=True, eq=False)
class Shard:
    """What this process holds of a DTensor, or of a block of one.

    Args:
        whole: The DTensor.
        shape: The shape of the whole, or of the block.
        runs: The indices of it that are held here, in each dimension.
    """

    whole: Any
    shape: tuple[int, ...]
    runs: tuple[Runs, ...]

    @classmethod
    def of(cls, tensor: Tensor) -> "Shard":
        """What this process holds of a DTensor.

        Raises:
            WellposedError: If it has partial placements.
        """
        return cls(tensor, tuple(tensor.shape), tuple(runs_held(tensor)))

    @property
    def held(self) -> tuple[int, ...]:
        """The shape of what is held here."""
        return tuple(sum(end - first for first, end in runs) for runs in self.runs)

    @property
    def device(self) -> torch.device:
        """Where it is held."""
        device: torch.device = self.whole.device
        return device

    @property
    def splits(self) -> dict[int, tuple[int, ...]]:
        """The dimensions that are shared out, each with the dimensions of the mesh that do it."""
        found: dict[int, tuple[int, ...]] = {}
        for along, placement in enumerate(self.whole.placements):
            if not placement.is_replicate() and self.whole.device_mesh.size(along) > 1:
                found[placement.dim] = (*found.get(placement.dim, ()), along)
        return found

    @property
    def along(self) -> tuple[Any, tuple[int, ...]]:
        """The mesh, and those of its dimensions along which processes hold different parts."""
        return self.whole.device_mesh, tuple(sorted(m for dims in self.splits.values() for m in dims))

    @property
    def outline(self) -> Tensor:
        """A plain tensor of the shape of the whole that takes no memory."""
        return torch.zeros((), dtype=self.whole.dtype, device=self.device).expand(self.shape)

    def part(self, x: Any) -> Any:
        """Of a tensor that broadcasts to the whole what broadcasts to what is held here; numbers stay as they are."""
        if not isinstance(x, Tensor) or not (x.ndim or is_sharded(x)):
            return x
        if is_sharded(x):
            given: Any = x
            if tuple(x.shape) != tuple(self.whole.shape) or given.device_mesh != self.whole.device_mesh:
                return self.part(gathered(x))
            if given.placements != self.whole.placements:
                given = given.redistribute(placements=self.whole.placements)
            return local(given)
        for dim in range(x.ndim):
            size, runs = self.shape[dim - x.ndim], self.runs[dim - x.ndim]
            if x.shape[dim] == size and size > 1 and runs != [(0, size)]:
                pieces = [x.narrow(dim, first, end - first) for first, end in runs]
                x = torch.cat(pieces, dim) if len(pieces) > 1 else pieces[0] if pieces else x.narrow(dim, 0, 0)
        return x

    def whole_of(self, here: Tensor) -> Tensor:
        """The whole, gathered from what each process holds."""
        return gathered(self.like(here))

    def like(self, here: Tensor) -> Tensor:
        """What is held here of a tensor as a DTensor, placed as this one."""
        from torch.distributed.tensor import DTensor

        mesh, placements, size, stride = (
            self.whole.device_mesh,
            self.whole.placements,
            self.whole.shape,
            self.whole.stride(),
        )
        made: Tensor = DTensor.from_local(here, mesh, placements, run_check=False, shape=size, stride=stride)
        return made

    def narrow(self, dim: int, first: int, end: int) -> tuple["Shard", tuple[int, int, int]]:
        """What is held here of a block, and where it lies in what is held here of the whole."""
        inside = [(max(a, first) - first, min(b, end) - first) for a, b in self.runs[dim] if a < end and b > first]
        start = sum(max(min(b, first) - a, 0) for a, b in self.runs[dim])
        size = sum(b - a for a, b in inside)
        shape = (*self.shape[:dim], end - first, *self.shape[dim + 1 :])
        runs = (*self.runs[:dim], inside, *self.runs[dim + 1 :])
        return Shard(self.whole, shape, runs), (dim, start, start + size)

    def total(self, x: Tensor, along: tuple[int, ...] | None = None) -> Tensor:
        """The sums over all shards, each counted once; ``along`` some dimensions of the mesh only."""
        return self._reduced(x, along, torch.distributed.ReduceOp.SUM)

    def largest(self, x: Tensor, along: tuple[int, ...] | None = None) -> Tensor:
        """The largest over all shards; NaN if one is."""
        x = x.detach()
        bad = self._reduced(x.isnan().to(x.dtype), along, torch.distributed.ReduceOp.MAX)
        most = self._reduced(torch.where(x.isnan(), -math.inf, x), along, torch.distributed.ReduceOp.MAX)
        return torch.where(bad > 0, math.nan, most)

    def any(self, x: Tensor) -> bool:
        """Whether something is true in any shard."""
        return bool(self._reduced(x.any().float(), None, torch.distributed.ReduceOp.MAX) > 0)

    def _reduced(self, x: Tensor, along: tuple[int, ...] | None, operation: Any) -> Tensor:
        mesh, everywhere = self.along
        along = everywhere if along is None else along
        if not along or mesh.get_coordinate() is None:
            return x

        def reduced(x: Tensor) -> Tensor:
            values = x.detach().to(mesh.device_type, memory_format=torch.contiguous_format, copy=True)
            for m in along:
                torch.distributed.all_reduce(values, operation, group=mesh.get_group(m))
            return values.to(x.device)

        done: Tensor = _Reduction.apply(x, reduced)
        return done


class _Reduction(torch.autograd.Function):
    """Numbers of which every process computes all that follows: a derivative by what came of all is one by each."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, reduced: Callable[[Tensor], Tensor]) -> Tensor:
        return reduced(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return grad, None
