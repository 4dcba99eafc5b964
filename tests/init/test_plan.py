"""Plan, apply, audit: what is promised of every model, whatever the scheme."""

import copy
import itertools
import json
import math
import pickle
import sys
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import wellposed as wp
from wellposed._torch import WRAPPERS


def mlp(*widths: int, act: Any = nn.ReLU) -> nn.Sequential:
    layers: list[nn.Module] = []
    for a, b in itertools.pairwise(widths):
        layers += [nn.Linear(a, b), act()]
    return nn.Sequential(*layers[:-1])


class Net(nn.Module):
    """A bit of everything: a tied embedding, a residual branch, normalisation, attention, a frozen weight."""

    def __init__(self, blocks: int = 2) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, 16, padding_idx=0)
        self.attention = nn.MultiheadAttention(16, 4, batch_first=True)
        self.blocks: Any = nn.ModuleList(Block(16) for _ in range(blocks))
        self.norm = nn.LayerNorm(16)
        self.frozen = Reversal(16)
        self.head = nn.Linear(16, 50, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        x = x + self.attention(x, x, x, need_weights=False)[0]
        for block in self.blocks:
            x = block(x)
        out: Tensor = self.head(self.frozen(self.norm(x)))
        return out


class Reversal(nn.Module):
    """A frozen weight that is computed."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.weight = nn.Parameter(torch.eye(width).flip(0), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.wide = nn.Linear(width, 4 * width)
        self.back = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.back(nn.functional.gelu(self.wide(self.norm(x))))
        return out


IDS = torch.zeros(2, 5, dtype=torch.long)


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))


def test_a_plan_touches_nothing() -> None:
    model = Net()
    before, state, mode = weights(model), torch.get_rng_state(), model.training
    plan = wp.plan_initialize(model, example=IDS)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(before[name], p) for name, p in model.named_parameters())
    assert model.training is mode
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert all(row.std_got is None for row in plan)


def test_a_plan_is_a_value() -> None:
    plan = wp.plan_initialize(Net(), seed=4)
    assert plan == wp.plan_initialize(Net(), seed=4)
    assert plan != wp.plan_initialize(Net(), seed=5)
    assert pickle.loads(pickle.dumps(plan)) == plan == copy.deepcopy(plan)
    assert len({plan, wp.plan_initialize(Net(), seed=4)}) == 1


def test_a_plan_prints_and_is_json() -> None:
    model = Net()
    plan = wp.init.initialize(model, example=IDS)
    table = plan.table().text(width=0)
    for word in ("embed.weight[padding]", "tied to head.weight", "gelu", "std wanted", "residual branches"):
        assert word in table
    assert len(table.splitlines()) >= len(plan) + 2
    data = json.loads(plan.to_json())
    assert (data["schema"], data["scheme"], data["seed"]) == (1, "auto", 0)
    rows = {(row["name"], row["block"]): row for row in data["rows"]}
    assert rows["blocks.0.wide.weight", None]["fans"] == [16, 64]
    assert rows["norm.weight", None]["initializer"] == "Ones()"
    with pytest.raises(KeyError):
        plan["nothing"]


def test_the_same_seed_gives_the_same_model() -> None:
    a, b, c = Net(), Net(), Net()
    torch.manual_seed(1)
    wp.init.initialize(a, seed=1)
    torch.manual_seed(2)
    wp.init.initialize(b, seed=wp.Key(1))
    wp.init.initialize(c, seed=2)
    assert same(a, b)
    assert not same(a, c)


def test_names_not_order() -> None:
    """Adding a layer changes no other layer's weights, and neither does the order they are registered in."""
    first: Any = nn.Sequential(OrderedDict(a=nn.Linear(4, 4), b=nn.Linear(4, 4)))
    second: Any = nn.Sequential(OrderedDict(new=nn.Linear(4, 4), b=nn.Linear(4, 4), a=nn.Linear(4, 4)))
    for model in (first, second):
        wp.init.initialize(model)
    assert torch.equal(first.a.weight, second.a.weight)
    assert torch.equal(first.b.weight, second.b.weight)


class Wrapper(nn.Module):
    def __init__(self, model: nn.Module, name: str) -> None:
        super().__init__()
        setattr(self, name, model)

    def forward(self, *args: Any) -> Any:
        (child,) = self.children()
        return child(*args)


@pytest.mark.parametrize("name", WRAPPERS)
def test_wrapping_changes_nothing(name: str) -> None:
    wrapper = type(WRAPPERS[name][0], (Wrapper,), {})
    plain, inner, wrapped = Net(), Net(), wrapper(Net(), name)
    inner.blocks[1] = wrapper(inner.blocks[1], name)
    plans = [wp.init.initialize(model, example=IDS) for model in (plain, inner, wrapped)]
    assert same(plain, inner)
    assert same(plain, wrapped)
    assert [row.initializer for row in plans[0]] == [row.initializer for row in plans[2]]


def test_a_compiled_model_is_the_same_model() -> None:
    plain: Any = mlp(4, 8, 2)
    compiled: Any = torch.compile(mlp(4, 8, 2), backend="eager")
    for model in (plain, compiled):
        wp.init.initialize(model, example=torch.zeros(1, 4))
    assert same(plain, compiled)


def test_a_module_of_ones_own_that_is_called_module_keeps_its_name() -> None:
    """The key of a weight and the stream of a mask under it are folded from one path."""
    inner = nn.Sequential(nn.Linear(4, 4), wp.Dropout(0.5))
    model = nn.ModuleDict({"module": inner, "other": nn.Linear(4, 4)})
    plan = wp.plan_initialize(nn.DataParallel(model))
    assert [row.stream[0] for row in plan] == ["module.0.weight", "module.0.bias", "other.weight", "other.bias"]
    wp.convert_dropout(model)
    assert inner[1].stream == "module.1"


def test_in_place_and_nothing_else() -> None:
    model = Net().to(torch.bfloat16)
    model.blocks[0].wide.weight.register_hook(lambda grad: grad)
    before = {name: (id(p), p.requires_grad, p.dtype, p.data_ptr()) for name, p in model.named_parameters()}
    wp.init.initialize(model)
    after = {name: (id(p), p.requires_grad, p.dtype, p.data_ptr()) for name, p in model.named_parameters()}
    assert before == after
    assert model.head.weight is model.embed.weight
    assert model.blocks[0].wide.weight._backward_hooks
    assert all(p.grad is None and p.is_leaf for p in model.parameters())


def test_tied_weights_are_filled_once_under_their_first_name() -> None:
    model = Net()
    plan = wp.init.initialize(model)
    (row, padding) = [row for row in plan if "embed" in row.name]
    assert (row.name, row.others) == ("embed.weight", ("head.weight",))
    assert row.std_wanted == pytest.approx(16**-0.5)  # it has to serve as a linear layer's
    assert padding.role == "fixed"
    assert not [row for row in plan if row.name == "head.weight"]
    assert torch.equal(
        wp.init.LeCun(distribution="normal")((50, 16), wp.Key(0).fold("embed.weight"))[1:], model.embed.weight[1:]
    )


def test_standard_deviations_are_those_planned() -> None:
    for row in wp.init.initialize(Net(), example=IDS):
        assert row.std_got is not None
        if row.std_wanted:
            assert row.std_got == pytest.approx(row.std_wanted, rel=6 / (2 * math.prod(row.shape)) ** 0.5)
        elif row.initializer is not None:
            assert row.std_got == 0


@pytest.mark.parametrize("example", [None, IDS, (IDS,), {"ids": IDS}])
def test_with_and_without_an_example(example: Any) -> None:
    plan = wp.plan_initialize(Net(), example=example)
    for block in range(2):
        wide, back = plan[f"blocks.{block}.wide.weight"], plan[f"blocks.{block}.back.weight"]
        assert wide.follows == "gelu"
        assert wide.gain == pytest.approx(wp.init.gain(nn.functional.gelu), rel=1e-6)
        assert back.follows == "a residual sum"
        assert "residual branches" in back.note
    assert plan["attention.in_proj_weight[q]"].follows == "attention"


FUNCTIONS: dict[str, tuple[Any, Any]] = {
    "module": (nn.SiLU(), nn.functional.silu),
    "function": (nn.functional.silu, nn.functional.silu),
    "method": (lambda y: y.tanh(), torch.tanh),
    "by hand": (lambda y: y * torch.sigmoid(y), nn.functional.silu),
    "with options": (
        lambda y: nn.functional.leaky_relu(y, negative_slope=0.3),
        lambda z: nn.functional.leaky_relu(z, 0.3),
    ),
    "in place": (lambda y: nn.functional.relu_(y), torch.relu),
    "scaled": (lambda y: 1.7 * torch.relu(y), lambda z: 1.7 * torch.relu(z)),
    "composed": (lambda y: torch.log1p(torch.relu(y)) ** 2, lambda z: torch.log1p(torch.relu(z)) ** 2),
    "after dropout": (lambda y: torch.relu(nn.functional.dropout(y, 0.1, False)), torch.relu),
    "after a view": (lambda y: torch.relu(y.view(-1, 2, 4).transpose(1, 2).reshape(-1, 8)), torch.relu),
    "after a normalisation": (lambda y: torch.relu(nn.functional.layer_norm(y, (8,))), torch.relu),
    "a gated unit": (lambda y: torch.cat([nn.functional.glu(y)] * 2, -1), None),
    "nothing": (lambda y: y, None),
    "only scaling": (lambda y: y * 0.125, None),
}


# What keeps each way of tracing but the last from following a model: nothing, then control flow that depends on a
# shape, then control flow that depends on values.
WAYS: dict[str, Callable[[Tensor], bool]] = {
    "torch.fx": lambda x: False,
    "torch.export": lambda x: len(range(x.shape[0])) > 9,
    "a run on the example": lambda x: float(x.sum()) > 1e9,
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_very_callable_is_found(name: str, way: str) -> None:
    fn, wanted = FUNCTIONS[name]

    class Between(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(4, 8), nn.Linear(8, 2)
            if isinstance(fn, nn.Module):
                self.act = fn

        def forward(self, x: Tensor) -> Tensor:
            if WAYS[way](x):
                raise ValueError
            act = self.act if isinstance(fn, nn.Module) else fn
            out: Tensor = self.second(act(self.first(x)))
            return out

    plan = wp.plan_initialize(Between(), example=torch.zeros(3, 4))
    assert {row.traced for row in plan if row.role == "weight"} == {way}
    assert plan["first.weight"].gain == pytest.approx(1 if wanted is None else wp.init.gain(wanted), rel=1e-9)
    assert plan["second.weight"].follows == "the output"


def _other_sides(y: Tensor) -> Tensor:
    sides = y.chunk(2, -1)
    sides[0].relu_()
    return torch.cat([sides[1], sides[1]], -1)


def _into_a_new_one(y: Tensor) -> Tensor:
    new = torch.empty_like(y)
    new.copy_(torch.tanh(y))
    return new


# What happens to a layer's output y, in place and without a name for the result -> what it comes to
IN_PLACE: dict[str, tuple[Callable[[Tensor], Any], Callable[[Tensor], Tensor] | None]] = {
    "method": (lambda y: y.relu_(), torch.relu),
    "function": (lambda y: nn.functional.relu(y, inplace=True), torch.relu),
    "function, by position": (lambda y: nn.functional.elu(y, 0.5, True), lambda z: nn.functional.elu(z, 0.5)),
    "function with an underscore": (lambda y: nn.functional.selu_(y), nn.functional.selu),
    "torch's own": (lambda y: torch.relu_(y), torch.relu),
    "module": (nn.SiLU(inplace=True), nn.functional.silu),
    "clamp": (lambda y: y.clamp_(min=-0.1), lambda z: z.clamp(min=-0.1)),
    "one after the other": (lambda y: (y.relu_(), y.mul_(y)), lambda z: torch.relu(z) ** 2),
    "a view": (lambda y: y.view(-1).relu_(), torch.relu),
    "a view of a view": (lambda y: y.unflatten(-1, (2, 4)).transpose(1, 2).relu_(), torch.relu),
    "modules, through a view": (nn.Sequential(nn.Flatten(0), nn.ReLU(inplace=True)), torch.relu),
    "out": (lambda y: torch.tanh(y, out=y), torch.tanh),
    "the values alone": (lambda y: y.data.relu_(), torch.relu),
    "before a view is taken": (lambda y: y.relu_().view(-1), torch.relu),
    "another view of it": (lambda y: torch.relu(y.view(-1)), None),
    "a copy": (lambda y: y.clone().relu_(), None),
}
NOT_EXPORTED = ("out", "the values alone")  # torch.export refuses them, and the model is run


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", IN_PLACE)
def test_what_is_done_in_place_is_seen(name: str, way: str) -> None:
    """The gain is that of the same function with its result assigned."""
    act, wanted = IN_PLACE[name]

    class Between(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(4, 8), nn.Linear(8, 2)
            if isinstance(act, nn.Module):
                self.act = act

        def forward(self, x: Tensor) -> Tensor:
            if WAYS[way](x):
                raise ValueError
            y = self.first(x)
            self.act(y) if isinstance(act, nn.Module) else act(y)
            out: Tensor = self.second(y)
            return out

    plan = wp.plan_initialize(Between(), example=torch.zeros(3, 4))
    assert plan["first.weight"].traced == way or name in NOT_EXPORTED
    assert plan["first.weight"].gain == pytest.approx(1 if wanted is None else wp.init.gain(wanted), rel=1e-9)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("change", "wanted"),
    [(_other_sides, "another weight"), (_into_a_new_one, "tanh")],
    ids=["another part", "a new one"],
)
def test_what_is_written_goes_where_it_is_written(change: Callable[[Tensor], Tensor], wanted: str, way: str) -> None:
    class Between(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(4, 8), nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            if WAYS[way](x):
                raise ValueError
            out: Tensor = self.second(change(self.first(x)))
            return out

    assert wp.plan_initialize(Between(), example=torch.zeros(3, 4))["first.weight"].follows == wanted


class Unassigned(nn.Module):
    def __init__(self, depth: int, width: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(width, width, bias=False) for _ in range(depth))
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        for i, layer in enumerate(self.layers):
            x = layer(x)
            (x.relu_, lambda x=x: nn.functional.relu(x, inplace=True), lambda x=x: self.act(x))[i % 3]()
        return x


def test_fifty_layers_keep_a_signal_that_is_rectified_in_place() -> None:
    model = Unassigned(50, 256)
    plan = wp.initialize(model)
    assert all(row.gain == pytest.approx(math.sqrt(2)) for row in plan)
    with torch.no_grad():
        size = float(model(wp.random.normal((64, 256), wp.Key(3))).square().mean())
    assert 0.2 < size < 5


class Untraceable(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner, self.after = mlp(4, 8, 4, act=nn.GELU), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        if float(x.sum()) > 1e9:
            raise ValueError
        out: Tensor = torch.tanh(self.after(self.inner(x)))
        return out


def test_what_cannot_be_told_is_said_and_has_gain_one() -> None:
    symbolic = wp.plan_initialize(Untraceable())
    assert symbolic["inner.0.weight"].follows == "GELU"
    assert symbolic["inner.2.weight"].follows == "unknown"
    assert (symbolic["after.weight"].follows, symbolic["after.weight"].gain) == ("not seen", 1)
    assert "gain is 1" in symbolic["after.weight"].note
    run = wp.plan_initialize(Untraceable(), example=torch.zeros(2, 4))
    assert run["after.weight"].follows == "tanh"


def test_the_plan_says_how_it_was_traced() -> None:
    def ways(plan: wp.init.Plan) -> set[str]:
        return {row.traced for row in plan if row.role == "weight"}

    assert (ways(wp.plan_initialize(Net())), wp.plan_initialize(Net()).notes) == ({"torch.fx"}, ())
    without = wp.plan_initialize(Untraceable())
    assert ways(without) == {"torch.fx, in parts", ""}
    assert "torch.fx could not follow the model (" in without.notes[0]
    assert "give an example" in without.notes[0]
    assert without.notes[0] in without.table().text(width=0)
    run = wp.plan_initialize(Untraceable(), example=torch.zeros(2, 4))
    assert ways(run) == {"a run on the example"}
    assert "torch.export could not follow the model (" in run.notes[0]


def test_a_large_model_without_memory_is_followed_as_far_as_can_be_and_says_so() -> None:
    """It goes by the values of a tensor, and is too large to be given memory for a run."""
    with torch.device("meta"):
        model = Untraceable()
        model.large = nn.Linear(1 << 14, 1 << 13)
    plan = wp.plan_initialize(model, example=torch.zeros(2, 4))
    assert plan["inner.0.weight"].traced == "torch.fx, in parts"
    assert "only a copy without memory could be run, and that fails: " in plan.notes[0]
    assert "it was followed by torch.fx, in parts" in plan.notes[0]


def test_what_export_alone_can_follow() -> None:
    """A length that a tensor holds: known to no graph of torch.fx and to no run without memory."""

    class Cut(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(4, 8), nn.Linear(8, 2)
            self.large = nn.Linear(1 << 14, 1 << 13)
            self.mixed = nn.Parameter(torch.ones(1, 8))

        def forward(self, x: Tensor, length: Tensor) -> Tensor:
            count: Any = length.item()
            torch._check(count >= 0)
            torch._check(count <= 5)
            with torch.autocast("cpu", enabled=False):
                y = torch.tanh(self.first(x) * self.mixed)
            z: Tensor = self.second(y) + torch.zeros(count).sum()
            return torch.cond(z.sum() > 0, lambda t: t.sin(), lambda t: t.cos(), (z,))  # type: ignore[no-any-return]

    with torch.device("meta"):
        model = Cut()
    rules: Any = {"mixed": wp.init.Ones()}
    plan = wp.plan_initialize(model, example=(torch.zeros(5, 4), torch.tensor(3)), rules=rules)
    assert plan["first.weight"].gain == pytest.approx(wp.init.gain(torch.tanh), rel=1e-9)
    assert (plan["first.weight"].follows, plan["first.weight"].traced) == ("tanh", "torch.export")
    assert plan["second.weight"].traced == "torch.export"


def test_several_activations_are_said() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            y = self.one(x)
            out: Tensor = torch.matmul(torch.relu(y), torch.tanh(y).T)
            return out

    row = wp.plan_initialize(Two())["one.weight"]
    assert (row.follows, row.gain) == ("several activations", 1)


class ResNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a, self.b = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
        self.norm, self.down, self.head = nn.BatchNorm2d(16), nn.Conv2d(8, 16, 1), nn.Linear(16, 2)
        self.left, self.right = nn.Linear(16, 16), nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        x = torch.relu(self.norm(self.b(torch.relu(self.a(x)))) + self.down(x))
        x = x.mean((2, 3))
        x = self.left(x) + self.right(x)
        out: Tensor = self.head(x)
        return out


@pytest.mark.parametrize("example", [None, torch.zeros(1, 3, 8, 8)], ids=["symbolic", "run"])
def test_residual_branches_with_a_projected_shortcut_and_parallel_sums(example: Any) -> None:
    from wellposed.models.tracing.trace import trace

    (branch,) = trace(ResNet(), example).branches
    assert branch.weights == ("a.weight", "b.weight")
    assert (branch.last, branch.norms) == (("b.weight",), ("norm.weight",))


def test_rules() -> None:
    model = Net()
    before = model.frozen.weight.clone()
    rules: Any = {
        "*.weight": wp.init.Normal(0.0, 0.5),
        "blocks.*.back.*": wp.init.Zeros(),
        "frozen.*": None,
        "norm.weight": wp.init.Constant(0.5),
        "head.weight": wp.init.Constant(0.25),
    }
    plan = wp.init.initialize(model, rules=rules)
    assert torch.equal(model.frozen.weight, before)
    assert plan["frozen.weight"].initializer is None
    assert plan["blocks.0.wide.weight"].initializer == wp.init.Normal(0.0, 0.5)
    assert not model.blocks[1].back.weight.any()
    assert model.norm.weight.tolist() == [0.5] * 16
    assert bool((model.embed.weight[1:] == 0.25).all())  # the tied weight, by its other name
    assert not model.embed.weight[0].any()


def test_a_rule_for_a_parameter_that_nobody_claims() -> None:
    class Raw(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.mix = nn.Parameter(torch.empty(5, 4)), nn.Parameter(torch.empty(3))

    with pytest.raises(
        wp.WellposedError, match=r"2 parameters:\n  table \(5, 4\) of Raw\n  mix \(3,\) of Raw\n.*rules="
    ):
        wp.plan_initialize(Raw())
    model = Raw()
    rules: Any = {"table": (wp.init.He(), wp.init.Axes(out=1, in_=0)), "mix": wp.init.Ones()}
    plan = wp.init.initialize(model, rules=rules)
    assert plan["table"].std_wanted == pytest.approx((2 / 5) ** 0.5)
    assert model.mix.tolist() == [1, 1, 1]


def test_meta() -> None:
    real = Net()
    with torch.device("meta"):
        model = Net()
    model.head.requires_grad_(False)
    model.blocks[0].tag = "kept"
    model.blocks[0].wide.weight.tag = "kept"
    rules: Any = {"head.weight": wp.init.Normal(0.0, 0.5)}
    planned = wp.plan_initialize(model, rules=rules)
    assert all(p.is_meta for p in model.parameters())
    plan = wp.init.initialize(model, rules=rules, device="cpu")
    wp.init.initialize(real, rules=rules)
    assert same(real, model)
    assert model.head.weight is model.embed.weight
    assert not model.embed.weight.requires_grad
    assert model.blocks[0].wide.weight.tag == "kept"
    assert [row.initializer for row in planned] == [row.initializer for row in plan]
    assert plan.buffers == ()


def test_meta_recurrent_and_parametrized() -> None:
    def build() -> nn.Module:
        return nn.ModuleList([nn.LSTM(4, 3), nn.utils.parametrizations.weight_norm(nn.Linear(4, 3))])

    real: Any = build()
    with torch.device("meta"):
        model: Any = build()
    for each in (real, model):
        wp.init.initialize(each, device="cpu")
    assert same(real, model)
    x = torch.zeros(2, 1, 4)
    assert torch.equal(real[0](x)[0], model[0](x)[0])
    assert torch.equal(real[1](x), model[1](x))


def test_buffers_of_a_meta_model() -> None:
    class Rotary(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.linear = nn.BatchNorm1d(3), nn.Linear(3, 3)
            self.register_buffer("frequencies", torch.arange(3.0))
            self.register_buffer("noise", torch.rand(3))
            self.register_buffer("unwritten", torch.empty(3, dtype=torch.long))

    with torch.device("meta"):
        model: Any = Rotary()
    plan = wp.init.initialize(model, device="cpu")
    assert plan.buffers == ("noise", "unwritten")
    assert "left without values: noise, unwritten" in plan.table().text(width=0)
    assert model.noise.is_meta
    assert model.unwritten.is_meta
    assert model.frequencies.tolist() == [0, 1, 2]
    assert model.norm.running_var is not None
    assert model.norm.running_var.tolist() == [1.0] * 3
    assert int(model.norm.num_batches_tracked) == 0


BAD: list[tuple[Any, dict[str, Any], str]] = [
    (Net, {"scheme": "xavierr"}, "there is no scheme 'xavierr'; expected one of 'auto', "),
    (Net, {"scheme": ["he"]}, r"there is no scheme \['he'\]; expected one of 'auto', "),
    (Net, {"rules": {"*.wieght": wp.init.Zeros()}}, r"'\*\.wieght' matches no parameter; there are, for example, "),
    (Net, {"rules": {"*.weight": 3}}, "expected an initializer"),
    (Net, {"rules": {"*.weight": (wp.init.He(), 3)}}, "expected an initializer"),
    (Net, {"rules": {"head.weight": wp.init.DeltaOrthogonal()}}, r"embed\.weight: .*expected a kernel"),
    (Net, {"rules": {"norm.weight": wp.init.He()}}, r"norm\.weight: a tensor of shape \(16,\) has no dimension 1"),
    (Net, {"example": torch.zeros(2, 5)}, "example does not fit the model"),
    (Net, {"example": (IDS, IDS)}, "example does not fit the model"),
    (lambda: nn.Sequential(nn.LazyLinear(3)), {}, "run the model once on an example"),
    (lambda: mlp(4, 4).to(torch.float8_e4m3fn), {}, r"0.weight \(torch.float8_e4m3fn\).*convert then"),
    (lambda: nn.Sequential(OrderedDict(i=Integers())), {"rules": {"*": wp.init.Ones()}}, r"i\.table \(torch\.int64\)"),
    (lambda: Quantised(), {}, "inner: quantised weights cannot hold the values"),
    (lambda: Shared(), {}, "weight and alias: .*filled twice"),
    (lambda: Empty(), {}, "w: zero-sized"),
    (lambda: mlp(4, 4).to("meta"), {}, "device='cpu'"),
    (lambda: mlp(4, 4).to("meta"), {"device": "cpu", "rules": {"0.bias": None}}, "0.bias: on the meta device"),
]


class Quantised(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = torch.ao.nn.quantized.dynamic.Linear(4, 4)
        self.outer = nn.Linear(4, 4)


class Integers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(3, 3, dtype=torch.long), requires_grad=False)
        wp.init.role("Integers")(lambda module: {"table": wp.init.Part("weight")})


class Shared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(4, 4))
        self.alias = nn.Parameter(self.weight.detach()[1:3])
        wp.init.role("Shared")(lambda module: {"weight": wp.init.Part("weight"), "alias": wp.init.Part("weight")})


class Empty(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(0, 4))
        wp.init.role("Empty")(lambda module: {"w": wp.init.Part("weight")})


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor", "ignore:.*quantization", "ignore::DeprecationWarning")
@pytest.mark.parametrize(("make", "options", "message"), BAD, ids=[message[:20] for *_, message in BAD])
def test_refused_and_left_as_it_was(make: Any, options: dict[str, Any], message: str) -> None:
    model = make()
    initialized = {n: p for n, p in model.named_parameters() if not isinstance(p, nn.parameter.UninitializedParameter)}
    before = {n: p.detach().clone() for n, p in initialized.items()}
    with pytest.raises(wp.WellposedError, match=message):
        wp.init.initialize(model, **options)
    for name, parameter in initialized.items():
        assert parameter.is_meta or torch.equal(before[name].view(torch.uint8), parameter.detach().view(torch.uint8))


def test_a_plan_for_another_model_is_refused() -> None:
    plan = wp.plan_initialize(mlp(4, 8, 2))
    for other in (mlp(4, 9, 2), mlp(4, 8), mlp(4, 8, 2, 2)):
        before = weights(other)
        with pytest.raises(wp.WellposedError, match="make a new plan"):
            wp.init.apply(plan, other)
        assert all(torch.equal(before[name], p) for name, p in other.named_parameters())


DAMAGE: list[tuple[Any, str]] = [
    (lambda m: m[0].weight.fill_(torch.nan), "0.weight holds NaN"),
    (lambda m: m[2].weight[0, 0].fill_(torch.inf), "2.weight holds NaN or infinity"),
    (lambda m: m[2].weight.copy_(m[4].weight), "4.weight is bit for bit equal to 2.weight"),
    (lambda m: m[2].weight.mul_(1.5), "2.weight has a standard deviation of"),
    (lambda m: m[2].weight.fill_(0.1), "2.weight has a standard deviation of 0"),
    (lambda m: m[0].bias[1].fill_(1e-3), "0.bias has a standard deviation of"),
    (lambda m: setattr(m[0], "weight", nn.Parameter(m[0].weight.to("meta"))), "0.weight is still on the meta device"),
    (lambda m: setattr(m[0], "weight", nn.Parameter(torch.empty(0, 16))), r"0.weight has shape \(0, 16\) in the model"),
    (lambda m: m.append(nn.Linear(4, 4)), "no row for 7.weight, 7.bias"),
    (lambda m: setattr(m[4], "weight", nn.Parameter(m[2].weight.detach())), "2.weight and 4.weight share memory"),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGE, ids=[message for _, message in DAMAGE])
def test_the_audit_finds(damage: Any, message: str) -> None:
    model = mlp(16, 32, 32, 32, 4)
    plan = wp.init.initialize(model)
    with torch.no_grad():
        damage(model)
    with pytest.raises(wp.WellposedError, match=message):
        wp.init.audit(plan, model)


def test_the_audit_finds_all_at_once() -> None:
    model: Any = mlp(16, 32, 32)
    plan = wp.init.initialize(model)
    with torch.no_grad():
        model[0].weight.fill_(torch.nan)
        model[2].weight.zero_()
    with pytest.raises(wp.WellposedError, match=r"0\.weight.*2\.weight"):
        wp.init.audit(plan, model)


def test_the_audit_passes_right_weights_of_any_size() -> None:
    """Two thousand right weights of every small size, at fixed keys: none may be found off its standard deviation."""
    for n in (1, 2, 3, 5, 9, 17, 40):
        for kind in (wp.init.Normal(), wp.init.Uniform(-1.0, 1.0), wp.init.TruncatedNormal()):
            for seed in range(100):
                model = nn.Linear(n, 1, bias=False)
                wp.init.initialize(model, rules={"weight": kind}, seed=seed)


def test_parameter_groups() -> None:
    model = Net()
    plan = wp.plan_initialize(model)
    (group,) = plan.groups(model, 0.1, weight_decay=0.01)
    assert (group["lr"], group["weight_decay"]) == (0.1, 0.01)
    trainable = [p for p in model.parameters() if p.requires_grad]
    assert {id(p) for p in group["params"]} == {id(p) for p in trainable}
    torch.optim.SGD([group])


def test_planning_grows_with_the_layers_and_not_with_their_square() -> None:
    """Counted in calls of functions, which no machine's pace changes: the square would be 16."""

    def calls(layers: int) -> int:
        model = mlp(*[8] * (layers + 1))
        seen = 0

        def count(*_: object) -> None:
            nonlocal seen
            seen += 1

        sys.setprofile(count)
        try:
            plan = wp.plan_initialize(model)
        finally:
            sys.setprofile(None)
        assert len(plan) == 2 * layers
        return seen

    calls(2)  # what is asked once alone
    assert calls(400) < 6 * calls(100)
