"""Dropout of DTensors on real processes: outputs and gradients are those of one process, whatever the placements."""

import dataclasses
import random
import re
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

import wellposed as wp
from draw_cases import identical
from dropout_module_cases import CASES, Case, filled
from gloo import Job, job_of, mesh_of

pytestmark = pytest.mark.skipif(not dist.is_available(), reason="torch was built without distributed")
MESHES = [(1,), (2,), (3,), (4,), (2, 2)]
# Those that do nothing but drop, and so take any placements; the others' layers multiply matrices, which torch splits
# over samples alone, in other orders.
PURE = {case.name for case in CASES if case.dims is not None} | {"AlphaDropout", "FeatureAlphaDropout"}
PURE |= {"GaussianDropout", "TokenDropout", "DropPath, unscaled", "ConcreteDropout", "DropBlock3d"}
PURE |= {"DropBlock2d", "DropBlock2d of all channels"}
OURS = [case for case in CASES if case.name != "EmbeddingDropout"]  # whose input here is no DTensor of words


def layouts(case: Case, mesh: tuple[int, ...], seed: int) -> tuple[list[Any], list[Any]]:
    """Random placements of a tensor of a case's shape, and of its gradient."""
    from torch.distributed.tensor import Partial, Replicate, Shard

    draw = random.Random(f"{case} {mesh} {seed}")
    dims = range(len(case.shape)) if case.name in PURE else [sample_dim(case)]

    def one(*others: Any) -> Any:
        return draw.choice([*map(Shard, dims), *map(Shard, dims), Replicate(), *others])

    return [one() for _ in mesh], [one(Partial()) for _ in mesh]


def sample_dim(case: Case) -> int:
    return 1 if case.name == "DropConnect of a cell" else case.batch or 0


def roomy(case: Case) -> Case:
    """The case with as many samples as every mesh can share out evenly, if torch's layers need that."""
    if case.name in PURE:
        return case
    shape = [12 if d == sample_dim(case) else n for d, n in enumerate(case.shape)]
    return dataclasses.replace(case, shape=tuple(shape))


def placed(whole: Tensor, mesh: Any, placements: list[Any]) -> Any:
    """A DTensor of a whole that every process has; of terms of a sum the first process has it all."""
    from torch.distributed.tensor import DTensor, Replicate, distribute_tensor

    if not any(p.is_partial() for p in placements):
        return distribute_tensor(whole, mesh, placements)
    sharded: Any = distribute_tensor(whole, mesh, [Replicate() if p.is_partial() else p for p in placements])
    place = mesh.get_coordinate()
    is_first = all(at == 0 for at, p in zip(place, placements, strict=True) if p.is_partial())
    local = sharded.to_local() * (1.0 if is_first else 0.0)
    return DTensor.from_local(local, mesh, placements, run_check=False, shape=whole.shape, stride=whole.stride())


def run(case: Case, x: Tensor, module: nn.Module, grad: Any, **told: Any) -> tuple[Tensor, Tensor]:
    """The output and the input's gradient."""
    x = x.detach().requires_grad_()
    with wp.keyed(3, step=5, **told):
        y = nn.Sequential(module)(x)
        y.backward(grad(y) if callable(grad) else grad)
    assert x.grad is not None
    return y.detach(), x.grad


def whole_of(tensor: Any) -> Tensor:
    whole: Tensor = tensor.full_tensor()
    return whole


def compare(case: Case, mesh: tuple[int, ...], seed: int) -> str:
    """Run a case on this rank's shards, and as a whole; what differs."""
    from torch.distributed.tensor import Replicate, distribute_module

    placements, of_grad = layouts(case, mesh, seed)
    x = wp.random.normal(case.shape, wp.Key(seed), dtype=torch.float64)
    module = filled(case.make(0.5))
    y = run(case, x, module, torch.ones_like, row=0)[0]
    grad = wp.random.normal(y.shape, wp.Key(seed).fold("grad"), dtype=torch.float64)
    expected = run(case, x, module, grad, row=0)
    device_mesh = mesh_of(*mesh)
    sharded = distribute_module(filled(case.make(0.5)), device_mesh)
    if case.name not in PURE:  # torch's own layers then may want the gradient as they gave the output
        of_grad = [p if case.batch == sample_dim(case) else Replicate() for p in placements]
    given = placed(grad, device_mesh, of_grad)
    found = run(case, placed(x, device_mesh, placements), sharded, given)
    equal = identical if case.name in PURE - {"ConcreteDropout"} else torch.allclose
    wrong = [n for n, a, b in zip(("output", "gradient"), found, expected, strict=True) if not equal(whole_of(a), b)]
    return f"{case} on {mesh} as {placements}, gradient {of_grad}: {wrong}" if wrong else ""


def cases_of(world: int) -> tuple[int, list[str]]:
    """Every case on every mesh of this many processes: how many, and which differ."""
    pairs = [(case, mesh) for case in OURS for mesh in MESHES if torch.Size(mesh).numel() == world]
    wrong = [compare(roomy(case), mesh, seed) for seed, (case, mesh) in enumerate(pairs)]
    return len(pairs), [each for each in wrong if each]


