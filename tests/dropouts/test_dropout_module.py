"""``wp.Dropout`` with masks from torch's generator: the same in eager, checkpointed and compiled runs."""

import copy
import pickle
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch._functorch.config
import torch._inductor.config
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import wellposed as wp
from dropout_cases import gradient, kept_for_backward

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")  # torch's compiler, of itself


class Block(nn.Module):
    """Two linear layers with a dropout after each."""

    def __init__(self, run: Callable[..., Tensor] | None = None) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(8, 8), nn.Linear(8, 8)
        self.first, self.second = wp.Dropout(0.4), wp.Dropout(0.3)
        self.run = run
        for parameter in self.parameters():
            wp.random.normal_(parameter.detach(), wp.Key(parameter.numel()), std=0.3)

    def layers(self, x: Tensor) -> Tensor:
        y: Tensor = self.second(self.two(self.first(self.one(x)).tanh()))
        return y

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x) if self.run is None else self.run(self.layers, x)


def reentrant(f: Callable[..., Tensor], x: Tensor) -> Tensor:
    y: Tensor = checkpoint(f, x, use_reentrant=True)
    return y


def not_reentrant(f: Callable[..., Tensor], x: Tensor) -> Tensor:
    y: Tensor = checkpoint(f, x, use_reentrant=False)
    return y


