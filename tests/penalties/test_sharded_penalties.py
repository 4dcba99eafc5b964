"""Penalties on shards, in several processes: what one process has with the whole weight."""

import math
import random
from collections.abc import Iterator
from typing import Any

import pytest
import torch

import wellposed as wp
from gloo import Job, job_of, mesh_of
from penalty_cases import CASES, Case
from wellposed.penalties import L1, L2, GroupLasso, GroupMCP, Heads, NuclearNorm, Penalty, SparseGroupLasso, constraints
from wellposed.penalties.layouts import SideBySide

MESHES = [(2,), (3,), (4,), (2, 2)]
ROUNDING: dict[str, Any] = {"rtol": 1e-12, "atol": 1e-13}
ELEMENTWISE = [name for name, case in CASES.items() if case.penalty.traits.separable]


@pytest.fixture(scope="module")
def jobs() -> Iterator[dict[int, Job]]:
    with job_of(2) as two, job_of(3) as three, job_of(4) as four:
        yield {2: two, 3: three, 4: four}


def placements(ndim: int, mesh: tuple[int, ...], chance: random.Random) -> tuple[Any, ...]:
    from torch.distributed.tensor import Replicate, Shard

    return tuple(chance.choice([Replicate(), *map(Shard, range(ndim))]) for _ in mesh)


def generated(mesh: tuple[int, ...]) -> Iterator[tuple[str, Case, tuple[Any, ...]]]:
    """Each row of the table under placements by chance, and penalties on groups of shapes that divide by nothing."""
    chance = random.Random(str(mesh))
    for name, case in CASES.items():
        yield name, case, placements(len(case.shape), mesh, chance)
    for _ in range(20):
        shape = tuple(chance.choice([1, 2, 3, 5, 7, 17]) for _ in range(chance.choice([1, 2, 3])))
        groups: Any = chance.choice(
            ["rows", "all", *(["columns", "kernels", (len(shape) - 1,)] if len(shape) > 1 else [])]
        )
        penalty: Penalty = chance.choice(
            [
                GroupLasso(0.4, groups=groups, root_size=True),
                GroupMCP(0.5, groups=groups),
                SparseGroupLasso(0.2, 0.3, groups=groups),
                constraints.MaxNorm(0.8, groups=groups),
                constraints.UnitNorm(groups=groups),
                constraints.L1Ball(1.5),
                constraints.Simplex(),
                GroupLasso(torch.rand(shape[0], *[1] * (len(shape) - 1), dtype=torch.float64), groups="rows"),
                L1(torch.rand(shape, dtype=torch.float64)) + L2(0.1),
            ]
        )
        yield f"{penalty!r} of {shape}", Case(penalty, shape), placements(len(shape), mesh, chance)


def deviations(mesh: tuple[int, ...]) -> tuple[list[str], list[float]]:
    """In which cases shards come to something else than the whole; and the numbers that were read."""
    from torch.distributed.tensor import distribute_tensor

    torch.manual_seed(0)
    wrong: list[str] = []
    read: list[float] = []
    for name, case, placed in generated(mesh):
        penalty, w, g = case.penalty, case.weight(), case.weight(1)
        sharded, gradient = (distribute_tensor(x, mesh_of(*mesh), placed) for x in (w, g))
        pairs: dict[str, tuple[Any, Any]] = {"value": (penalty.value(sharded), penalty.value(w))}
        exact = penalty.traits.separable
        if penalty.traits.gradient:
            pairs["grad"] = penalty.grad(sharded), penalty.grad(w)
            added, wanted = gradient.clone(), g.clone()
            pairs["value of accumulate"] = penalty.accumulate_(sharded, added, 0.3), penalty.accumulate_(w, wanted, 0.3)
            pairs["accumulate"] = added, wanted
            leaf, counterpart = sharded.detach().clone().requires_grad_(), w.clone().requires_grad_()
            torch.autograd.backward(penalty.value(leaf))
            torch.autograd.backward(penalty.value(counterpart))
            pairs["autograd"] = leaf.grad, counterpart.grad
        if penalty.traits.prox:
            sizes: list[tuple[Any, Any]] = [(0.4, 0.4)]
            if penalty.traits.separable or penalty.traits.diagonal:
                sizes += [(g.abs(), g.abs()), (gradient.abs(), g.abs())]
            for i, (ours, theirs) in enumerate(sizes):
                moved = sharded.clone()
                pairs[f"prox {i}"] = penalty.prox(sharded, ours), penalty.prox(w, theirs)
                pairs[f"prox in place {i}"] = penalty.prox_(moved, ours), penalty.prox_(w.clone(), theirs)
            pairs["kkt"] = penalty.kkt(sharded, gradient, 0.4), penalty.kkt(w, g, 0.4)
        for what, (ours, theirs) in pairs.items():
            is_tensor = what in ("grad", "accumulate", "autograd") or what.startswith("prox")
            if is_tensor:
                assert ours.placements == placed
                ours = ours.full_tensor()
            else:
                read.append(float(ours))
            is_same = ours.equal(theirs) if is_tensor and exact else torch.allclose(ours, theirs, **ROUNDING)
            if not is_same:
                wrong.append(f"{what} of {name} under {placed}: {ours} for {theirs}")
    return wrong, read


