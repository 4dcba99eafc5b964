"""Penalties on the optimizers of sharded models: steps, reports and state are those of one process."""

import math
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

import wellposed as wp
from gloo import Job, job_of, mesh_of
from wellposed.penalties import (
    L1,
    L2,
    MCP,
    ElasticNet,
    GroupLasso,
    SpectralNorm,
    Towards,
    constraints,
)
from wellposed.random import Key, normal, normal_

optim = torch.optim


@pytest.fixture(scope="module")
def jobs() -> Iterator[dict[int, Job]]:
    with job_of(2) as two, job_of(4) as four:
        yield {2: two, 4: four}


class Net(nn.Module):
    """Layers whose rows divide by no number of processes."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 17), nn.Linear(17, 5)
        for name, parameter in self.named_parameters():
            normal_(parameter, Key(1).fold(name), std=0.5)
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(self.first(x).tanh())
        return out


def sharded(way: str) -> Net:
    """The network on this process: its rows under FSDP, tensor parallel, or both."""
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

    model = Net()
    world = dist.get_world_size()
    mesh = mesh_of(2, world // 2, names=("data", "tensor")) if way in ("both", "replicas") else mesh_of(world)
    if way in ("tensor", "both"):
        plan = {"first": ColwiseParallel(), "last": RowwiseParallel()}
        parallelize_module(model, mesh if way == "tensor" else mesh["tensor"], plan)
    if way != "tensor":
        for module in (model.first, model):
            fully_shard(module, mesh=mesh["data"] if way == "both" else mesh)
    return model


OPTIMIZERS: dict[str, Callable[[Any], optim.Optimizer]] = {
    "sgd": lambda p: optim.SGD(p, lr=0.1, momentum=0.9, foreach=False),
    "sgd-foreach": lambda p: optim.SGD(p, lr=0.1, momentum=0.9, foreach=True),
    "adam": lambda p: optim.Adam(p, lr=0.1, foreach=False),
    "adam-foreach": lambda p: optim.Adam(p, lr=0.1, foreach=True),
    "adam-fused": lambda p: optim.Adam(p, lr=0.1, fused=True),
    "adamw": lambda p: optim.AdamW(p, lr=0.1, foreach=False),
    "adamw-foreach": lambda p: optim.AdamW(p, lr=0.1, foreach=True),
}
GIVEN: dict[str, dict[str, Any]] = {
    "elastic net": {"penalty": ElasticNet(0.5, 0.01)},
    "gradient": {"penalty": ElasticNet(0.5, 0.01), "mode": "gradient"},
    "decoupled": {"penalty": L2(0.05), "mode": "decoupled"},
    "towards": {"penalty": Towards(L1(0.3))},
    "mcp": {"penalty": MCP(0.4) + L2(0.01)},
    "groups": {"penalty": {"first.weight": GroupLasso(1.0, groups="columns"), "last.weight": GroupLasso(0.8)}},
    "balls": {
        "penalty": {"first.weight": constraints.MaxNorm(1.0), "last.weight": constraints.L1Ball(3.0)},
        "metric": "euclidean",
    },
    "singular values": {"penalty": SpectralNorm(0.5), "metric": "euclidean"},
}
BITS = ("elastic net", "gradient", "decoupled", "towards", "mcp")  # element by element


def differing(way: str, kinds: list[str]) -> list[str]:
    """What steps with the same gradients come to on shards and in one process, where that differs."""
    from torch.distributed.tensor import DTensor

    wrong = []
    for kind in kinds:
        for name, given in GIVEN.items():
            ours, theirs = sharded(way), Net()
            handles = []
            for model in (ours, theirs):
                optimizer = OPTIMIZERS[kind](model.parameters())
                handles.append((optimizer, wp.regularize(optimizer, model, **given)))
            for step in range(5):
                for key, p in theirs.named_parameters():
                    p.grad = normal(p.shape, Key(2).fold(key), call=step, dtype=torch.float64)
                    whole: Any = ours.get_parameter(key)
                    whole.grad = scattered(p.grad, whole) if isinstance(whole, DTensor) else p.grad.clone()
                for optimizer, _ in handles:
                    optimizer.step()
                if step in (0, 4):
                    for key, p in theirs.named_parameters():
                        whole = ours.get_parameter(key).detach()
                        whole = whole.full_tensor() if isinstance(whole, DTensor) else whole
                        exact = name in BITS and kind != "adam-fused"  # whose own steps differ in the last bits
                        is_same = whole.equal(p) if exact else torch.allclose(whole, p, rtol=1e-12, atol=1e-13)
                        if not is_same:
                            wrong.append(f"{key} after step {step + 1} of {kind} with {name}: {whole - p}")
            mine, other = (handle for _, handle in handles)
            if not (
                mine.sparsity() == other.sparsity()
                and math.isclose(mine.value(), other.value(), rel_tol=1e-12)
                and [(row.zeros, row.elements) for row in mine.report()]
                == [(row.zeros, row.elements) for row in other.report()]
            ):
                wrong.append(f"the report of {kind} with {name}: {mine.report()} for {other.report()}")
    return wrong


def scattered(whole: Tensor, like: Any) -> Tensor:
    """A tensor cut as a DTensor is, by torch's own blocks: strided shards cannot be scattered."""
    from torch.distributed.tensor import DTensor

    from wellposed.penalties.computing.shard import Shard

    here = Shard.of(like).part(whole).clone()
    return DTensor.from_local(
        here, like.device_mesh, like.placements, run_check=False, shape=like.shape, stride=like.stride()
    )