def outcome(model: Callable[[Tensor], Tensor], weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Output and gradients of two steps in a row from one seed."""
    torch.manual_seed(7)
    x = wp.random.normal((5, 8), wp.Key(1)).requires_grad_()
    y = torch.stack([model(x), model(x)])
    y.square().sum().backward()
    of_weight, weight.grad = gradient(weight), None
    return y.detach(), gradient(x), of_weight


def agree(got: tuple[Tensor, ...], wanted: tuple[Tensor, ...]) -> None:
    for a, b in zip(got, wanted, strict=True):
        assert torch.equal(a == 0, b == 0)
        assert torch.allclose(a, b, rtol=1e-5, atol=1e-6)


def test_every_way_to_run_a_model_gives_the_same_masks() -> None:
    torch.compiler.reset()
    plain, kept, again = Block(), Block(reentrant), Block(not_reentrant)
    wanted = outcome(plain, plain.one.weight)
    assert (wanted[0][0] != wanted[0][1]).any()
    ways: dict[str, tuple[Callable[[Tensor], Tensor], Block]] = {
        "reentrant checkpoint": (kept, kept),
        "checkpoint": (again, again),
        "compile": (torch.compile(plain, backend="aot_eager", fullgraph=True), plain),
        "compile around checkpoint": (torch.compile(again, backend="aot_eager", fullgraph=True), again),
    }
    for model, block in ways.values():
        agree(outcome(model, block.one.weight), wanted)


@pytest.mark.parametrize("budget", [0.05, 0.3, 0.6])
def test_a_compiler_that_recomputes_gives_the_same_masks(budget: float) -> None:
    torch.compiler.reset()
    plain = Block()
    with torch._functorch.config.patch(activation_memory_budget=budget):
        compiled = torch.compile(plain, fullgraph=True, backend="aot_eager_decomp_partition")
        agree(outcome(compiled, plain.one.weight), outcome(plain, plain.one.weight))


def test_a_compiler_that_keeps_nothing_is_refused() -> None:
    torch.compiler.reset()
    plain = Block()
    with torch._functorch.config.patch(activation_memory_budget=0.0):
        compiled = torch.compile(plain, fullgraph=True, backend="aot_eager_decomp_partition")
        with pytest.raises(wp.WellposedError, match="again in its backward pass"):
            outcome(compiled, plain.one.weight)


@pytest.mark.slow
def test_the_default_compiler_gives_the_same_masks() -> None:
    torch.compiler.reset()
    plain = Block()
    options = torch._functorch.config.patch(activation_memory_budget=0.3, enable_autograd_cache=False)
    with options, torch._inductor.config.patch(fx_graph_cache=False):
        agree(outcome(torch.compile(plain, fullgraph=True), plain.one.weight), outcome(plain, plain.one.weight))


def test_the_mask_is_the_bernoulli_draw_of_the_number_drawn() -> None:
    layer = wp.Dropout(0.3)
    torch.manual_seed(3)
    mask = layer(torch.ones(50)) == 0
    torch.manual_seed(3)
    number = torch.empty((), dtype=torch.int64).random_().item()
    assert torch.equal(mask, wp.random.bernoulli(50, wp.Key(int(number)), 0.3))


def test_gradients_are_zero_exactly_where_outputs_are() -> None:
    x = torch.ones(1000, requires_grad=True)
    y = wp.Dropout(0.7)(x)
    y.sum().backward()
    assert torch.equal(gradient(x), y.detach())


def test_nothing_is_stored_for_the_backward_pass() -> None:
    x = torch.ones(1000, requires_grad=True)
    assert kept_for_backward(lambda: wp.Dropout(0.5)(x)) == []


def test_one_number_is_drawn_a_call_and_none_outside_training() -> None:
    layer = wp.Dropout(0.5)
    torch.manual_seed(0)
    layer(torch.ones(10))
    after_one = torch.get_rng_state()
    layer(torch.ones(10_000))
    torch.manual_seed(0)
    layer(torch.ones(3, 3, dtype=torch.float64))
    assert torch.equal(after_one, torch.get_rng_state())
    x = torch.ones(3)
    assert layer.eval()(x) is x
    assert wp.Dropout(0.0)(x) is x
    assert torch.equal(after_one, torch.get_rng_state())


def test_vmap_obeys_its_randomness() -> None:
    layer = wp.Dropout(0.5)
    x = torch.ones(3, 64)
    with pytest.raises(RuntimeError, match="randomness"):
        torch.func.vmap(layer)(x)
    same = torch.func.vmap(layer, randomness="same")(x)
    assert torch.equal(same[0], same[1])
    different = torch.func.vmap(layer, randomness="different")(x)
    assert (different[0] != different[1]).any()
    assert (different[1] != different[2]).any()


def test_the_module_is_printed_copied_pickled_and_restored() -> None:
    layer = wp.Dropout(0.25)
    assert repr(layer) == "Dropout(p=0.25)"
    assert layer.state_dict() == {}
    layer.load_state_dict({})
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        torch.manual_seed(5)
        wanted = layer(torch.ones(100))
        torch.manual_seed(5)
        assert torch.equal(other(torch.ones(100)), wanted)


def test_p_may_be_changed_and_is_checked() -> None:
    layer = wp.Dropout(0.5)
    layer.p = 1.0
    assert torch.equal(layer(torch.ones(4)), torch.zeros(4))
    with pytest.raises(wp.WellposedError, match="expected a probability"):
        layer.p = 1.5
    assert layer.p == 1.0
    with pytest.raises(wp.WellposedError, match="expected float32"):
        wp.Dropout(0.5)(torch.ones(4, dtype=torch.int64))


def test_inference_mode_leaves_later_calls_intact() -> None:
    outputs: list[Tensor] = []

    def work() -> None:
        layer = wp.Dropout(0.5)
        with torch.inference_mode():
            outputs.append(layer(torch.ones(64)))
        outputs.append(layer(torch.ones(64, requires_grad=True)).detach())

    thread = threading.Thread(target=work)  # whose own number is made in inference mode
    thread.start()
    thread.join()
    assert len(outputs) == 2
    assert (outputs[0] != outputs[1]).any()


def test_symbolic_tracing_is_told_to_take_dropout_for_a_leaf() -> None:
    model, x = nn.Sequential(nn.Linear(3, 3), wp.Dropout(0.5)), torch.ones(2, 3)
    model(x)
    with pytest.raises(wp.WellposedError, match="for a leaf"):
        torch.fx.symbolic_trace(model)

    class Tracer(torch.fx.Tracer):
        def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
            return isinstance(m, wp.Dropout) or super().is_leaf_module(m, module_qualified_name)

    traced = torch.fx.GraphModule(model, Tracer().trace(model))
    torch.manual_seed(0)
    wanted = model(x)
    torch.manual_seed(0)
    assert torch.equal(traced(x), wanted)


@pytest.mark.parametrize("kind", [wp.Dropout, wp.AlphaDropout, wp.GaussianDropout, wp.DropPath, wp.TokenDropout])
def test_a_module_that_was_made_among_fakes_draws(kind: Any) -> None:
    """What it holds to name its masks by has memory all the same."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        drop = kind(0.5)
        assert type(drop(torch.ones(3, 8, 6))).__name__ == "FakeTensor"
    x = torch.arange(1.0, 145.0).view(3, 8, 6)
    rows = torch.func.vmap(drop, randomness="different")(x.expand(4, 3, 8, 6))
    assert not torch.equal(rows[0], rows[1])
