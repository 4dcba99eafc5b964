"""Models to be shared out over processes, and the ways to share them out."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

import wellposed as wp
from gloo import mesh_of


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, 2, batch_first=True)
        self.wide, self.back = nn.Linear(width, 3 * width), nn.Linear(3 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        out: Tensor = x + self.back(nn.functional.gelu(self.wide(x)))
        return out


class Net(nn.Module):
    """Weights of every kind of storage: packed, padded, tied, structured, in a buffer."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, width, padding_idx=3)
        self.blocks: Any = nn.ModuleList(Block(width) for _ in range(2))
        self.recurrent = nn.GRU(width, width, batch_first=True)
        self.middle = nn.Linear(width, width, bias=False)
        self.norm = nn.BatchNorm1d(5)
        self.head = nn.Linear(width, 11, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        for block in self.blocks:
            x = block(x)
        out: Tensor = self.head(self.norm(torch.relu(self.middle(x))))
        return out


IDS = torch.zeros(2, 5, dtype=torch.long)
RULES: Any = {"middle.weight": wp.init.Orthogonal(), "blocks.1.back.weight": wp.init.Identity()}


class Layer(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(width), nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.down(nn.functional.gelu(self.up(self.norm(x))))
        return out


class Experts(nn.Module):
    """Stacked weights, one for each expert, of which all take part."""

    def __init__(self, count: int, width: int, hidden: int) -> None:
        super().__init__()
        self.up = nn.Parameter(torch.empty(count, hidden, width))
        self.down = nn.Parameter(torch.empty(count, width, hidden))

    def forward(self, x: Tensor) -> Tensor:
        inner = torch.relu(torch.einsum("bsw,ehw->bseh", x, self.up))
        return torch.einsum("bseh,ewh->bsw", inner, self.down)


class Stack(nn.Module):
    """Layers whose sizes no small number of processes divides."""

    def __init__(self, width: int = 10, hidden: int = 18) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, width)
        self.layers: Any = nn.ModuleList(Layer(width, hidden) for _ in range(3))
        self.experts = Experts(6, width, 5)
        self.narrow, self.head = nn.Linear(width, 3), nn.Linear(3, 11, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        for layer in self.layers:
            x = layer(x)
        out: Tensor = self.head(torch.relu(self.narrow(self.experts(x))))
        return out


STACK_RULES: Any = {
    "layers.1.down.weight": wp.init.Orthogonal(),
    "layers.2.up.weight": wp.init.Orthogonal(),
    "experts.*": (wp.init.Orthogonal(), wp.init.Axes(out=1, in_=2, batch=0)),
    "experts.up": (wp.init.He(), wp.init.Axes(out=1, in_=2, batch=0)),
}


def fully(model: Any, mesh: Any, **options: Any) -> None:
    """Every weight by its rows; of few rows, some processes get none."""
    from torch.distributed.fsdp import fully_shard

    for block in [*getattr(model, "blocks", ()), *getattr(model, "layers", ())]:
        fully_shard(block, mesh=mesh, **options)
    fully_shard(model, mesh=mesh, **options)


def over_all(model: Any) -> None:
    fully(model, mesh_of(dist.get_world_size()))


def replicated(model: Any) -> None:
    fully(model, mesh_of(2, dist.get_world_size() // 2, names=("replicas", "shards")))


def offloaded(model: Any) -> None:
    from torch.distributed.fsdp import CPUOffloadPolicy

    fully(model, mesh_of(dist.get_world_size()), offload_policy=CPUOffloadPolicy(pin_memory=False))


def by_tensors(model: Any, mesh: Any = None) -> None:
    """Tensor parallelism, with a sequence-parallel norm."""
    from torch.distributed.tensor import Replicate
    from torch.distributed.tensor.parallel import (
        ColwiseParallel,
        RowwiseParallel,
        SequenceParallel,
        parallelize_module,
    )

    ways: dict[str, Any] = {"embed": RowwiseParallel(input_layouts=Replicate()), "head": ColwiseParallel()}
    for i in range(len(model.layers)):
        names = {"norm": SequenceParallel(), "up": ColwiseParallel(), "down": RowwiseParallel()}
        ways |= {f"layers.{i}.{name}": way for name, way in names.items()}
    parallelize_module(model, mesh or mesh_of(dist.get_world_size()), ways)


def by_tensors_and_fully(model: Any) -> None:
    mesh = mesh_of(2, dist.get_world_size() // 2, names=("data", "tensor"))
    by_tensors(model, mesh["tensor"])
    fully(model, mesh["data"])


def by_experts(model: Any) -> None:
    """Some experts for each process, and the rest of the model fully sharded."""
    from torch.distributed.tensor import Shard, distribute_tensor

    mesh = mesh_of(dist.get_world_size())
    for name, weight in list(model.experts.named_parameters()):
        setattr(model.experts, name, nn.Parameter(distribute_tensor(weight, mesh, [Shard(0)])))
    for layer in model.layers:
        fully(layer, mesh)


STACK_WAYS = {way.__name__: way for way in (over_all, replicated, by_tensors, by_tensors_and_fully, by_experts)}
NET_WAYS = {way.__name__: way for way in (over_all, replicated, offloaded)}
