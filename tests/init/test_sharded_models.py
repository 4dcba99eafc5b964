"""A sharded model starts as the unsharded one does: planned, filled and audited where its shards are."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

import wellposed as wp
from initializer_cases import CASES, Case
from ranks import rank_of
from sharded_models import IDS, RULES, Net

pytestmark = [
    pytest.mark.skipif(not dist.is_available(), reason="torch was built without distributed"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]


KEY = wp.Key(5)


@contextmanager
def alone() -> Iterator[None]:
    """A job of one process."""
    dist.init_process_group("gloo", rank=0, world_size=1, store=torch._C._distributed_c10d.HashStore())
    try:
        yield
    finally:
        dist.destroy_process_group()


def shard_fully(model: Any, mesh: Any) -> None:
    from torch.distributed.fsdp import fully_shard

    for block in model.blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)


def shard_columns(model: Any, mesh: Any) -> None:
    """Every weight along its last dimension, as tensor parallelism does with some."""
    from torch.distributed.tensor import Replicate, Shard, distribute_module

    def place(name: str, module: nn.Module, mesh: Any) -> None:
        from torch.distributed.tensor import DTensor
        from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

        for key, parameter in list(module._parameters.items()):
            if parameter is None or isinstance(parameter, DTensor):
                continue
            placements = [Shard(parameter.ndim - 1) if parameter.ndim > 1 else Replicate()]
            shape, _ = compute_local_shape_and_global_offset(parameter.shape, mesh, placements)
            local = torch.full(shape, torch.nan)
            sharded = DTensor.from_local(
                local, mesh, placements, run_check=False, shape=parameter.shape, stride=parameter.stride()
            )
            setattr(module, key, nn.Parameter(sharded))

    distribute_module(model, mesh, place)
    model.head.weight = model.embed.weight


def test_shards_of_shards() -> None:
    """Columns of a job of two by two share out rows first, and its rows what each column has."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import DTensor, Replicate, Shard
    from torch.distributed.tensor.placement_types import _StridedShard

    whole = wp.random.normal((8, 3), KEY)
    for rank in range(4):
        with rank_of(rank, 4):
            mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=(f"{rank}", "columns"))
            down, across = divmod(rank, 2)
            given: Any = {"run_check": False, "shape": whole.shape, "stride": whole.stride()}
            strided = _StridedShard(0, split_factor=2)
            tensor = DTensor.from_local(torch.full((2, 3), torch.nan), mesh, [strided, Shard(0)], **given)
            wp.random.normal_(tensor, KEY)
            first = 4 * across + 2 * down
            assert torch.equal(tensor.to_local(), whole[first : first + 2])
            apart = DTensor.from_local(torch.full((4, 3), torch.nan), mesh, [strided, Replicate()], **given)
            wp.random.normal_(apart, KEY)
            assert torch.equal(apart.to_local(), torch.cat([whole[2 * down :][:2], whole[4 + 2 * down :][:2]]))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_initializer_fills_shards(case: Case) -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import DTensor, Shard
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    whole = case.initializer(case.shape, KEY, axes=case.axes)
    for dim in range(len(case.shape)):
        with rank_of(1, 3):
            mesh, placements = init_device_mesh("cpu", (3,), mesh_dim_names=(f"{dim} of {case}",)), [Shard(dim)]
            size, offset = compute_local_shape_and_global_offset(whole.shape, mesh, placements)
            local = torch.full(size, torch.nan)
            tensor: Any = DTensor.from_local(
                local, mesh, placements, run_check=False, shape=whole.shape, stride=whole.stride()
            )
            filled: Any = case.initializer.fill_(tensor, KEY, axes=case.axes)
            assert filled is tensor
            where = tuple(slice(o, o + n) for o, n in zip(offset, size, strict=True))
            assert torch.equal(tensor.to_local(), whole[where])


def blocks_of(model: nn.Module) -> dict[str, tuple[Tensor, tuple[slice, ...]]]:
    """What this rank holds of each weight, and where it lies."""
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    found = {}
    for name, parameter in model.named_parameters():
        weight: Any = parameter
        size, offset = compute_local_shape_and_global_offset(weight.shape, weight.device_mesh, weight.placements)
        where = tuple(slice(o, o + n) for o, n in zip(offset, size, strict=True))
        found[name] = (weight.to_local().detach(), where)
    return found


