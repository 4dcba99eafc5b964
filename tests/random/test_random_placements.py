"""A rank holds of a sharded tensor what torch's own split gives it, under every placement on every mesh."""

import itertools
import math
import random
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn

import wellposed as wp
from draw_cases import identical
from ranks import rank_of
from sharded_tools import any_placements, split_by_torch
from wellposed.random.shards import local_blocks

pytestmark = [
    pytest.mark.skipif(not dist.is_available(), reason="torch was built without distributed"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]
KEY = wp.Key(3)
MESHES = [(1,), (2,), (3,), (5,), (2, 2), (2, 3), (3, 2), (4, 2), (1, 4), (2, 2, 2), (3, 1, 2)]
LAYOUTS = 10_000  # random ones, shared out over the ranks of the meshes


@pytest.mark.slow
def test_random_layouts() -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import DTensor

    chance, apart, empty, words = random.Random(0), 0, 0, {}
    ranks = [(mesh, rank) for mesh in MESHES for rank in range(math.prod(mesh))]
    for mesh_shape, rank in ranks:
        with rank_of(rank, math.prod(mesh_shape)):
            # Torch remembers meshes by their names, and the ranks before this one were in this process, too.
            names = tuple(f"{mesh_shape} {rank} {i}" for i in range(len(mesh_shape)))
            mesh = init_device_mesh("cpu", mesh_shape, mesh_dim_names=names)
            for _ in range(-(-LAYOUTS // len(ranks))):
                dims = chance.randint(1, 4)
                shape = tuple(chance.choice((0, 1, 2, 3, 4, 5, 7, 12)) for _ in range(dims))
                if shape not in words:
                    words[shape] = wp.random.uniform(shape, KEY)
                placements = any_placements(chance, mesh_shape, dims)
                wanted = split_by_torch(words[shape], mesh, placements)
                local = torch.full(wanted.shape, torch.nan)
                given: Any = {"run_check": False, "shape": words[shape].shape, "stride": words[shape].stride()}
                tensor = DTensor.from_local(local, mesh, placements, **given)
                wp.random.uniform_(tensor, KEY)
                assert identical(local, wanted), (shape, placements, mesh_shape, rank)
                blocks = len(local_blocks(tensor))
                apart, empty = apart + (blocks > 1), empty + (blocks == 0)
    assert apart > LAYOUTS / 50
    assert empty > LAYOUTS / 50


@pytest.mark.parametrize(
    ("mesh_shape", "rows"), [*itertools.product([(2, 2), (2, 3), (3, 2), (4, 2)], [1, 3, 5, 8, 11, 16, 17, 18])]
)
def test_fully_shard_on_tensor_parallelism(mesh_shape: tuple[int, int], rows: int) -> None:
    """Column parallelism splits rows, and so does what comes after it; torch's own values say which are where."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

    held = {"0.weight": set(), "0.bias": set(), "1.weight": set()}
    for rank in range(math.prod(mesh_shape)):
        with rank_of(rank, math.prod(mesh_shape)):
            mesh = init_device_mesh("cpu", mesh_shape, mesh_dim_names=(f"{rows} {rank} data", f"{rows} {rank} model"))
            model = nn.Sequential(nn.Linear(3, rows), nn.Linear(rows, 5, bias=False))
            sizes = {}
            for name, parameter in model.named_parameters():
                parameter.data = torch.arange(parameter.numel(), dtype=torch.float32).view(parameter.shape)
                sizes[name] = parameter.shape
            plan = {"0": ColwiseParallel(), "1": RowwiseParallel()}
            parallelize_module(model, mesh[mesh.mesh_dim_names[1]], plan, src_data_rank=None)
            for layer in model:
                fully_shard(layer, mesh=mesh[mesh.mesh_dim_names[0]])
            for name, parameter in model.named_parameters():
                tensor: Any = parameter
                index = tensor.to_local().detach().long()
                held[name].update(index.flatten().tolist())
                wp.random.normal_(tensor, KEY)
                wanted = wp.random.normal(sizes[name], KEY).flatten()[index]
                assert identical(tensor.to_local().detach(), wanted), (name, rank)
    for name, found in held.items():
        assert found == set(range(math.prod(sizes[name])))