@pytest.mark.parametrize(("world", "way"), [(2, "fsdp"), (4, "fsdp"), (2, "tensor"), (4, "both"), (4, "replicas")])
def test_steps_and_reports_are_those_of_one_process(jobs: dict[int, Job], world: int, way: str) -> None:
    kinds = list(OPTIMIZERS) if (world, way) == (2, "fsdp") else ["sgd", "adam-foreach"]
    assert jobs[world](differing, way, kinds) == world * [[]]


def nans() -> list[Any]:
    """What is counted when processes meet NaN at different steps, in different shards."""
    model = sharded("fsdp")
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    handle = wp.regularize(optimizer, model, L1(0.1), mode="gradient")
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        for bad in ((), (0,), (1,), (0, 1), ()):  # the processes whose gradient is NaN
            for p in model.parameters():
                p.grad = torch.zeros_like(p)
                if dist.get_rank() in bad and p is model.first.weight:
                    p.grad.to_local().fill_(torch.nan)  # type: ignore[attr-defined]
            optimizer.step()
            with torch.no_grad():
                for p in model.parameters():
                    p.zero_()
    seen = handle.nan_steps()
    assert handle.nan_steps() == seen == handle.state_dict()["nan_steps"]
    return [seen, [str(w.message) for w in heard if "NaN" in str(w.message)]]


def test_a_step_with_nan_counts_once(jobs: dict[int, Job]) -> None:
    first, second = jobs[2](nans)
    assert first[0] == second[0] == {"first.weight": 3}
    assert first[1] == ["'first.weight' has NaN in its gradient at the optimizer's step 2; was the loss finite?"]
    assert second[1] == ["'first.weight' has NaN in its gradient at the optimizer's step 3; was the loss finite?"]


def zeros_by_two_ways() -> tuple[float, float]:
    model = sharded("fsdp")
    weight: Any = model.first.weight
    with torch.no_grad():
        if dist.get_rank() == 0:
            weight.to_local().zero_()
    handle = wp.regularize(optim.SGD(model.parameters(), lr=0.1), model, {"first.weight": L1(0.1)})
    return handle.sparsity(), float((weight.to_local() == 0).float().mean())


def test_sparsity_is_of_the_whole_and_not_of_each_shard(jobs: dict[int, Job]) -> None:
    (first, naive), (second, other) = jobs[2](zeros_by_two_ways)
    assert first == second == 9 / 17
    assert (naive, other) == (1.0, 0.0)