@pytest.mark.parametrize(
    ("shard", "world", "from_meta"),
    [(shard_fully, 2, False), (shard_fully, 2, True), (shard_fully, 3, True), (shard_columns, 2, False)],
)
def test_every_rank_holds_its_part_of_the_unsharded_model(
    shard: Callable[[Any, Any], None], world: int, from_meta: bool
) -> None:
    from torch.distributed.device_mesh import init_device_mesh

    plain = Net()
    wanted = wp.init.initialize(plain, seed=2, rules=RULES, example=IDS)
    whole = dict(plain.named_parameters())
    for rank in range(world):
        with rank_of(rank, world):
            with torch.device("meta" if from_meta else "cpu"):
                model = Net()
            # Torch remembers meshes by their names, and the ranks before this one were in this process, too.
            shard(model, init_device_mesh("cpu", (world,), mesh_dim_names=(f"{world}-{rank}-{from_meta}",)))
            plan = wp.plan_initialize(model, seed=2, rules=RULES, example=IDS)
            wp.init.apply(plan, model, "cpu")
            assert [row.initializer for row in plan] == [row.initializer for row in wanted]
            found = blocks_of(model)
            assert found.keys() == whole.keys()
            for name, (local, where) in found.items():
                assert torch.equal(local, whole[name][where]), name
            assert model.head.weight is model.embed.weight


def test_a_job_of_one_process_runs_and_learns() -> None:
    from torch.distributed.device_mesh import init_device_mesh

    plain = Net()
    wanted = wp.init.initialize(plain, rules=RULES)
    with alone():
        with torch.device("meta"):
            model: Any = Net()
        shard_fully(model, init_device_mesh("cpu", (1,)))
        plan = wp.init.initialize(model, rules=RULES, device="cpu")
        assert [row.std_got for row in plan] == pytest.approx([row.std_got for row in wanted])
        torch.testing.assert_close(model(IDS), plain(IDS))
        wp.init.initialize(model, rules=RULES, seed=1)  # after a run, when the root's weights lie gathered
        wp.init.initialize(plain, rules=RULES, seed=1)
        torch.testing.assert_close(model(IDS), plain(IDS))


def partial_sums(model: Any, mesh: Any) -> None:
    from torch.distributed.tensor import DTensor, Partial

    model.middle.weight = nn.Parameter(DTensor.from_local(torch.zeros(8, 8), mesh, [Partial()], run_check=False))


def flat_pieces(model: Any, mesh: Any) -> None:
    from torch.distributed.fsdp import FullyShardedDataParallel

    model.middle = FullyShardedDataParallel(model.middle, device_id=torch.device("cpu"))


def parametrized(model: Any, mesh: Any) -> None:
    from torch.distributed.fsdp import fully_shard

    nn.utils.parametrizations.weight_norm(model.middle)
    fully_shard(model.middle, mesh=mesh)


REFUSED: list[tuple[Callable[[Any, Any], None], dict[str, Any], str]] = [
    (partial_sums, {}, r"middle\.weight: .*terms of a sum"),
    (flat_pieces, {}, "before it is wrapped"),
    (parametrized, {}, r"middle\.weight: .*before it is sharded"),
    (shard_fully, {"scheme": "lsuv", "example": IDS}, "before it is sharded"),
]


@pytest.mark.parametrize(("shard", "options", "message"), REFUSED, ids=[shard.__name__ for shard, *_ in REFUSED])
def test_what_cannot_be_had_is_refused(shard: Any, options: dict[str, Any], message: str) -> None:
    from torch.distributed.device_mesh import init_device_mesh

    with alone():
        model = Net()
        before = copy.deepcopy(model.blocks[0].wide.weight.detach())
        shard(model, init_device_mesh("cpu", (1,)))
        with pytest.raises(wp.WellposedError, match=message):
            wp.init.initialize(model, **options)
        weight: Any = model.blocks[0].wide.weight
        assert torch.equal(before, weight.full_tensor() if hasattr(weight, "full_tensor") else weight)