@pytest.fixture(scope="module")
def jobs() -> Iterator[dict[int, Job]]:
    with job_of(1) as one, job_of(2) as two, job_of(3) as three, job_of(4) as four:
        yield {1: one, 2: two, 3: three, 4: four}


@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_outputs_and_gradients_are_those_of_one_process(world: int, jobs: dict[int, Job]) -> None:
    for count, wrong in jobs[world](cases_of, world):
        assert count == len(OURS) * sum(torch.Size(mesh).numel() == world for mesh in MESHES)
        assert wrong == []


def strided() -> bool:
    """What tensor parallelism and fully_shard make of one dimension together: rows that do not lie side by side."""
    from torch.distributed.tensor import DTensor, Shard
    from torch.distributed.tensor.placement_types import _StridedShard

    x, mesh = wp.random.normal((8, 6), wp.Key(1), dtype=torch.float64), mesh_of(2, 2)
    first, second = mesh.get_coordinate()
    rows = torch.arange(8).view(2, 2, 2)[second, first]
    placements = [_StridedShard(0, split_factor=2), Shard(0)]
    given: Any = {"run_check": False, "shape": x.shape, "stride": x.stride()}
    sharded = DTensor.from_local(x[rows], mesh, placements, **given)
    grad = DTensor.from_local(torch.ones_like(x[rows]), mesh, placements, **given)
    module = wp.Dropout(0.5)
    (y, dx), (whole_y, whole_dx) = run(DROPOUT, sharded, module, grad), run(DROPOUT, x, module, torch.ones_like, row=0)
    pairs: Any = [(y, whole_y), (dx, whole_dx)]
    return all(identical(part.to_local(), whole[rows]) for part, whole in pairs)


DROPOUT = next(case for case in CASES if case.name == "Dropout")


def test_blocks_that_do_not_lie_side_by_side(jobs: dict[int, Job]) -> None:
    assert all(jobs[4](strided))


def nothing_is_sent() -> dict[str, int]:
    from torch.distributed.tensor import Replicate, Shard
    from torch.distributed.tensor.debug import CommDebugMode

    sent = {}
    for case in (case for case in OURS if case.name in PURE - {"TokenDropout", "ConcreteDropout"}):
        whole = wp.random.normal(case.shape, wp.Key(1))
        x, grad = placed(whole, mesh_of(2), [Shard(0)]), placed(whole, mesh_of(2), [Replicate()])
        module = case.make(0.5)
        with CommDebugMode() as seen:
            run(case, x, module, grad)
        sent[case.name] = seen.get_total_counts()
    return sent


def test_a_mask_is_not_sent_nor_is_what_it_is_for(jobs: dict[int, Job]) -> None:
    for sent in jobs[2](nothing_is_sent):
        assert len(sent) > 15
        assert set(sent.values()) == {0}, sent


def functions() -> dict[str, bool]:
    from torch.distributed.tensor import Shard

    x, mesh = wp.random.normal((4, 5, 6), wp.Key(1), dtype=torch.float64), mesh_of(2)
    z = torch.complex(x, -x)
    rates = torch.tensor([0.0, 0.25, 0.5, 1.0], dtype=torch.float64)
    calls: dict[str, tuple[Tensor, dict[str, Any]]] = {
        "number": (x, {"p": 0.3}),
        "dims": (x, {"p": 0.3, "dims": (0, -1)}),
        "scalar": (x, {"p": torch.tensor(0.3)}),
        "vector": (x, {"p": rates}),
        "complex": (z, {"p": 0.3}),
        "complex channels": (z, {"p": 0.3, "dims": 2}),
    }
    found = {}
    for name, (given, options) in calls.items():
        for dim in range(3):
            y: Any = wp.dropout(placed(given, mesh, [Shard(dim)]), key=wp.Key(5), call=3, **options)
            whole = wp.dropout(given, key=wp.Key(5), call=3, **options)
            found[f"{name} {dim}"] = torch.equal(y.full_tensor(), whole)
    return found


def test_the_function_takes_dtensors(jobs: dict[int, Job]) -> None:
    for found in jobs[2](functions):
        assert all(found.values()), found


