"""Optimizers of other libraries: wrappers are looked through, and states are looked at before the first step."""

import importlib
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn

import wellposed as wp


def imported(name: str) -> Any:
    """A library, or why the test is skipped; what it warns of when it is imported is its own affair."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return importlib.import_module(name)
        except Exception as problem:  # broken installations raise anything
            pytest.skip(f"{name} is not installed, or not for this torch: {problem}")


def of_accelerate(optimizer: torch.optim.Optimizer) -> Any:
    accelerate = imported("accelerate")
    return accelerate.Accelerator(cpu=True).prepare_optimizer(optimizer)


def of_lightning(optimizer: torch.optim.Optimizer) -> Any:
    return imported("lightning.pytorch.core.optimizer").LightningOptimizer(optimizer)


class Wrapper(torch.optim.Optimizer):
    """Hands all to the optimizer inside, and has no hooks of its own, as wrappers commonly do."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer
        self.param_groups, self.defaults, self.state = optimizer.param_groups, optimizer.defaults, optimizer.state

    def step(self, closure: Any = None) -> Any:
        return self.optimizer.step(closure)

    def zero_grad(self, set_to_none: bool = True) -> None:
        self.optimizer.zero_grad(set_to_none)


WRAPPERS: dict[str, Callable[[torch.optim.Optimizer], Any]] = {
    "accelerate": of_accelerate,
    "lightning": of_lightning,
    "plain": Wrapper,
    "twice": lambda optimizer: Wrapper(Wrapper(optimizer)),
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam])
def test_a_wrapped_optimizer_is_penalised_as_the_one_inside(wrapper: str, kind: Any) -> None:
    weights = []
    for wrap in (WRAPPERS[wrapper], lambda optimizer: optimizer):
        torch.manual_seed(0)
        model = nn.Linear(6, 4)
        inner = kind(model.parameters(), lr=0.1)
        optimizer = wrap(inner)
        handle = wp.regularize(optimizer, model, wp.L1(0.8))
        assert str(wp.plan_regularize(optimizer, model, wp.L1(0.8), mode="gradient"))
        for _ in range(3):
            optimizer.zero_grad()
            model(torch.ones(2, 6)).square().sum().backward()
            (inner if wrapper == "lightning" else optimizer).step()  # Lightning's own needs its trainer
        assert handle.step == 3
        assert handle.sparsity() > 0
        handle.remove()
        weights.append(model.weight.detach().clone())
    assert weights[0].equal(weights[1])


class Factored(torch.optim.Optimizer):
    """Keeps a mean square for each row alone, under Adam's names."""

    def __init__(self, parameters: Any) -> None:
        super().__init__(parameters, {"lr": 0.1, "betas": (0.9, 0.9), "eps": 1e-8, "amsgrad": False})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                state = self.state[p]
                state["step"] = state.get("step", 0) + 1
                state["exp_avg_sq"] = p.grad.square().mean(1).reshape(2, -1)
                p.sub_(group["lr"] * p.grad)


