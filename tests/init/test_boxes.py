"""Plain tensors that are parts of larger ones start as those parts of the whole do."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

import wellposed as wp
from sharded_models import Stack


class Gated(nn.Module):
    """A feed-forward layer whose gate and values lie in one weight, one above the other."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.both, self.down = nn.Linear(width, 2 * hidden), nn.Linear(hidden, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate, values = self.both(self.norm(x)).chunk(2, -1)
        out: torch.Tensor = self.down(nn.functional.silu(gate) * values)
        return out


def partition(parameter: Any, rank: int, world: int) -> wp.Box | list[wp.Box] | None:
    """The boxes of a parameter that Megatron has partitioned."""
    if not getattr(parameter, "tensor_model_parallel", False):
        return None
    dim, stride = parameter.partition_dim, parameter.partition_stride
    shape = list(parameter.shape)
    size = shape[dim] // stride
    shape[dim] *= world
    offsets = [[0] * len(shape) for _ in range(stride)]
    for i, offset in enumerate(offsets):
        offset[dim] = (i * world + rank) * size
    return [wp.Box(tuple(shape), tuple(offset)) for offset in offsets]


def test_megatrons_layers() -> None:
    """Column and row parallel layers, the first in strides: gate and values are each shared out."""
    width, hidden, world = 6, 8, 2
    whole = Gated(width, hidden)
    rules = {"down.weight": wp.init.Orthogonal()}
    wanted = wp.initialize(whole, seed=3, rules=rules)
    for rank in range(world):
        part = Gated(width, hidden // world)
        for parameter, dim, stride in [(part.both.weight, 0, 2), (part.both.bias, 0, 2), (part.down.weight, 1, 1)]:
            values: Any = {"tensor_model_parallel": True, "partition_dim": dim, "partition_stride": stride}
            vars(parameter).update(values)
        boxes = {"*": partial(partition, rank=rank, world=world)}
        plan = wp.initialize(part, seed=3, rules=rules, boxes=boxes)
        for row, other in zip(plan, wanted, strict=True):
            assert (row.shape, row.fans, row.gain, row.std_wanted) == (
                other.shape,
                other.fans,
                other.gain,
                other.std_wanted,
            )
        mine = slice(rank * hidden // world, (rank + 1) * hidden // world)
        assert torch.equal(
            part.both.weight, torch.cat([whole.both.weight[:hidden][mine], whole.both.weight[hidden:][mine]])
        )
        assert torch.equal(part.down.weight, whole.down.weight[:, mine])
        assert torch.equal(part.down.bias, whole.down.bias)
        assert plan["both.weight"].note.startswith(f"here at ({rank * 4}, 0) and ({8 + rank * 4}, 0)")
        assert "each process makes the whole" in plan["down.weight"].note
        assert plan.to_dict()["rows"][0]["boxes"] is not None
        assert wp.init.audit(plan, part)["down.weight"].std_got == plan["down.weight"].std_got


def test_blocks_of_a_packed_weight() -> None:
    """A box is that of a block: queries, keys and values are each shared out."""
    width, heads = 8, 4
    whole = nn.MultiheadAttention(width, heads)
    wp.initialize(whole)
    part = nn.MultiheadAttention(width, heads)
    part.in_proj_weight = nn.Parameter(torch.empty(3 * width, width // 2))  # half of the inputs
    boxes = {"in_proj_weight": wp.Box((width, width), (0, 4)), "out_proj.*": None}
    wp.init.apply(wp.plan_initialize(part, boxes=boxes), part)
    assert torch.equal(part.in_proj_weight, whole.in_proj_weight[:, 4:])
    assert torch.equal(part.out_proj.weight, whole.out_proj.weight)


def test_a_flat_piece() -> None:
    """A run of a weight's entries in their order: the whole's distribution, and its place in the flat weight."""
    whole = nn.Linear(30, 20)
    plan = wp.initialize(whole)
    row = plan["weight"]
    initializer: Any = row.initializer
    piece = initializer.at(row.shape, row.axes).fill_(
        torch.empty(101), plan.key.fold(*row.stream), box=wp.Box((600,), (77,))
    )
    assert torch.equal(piece, whole.weight.flatten()[77:178])


def linear() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"0.weight": wp.Box((12, 4), (8, 0))}, r"0\.weight: a tensor of shape \(6, 4\) does not fit into a box"),
    ({"0.weight": wp.Box((12, 4, 1), (0, 0, 0))}, r"0\.weight: a tensor of shape \(6, 4\) does not fit"),
    ({"0.weight": (12, 4)}, r"0\.weight: boxes were given as \(12, 4\); expected a Box"),
    ({"0.weight": []}, r"0\.weight: boxes were given as \[\]"),
    ({"0.weight": [wp.Box((12, 4), (0, 0)), wp.Box((24, 4), (6, 0))]}, "boxes of different wholes"),
    ({"0.weight": [wp.Box((12, 8), (0, 0)), wp.Box((12, 8), (6, 4))]}, "start at different places in one dimension"),
    ({"2.weight": [wp.Box((6, 6), (0, 0)), wp.Box((6, 6), (3, 0))]}, "as many equal pieces"),
    ({"0.wieght": wp.Box((12, 4), (0, 0))}, r"the box '0\.wieght' matches no parameter.*0\.weight"),
    ({"0.weight": lambda p: p.shape}, "expected a Box"),
]


@pytest.mark.parametrize(("boxes", "message"), REFUSED)
def test_misfits_are_refused(boxes: Any, message: str) -> None:
    model = linear()
    before = [p.detach().clone() for p in model.parameters()]
    with pytest.raises(wp.WellposedError, match=message):
        wp.initialize(model, boxes=boxes)
    assert all(map(torch.equal, before, model.parameters()))


def test_what_has_no_need_of_a_box_is_refused() -> None:
    model = nn.utils.parametrizations.weight_norm(nn.Linear(4, 6))
    with pytest.raises(wp.WellposedError, match="computed from other parameters; give none"):
        wp.initialize(model, boxes={"weight": wp.Box((12, 4), (0, 0))})
    with pytest.raises(wp.WellposedError, match="fits the weights to data"):
        wp.initialize(linear(), "lsuv", boxes={"0.weight": wp.Box((12, 4), (0, 0))}, example=torch.randn(5, 4))


def test_a_plan_fits_the_process_that_it_was_made_for() -> None:
    model, other = linear(), nn.Sequential(nn.Linear(4, 7), nn.ReLU(), nn.Linear(7, 3))
    plan = wp.plan_initialize(model, boxes={"0.weight": wp.Box((12, 4), (6, 0)), "0.bias": wp.Box((12,), (6,))})
    with pytest.raises(wp.WellposedError, match=r"0\.weight: .*does not fit.*make a new plan"):
        wp.init.apply(plan, other)


def test_a_part_of_the_model_has_its_rows() -> None:
    whole = Stack()
    wp.initialize(whole, rules={"experts.*": wp.init.Normal()})
    with torch.device("meta"):
        plan = wp.plan_initialize(Stack(), rules={"experts.*": wp.init.Normal()})
    stage = torch.nn.parallel.DataParallel(Stack().layers[1:])
    wp.init.apply(wp.init.restrict(plan, stage, lambda name: f"layers.{int(name[0]) + 1}{name[1:]}"), stage)
    for mine, theirs in zip(stage.parameters(), whole.layers[1:].parameters(), strict=True):
        assert torch.equal(mine, theirs)
    wp.init.apply(wp.init.restrict(plan, alone := Stack().layers[2], "layers.2"), alone)
    assert torch.equal(alone.down.weight, whole.layers[2].down.weight)
    with pytest.raises(wp.WellposedError, match=r"the plan has no row for norm\.weight, .*names='path"):
        wp.init.restrict(plan, alone)


def test_a_tied_weight_in_another_stage() -> None:
    whole: Any = nn.ModuleDict({"embed": nn.Embedding(11, 6), "head": nn.Linear(6, 11, bias=False)})
    whole["head"].weight = whole["embed"].weight
    plan = wp.initialize(whole)
    stage: Any = nn.ModuleDict({"head": nn.Linear(6, 11, bias=False)})
    wp.init.apply(wp.init.restrict(plan, stage), stage)
    assert torch.equal(stage["head"].weight, whole["head"].weight)


def test_a_whole_is_made_once_for_all_its_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    make = wp.init.Orthogonal._whole

    def counted(*given: Any) -> torch.Tensor:
        made.append(given[1])
        return make(*given)

    monkeypatch.setattr(wp.init.Orthogonal, "_whole", counted)
    model = nn.Linear(4, 6, bias=False)
    boxes = {"weight": [wp.Box((12, 4), (0, 0)), wp.Box((12, 4), (6, 0))]}
    wp.initialize(model, "orthogonal", boxes=boxes)
    assert made == [(12, 4)]