def words(way: str) -> dict[str, str]:
    """What is said where something cannot be done, or costs more."""
    from torch.distributed.fsdp import FullyShardedDataParallel
    from torch.distributed.tensor import DTensor, Partial

    said = {}
    model = sharded("fsdp")
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    plan = wp.plan_regularize(optimizer, model, {"*": L1(0.1), "first.weight": SpectralNorm(0.1)})
    said["plan"] = "; ".join(f"{row.name}: {row.reason}" for row in plan if row.penalty is not None)

    def refused(name: str, does: Callable[[], Any]) -> None:
        with pytest.raises(wp.WellposedError) as error:
            does()
        said[name] = str(error.value)

    terms = DTensor.from_local(torch.ones(2, 3), mesh_of(2), [Partial()], run_check=False)
    weight, x = model.first.weight, torch.ones(2, 1)
    refused("partial", lambda: L1(0.1).value(terms))
    refused("gradient", lambda: L1(0.1).accumulate_(weight, torch.zeros(17, 6, dtype=torch.float64)))
    refused("path", lambda: wp.regularization_path(lambda: sharded("fsdp"), (x, x), L1(1.0), 2))
    held = nn.Parameter(terms)
    refused("regularize", lambda: wp.regularize(optim.SGD([held], lr=0.1), [("w", held)], L1(0.1)))
    flat = FullyShardedDataParallel(Net(), device_id=torch.device("cpu"))
    refused("flat", lambda: wp.regularize(optim.SGD(flat.parameters(), lr=0.1), flat, L1(0.1)))
    return said


def test_what_cannot_be_done_is_said_before_anything_moves(jobs: dict[int, Job]) -> None:
    said = jobs[2](words, "fsdp")[0]
    assert said["plan"] == (
        "first.weight: where='weights', rule 'first.weight'; sharded, and gathered whole at each step; "
        "last.weight: where='weights'"
    )
    terms = (
        "a DTensor with placements (Partial(sum),) was given, of which a process holds terms of a sum; expected "
        "sharded or replicated placements"
    )
    assert said["partial"] == f"L1(lam=0.1) was given what it cannot be computed on: {terms}"
    assert said["regularize"] == f"L1(lam=0.1) cannot be computed on 'w': {terms}"
    assert said["gradient"] == (
        "L1(lam=0.1) was given a gradient that is not sharded for a weight with placements (Shard(dim=0),); expected "
        "the weight's (gradient.redistribute(placements=weight.placements))"
    )
    assert said["path"] == (
        "regularization_path was given a model with sharded parameters (first.weight, ...); it fits models that one "
        "process holds whole: shard none in model_fn"
    )
    assert said["flat"] == (
        "regularize was given a model in FullyShardedDataParallel, whose weights are in pieces that have lost their "
        "shape; shard it with fully_shard"
    )


def activities(way: str) -> list[Any]:
    """The penalty of activations that are DTensors, its gradient, and those of one process."""
    from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor

    mesh = mesh_of(2)
    x = normal((3, 4, 6), Key(3), dtype=torch.float64)
    model = nn.Sequential(nn.Identity())
    watched = wp.penalize_activity(model, GroupLasso(0.5, groups=(0, 1)) + L2(0.1), nn.Identity)
    found: list[Any] = []
    for placement in (Shard(0), Shard(1), Shard(2), Replicate()):
        leaf = distribute_tensor(x, mesh, [placement]).requires_grad_()
        model(leaf)
        torch.autograd.backward(watched.loss())
        gradient: Any = leaf.grad
        found.append((float(watched.loss().detach()), gradient.full_tensor()))
        # beside a loss that is a DTensor
        leaf = distribute_tensor(x, mesh, [placement]).requires_grad_()
        loss = model(leaf).sum() + watched.loss()
        assert isinstance(loss, DTensor)
        torch.autograd.backward(loss)
        both: Any = leaf.grad
        found.append((float(watched.loss().detach()), both.full_tensor() - 1))
    whole = x.clone().requires_grad_()
    model(whole)
    torch.autograd.backward(watched.loss())
    found.append((float(watched.loss().detach()), whole.grad))
    return found


def test_activations_are_penalised_as_a_whole(jobs: dict[int, Job]) -> None:
    for answer in jobs[2](activities, "fsdp"):
        *ours, (value, gradient) = answer
        for other, its in ours:
            assert other == pytest.approx(value, rel=1e-12)
            torch.testing.assert_close(its, gradient, rtol=1e-12, atol=1e-13)