class Stateless(Factored):
    """Keeps nothing."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                p.sub_(group["lr"] * p.grad)


def eight_bit(parameters: Any) -> torch.optim.Optimizer:
    optimizer: torch.optim.Optimizer = imported("torchao.optim").AdamW8bit(parameters, lr=0.1)
    return optimizer


@pytest.mark.parametrize("make", [Factored, Stateless, eight_bit])
@pytest.mark.parametrize("stepped", [False, True])
def test_a_state_without_the_metric_is_refused_before_anything_moves(make: Any, stepped: bool) -> None:
    if stepped and make is eight_bit:
        pytest.skip("its first step is compiled, which takes a minute")
    model = nn.Linear(64, 64)
    optimizer = make(model.parameters() if make is eight_bit else [model.weight])
    model.weight.grad = torch.ones_like(model.weight)
    if stepped:
        optimizer.step()
    before, kept = model.weight.detach().clone(), len(optimizer.state)
    with pytest.raises(wp.WellposedError, match=r"keeps for 'weight' what the metric of Adam cannot be computed from"):
        wp.regularize(optimizer, model, wp.L1(0.1), metric=torch.optim.Adam)
    assert model.weight.equal(before)
    assert len(optimizer.state) == kept
    wp.regularize(optimizer, model, wp.L1(0.1), metric="euclidean").remove()
    wp.regularize(optimizer, model, wp.L1(0.1), mode="gradient").remove()


def test_looking_at_a_state_steps_nothing() -> None:
    class Child(torch.optim.Adam):
        pass

    model = nn.Linear(3, 2)
    optimizer = Child(model.parameters(), lr=0.1)
    torch.optim.lr_scheduler.StepLR(optimizer, 1)  # which puts a step of its own on the optimizer
    model(torch.ones(1, 3)).sum().backward()
    first = wp.regularize(optimizer, model, wp.L2(0.1), mode="gradient")
    before = [p.detach().clone() for p in model.parameters()]
    wp.regularize(optimizer, model, wp.L1(0.1), metric=torch.optim.Adam)
    assert first.step == 0
    assert not optimizer.state
    assert all(p.equal(old) for p, old in zip(model.parameters(), before, strict=True))


@pytest.fixture
def mesh() -> Iterator[Any]:
    """A mesh of this one process."""
    from torch.distributed.device_mesh import init_device_mesh

    store = torch._C._distributed_c10d.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    torch.distributed.destroy_process_group()


SHARDED = (
    wp.L1(0.1),
    wp.SpectralNorm(0.1),
    wp.NuclearNorm(0.1),
    wp.SoftOrthogonality(0.1),
    wp.GroupLasso(0.1, "columns"),
    wp.constraints.L1Ball(1.0),
)


@pytest.mark.parametrize("penalty", SHARDED, ids=repr)
def test_a_penalty_on_shards_is_right_or_refused_before_anything_moves(mesh: Any, penalty: wp.Penalty) -> None:
    from torch.distributed.tensor import Shard, distribute_tensor

    plain = wp.random.normal((3, 4), wp.Key(1))
    weight: Any = nn.Parameter(distribute_tensor(plain.clone(), mesh, [Shard(0)]))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    mode: Any = "proximal" if penalty.traits.prox else "gradient"
    refusal = ""
    try:
        wp.regularize(optimizer, [("weight", weight)], penalty, mode=mode)
    except wp.WellposedError as error:
        refusal = str(error)
    if refusal:
        assert "cannot be computed on 'weight', which is sharded" in refusal
        assert weight.full_tensor().equal(plain)
        return
    weight.grad = torch.zeros_like(weight)
    optimizer.step()
    wanted = penalty.prox(plain, 0.1) if penalty.traits.prox else plain - 0.1 * penalty.grad(plain)
    torch.testing.assert_close(weight.full_tensor(), wanted)


ORDERS: dict[str, Callable[..., Any]] = {
    "swapped": lambda model, optimizer, penalty: (model, optimizer, penalty),
    "penalty second": lambda model, optimizer, penalty: (optimizer, penalty, model),
    "penalty first": lambda model, optimizer, penalty: (penalty, model, optimizer),
    "a class": lambda model, optimizer, penalty: (torch.optim.SGD, model, penalty),
    "a class of a model": lambda model, optimizer, penalty: (optimizer, nn.Linear, penalty),
}


@pytest.mark.parametrize("order", ORDERS)
def test_arguments_in_another_order_are_told_apart(order: str) -> None:
    model = nn.Linear(3, 2)
    given = ORDERS[order](model, torch.optim.SGD(model.parameters(), lr=0.1), wp.L1(0.1))
    with pytest.raises(wp.WellposedError, match=r"in this order, .*; expected .*as in regularize\(optimizer, model, "):
        wp.regularize(*given)


LAYOUTS = {
    "is expanded": lambda: torch.zeros(1, 3).expand(2, 3),
    "has the layout sparse_coo": lambda: torch.eye(2, 3).to_sparse(),
    "has the layout sparse_csr": lambda: torch.eye(2, 3).to_sparse_csr(),
}
VERBS: dict[str, Callable[[nn.Linear], Any]] = {
    "regularize": lambda m: wp.regularize(torch.optim.SGD(m.parameters(), lr=0.1), m, wp.L1(0.1)),
    "initialize": lambda m: wp.initialize(m),
    "compact": lambda m: wp.compact(m),
    "prox_": lambda m: wp.L1(0.1).prox_(m.weight.detach(), 1.0),
    "fill_": lambda m: wp.init.He().fill_(m.weight, wp.Key(0)),
    "orthogonal": lambda m: wp.init.Orthogonal().fill_(m.weight, wp.Key(0)),
    "zeros": lambda m: wp.init.Zeros().fill_(m.weight, wp.Key(0)),
}


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("verb", VERBS)
def test_tensors_without_a_place_for_each_element_are_refused(layout: str, verb: str) -> None:
    model = nn.Linear(3, 2)
    model.weight = nn.Parameter(LAYOUTS[layout]())
    bias = model.bias.detach().clone()
    with pytest.raises(wp.WellposedError, match=layout):
        VERBS[verb](model)
    assert model.bias.equal(bias)


@pytest.mark.parametrize("verb", [wp.initialize, wp.plan_initialize, wp.compact])
def test_a_class_is_no_model(verb: Callable[[Any], Any]) -> None:
    with pytest.raises(wp.WellposedError, match=r"was given the class Linear; .* an instance such as Linear\("):
        verb(nn.Linear)


@pytest.mark.parametrize("under", [nn.utils.weight_norm, nn.utils.spectral_norm])
@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning")
def test_weights_behind_hooks_are_what_a_weight_is_computed_from(under: Any) -> None:
    model = nn.Sequential(under(nn.Linear(4, 8)), nn.ReLU(), nn.Linear(8, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for where in ("weights", nn.Linear, "all"):
        plan = wp.plan_regularize(optimizer, model, wp.L1(0.1), where=where)
        behind = [row for row in plan if row.role == "parametrised"]
        assert {row.name for row in behind} == {n for n, _ in model.named_parameters() if n.startswith("0.weight")}
        assert all(row.penalty is None for row in behind)
    x = torch.randn(256, 4, generator=torch.Generator().manual_seed(0))
    model(x).sum().backward()
    wp.initialize(model, "lsuv", example=x)
    assert abs(float(model(x).var().detach()) - 1) < 0.05
