"""A model starts as in one process however it is shared out over many: in silence, bit for bit, with the same plan."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn

import wellposed as wp
from gloo import Job, job_of
from sharded_models import IDS, NET_WAYS, RULES, STACK_RULES, STACK_WAYS, Net, Stack
from sharded_tools import differing, silence

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not dist.is_available(), reason="torch was built without distributed"),
]
MODELS: dict[str, tuple[type[nn.Module], Any, Any]] = {
    "net": (Net, RULES, NET_WAYS),
    "stack": (Stack, STACK_RULES, STACK_WAYS),
}


@pytest.fixture(scope="module", params=[2, 4])
def job(request: pytest.FixtureRequest) -> Iterator[Job]:
    with job_of(request.param) as job:
        yield job


def start(kind: str, way: str, source: str, dtype: torch.dtype) -> tuple[list[str], Any, Any]:
    """The weights that differ from the unsharded model's, and the rows of both plans."""
    make, rules, ways = MODELS[kind]
    plain = make().to(dtype)
    wanted = wp.initialize(plain, seed=2, rules=rules)
    with torch.device("cpu" if source == "memory" else "meta"):
        model: Any = make().to(dtype)
    ways[way](model)
    if source == "empty":
        model.to_empty(device="cpu")
    plan = wp.plan_initialize(model, seed=2, rules=rules)
    with silence():
        wp.init.apply(plan, model, "cpu")
    plan = wp.init.audit(plan, model)

    def said(plan: Any) -> Any:
        return [(row.label, row.shape, row.fans, row.gain, row.initializer, row.std_wanted) for row in plan]

    assert said(plan) == said(wanted)
    for row, other in zip(plan, wanted, strict=True):
        assert row.std_got == pytest.approx(other.std_got, rel=1e-5, abs=1e-9), row.label
    costs = {row.label: row.note for row in plan if "makes the whole" in row.note}
    return differing(model, plain), {name: tuple(p.shape) for name, p in model.named_parameters()}, costs


@pytest.mark.parametrize("source", ["memory", "meta", "empty"])
@pytest.mark.parametrize(("kind", "way"), [(kind, way) for kind, (*_, ways) in MODELS.items() for way in ways])
def test_a_model_that_is_shared_out(job: Job, kind: str, way: str, source: str) -> None:
    dtype = torch.bfloat16 if (way, source) == ("over_all", "meta") else torch.float32
    for wrong, shapes, costs in job(start, kind, way, source, dtype):
        assert not wrong
        assert shapes == {name: tuple(p.shape) for name, p in MODELS[kind][0]().named_parameters()}
        assert costs or way == "by_tensors"


def what_is_wrong_in_one() -> str:
    """What the audit says in each process of a weight that is wrong in one."""
    model: Any = Stack()
    STACK_WAYS["over_all"](model)
    plan = wp.initialize(model, rules=STACK_RULES)
    if dist.get_rank() == 1:
        model.layers[0].up.weight.detach().to_local().fill_(torch.nan)
    try:
        wp.init.audit(plan, model)
    except wp.WellposedError as error:
        return str(error)
    return ""


def test_what_is_wrong_in_one_shard_is_found_by_all(job: Job) -> None:
    for said in job(what_is_wrong_in_one):
        assert "layers.0.up.weight holds NaN" in said


def replicas() -> bool:
    """Whether the replicas of a hybrid sharded model hold the same numbers."""
    with torch.device("meta"):
        model: Any = Stack()
    STACK_WAYS["replicated"](model)
    wp.initialize(model, rules=STACK_RULES, device="cpu")
    same = True
    for parameter in model.parameters():
        group = parameter.device_mesh["replicas"].get_group()
        local = parameter.to_local().detach()
        both = [torch.empty_like(local) for _ in range(2)]
        dist.all_gather(both, local, group)
        same &= torch.equal(*both)
    return same


def test_replicas_are_equal(job: Job) -> None:
    assert all(job(replicas))


def runs() -> tuple[torch.Tensor, torch.Tensor]:
    plain, model = Net(), Net()
    wp.initialize(plain, rules=RULES)
    NET_WAYS["over_all"](model)
    wp.initialize(model, rules=RULES)
    return plain(IDS).detach(), model(IDS).detach()


def test_the_sharded_model_computes_the_same(job: Job) -> None:
    for plain, sharded in job(runs):
        torch.testing.assert_close(sharded, plain)


class Deep(nn.Module):
    """A model for stages of a pipeline: each has its own number of the layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 6), nn.Linear(6, 6)
        self.layers = nn.Sequential(*(nn.Sequential(nn.Linear(6, 6), nn.ReLU()) for _ in range(4)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.last(self.layers(self.first(x)))
        return out


def stages(way: str) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """The weights of this process's stage by the names in the whole, and those of the whole model."""
    plain = Deep()
    wp.initialize(plain, rules={"layers.2.0.weight": wp.init.Orthogonal()})
    with torch.device("meta"):
        whole: Any = Deep()
    plan = wp.plan_initialize(whole, rules={"layers.2.0.weight": wp.init.Orthogonal()})
    is_last = dist.get_rank() % 2 == 1
    names: Any = str
    if way == "torch":
        from torch.distributed.pipelining import SplitPoint, pipeline

        example = torch.zeros(2, 6, device="meta")
        pipe = pipeline(whole, (example,), split_spec={"layers.2": SplitPoint.BEGINNING})
        stage: Any = pipe.get_stage_module(int(is_last))
    else:
        stage = nn.Sequential(*(whole.layers[2:] if is_last else whole.layers[:2]))
        names = {
            f"{i}.0.{kind}": f"layers.{i + 2 * is_last}.0.{kind}" for i in (0, 1) for kind in ("weight", "bias")
        }.get
    here: Any = wp.init.restrict(plan, stage, names)
    wp.init.apply(here, stage, "cpu")
    wp.init.audit(here, stage)
    found = {names(name): getattr(p, "full_tensor", lambda p=p: p)().detach() for name, p in stage.named_parameters()}
    return found, {name: p.detach() for name, p in plain.named_parameters()}


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("way", ["torch", "by hand"])
def test_stages_of_a_pipeline(job: Job, way: str) -> None:
    for (one, whole), (other, _) in zip(*[iter(job(stages, way))] * 2, strict=True):
        if way == "torch":
            assert {*one, *other} == {*whole}
        for name, weight in (one | other).items():
            assert torch.equal(weight, whole[name]), name
