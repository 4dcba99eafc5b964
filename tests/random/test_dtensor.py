"""A sharded tensor starts as the whole does, on every mesh: each rank fills its block alone."""

import pytest
import torch
import torch.distributed as dist

import wellposed as wp
from draw_cases import identical
from ranks import rank_of

pytestmark = pytest.mark.skipif(not dist.is_available(), reason="torch was built without distributed")
KEY = wp.Key(0).fold("sharded")
SHAPE = (7, 10)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize(
    ("mesh", "dims"), [((2,), (0,)), ((4,), (0,)), ((3,), (1,)), ((2, 2), (0, 1)), ((2, 3), (1, None))]
)
def test_every_rank_holds_its_block_of_the_whole(mesh: tuple[int, ...], dims: tuple[int | None, ...]) -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import DTensor, Replicate, Shard
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    whole = wp.random.normal(SHAPE, KEY)
    covered = torch.zeros(SHAPE, dtype=torch.bool)
    world = int(torch.tensor(mesh).prod())
    for rank in range(world):
        with rank_of(rank, world):
            placements = [Replicate() if d is None else Shard(d) for d in dims]
            device_mesh = init_device_mesh("cpu", mesh)
            size, offset = compute_local_shape_and_global_offset(torch.Size(SHAPE), device_mesh, placements)
            local = torch.full(tuple(size), torch.nan)
            tensor = DTensor.from_local(
                local, device_mesh, placements, run_check=False, shape=torch.Size(SHAPE), stride=(SHAPE[1], 1)
            )
            assert wp.random.normal_(tensor, KEY) is tensor
            where = tuple(slice(o, o + n) for o, n in zip(offset, size, strict=True))
            assert identical(tensor.to_local(), whole[where])
            covered[where] = True
            with pytest.raises(wp.WellposedError, match="knows its place"):
                wp.random.normal_(tensor, KEY, box=wp.Box(SHAPE, (0, 0)))
    assert covered.all()
