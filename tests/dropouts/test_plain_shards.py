"""Dropout of plain tensors that are parts of larger ones: found or told where they lie, or refused; never shared."""

import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

import wellposed as wp
from draw_cases import identical
from gloo import Job, job_of, mesh_of

pytestmark = pytest.mark.skipif(not dist.is_available(), reason="torch was built without distributed")


@pytest.fixture(scope="module")
def two() -> Iterator[Job]:
    with job_of(2) as job:
        yield job


@pytest.fixture(scope="module")
def four() -> Iterator[Job]:
    with job_of(4) as job:
        yield job


class Gated(nn.Module):
    """A gated block, its hidden units and its output dropped."""

    def __init__(self, drop: Callable[[float], nn.Module] = wp.Dropout) -> None:
        super().__init__()
        self.up, self.gate, self.down = nn.Linear(6, 16), nn.Linear(6, 16), nn.Linear(16, 6)
        self.drop, self.after = drop(0.5), drop(0.25)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.drop(nn.functional.silu(self.gate(x)) * self.up(x))
        y: Tensor = x + self.after(self.down(hidden))
        return y


class Attention(nn.Module):
    """Attention by 4 heads over plain tensors, as many as there are here."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.ModuleList(nn.Linear(8, 8) for _ in "qkv"), nn.Linear(8, 8)
        self.drop = wp.AttentionDropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (layer(x).unflatten(-1, (-1, 2)).transpose(1, 2) for layer in self.qkv)
        y: Tensor = self.out(self.drop(q, k, v).transpose(1, 2).flatten(2))
        return y


class Noted:
    """What the dropout modules of a model gave."""

    def __init__(self, model: nn.Module) -> None:
        self.seen: dict[str, Tensor] = {}
        for name, module in model.named_modules():
            if isinstance(module, nn.Dropout | wp.Dropout):
                module.register_forward_hook(self._noting(name))

    def _noting(self, name: str) -> Callable[..., None]:
        def note(module: nn.Module, inputs: Any, output: Any) -> None:
            local = output.to_local() if hasattr(output, "to_local") else output
            self.seen[name] = local.detach() != 0

        return note


def started(model: nn.Module) -> nn.Module:
    model = model.double()
    for name, parameter in model.named_parameters():
        wp.random.normal_(parameter.detach(), wp.Key(0).fold(name), std=0.5)
    return model


def batch(*shape: int) -> Tensor:
    return wp.random.normal(shape, wp.Key(9), dtype=torch.float64)


def run(model: nn.Module, x: Tensor, **told: Any) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """The output, the input's gradient, and which elements each dropout kept."""
    noted, x = Noted(model), x.detach().requires_grad_()
    with wp.keyed(7, step=3, **told):
        y = model(x)
        y.square().sum().backward()
    assert x.grad is not None
    return y.detach(), x.grad, noted.seen


def parallel(model: nn.Module, mesh: Any, **plan: Any) -> nn.Module:
    from torch.distributed.tensor.parallel import parallelize_module

    return parallelize_module(model, mesh, plan)


def message(work: Callable[[], object]) -> str:
    """What an error says."""
    try:
        work()
    except wp.WellposedError as error:
        return str(error)
    return "no error"


def close(found: tuple[Any, ...], expected: tuple[Any, ...]) -> bool:
    return all(torch.allclose(a, b, rtol=1e-12, atol=1e-12) for a, b in zip(found[:2], expected[:2], strict=True))


# --- tensor parallelism: what ColwiseParallel hands on as plain tensors is found


def styles() -> dict[str, Any]:
    from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel

    return {"up": ColwiseParallel(), "gate": ColwiseParallel(), "down": RowwiseParallel()}


