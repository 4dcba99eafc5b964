"""Initializers on one to four processes that send to each other: the same weight bit for bit, however it is shared."""

import random
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn

import wellposed as wp
from gloo import Job, job_of, mesh_of
from initializer_cases import CASES
from sharded_tools import any_placements, full, silence, split_by_torch, torch_gathers, unfilled

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not dist.is_available(), reason="torch was built without distributed"),
]
KEY = wp.Key(7).fold("many processes")
MESHES: dict[int, list[tuple[int, ...]]] = {
    1: [(1,)],
    2: [(2,), (1, 2)],
    3: [(3,)],
    4: [(4,), (2, 2), (2, 2), (2, 1, 2)],
}
SHAPES = [(37,), (1,), (5, 3), (17, 6), (18, 4), (3, 7, 5), (2, 5, 3, 3), (9, 1, 2, 2)]
LAYOUTS = 2  # for each initializer and each number of processes


def layouts(world: int) -> list[tuple[int, tuple[int, ...], tuple[int, ...], list[Any]]]:
    """Cases: an initializer by its place in the table, a shape, a mesh, and placements on it."""
    chance = random.Random(world)
    found: list[tuple[int, tuple[int, ...], tuple[int, ...], list[Any]]] = []
    for number, case in enumerate(CASES):
        for _ in range(LAYOUTS):
            mesh = chance.choice(MESHES[world])
            shape = (*(n + chance.choice((0, 0, 1)) for n in case.shape[:1]), *case.shape[1:])
            if case.axes != CASES[0].axes or not can_be(number, shape):
                shape = case.shape
            if (other := chance.choice(SHAPES)) and chance.random() < 0.5 and can_be(number, other):
                shape = other
            found.append((number, shape, mesh, any_placements(chance, mesh, len(shape))))
    return found


def can_be(number: int, shape: tuple[int, ...]) -> bool:
    try:
        CASES[number].initializer.fill_(torch.empty(shape, device="meta"), KEY, axes=CASES[number].axes)
    except wp.WellposedError:
        return False
    return True


def fill_all(world: int) -> tuple[int, list[str]]:
    """How many cases there were in this process, and those that were not the whole's values."""
    wrong = []
    for number, shape, mesh, placements in (cases := layouts(world)):
        case = CASES[number]
        tensor: Any = unfilled(shape, mesh_of(*mesh), placements)
        with silence():
            case.initializer.fill_(tensor, KEY, axes=case.axes)
        whole = case.initializer(shape, KEY, axes=case.axes)
        is_whole = not torch_gathers(placements) or torch.equal(full(tensor), whole)
        if not (is_whole and torch.equal(tensor.to_local(), split_by_torch(whole, tensor.device_mesh, placements))):
            wrong.append(f"{case} of {shape} with {placements} on {mesh}")
    return len(cases), wrong


@pytest.mark.parametrize("world", MESHES)
def test_every_initializer_fills_every_layout(world: int) -> None:
    with job_of(world) as job:
        for count, wrong in job(fill_all, world):
            assert count == LAYOUTS * len(CASES)
            assert not wrong


@pytest.fixture(scope="module")
def four() -> Iterator[Job]:
    with job_of(4) as job:
        yield job


def by_torch() -> dict[str, torch.Tensor]:
    """A weight on two meshes, by torch's own initializer and by ours; and each process's own by torch's."""
    from torch.distributed.tensor import Replicate, Shard

    found = {}
    for name, mesh, placements in [("rows", (4,), [Shard(0)]), ("both", (2, 2), [Shard(0), Shard(1)])]:
        weight = unfilled((16, 12), mesh_of(*mesh), placements)
        torch.manual_seed(0)
        nn.init.normal_(weight)
        found[f"torch {name}"] = full(weight)
        found[f"ours {name}"] = full(wp.random.normal_(weight, KEY))
        # As a script does that fills local shards: the same seed everywhere gives each process the same numbers.
        torch.manual_seed(0)
        nn.init.normal_(weight.to_local())
        found[f"local {name}"] = full(weight)
    torch.manual_seed(dist.get_rank())
    apart = unfilled((16, 12), mesh_of(4), [Replicate()])
    nn.init.normal_(apart.to_local())
    found["replica"] = full(apart)
    return found


def test_torchs_own_way_depends_on_the_mesh(four: Job) -> None:
    torch.manual_seed(0)
    alone = nn.init.normal_(torch.empty(16, 12))
    first, *others = four(by_torch)
    assert first["ours rows"].equal(wp.random.normal((16, 12), KEY))
    assert first["ours rows"].equal(first["ours both"])
    for name in ("torch rows", "torch both", "local rows", "local both"):
        assert not first[name].equal(alone), name
    assert first["local rows"][:4].equal(first["local rows"][4:8])  # the shards are copies of each other
    assert not all(first["replica"].equal(other["replica"]) for other in others)


def a_word() -> list[str]:
    """What raises in silence."""
    from torch.distributed.tensor import Shard

    sharded, found = unfilled((4, 4), mesh_of(4), [Shard(0)]), []
    for send in (sharded.full_tensor, lambda: dist.all_reduce(torch.ones(1)), sharded.sum, dist.barrier):
        try:
            with silence():
                result = send()
                getattr(result, "full_tensor", lambda: None)()
        except AssertionError as error:
            found.append(str(error))
    return found


def test_silence_is_broken_by_a_word(four: Job) -> None:
    assert [len(found) for found in four(a_word)] == 4 * [4]


def the_peak(shape: tuple[int, int], name: str) -> tuple[int, int]:
    """By how many bytes the resident memory of a process grew in filling its shard, and the shard's bytes."""
    from torch.distributed.tensor import Shard, distribute_tensor

    with torch.device("meta"):
        model: Any = nn.Sequential(nn.Linear(shape[1], shape[0], bias=False))
    model[0].weight = nn.Parameter(distribute_tensor(model[0].weight, mesh_of(4), [Shard(0)], src_data_rank=None))
    plan = wp.plan_initialize(model, rules={"0.weight": getattr(wp.init, name)()})
    with open("/proc/self/clear_refs", "w") as counters:
        counters.write("5")  # the highest so far is what there is now
    before = resident("VmRSS")
    with silence():
        wp.init.apply(plan, model, "cpu")
    weight: Any = model[0].weight
    return resident("VmHWM") - before, weight.to_local().nbytes


def resident(name: str) -> int:
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith(name))


@pytest.mark.parametrize("name", ["He", "TruncatedNormal", "Normal", "Zeros", "Ones"])
def test_a_fill_takes_the_shard_and_no_more(four: Job, name: str) -> None:
    shape = (4096, 8192)
    four(the_peak, (64, 64), name)  # what a first fill loads stays
    for grown, shard in four(the_peak, shape, name):
        assert shard == 4096 * 8192
        assert grown < shard + (4 << 20)
