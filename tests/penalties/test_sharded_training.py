"""A training run of a small transformer with dropout and a penalty: the same losses on one process and on several."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

import wellposed as wp
from gloo import Job, job_of, mesh_of

STEPS, ROWS, LENGTH, WORDS, WIDTH, HEADS = 20, 8, 8, 16, 16, 4


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.before_attention, self.before_mlp = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.query, self.key, self.value, self.out = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(4))
        self.up, self.down = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(3 * WIDTH, WIDTH)
        self.after_attention, self.hidden, self.after_mlp = nn.Dropout(0.1), nn.Dropout(0.1), nn.Dropout(0.1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.before_attention(x)
        q, k, v = (
            layer(y).unflatten(-1, (-1, WIDTH // HEADS)).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
        x = x + self.after_attention(self.out(mixed))
        hidden = self.hidden(nn.functional.gelu(self.up(self.before_mlp(x))))
        out: Tensor = x + self.after_mlp(self.down(hidden))
        return out


class Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.drop = nn.Embedding(WORDS, WIDTH), nn.Dropout(0.1)
        self.blocks = nn.ModuleList([Block(), Block()])
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WORDS, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.drop(self.words(ids))
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.head(self.norm(x))
        return logits


def build(way: str) -> tuple[nn.Module, int, int]:
    """The model on this process, and its place among those that share the batch out, of how many."""
    model = Transformer().double()
    wp.convert_dropout(model)
    place, parts = 0, 1
    if way in ("fsdp", "both"):
        place, parts = (dist.get_rank(), dist.get_world_size()) if way == "fsdp" else (dist.get_rank() // 2, 2)
    if way != "alone":
        mesh = mesh_of(2, 2, names=("data", "tensor")) if way == "both" else mesh_of(dist.get_world_size())
        if way != "fsdp":
            parallelize(model, mesh["tensor"] if way == "both" else mesh, is_sequence=way == "sequence")
        if way in ("fsdp", "both"):
            from torch.distributed.fsdp import fully_shard

            for module in (*model.blocks, model):
                fully_shard(module, mesh=mesh["data"] if way == "both" else mesh)
    wp.initialize(model, seed=0)
    return model, place, parts


def parallelize(model: Transformer, mesh: Any, is_sequence: bool) -> None:
    from torch.distributed.tensor import Replicate, Shard
    from torch.distributed.tensor.parallel import (
        ColwiseParallel,
        RowwiseParallel,
        SequenceParallel,
        parallelize_module,
    )

    # What lies between the blocks is whole in each process, or its part of the sequence.
    outer = Shard(1) if is_sequence else Replicate()
    along: Any = lambda: SequenceParallel(use_local_output=True)  # noqa: E731
    plan: dict[str, Any] = {
        "words": RowwiseParallel(input_layouts=Replicate(), output_layouts=outer),
        "head": ColwiseParallel(input_layouts=outer, output_layouts=Replicate()),
    }
    if is_sequence:
        plan |= {"drop": along(), "norm": along()}
    for i in range(len(model.blocks)):
        name = f"blocks.{i}."
        plan |= {name + part: ColwiseParallel(input_layouts=outer) for part in ("query", "key", "value")}
        plan |= {name + part: RowwiseParallel(output_layouts=outer) for part in ("out", "down")}
        plan[name + "up"] = ColwiseParallel(input_layouts=outer, use_local_output=False)  # for the dropout after it
        if is_sequence:
            parts = ("before_attention", "before_mlp", "after_attention", "after_mlp")
            plan |= {name + part: along() for part in parts}
    parallelize_module(model, mesh, plan)


def train(way: str, start: int, stop: int, load: str = "", save: str = "") -> list[float]:
    """The losses of some steps, from the start or a checkpoint on."""
    from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
    from torch.distributed.checkpoint.state_dict_loader import load as load_from
    from torch.distributed.checkpoint.state_dict_saver import save as save_to

    model, place, parts = build(way)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.01)
    handle = wp.regularize(optimizer, model, wp.L1(1e-2))
    if load:
        weights, states = get_state_dict(model, optimizer)
        kept: dict[str, Any] = {"model": weights, "optimizer": states, "penalty": handle.state_dict()}
        load_from(kept, checkpoint_id=load)
        set_state_dict(model, optimizer, model_state_dict=kept["model"], optim_state_dict=kept["optimizer"])
        handle.load_state_dict(kept["penalty"])
        assert handle.step == start
    losses = []
    for step in range(start, stop):
        ids = wp.random.bits((ROWS, LENGTH + 1), wp.Key(5), call=step).long() % WORDS
        rows = ROWS // parts
        mine = ids[place * rows :][:rows]
        optimizer.zero_grad()
        with wp.keyed(seed=0, step=step, row=place * rows):
            logits = model(mine[:, :-1])
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), mine[:, 1:].flatten())
        torch.autograd.backward(loss)
        optimizer.step()
        total = loss.detach().clone()
        if parts > 1:
            dist.all_reduce(total)
            total /= dist.get_world_size()
        losses.append(float(total) + handle.value())
    assert handle.sparsity() > 0
    assert handle.nan_steps() == {}
    if save:
        weights, states = get_state_dict(model, optimizer)
        save_to({"model": weights, "optimizer": states, "penalty": handle.state_dict()}, checkpoint_id=save)
    return losses


@pytest.fixture(scope="module")
def jobs() -> Iterator[dict[int, Job]]:
    with job_of(2) as two, job_of(4) as four:
        yield {2: two, 4: four}


@pytest.mark.slow
def test_losses_agree_and_go_on_from_a_checkpoint_on_another_mesh(jobs: dict[int, Job], tmp_path: Path) -> None:
    wanted = train("alone", 0, STEPS)
    assert wanted[-1] < wanted[0]
    ways = [(2, "fsdp"), (4, "fsdp"), (2, "tensor"), (2, "sequence"), (4, "both")]
    half = STEPS // 2
    checkpoints: dict[tuple[int, str], Path] = {}
    for world, way in ways:
        first = jobs[world](
            train, way, 0, half, "", str(checkpoints.setdefault((world, way), tmp_path / f"{way}{world}"))
        )
        assert all(losses == pytest.approx(wanted[:half], rel=0, abs=1e-10) for losses in first)
    # Each goes on from the checkpoint of the next, and one process from the last.
    for (world, way), other in zip(ways, [*ways[1:], ways[0]], strict=True):
        rest = jobs[world](train, way, half, STEPS, str(checkpoints[other]))
        assert all(losses == pytest.approx(wanted[half:], rel=0, abs=1e-10) for losses in rest)
    (rest, _) = jobs[2](train, "alone", half, STEPS, str(checkpoints[4, "both"]))
    assert rest == pytest.approx(wanted[half:], rel=0, abs=1e-10)
