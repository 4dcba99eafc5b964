"""``wp.keyed``: masks that depend on seed, path, step and call count alone, however the model is run."""

import contextlib
import copy
import gc
import itertools
import math
import pickle
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
import torch._functorch.config
import torch._inductor.config
from torch import Tensor, nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.utils.checkpoint import checkpoint

import wellposed as wp
from dropout_cases import gradient

STATE = torch.get_rng_state()
Run = Callable[[Callable[[Tensor], Tensor], Tensor], Tensor]
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")  # torch's compiler, of itself


def directly(f: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    return f(x)


def reentrant(f: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    y: Tensor = checkpoint(f, x, use_reentrant=True)
    return y


def not_reentrant(f: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    y: Tensor = checkpoint(f, x, use_reentrant=False)
    return y


def with_context(f: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    y: Tensor = checkpoint(f, x, use_reentrant=False, context_fn=wp.checkpoint_context)
    return y


class Block(nn.Module):
    def __init__(self, run: Run) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=()):
            self.linear, self.drop, self.run = nn.Linear(8, 8), wp.Dropout(0.4), run
        for parameter in self.parameters():
            wp.random.normal_(parameter.detach(), wp.Key(parameter.numel()), std=0.4)

    def forward(self, x: Tensor) -> Tensor:
        return self.run(lambda x: self.drop(self.linear(x)).tanh(), x)


def network(run: Run = directly) -> nn.Sequential:
    return nn.Sequential(Block(run), Block(run), wp.Dropout(0.2))


def outcome(model: Callable[[Tensor], Tensor], block: nn.Module, step: int = 5) -> tuple[Tensor, Tensor]:
    x = wp.random.normal((5, 8), wp.Key(1)).requires_grad_()
    weight = block.get_parameter("0.linear.weight")
    weight.grad = None
    with wp.keyed(3, step):
        y = model(x)
        y.square().sum().backward()
    return y.detach(), gradient(weight)


def agree(got: tuple[Tensor, Tensor], wanted: tuple[Tensor, Tensor]) -> None:
    for a, b in zip(got, wanted, strict=True):
        assert torch.equal(a == 0, b == 0)
        assert torch.allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.fixture(autouse=True)
def _nothing_global_is_read() -> Iterator[None]:
    torch.compiler.reset()
    torch.set_rng_state(STATE)
    yield
    assert torch.equal(STATE, torch.get_rng_state())


def test_masks_are_named_by_seed_path_step_microbatch_and_count() -> None:
    model = nn.ModuleDict({"a": nn.Sequential(nn.Identity(), wp.Dropout(0.3))})
    model.forward = lambda x: torch.stack([model["a"](x), model["a"](x)])
    with wp.keyed(7, step=11, microbatch=2):
        twice = model(torch.ones(100))
    for count, y in enumerate(twice):
        call = (11 << 12 | 2) << 20 | count
        assert torch.equal(y == 0, wp.random.bernoulli(100, wp.Key(7).fold("a.1"), 0.3, call=call))


WAYS: dict[str, Callable[[], tuple[Callable[[Tensor], Tensor], nn.Module]]] = {}


def way(name: str) -> Callable[[Callable[[], Any]], Callable[[], Any]]:
    def record(make: Callable[[], Any]) -> Callable[[], Any]:
        WAYS[name] = make
        return make

    return record


def compiled(model: nn.Module, **options: Any) -> tuple[Any, nn.Module]:
    return torch.compile(model, fullgraph=True, **{"backend": "aot_eager", **options}), model


for run in (reentrant, not_reentrant, with_context):
    WAYS[run.__name__] = partial(lambda run: 2 * (network(run),), run)
WAYS["compile"] = lambda: compiled(network())
WAYS["compile around checkpoint"] = lambda: compiled(network(not_reentrant))
WAYS["deepcopy"] = lambda: 2 * (copy.deepcopy(network()),)
WAYS["pickle"] = lambda: 2 * (pickle.loads(pickle.dumps(network())),)


@way("blocks compiled one by one")
def _blocks() -> tuple[nn.Module, nn.Module]:
    model = network()
    for block in model:
        block.compile(backend="aot_eager", fullgraph=True)
    return model, model


@way("checkpoint around compile")
def _around() -> tuple[nn.Module, nn.Module]:
    def run(f: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        return not_reentrant(torch.compile(f, backend="aot_eager", fullgraph=True), x)

    return 2 * (network(run),)


@way("functional_call")
def _functional() -> tuple[Callable[[Tensor], Tensor], nn.Module]:
    model = network()
    return lambda x: torch.func.functional_call(model, dict(model.named_parameters()), (x,)), model


@way("a wrapper around the model")
def _wrapped() -> tuple[nn.Module, nn.Module]:
    model = network()
    return nn.DataParallel(model), model


@way("checkpoint wrappers in the model")
def _checkpointed() -> tuple[nn.Module, nn.Module]:
    model = network()
    return nn.Sequential(*(checkpoint_wrapper(block) for block in model)), model


@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")  # by torch's compiler, of inputs that are no leaf
@pytest.mark.parametrize("name", WAYS)
def test_every_way_to_run_a_model_gives_the_same_masks(name: str) -> None:
    plain = network()
    model, block = WAYS[name]()
    for step in (5, 6):
        agree(outcome(model, block, step), outcome(plain, plain, step))


@pytest.mark.parametrize("budget", [0.0, 0.3])
def test_a_compiler_that_recomputes_gives_the_same_masks(budget: float) -> None:
    plain = network()
    with torch._functorch.config.patch(activation_memory_budget=budget):
        agree(outcome(*compiled(plain, backend="aot_eager_decomp_partition")), outcome(plain, plain))


@pytest.mark.slow
def test_the_default_compiler_recomputing_most_gives_the_same_masks() -> None:
    plain = network()
    options = torch._functorch.config.patch(activation_memory_budget=0.3, enable_autograd_cache=False)
    with options, torch._inductor.config.patch(fx_graph_cache=False):
        agree(outcome(*compiled(plain, backend="inductor")), outcome(plain, plain))


def test_a_compiled_function_has_the_paths_of_no_model_but_takes_streams() -> None:
    model = network()
    function = torch.compile(lambda x: model(x), backend="aot_eager", fullgraph=True)
    with pytest.raises(wp.WellposedError, match="no model that contains it is being called"):
        outcome(function, model)
    wanted = outcome(model, model)
    agree(outcome(function, wp.convert_dropout(model)), wanted)


def test_a_new_step_compiles_nothing_again() -> None:
    model, block = compiled(network())
    with torch._dynamo.config.patch(error_on_recompile=True):
        masks = [outcome(model, block, step)[0] == 0 for step in range(4)]
    assert all((a != b).any() for a, b in itertools.combinations(masks, 2))


@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")
def test_equal_blocks_share_one_compiled_graph() -> None:
    model = network()
    with torch._dynamo.config.patch(error_on_recompile=True):
        for block in (model[0], model[1]):
            block.compile(backend="aot_eager", fullgraph=True)
        outcome(model, model)


def test_training_resumed_in_the_middle_draws_what_it_would_have_drawn() -> None:
    model = network()
    through = [outcome(model, model, step)[0] for step in range(4)]
    resumed = copy.deepcopy(model)
    assert torch.equal(outcome(resumed, resumed, 2)[0], through[2])


def test_a_batch_split_into_micro_batches_keeps_its_masks() -> None:
    model = network()
    x = wp.random.normal((10, 8), wp.Key(1))

    def run(first: int, last: int) -> Tensor:
        with wp.keyed(0, 3, row=first):
            y: Tensor = model(x[first:last])
            return y

    assert torch.allclose(torch.cat([run(0, 3), run(3, 4), run(4, 10)]), run(0, 10), atol=1e-6)
    seven = torch.compile(model, backend="aot_eager")
    with wp.keyed(0, 3, row=3):
        assert torch.allclose(seven(x[3:]), run(0, 10)[3:], atol=1e-6)


class Shared(nn.Module):
    """One dropout called several times."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self.drop, self.run = wp.Dropout(0.5), run

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(2):
            x = self.run(lambda x: self.drop(self.drop(x.sin()).cos()), x)
        return x


def shared(run: Run) -> tuple[Tensor, Tensor]:
    x = torch.ones(4096, requires_grad=True)
    with wp.keyed(0):
        y = Shared(run)(x)
        y.sum().backward(retain_graph=True)
        y.sum().backward()
    return y.detach(), gradient(x)


def test_a_shared_module_is_repeated_or_refused_but_never_guessed() -> None:
    agree(shared(with_context), shared(directly))
    for run in (reentrant, not_reentrant):
        with pytest.raises(wp.WellposedError, match="which call this repeats is not known"):
            shared(run)


@pytest.mark.parametrize("run", [reentrant, not_reentrant])
def test_even_two_calls_are_too_many_to_guess(run: Run) -> None:
    drop, x = wp.Dropout(0.5), torch.ones(64, requires_grad=True)
    with wp.keyed(0), pytest.raises(wp.WellposedError, match="was called 2 times"):
        (run(lambda x: drop(x.sin()).cos(), x) + run(lambda x: drop(x.sin()).cos(), x)).sum().backward()


def keyed_output(model: nn.Module, x: Tensor, step: int = 0) -> Tensor:
    with wp.keyed(0, step):
        y: Tensor = model(x)
        return y


@pytest.mark.parametrize("run", [reentrant, not_reentrant])
def test_backward_outside_its_block_is_refused(run: Run) -> None:
    x = torch.ones(5, 8, requires_grad=True)
    model = network(run)
    with pytest.raises(wp.WellposedError, match="call backward inside"):
        keyed_output(model, x).sum().backward()
    y = keyed_output(model, x)
    with wp.keyed(0, 1), pytest.raises(wp.WellposedError, match="call backward inside"):
        (model(x) + y).sum().backward()
    with wp.keyed(0, 1), pytest.raises(wp.WellposedError, match="call backward inside"):
        keyed_output(model, x).sum().backward()
    model(x).sum().backward()  # masks from torch's generator again
    torch.set_rng_state(STATE)


def test_the_context_carries_the_block_to_a_backward_outside() -> None:
    x = torch.ones(5, 8, requires_grad=True)
    plain = torch.autograd.grad(keyed_output(network(), x).sum(), x)
    assert torch.equal(torch.autograd.grad(keyed_output(network(with_context), x).sum(), x)[0], plain[0])


def test_a_part_that_is_called_like_a_wrappers_is_no_wrapper() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.drop = wp.Dropout(0.5)
            self.module = nn.ModuleDict({"drop": wp.Dropout(0.5)})

        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([self.drop(x), self.module["drop"](x)])

    masks = keyed_output(Model(), torch.ones(64)) == 0
    for path, mask in zip(("drop", "module.drop"), masks, strict=True):
        assert torch.equal(mask, wp.random.bernoulli(64, wp.Key(0).fold(path), 0.5))


def test_a_stream_of_its_own_takes_the_place_of_the_path() -> None:
    drop = wp.Dropout(0.5)
    drop.stream = "mine"
    model = nn.Sequential(drop)
    with wp.keyed(0):
        y = model(torch.ones(64))
    assert torch.equal(y == 0, wp.random.bernoulli(64, wp.Key(0).fold("mine"), 0.5))


def test_blocks_nest_and_end() -> None:
    drop = wp.Dropout(0.5)
    with wp.keyed(0):
        first = drop(torch.ones(64))
        with wp.keyed(1):
            other = drop(torch.ones(64))
        second = drop(torch.ones(64))
    with wp.keyed(0):
        assert torch.equal(drop(torch.ones(64)), first)
        assert torch.equal(drop(torch.ones(64)), second)
    assert (first != other).any()
    assert (first != second).any()


def test_vmap_draws_as_a_loop_does() -> None:
    drop = wp.Dropout(0.5)
    with wp.keyed(0):
        together = torch.func.vmap(drop, randomness="different")(torch.ones(3, 64))
    with wp.keyed(0):
        assert torch.equal(together, torch.stack([drop(torch.ones(64)) for _ in range(3)]))


@pytest.mark.parametrize(("name", "value"), [("step", -1), ("step", 2**32), ("microbatch", 4096), ("row", -1)])
def test_numbers_out_of_range_are_refused(name: str, value: int) -> None:
    given: dict[str, Any] = {name: value}
    with pytest.raises(wp.WellposedError, match=name), wp.keyed(0, **given):
        pass


def test_layers_calls_steps_and_micro_batches_are_independent() -> None:
    """Correlations of all pairs of 24 masks, each within 4.9 standard errors: one in 1e6 misses by chance."""
    model = nn.Sequential(wp.Dropout(0.5), wp.Dropout(0.5))
    n, masks = 1 << 14, []
    for seed, step, microbatch in itertools.product((0, 1), (0, 1, 2), (0, 1)):
        with wp.keyed(seed, step, microbatch):
            for layer in model:
                model.forward = layer.forward  # type: ignore[method-assign]
                masks.append(model(torch.ones(n)) - 1)
    correlation = torch.stack(masks) @ torch.stack(masks).T / n - torch.eye(len(masks))
    assert float(correlation.abs().max()) < 4.9 / math.sqrt(n)


def squared(drop: nn.Module, x: Tensor) -> Tensor:
    """A segment whose gradient tells its second mask: it is zero where x was dropped when the segment ran again."""
    y: Tensor = drop(x.sin().exp()) * x
    return y


def is_repeated(y: Tensor, x: Tensor) -> bool:
    return torch.equal(gradient(x) != 0, y != 0)


CHECKPOINTS = pytest.mark.parametrize("reenters", [False, True])


@CHECKPOINTS
def test_a_generator_that_is_not_restored_is_refused(reenters: bool) -> None:
    drop, x = wp.Dropout(0.5), torch.ones(64, requires_grad=True)
    for preserved in (True, False):
        y = checkpoint(partial(squared, drop), x, use_reentrant=reenters, preserve_rng_state=preserved)
        torch.rand(3)
        if preserved:
            y.sum().backward()
            assert is_repeated(y, x)
        else:
            with pytest.raises(wp.WellposedError, match="preserve_rng_state=False"):
                y.sum().backward()
    torch.set_rng_state(STATE)


@CHECKPOINTS
def test_a_call_outside_does_not_make_a_block_forgotten(reenters: bool) -> None:
    drop, x = wp.Dropout(0.5), torch.ones(64, requires_grad=True)
    with wp.keyed(0):
        y = checkpoint(partial(squared, drop), x, use_reentrant=reenters)
    z = checkpoint(partial(squared, drop), x, use_reentrant=reenters)
    with pytest.raises(wp.WellposedError, match="call backward inside"):
        y.sum().backward()
    x.grad = None
    z.sum().backward()
    assert is_repeated(z, x)
    torch.set_rng_state(STATE)


@CHECKPOINTS
def test_an_inner_block_is_not_repeated_by_the_outer(reenters: bool) -> None:
    drop, x = wp.Dropout(0.5), torch.ones(64, requires_grad=True)
    with wp.keyed(0):
        outer = checkpoint(partial(squared, drop), x, use_reentrant=reenters)
        with wp.keyed(1):
            inner = checkpoint(partial(squared, drop), x, use_reentrant=reenters)
        with pytest.raises(wp.WellposedError, match="call backward inside"):
            inner.sum().backward()
        x.grad = None
        outer.sum().backward()
    assert is_repeated(outer, x)


def test_a_hook_is_refused_but_has_masks_of_a_block_of_its_own() -> None:
    drop, x = wp.Dropout(0.5), torch.ones(64, requires_grad=True)
    seen: list[Tensor] = []

    def run(step: int | None) -> None:
        def hook(grad: Tensor) -> None:
            with wp.keyed(0, step) if step is not None else contextlib.nullcontext():
                seen.append(drop(torch.ones(64)))

        with wp.keyed(0):
            y = drop(x)
            y.register_hook(hook)
            y.sum().backward()

    with pytest.raises(wp.WellposedError, match=r"open a wp\.keyed block in the hook"):
        run(None)
    run(4)
    assert torch.equal(seen[0], keyed_output(drop, torch.ones(64), 4))


class Layers(nn.ModuleList):
    def __init__(self) -> None:
        super().__init__(wp.Dropout(0.5) for _ in range(2))


def test_modules_of_one_name_are_refused_whatever_their_order() -> None:
    layers, x = Layers(), torch.ones(64)
    for order in (layers, reversed(layers)):
        with wp.keyed(0), pytest.raises(wp.WellposedError, match=r"both named ''.*call the model that contains both"):
            [layer(x) for layer in order]
    named = wp.convert_dropout(layers)
    with wp.keyed(0):
        forth = [layer(x) for layer in named]
    with wp.keyed(0):
        back = [layer(x) for layer in reversed(named)]
    assert torch.equal(torch.stack(forth), torch.stack(back[::-1]))


@CHECKPOINTS
def test_layers_with_streams_are_repeated_without_a_model_around_them(reenters: bool) -> None:
    x = torch.ones(64, requires_grad=True)
    with wp.keyed(0):
        y = x
        for layer in wp.convert_dropout(Layers()):
            y = checkpoint(partial(squared, layer), y, use_reentrant=reenters)
        y.sum().backward()
    assert is_repeated(y, x)


def test_a_function_that_is_given_a_model_is_no_model() -> None:
    model, x = nn.ModuleDict({"part": nn.Sequential(wp.Dropout(0.5))}), torch.ones(64)

    def step(pair: nn.ModuleDict, x: Tensor) -> Tensor:
        y: Tensor = pair["part"](x)
        return y

    with wp.keyed(0):
        got = step(model, x)
    assert torch.equal(got, keyed_output(model["part"], x))


def test_a_shared_module_has_the_name_of_the_model_that_is_called() -> None:
    drop, x = wp.Dropout(0.5), torch.ones(64)
    first, second = nn.Sequential(nn.Sequential(drop)), nn.Sequential(drop)
    with wp.keyed(0):
        got = [first(x), second(x)]
    assert torch.equal(torch.stack(got), torch.stack([keyed_output(first, x), keyed_output(second, x)]))


def test_the_context_keeps_the_name_of_the_model_that_was_called() -> None:
    drop, x = wp.Dropout(0.5), torch.ones(64, requires_grad=True)

    class Part(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.drop = drop

        def forward(self, x: Tensor) -> Tensor:
            return with_context(partial(squared, self.drop), x)

    for model in (nn.Sequential(Part()), nn.Sequential(nn.Sequential(Part()))):
        x.grad = None
        with wp.keyed(0):
            y = model(x)
            keep = nn.Sequential(drop)(x)
        y.sum().backward()
        assert is_repeated(y, x)
        assert (keep != y).any()


def test_a_graph_of_a_module_that_is_no_more_is_refused() -> None:
    model = nn.Sequential(wp.Dropout(0.5))
    model(torch.ones(2, 4))
    graph = torch.export.export(model, (torch.ones(2, 4),)).module()
    assert wp.Dropout(0.5)._number > 2**20  # chance of 2^-42: another process's numbers are others
    del model
    gc.collect()
    with pytest.raises(wp.WellposedError, match="not in this process"):
        graph(torch.ones(2, 4))
    torch.set_rng_state(STATE)


def test_calls_of_a_layer_are_independent() -> None:
    """Correlations of all pairs of 24 masks, each within 4.9 standard errors: one in 1e6 misses by chance."""
    model, n = nn.Sequential(wp.Dropout(0.5), wp.Dropout(0.5)), 1 << 14
    model.forward = lambda x: torch.stack([layer(x) for _ in range(6) for layer in model])  # type: ignore[method-assign]
    masks = torch.cat([keyed_output(model, torch.ones(n), step) for step in (0, 1)]) - 1
    correlation = masks @ masks.T / n - torch.eye(len(masks))
    assert float(correlation.abs().max()) < 4.9 / math.sqrt(n)