@pytest.mark.parametrize("mesh", MESHES, ids=str)
def test_shards_come_to_what_the_whole_comes_to(jobs: dict[int, Job], mesh: tuple[int, ...]) -> None:
    assert len(list(generated(mesh))) >= 70
    answers = jobs[math.prod(mesh)](deviations, mesh)
    assert [wrong for wrong, _ in answers] == [[] for _ in answers]
    assert all(read == answers[0][1] for _, read in answers)  # the same bits in each process


def strengths(mesh: tuple[int, ...]) -> list[tuple[float, float]]:
    """The least strengths that hold a weight at zero, of shards and of the whole."""
    from torch.distributed.tensor import Shard, distribute_tensor

    found = []
    for penalty in (L1(0.5), L1(0.5) + L2(0.1), GroupLasso(1.0, groups="columns"), NuclearNorm(1.0), 2.0 * wp.MCP(0.5)):
        gradient = Case(penalty, (5, 3)).weight()
        sharded = distribute_tensor(gradient, mesh_of(*mesh), [Shard(0)])
        found.append((penalty.lambda_max(sharded), penalty.lambda_max(gradient)))
    return found


def test_lambda_max_is_that_of_the_whole_in_each_process(jobs: dict[int, Job]) -> None:
    first, second = jobs[2](strengths, (2,))
    assert first == second
    for ours, theirs in first:
        assert ours == pytest.approx(theirs, rel=1e-12)


def blocks_of_packed_weights(mesh: tuple[int, ...]) -> None:
    """Queries, keys and values side by side, sharded where blocks do not end."""
    from torch.distributed.tensor import Shard, distribute_tensor

    w = Case(L1(1.0), (9, 4)).weight()
    for inner in (GroupLasso(0.4, groups="columns"), GroupLasso(0.4, groups="rows"), NuclearNorm(0.4)):
        packed = SideBySide(tuple((inner, (0, i, i + 3)) for i in (0, 3, 6)))
        for dim in (0, 1):
            sharded = distribute_tensor(w, mesh_of(*mesh), [Shard(dim)])
            torch.testing.assert_close(packed.value(sharded), packed.value(w), **ROUNDING)
            torch.testing.assert_close(packed.prox(sharded, 0.5).full_tensor(), packed.prox(w, 0.5), **ROUNDING)  # type: ignore[attr-defined]
    heads = GroupLasso(0.4, groups=Heads(3))
    sharded = distribute_tensor(w, mesh_of(*mesh), [Shard(0)])
    steps = w.abs()
    torch.testing.assert_close(heads.prox(sharded, steps).full_tensor(), heads.prox(w, steps), **ROUNDING)  # type: ignore[attr-defined]


@pytest.mark.parametrize("world", [2, 4])
def test_blocks_and_heads_may_lie_in_several_processes(jobs: dict[int, Job], world: int) -> None:
    jobs[world](blocks_of_packed_weights, (world,))