def local_outputs(kind: str) -> dict[str, Any]:
    rank, world, x = dist.get_rank(), dist.get_world_size(), batch(5, 6)
    drop = nn.Dropout if kind == "torch" else wp.Dropout
    *expected, kept = run(started(Gated(drop)), x, row=0)
    model = parallel(started(Gated(drop)), mesh_of(world), **styles())
    *found, seen = run(model, x, row=0)
    own = slice(16 // world * rank, 16 // world * (rank + 1))
    masks = identical(seen["drop"], kept["drop"][:, own]) and identical(seen["after"], kept["after"])
    torch.manual_seed(0)
    x = x.clone().requires_grad_()
    noted = Noted(model).seen
    model(x)
    return {"close": close(tuple(found), tuple(expected)), "masks": masks, "torch's": noted["drop"]}


@pytest.mark.parametrize("kind", ["wellposed", "torch"])
def test_hidden_units_that_are_handed_on_as_plain_shards_have_their_own_part_of_the_mask(kind: str, two: Job) -> None:
    found = two(local_outputs, kind)
    assert all(each["close"] and each["masks"] for each in found)
    if kind == "torch":  # by itself, with generators alike as tensor parallelism needs them: halves drop the same
        assert identical(found[0]["torch's"], found[1]["torch's"])


def uneven_units() -> dict[str, bool]:
    class Narrow(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.drop, self.down = nn.Linear(6, 7), wp.Dropout(0.5), nn.Linear(7, 6)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.drop(self.up(x).relu())
            return y

    from torch.distributed.tensor.parallel import ColwiseParallel

    _, _, kept = run(started(Narrow()), batch(5, 6), row=0)
    _, _, seen = run(parallel(started(Narrow()), mesh_of(2), up=ColwiseParallel()), batch(5, 6), row=0)
    own = slice(0, 4) if dist.get_rank() == 0 else slice(4, 7)
    return {"masks": identical(seen["drop"], kept["drop"][:, own])}


def test_an_uneven_share_of_hidden_units_is_found(two: Job) -> None:
    assert all(each["masks"] for each in two(uneven_units))


def sequence_parallel() -> dict[str, Any]:
    from torch.distributed.tensor import Replicate, Shard
    from torch.distributed.tensor.parallel import PrepareModuleInput, PrepareModuleOutput, SequenceParallel

    class Normed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.drop = nn.LayerNorm(6), wp.Dropout(0.5)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.drop(self.norm(x))
            return y

    x = batch(2, 7, 6)
    expected = run(started(Normed()), x, row=0)
    model = parallel(
        started(Normed()), mesh_of(dist.get_world_size()), norm=SequenceParallel(), drop=SequenceParallel()
    )
    given = PrepareModuleInput(input_layouts=Replicate(), desired_input_layouts=Shard(1))
    taken = PrepareModuleOutput(output_layouts=Shard(1), desired_output_layouts=Replicate())
    found = run(parallel(parallel(model, mesh_of(2), **{"": given}), mesh_of(2), **{"": taken}), x)
    return {"close": close(found, expected)}


def test_sequence_parallel_dropout_is_that_of_one_process(two: Job) -> None:
    assert all(each["close"] for each in two(sequence_parallel))


# --- data, context and head parallelism: told


def data_parallel() -> dict[str, Any]:
    from torch.distributed.tensor import distribute_tensor

    rank, world, x = dist.get_rank(), dist.get_world_size(), batch(8, 6)
    y, grad, _ = run(started(Gated()), x, row=0)
    own = slice(8 // world * rank, 8 // world * (rank + 1))
    model = started(Gated())
    answers = {
        "row": run(model, x[own], row=8 // world * rank),
        "mesh": run(model, x[own], mesh=mesh_of(world)),
        "two meshes": run(model, x[own], mesh=mesh_of(2, world // 2)),
        "placements": run(model, x[own], mesh=mesh_of(world), placements=shards(0)),
        "ddp": run(nn.parallel.DistributedDataParallel(model), x[own], mesh=mesh_of(world)),
    }
    compiled: Any = torch.compile(model, backend="aot_eager")
    answers["compiled"] = run(compiled, x[own], mesh=mesh_of(world))
    answers["compiled rows"] = run(compiled, x[own], row=8 // world * rank)
    maps, regions = batch(8, 2, 5, 5), nn.Sequential(wp.DropBlock2d(0.5, 2))
    mine = mesh_of(2, world // 2, names=("dp", "sp"))
    half = maps[4 * mine["dp"].get_local_rank() :][:4]
    answers["a DTensor of rows"] = run(regions, half, row=4 * mine["dp"].get_local_rank())
    sharded: Any = distribute_tensor(half, mine["sp"], shards(2))
    found: Any = run(regions, sharded, mesh=mine["dp"])
    expected = answers.pop("a DTensor of rows")
    same = [torch.allclose(a.full_tensor(), b) for a, b in zip(found[:2], expected[:2], strict=True)]
    lacking = message(lambda: run(model, x[own]))
    return {"lacking": lacking, "a DTensor of rows": all(same)} | {
        name: close(found, (y[own], grad[own])) for name, found in answers.items()
    }


def shards(*dims: int | None) -> list[Any]:
    from torch.distributed.tensor import Replicate, Shard

    return [Replicate() if dim is None else Shard(dim) for dim in dims]


def test_each_process_drops_its_own_rows_of_the_batch(four: Job) -> None:
    for found in four(data_parallel):
        assert re.search(
            r"Dropout\(p=0.5\) was called in .* job of 4 processes.*row=0 where every", found.pop("lacking")
        )
        assert all(found.values()), found


def fully_sharded() -> dict[str, bool]:
    from torch.distributed.fsdp import fully_shard

    rank, world, x = dist.get_rank(), dist.get_world_size(), batch(8, 6)
    y, grad, _ = run(started(Gated()), x, row=0)
    own = slice(8 // world * rank, 8 // world * (rank + 1))
    model = started(Gated())
    fully_shard(model.get_submodule("up"), mesh=mesh_of(world))
    fully_shard(model, mesh=mesh_of(world))
    found = run(model, x[own], mesh=mesh_of(world))
    with torch.no_grad(), wp.keyed(7, step=3, mesh=mesh_of(world)):
        without = model(x[own])
    return {"training": close(found, (y[own], grad[own])), "without gradients": close((without,), (y[own],))}


def test_fully_sharded_layers_leave_rows_as_they_are(two: Job) -> None:
    assert two(fully_sharded) == 2 * [{"training": True, "without gradients": True}]


def both() -> dict[str, Any]:
    """Tensor parallelism in pairs, and data parallelism over them."""
    x, mesh = batch(8, 6), mesh_of(2, 2, names=("dp", "tp"))
    y, grad, _ = run(started(Gated()), x, row=0)
    dp = mesh["dp"].get_local_rank()
    own = slice(4 * dp, 4 * dp + 4)
    model = parallel(started(Gated()), mesh["tp"], **styles())
    hidden = {"*": shards(0, None), "drop": shards(0, -1)}
    flags = {
        "mesh": run(model, x[own], mesh=mesh["dp"]),
        "row": run(model, x[own], row=4 * dp),
        "told all": run(model, x[own], mesh=mesh, placements=hidden),
    }
    return {name: close(found, (y[own], grad[own])) for name, found in flags.items()} | {
        "untold": message(lambda: run(model, x[own])),
        "wrong": message(lambda: run(model, x[own], mesh=mesh)),
        "other": message(lambda: run(model, x[own], mesh=mesh_of(4), placements=shards(0))),
    }


def test_data_and_tensor_parallelism_together(four: Job) -> None:
    for found in four(both):
        assert re.search(r"but only how 2 of the processes share a tensor", found.pop("untold"))
        assert re.search(r"is sharded in dimension 0, and it is sharded in dimension 1", found.pop("wrong"))
        assert re.search(r"expected dimensions of one mesh", found.pop("other"))
        assert all(found.values()), found


def context_parallel() -> dict[str, Any]:
    rank, world, x = dist.get_rank(), dist.get_world_size(), batch(2, 8, 6)
    y, grad, _ = run(started(Gated()), x, row=0)
    own = (slice(None), slice(8 // world * rank, 8 // world * (rank + 1)))
    length = 8 // (2 * world)  # balanced: the rank's chunk, and the one as far from the end
    chunks = [slice(length * i, length * (i + 1)) for i in (rank, 2 * world - 1 - rank)]
    model = started(Gated())
    balanced = torch.cat([x[:, chunk] for chunk in chunks], dim=1)
    hidden = {"*": [wp.Box((2, 8, 6), (0, c.start, 0)) for c in chunks]}
    hidden["drop"] = [wp.Box((2, 8, 16), (0, c.start, 0)) for c in chunks]
    found = run(model, balanced, placements=hidden)
    expected = [torch.cat([whole[:, chunk] for chunk in chunks], dim=1) for whole in (y, grad)]
    return {
        "even": close(run(model, x[own], mesh=mesh_of(world), placements=shards(1)), (y[own], grad[own])),
        "balanced": close(found, tuple(expected)),
    }


def test_a_part_of_the_sequence_is_told(two: Job) -> None:
    assert all(each == {"even": True, "balanced": True} for each in two(context_parallel))


def recomputed() -> dict[str, bool]:
    """Activation checkpointing of a tensor-parallel block, and operators that are watched meanwhile."""
    from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts

    x = batch(5, 6).requires_grad_()
    y, grad, _ = run(started(Gated()), x, row=0)
    model = nn.Sequential(parallel(started(Gated()), mesh_of(2), **styles()))
    found = {}
    for kind in ("again", "selectively"):
        watched = partial(create_selective_checkpoint_contexts, [torch.ops.aten.silu.default])
        options: Any = {"context_fn": watched} if kind == "selectively" else {}
        x.grad = None
        with wp.keyed(7, step=3, row=0):
            again: Any = checkpoint(model[0], x, use_reentrant=False, **options)
            again.square().sum().backward()
        found[kind] = close((again, x.grad), (y, grad))
    return found


def test_what_runs_again_has_the_same_part_of_the_mask(two: Job) -> None:
    assert two(recomputed) == 2 * [{"again": True, "selectively": True}]


def heads() -> dict[str, Any]:
    from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel

    x = batch(3, 5, 8)
    expected = run(started(Attention()), x, row=0)
    plan = {"qkv.*": ColwiseParallel(), "out": RowwiseParallel()}
    model = parallel(started(Attention()), mesh_of(2), **plan)
    return {
        "close": close(run(model, x, row=0, mesh=mesh_of(2), placements={"drop": shards(1)}), expected),
        "untold": message(lambda: run(model, x, row=0)),
    }


def test_heads_are_told_since_their_place_is_lost(two: Job) -> None:
    for found in two(heads):
        assert found["close"]
        assert re.search(r"AttentionDropout.*made from a shard.*placements=\{'drop': \[\.\.\.\]\}", found["untold"])


# --- what cannot be known


def unknown() -> dict[str, str]:
    x, mesh = batch(5, 6), mesh_of(2)
    model = parallel(started(Gated()), mesh, **styles())

    def without_gradients() -> None:
        with torch.no_grad(), wp.keyed(0, row=0):
            model(x)

    def compiled() -> None:
        with wp.keyed(0, row=0):
            torch.compile(model, backend="aot_eager")(x)

    return {
        "without gradients": message(without_gradients),
        "compiled": message(compiled),
        "both": message(lambda: wp.keyed(0, row=0, mesh=mesh).__enter__()),
        "no mesh": message(lambda: wp.keyed(0, mesh=2).__enter__()),
        "placements without": message(lambda: wp.keyed(0, placements=shards(0)).__enter__()),
        "too many": message(lambda: wp.keyed(0, mesh=mesh, placements=shards(0, 1)).__enter__()),
        "rank": message(lambda: run(started(Gated()), x, mesh=mesh, placements=shards(2))),
        "box": message(lambda: run(started(Gated()), x, placements=wp.Box((4, 6), (0, 0)))),
    }


REFUSED = {
    "without gradients": r"in a model whose layers hand one another shards.*without gradients, or in a compiled graph",
    "compiled": r"in a model whose layers hand one another shards.*in a compiled graph",
    "both": "row=0 and a mesh",
    "no mesh": "mesh=.*expected a DeviceMesh",
    "placements without": r"expected wp\.Box, or a mesh",
    "too many": "expected 1 placements, each Shard or Replicate",
    "rank": "sharded in dimension 2, and it has shape",
    "box": "expected one box, or several of equal blocks",
}


def test_what_is_not_known_is_refused(two: Job) -> None:
    for found in two(unknown):
        assert found.keys() == REFUSED.keys()
        for name, text in found.items():
            assert re.search(REFUSED[name], text), (name, text)