def layers() -> dict[str, bool]:
    """Modules in the layers that they are made for, sharded as tensor parallelism shards those."""
    from torch.distributed.tensor import Replicate, Shard, distribute_module, distribute_tensor
    from torch.distributed.tensor.parallel import ColwiseParallel, parallelize_module
    from torch.utils.checkpoint import checkpoint

    mesh, found = mesh_of(2), {}
    q, k, v = wp.random.normal((3, 2, 4, 5, 6), wp.Key(1), dtype=torch.float64).unbind()

    def attended(attend: Any, *inputs: Any) -> Any:
        with wp.keyed(0, row=0):
            return attend(*inputs, is_causal=True)

    expected = attended(wp.AttentionDropout(0.5), q, k, v)
    heads = attended(wp.AttentionDropout(0.5), *(placed(x, mesh, [Shard(1)]) for x in (q, k, v)))
    found["heads"] = torch.allclose(heads.full_tensor(), expected, rtol=1e-12)

    words = torch.tensor([[3, 1, 3, 0], [2, 2, 1, 0]])
    for dim in (0, 1):
        layer = filled(wp.EmbeddingDropout(nn.Embedding(4, 6), 0.5))
        embedding: Any = layer.get_submodule("embedding")
        with wp.keyed(0, row=0):
            whole = layer(words)
        sharded = distribute_tensor(embedding.weight.detach(), mesh, [Shard(1) if dim else Replicate()])
        embedding.weight = nn.Parameter(sharded)
        with wp.keyed(0, row=0):
            y: Any = layer(placed(words, mesh, [Replicate() if dim else Shard(0)]))
        found[f"words {dim}"] = identical(y.full_tensor(), whole)

    x = wp.random.normal((4, 6), wp.Key(1), dtype=torch.float64)
    connect = wp.DropConnect(filled(nn.Linear(6, 8)), 0.5)
    with wp.keyed(0, row=0):
        whole = connect(x)
    parallelize_module(connect.module, mesh, ColwiseParallel(output_layouts=Replicate()))
    with wp.keyed(0, row=0):
        found["weights"] = torch.allclose(connect(x), whole, rtol=1e-12)

    stack = distribute_module(wp.LayerDrop([filled(nn.Linear(6, 6)) for _ in range(4)], 0.5), mesh)
    with wp.keyed(0, row=0):
        y = stack(placed(x, mesh, [Shard(0)]))
    with wp.keyed(0, row=0):
        again: Any = stack(placed(x, mesh, [Replicate()]))
    found["layers"] = torch.allclose(y.full_tensor(), again.full_tensor(), rtol=1e-12)

    again = placed(x, mesh, [Shard(1)]).requires_grad_()
    drop = wp.Dropout(0.5)
    with wp.keyed(0, row=0):
        y = checkpoint(lambda x: drop(x).square(), again, use_reentrant=False)
        (first,) = torch.autograd.grad(y.sum(), again, create_graph=True)
        (second,) = torch.autograd.grad(first.sum(), again)
    kept = y.full_tensor() != 0
    found["derivatives"] = identical(second.full_tensor(), kept.double() * 8)
    return found


def test_dropout_inside_of_parallel_layers(jobs: dict[int, Job]) -> None:
    for found in jobs[2](layers):
        assert all(found.values()), found


def refused() -> dict[str, str]:
    """What the errors say, of what each process would draw alone, or cannot draw."""
    from torch.distributed.tensor import Shard, distribute_module

    mesh, said = mesh_of(2), {}

    def note(name: str, work: Any) -> None:
        try:
            work()
        except wp.WellposedError as error:
            said[name] = str(error)

    x = placed(torch.ones(4, 6), mesh, [Shard(0)])
    for case in map(roomy, CASES):
        module = case.make(0.5)
        if case.name not in PURE | {"LayerDrop"}:
            continue
        given = placed(torch.ones(case.shape), mesh, [Shard(0)])
        note(case.name, partial(distribute_module(module, mesh), given))
    note("box", lambda: wp.dropout(x, 0.5, key=wp.Key(0), box=wp.Box((4, 6), (0, 0))))
    note("rates", lambda: wp.dropout(x, placed(torch.ones(4), mesh, [Shard(0)]), key=wp.Key(0)))
    z = placed(torch.ones(4, 6, dtype=torch.complex64), mesh, [Shard(0)])
    note("complex rates", lambda: wp.dropout(z, torch.ones(4), key=wp.Key(0)))

    def part(module: nn.Module, x: Tensor) -> None:
        with wp.keyed(0, mesh=mesh, placements=[Shard(1)]):
            module(x)

    note("tokens", lambda: part(wp.TokenDropout(0.5), torch.ones(2, 4, 3)))
    note("regions", lambda: part(wp.DropBlock2d(0.5, 2), torch.ones(2, 4, 6, 6)))
    note("learned", lambda: wp.ConcreteDropout(0.5)(x))
    return said


def test_what_cannot_be_a_part_of_one_mask_is_refused(jobs: dict[int, Job]) -> None:
    for said in jobs[2](refused):
        expected = {
            "box": "give no box",
            "rates": r"p\.full_tensor\(\)",
            "complex rates": "give p as a number",
            "tokens": "TokenDropout was given a plain tensor that is a shard.*give it a DTensor",
            "regions": "DropBlock was given a part of a larger tensor.*give it a DTensor",
            "learned": "parameters are not DTensors.*distribute the module",
        }
        for name in [*PURE, "LayerDrop"]:
            expected[name] = "was given a DTensor outside of all wp.keyed blocks.*call it in a wp.keyed block"
        assert said.keys() == expected.keys()
        for name, text in said.items():
            assert re.search(expected[name], text), (name, text)
