"""Laws of the dropout modules, over the table in dropout_module_cases.py."""

import copy
import inspect
import itertools
import math
import pickle
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import wellposed as wp
from dropout_cases import DTYPES, bytes_kept, gradient
from dropout_module_cases import CASES, THINNING, Case, filled, linear
from wellposed.dropouts.layers.thinning import Thinning
from wellposed.dropouts.naming.streams import Stochastic

EVERY = pytest.mark.parametrize("case", CASES, ids=str)
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")  # torch's forward mode, of itself
THINS = pytest.mark.parametrize("case", THINNING, ids=str)


def run(module: Callable[[Tensor], Tensor], x: Tensor, step: int = 0) -> Tensor:
    with wp.keyed(0, step):
        return module(x)


def values(case: Case) -> Tensor:
    return wp.random.normal(case.shape, wp.Key(1), dtype=torch.float64)


@EVERY
def test_outside_training_nothing_is_dropped(case: Case) -> None:
    module = filled(case.make(0.5)).eval()
    state = torch.get_rng_state()
    x = values(case)
    y = module(x)
    assert torch.equal(y, module(x))
    assert torch.equal(state, torch.get_rng_state())
    if not list(module.parameters()):
        assert y is x


FIXED = pytest.mark.parametrize("case", [case for case in CASES if not case.is_learned], ids=str)


@FIXED
def test_p_zero_drops_nothing(case: Case) -> None:
    module, x = filled(case.make(0.0)), values(case)
    trained = run(module, x)
    assert torch.allclose(trained, module.eval()(x), rtol=1e-14)


@THINS
def test_what_is_dropped_together_is_the_bernoulli_draw(case: Case) -> None:
    assert case.dims is not None
    p, x = 0.4, values(case)
    sizes = [case.shape[d] for d in case.dims]
    for step in range(3):
        call = step << 32
        dropped = wp.random.bernoulli(sizes, wp.Key(0).fold(""), p, call=call)
        dropped = dropped.reshape([n if d in case.dims else 1 for d, n in enumerate(case.shape)])
        assert torch.equal(run(case.make(p), x, step), torch.where(dropped, 0.0, x * (1 / (1 - p))))


@THINS
def test_gradients_are_zero_exactly_where_outputs_are(case: Case) -> None:
    x = values(case).abs().add(0.1).requires_grad_()
    y = run(case.make(0.5), x)
    (gradient,) = torch.autograd.grad(y.sum(), x)
    assert torch.equal(gradient == 0, y == 0)


@pytest.mark.parametrize("case", [case for case in CASES if case.keeps_mean], ids=str)
@torch.no_grad()
def test_expectation(case: Case) -> None:
    """Means over 3000 steps within 5 standard errors; up to 120 elements, missed by chance once in 14,000 runs."""
    module, x = filled(case.make(0.3)), values(case)
    samples = torch.stack([run(module, x, step) for step in range(3000)])
    error = samples.std(dim=0) / math.sqrt(len(samples)) + 1e-12
    assert float(((samples.mean(dim=0) - module.eval()(x)) / error).abs().max()) < 5


@EVERY
def test_gradcheck(case: Case) -> None:
    module = filled(case.make(0.4))
    parameters = list(module.parameters())
    assert torch.autograd.gradcheck(lambda x, *_: run(module, x, 2), (values(case).requires_grad_(), *parameters))


@EVERY
def test_other_derivatives(case: Case) -> None:
    """Of second order, in forward mode, and of many gradients at once."""
    module, x = filled(case.make(0.4)), values(case).requires_grad_()
    module.requires_grad_(False)
    assert torch.autograd.gradgradcheck(lambda x: run(module, x, 2), x)
    assert torch.autograd.gradcheck(lambda x: run(module, x, 2), x, check_forward_ad=True, check_batched_grad=True)


@pytest.mark.parametrize(
    "case", [case for case in CASES if "Attention" not in case.name and not case.is_learned], ids=str
)
@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_nothing_is_stored_for_the_backward_pass(case: Case, backend: Literal["auto", "reference"]) -> None:
    """Beyond what the layers inside store outside training; attention stores the weights that it multiplies by."""
    module, x = filled(case.make(0.4)), values(case).requires_grad_()
    with wp.random.backend(backend):
        assert bytes_kept(lambda: run(module, x)) <= bytes_kept(lambda: module.eval()(x))


@EVERY
def test_streams_repeat_and_differ(case: Case) -> None:
    module, x = filled(case.make(0.5)), values(case)
    outputs = [run(module, x, step) for step in range(12)]
    assert all(torch.equal(run(module, x, step), y) for step, y in enumerate(outputs[:3]))
    assert len({tuple(y.flatten().tolist()) for y in outputs}) > 1
    torch.manual_seed(0)
    first = module(x)
    torch.manual_seed(0)
    assert torch.equal(module(x), first)


@EVERY
def test_copies_pickles_and_states(case: Case) -> None:
    module, x = filled(case.make(0.25)), values(case)
    fresh = filled(case.make(0.25))
    fresh.load_state_dict(module.state_dict())
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module)), fresh):
        assert torch.equal(run(other, x), run(module, x))
        assert repr(other) == repr(module)
    assert "0.25" in repr(module)


@EVERY
def test_compiled_is_eager(case: Case) -> None:
    torch.compiler.reset()
    module, x = filled(case.make(0.5)), values(case)
    compiled = torch.compile(module, backend="aot_eager", fullgraph=case.compiles)
    for step in range(2):
        assert torch.allclose(run(compiled, x, step), run(module, x, step), rtol=1e-12)


@THINS
def test_dtype_layout_and_threads_do_not_matter(case: Case) -> None:
    """All see the mask that ones of float64 see."""
    module, x = case.make(0.5), torch.ones(case.shape, dtype=torch.float64)
    dropped = run(module, x) == 0
    layouts = [x.mT.contiguous().mT if x.dim() > 1 else x, torch.stack([x, x], dim=-1)[..., 0]]
    for other in (*map(x.to, DTYPES), *layouts):
        assert torch.equal(run(module, other) == 0, dropped)
    threads = torch.get_num_threads()
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            assert torch.equal(run(module, x) == 0, dropped)
    finally:
        torch.set_num_threads(threads)


@EVERY
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("p", [0.4, 1 - 1e-12])
def test_the_kernels_agree_with_torchs_operators(case: Case, dtype: torch.dtype, p: float) -> None:
    """Of several threads' worth of samples, as they lie and transposed."""
    module = filled(case.make(p)).to(dtype)
    x = values(case).to(dtype)
    if case.batch == 0 and not list(module.parameters()):
        x = x.repeat(2000, *(1 for _ in x.shape[1:]))
    for laid in (x, x.mT.contiguous().mT if x.dim() > 1 else x):
        with wp.random.backend("reference"):
            slow = run(module, laid)
        fast = run(module, laid)
        tolerance = 4 * torch.finfo(dtype).eps
        assert torch.allclose(fast, slow, rtol=tolerance, atol=tolerance)
        assert torch.equal(fast == 0, slow == 0)


@pytest.mark.parametrize("case", [case for case in CASES if case.batch is not None], ids=str)
@pytest.mark.parametrize("compiled", [False, True])
def test_a_batch_split_into_micro_batches_keeps_its_masks(case: Case, compiled: bool) -> None:
    assert case.batch is not None
    module, x = filled(case.make(0.5)), values(case)
    whole, parts, first = run(module, x), [], 0
    for part in x.tensor_split([1], dim=case.batch):
        torch.compiler.reset()
        way = torch.compile(module, backend="aot_eager", fullgraph=case.compiles) if compiled else module
        with wp.keyed(0, row=first):
            parts.append(way(part))
        first += part.shape[case.batch]
    assert torch.allclose(torch.cat(parts, dim=case.batch), whole, rtol=1e-12)


@EVERY
@pytest.mark.parametrize("use_reentrant", [False, True])
@pytest.mark.parametrize(
    "block", [lambda: wp.keyed(5), lambda: nullcontext(torch.manual_seed(5))], ids=["keyed", "default"]
)
def test_checkpointed_is_eager(
    case: Case, use_reentrant: bool, block: Callable[[], AbstractContextManager[object]]
) -> None:
    module = filled(case.make(0.5))

    def again(x: Tensor) -> Tensor:
        y: Tensor = checkpoint(module, x, use_reentrant=use_reentrant)
        return y

    def outcome(way: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        x = values(case).requires_grad_()
        with block():
            y = way(x)
            y.square().sum().backward()
        return y, gradient(x)

    for got, wanted in zip(outcome(again), outcome(module), strict=True):
        assert torch.equal(got, wanted)


@EVERY
@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")  # of torch's recurrent cells
def test_vmapped_is_looped(case: Case) -> None:
    if not case.compiles:
        pytest.skip("layers are left out by their value")
    module = filled(case.make(0.5))
    batch = torch.stack([values(case), -values(case), 2 * values(case)])
    with wp.keyed(0):
        together = torch.func.vmap(module, randomness="different")(batch)
    with wp.keyed(0):
        one_by_one = torch.stack([module(x) for x in batch])
    assert torch.allclose(together, one_by_one, rtol=1e-12)
    with pytest.raises(RuntimeError, match="randomness"):
        torch.func.vmap(module)(batch)


@EVERY
def test_p_is_checked(case: Case) -> None:
    for p in (-0.1, 1.1, math.nan):
        with pytest.raises(wp.WellposedError, match=r"expected a probability in \[0, 1\]"):
            case.make(p)


@FIXED
def test_p_is_a_number(case: Case) -> None:
    no_numbers: list[Any] = ["a", None, [0.5], torch.ones(2)]
    for p in no_numbers:
        with pytest.raises((wp.WellposedError, TypeError), match=r"was given .*expected a number|unsupported operand"):
            case.make(p)


TORCHS = ("Dropout", "Dropout1d", "Dropout2d", "Dropout3d", "AlphaDropout", "FeatureAlphaDropout")


@pytest.mark.parametrize("case", [case for case in CASES if case.name.split()[0] in TORCHS], ids=str)
def test_loops_over_torchs_classes_find_what_took_their_place(case: Case) -> None:
    """Trainers turn dropout off by ``isinstance(module, nn.Dropout)`` and ``p = 0``."""
    name = case.name.split()[0]
    kinds = {kind for kind in TORCHS if isinstance(case.make(0.5), getattr(nn, kind))}
    assert kinds == {name} == {kind for kind in TORCHS if isinstance(getattr(nn, name)(0.5), getattr(nn, kind))}
    model, x = nn.Sequential(wp.convert_dropout(getattr(nn, name)(0.5))), values(case)
    assert not torch.equal(run(model, x), x)
    for module in model.modules():
        if isinstance(module, getattr(nn, name)):
            module.p = 0
    assert torch.equal(run(model, x), x)


@pytest.mark.parametrize("dims", [(0,), (1,), (0, 2), (-1,), 1])
def test_alpha_dropout_over_chosen_dimensions(dims: int | tuple[int, ...]) -> None:
    x = torch.ones(5, 6, 7, dtype=torch.float64)
    counted = {d % 3 for d in ((dims,) if isinstance(dims, int) else dims)}
    dropped = wp.random.bernoulli([n for d, n in enumerate(x.shape) if d in counted], wp.Key(0).fold(""), 0.4)
    dropped = dropped.reshape([n if d in counted else 1 for d, n in enumerate(x.shape)]).expand_as(x)
    y = run(wp.AlphaDropout(0.4, dims=dims), x)
    assert len(set(y[dropped].tolist())) == len(set(y[~dropped].tolist())) == 1
    assert not set(y[dropped].tolist()) & set(y[~dropped].tolist())
    assert torch.equal(run(wp.AlphaDropout(0.4, dims=(0, 1)), x), run(wp.FeatureAlphaDropout(0.4), x))


def test_locked_dropout_of_video() -> None:
    x = torch.ones(3, 4, 5, 2, 2)
    y = run(wp.LockedDropout(0.5, batch_first=True, dims=(0, 2)), x)
    dropped = wp.random.bernoulli((3, 5), wp.Key(0).fold(""), 0.5)
    assert torch.equal(y == 0, dropped[:, None, :, None, None].expand_as(x))
    with wp.keyed(0, row=1):
        rest = wp.LockedDropout(0.5, batch_first=True, dims=(0, 2))(x[1:])
    assert torch.equal(rest, y[1:])
    with pytest.raises(wp.WellposedError, match=r"dims was given as \(0, 5\)"):
        run(wp.LockedDropout(0.5, dims=(0, 5)), x)


@EVERY
def test_nothing_is_done_in_place(case: Case) -> None:
    """``inplace=False`` is taken, as torch's modules take it; ``True`` is refused, when made and afterwards."""
    modules = [module for module in case.make(0.5).modules() if isinstance(module, Stochastic)]
    assert modules
    for module in modules:
        kind, parameters = type(module), inspect.signature(type(module)).parameters.values()
        required = {p.name: getattr(module, p.name) for p in parameters if p.default is p.empty}
        assert kind(**required, inplace=False).inplace is False
        with pytest.raises(wp.WellposedError, match=f"{kind.__name__} was given inplace=True.*leave inplace out"):
            kind(**required, inplace=True)
        with pytest.raises(wp.WellposedError, match="leave inplace out"):
            module.inplace = True
    x = values(case)
    before = x.clone()
    run(filled(case.make(0.5)), x)
    assert torch.equal(x, before)


@pytest.mark.parametrize(
    "name", ["Dropout", "Dropout1d", "Dropout2d", "Dropout3d", "AlphaDropout", "FeatureAlphaDropout"]
)
def test_signatures_begin_as_torchs(name: str) -> None:
    ours, torchs = (list(inspect.signature(getattr(part, name)).parameters.values()) for part in (wp, nn))
    begin, more = ours[: len(torchs)], ours[len(torchs) :]
    assert [(p.name, p.default, p.kind) for p in begin] == [(p.name, p.default, p.kind) for p in torchs]
    assert {p.kind for p in more} <= {inspect.Parameter.KEYWORD_ONLY}
    assert getattr(wp, name)(0.3, False).p == 0.3


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (wp.Dropout1d(), (3,)),
        (wp.Dropout2d(), (3, 3)),
        (wp.Dropout3d(), (3, 3, 3)),
        (wp.FeatureAlphaDropout(), (3,)),
        (wp.DropBlock2d(), (3, 3, 3)),
        (wp.LockedDropout(), (3, 3)),
        (wp.TokenDropout(), (3,)),
    ],
    ids=repr,
)
def test_inputs_of_the_wrong_shape_are_refused(module: nn.Module, shape: tuple[int, ...]) -> None:
    with pytest.raises(wp.WellposedError, match="was given an input of shape"):
        module(torch.ones(shape))


@FIXED
def test_a_new_p_compiles_nothing_again(case: Case) -> None:
    if not case.compiles:
        pytest.skip("layers are left out by their value")
    torch.compiler.reset()
    graphs = []

    def count(graph: torch.fx.GraphModule, _: object) -> Callable[..., object]:
        graphs.append(graph)
        return graph

    module, x = filled(case.make(0.5)), values(case)
    compiled = torch.compile(module, backend=count, fullgraph=True)
    for p in (0.5, 0.1, 0.0, 0.3, 0.7):
        for part in module.modules():
            if isinstance(part, Thinning):
                part.p = p
        assert torch.allclose(run(compiled, x), run(module, x), rtol=1e-12)
    assert len(graphs) <= case.graphs


@pytest.mark.parametrize("dims", [None, (0,), (1,)])
def test_a_complex_element_is_dropped_whole(dims: tuple[int, ...] | None) -> None:
    x = torch.complex(torch.ones(8, 4), -torch.ones(8, 4)).conj().requires_grad_()
    y = wp.dropout(x, 0.5, key=wp.Key(1), dims=dims)
    real = wp.dropout(torch.ones(8, 4), 0.5, key=wp.Key(1), dims=dims)
    assert torch.equal(y, x * real)
    y.abs().sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad == 0, real == 0)


def test_alpha_dropout_keeps_mean_and_variance_and_has_torchs_two_values() -> None:
    """Mean and variance within 5 standard errors of 0 and 1."""
    n, p = 1 << 20, 0.2
    x = wp.random.normal(n, wp.Key(0), dtype=torch.float64)
    y = run(wp.AlphaDropout(p), x)
    assert abs(float(y.mean())) < 5 / math.sqrt(n)
    assert abs(float(y.var()) - 1) < 5 * math.sqrt(3 / n)
    dropped = wp.random.bernoulli(n, wp.Key(0).fold(""), p)
    theirs = torch.nn.functional.alpha_dropout(x, p, training=True)
    floor = theirs[(theirs == theirs.mode().values).nonzero()[0]]
    assert torch.allclose(y[dropped], floor, rtol=1e-12)
    kept_by_both = ~dropped & (theirs != floor)
    assert torch.allclose(y[kept_by_both], theirs[kept_by_both], rtol=1e-9)


def test_gaussian_dropout_has_the_variance_of_dropout() -> None:
    n, p = 1 << 20, 0.3
    y = run(wp.GaussianDropout(p), torch.ones(n, dtype=torch.float64))
    variance = p / (1 - p)
    assert abs(float(y.var()) - variance) < 5 * variance * math.sqrt(2 / n)


def test_drop_path_without_scaling() -> None:
    x = torch.ones(64, 3)
    assert set(run(wp.DropPath(0.5, scale_by_keep=False), x).unique().tolist()) == {0.0, 1.0}


def test_drop_block_drops_squares_and_about_the_share_asked_for() -> None:
    x = torch.ones(64, 8, 24, 24)
    y = run(wp.DropBlock2d(0.1, 3), x)
    dropped = (y == 0).float()
    windows = torch.nn.functional.avg_pool2d(dropped, 3, stride=1) == 1
    covered = torch.nn.functional.max_pool2d(torch.nn.functional.pad(windows.float(), (2, 2, 2, 2)), 3, stride=1)
    assert torch.equal(covered, dropped)  # every dropped element lies in a square that is dropped whole
    assert 0.08 < float(dropped.mean()) < 0.1
    assert abs(float(y.mean()) - 1) < 1e-5


def test_a_map_no_larger_than_a_block_is_dropped_whole_with_probability_p() -> None:
    dropped = run(wp.DropBlock2d(0.3, 7), torch.ones(4000, 1, 4, 3)).flatten(1) == 0
    assert torch.equal(dropped.any(dim=1), dropped.all(dim=1))
    assert abs(float(dropped[:, 0].float().mean()) - 0.3) < 5 * math.sqrt(0.21 / 4000)


@pytest.mark.parametrize("couple_channels", [False, True])
def test_blocks_are_where_they_were_in_a_batch_that_is_split(couple_channels: bool) -> None:
    """And so they are in gradients, many at once."""
    module, x = wp.DropBlock2d(0.3, 2, couple_channels=couple_channels), torch.ones(6, 3, 5, 5, requires_grad=True)
    whole = run(module, x)
    with wp.keyed(0, row=2):
        part = module(x[2:])
    assert torch.equal(part == 0, whole[2:] == 0)
    (one,) = torch.autograd.grad(part, x, torch.ones_like(part), retain_graph=True)
    (two,) = torch.autograd.grad(part, x, torch.ones(2, *part.shape), is_grads_batched=True)
    assert torch.equal(one[2:] == 0, part == 0)
    assert torch.equal(two == 0, torch.stack([one, one]) == 0)


def test_token_dropout_keeps_a_fixed_number_in_order() -> None:
    x = torch.arange(200.0).reshape(2, 100, 1)
    y = run(wp.TokenDropout(0.3, prefix=2), x)
    assert y.shape == (2, 2 + 68, 1)
    assert torch.equal(y[:, :2], x[:, :2])
    assert bool((y.diff(dim=1) > 0).all())
    assert (y[0] + 100 != y[1]).any()
    often = torch.zeros(200)
    for step in range(600):
        often[run(wp.TokenDropout(0.5), x, step).flatten().long()] += 1
    assert float(((often - 300) / math.sqrt(150)).abs().max()) < 5


def test_embedding_dropout_drops_words_everywhere() -> None:
    layer = wp.EmbeddingDropout(nn.Embedding(50, 4), 0.5)
    words = torch.arange(50).repeat(3, 1)
    y = run(layer, words)
    dropped = wp.random.bernoulli(50, wp.Key(0).fold(""), 0.5)
    wanted = layer.embedding.weight * (2.0 * ~dropped)[:, None]
    assert torch.equal(y, wanted.expand(3, 50, 4))


def weight_key(name: str) -> wp.Key:
    return wp.Key((wp.Key(0).fold("").seed + wp.Key(0).fold(name).seed) % 2**64)


def test_drop_connect_thins_weights_and_leaves_them_as_they_are() -> None:
    inner = nn.Linear(6, 5)
    module, x = wp.DropConnect(inner, 0.5), wp.random.normal((3, 6), wp.Key(0))
    before = inner.weight.clone()
    y = run(module, x)
    thinned = wp.dropout(inner.weight, 0.5, key=weight_key("weight"))
    assert torch.equal(y, torch.nn.functional.linear(x, thinned, inner.bias))
    y.sum().backward()
    assert inner.weight.grad is not None
    assert torch.equal(inner.weight.grad == 0, thinned == 0)
    assert torch.equal(inner.weight, before)
    doubled = run(lambda x: torch.func.functional_call(module, {"module.weight": 2 * inner.weight}, x), x)
    assert torch.equal(doubled, torch.nn.functional.linear(x, 2 * thinned, inner.bias))
    with pytest.raises(wp.WellposedError, match="expected some of"):
        wp.DropConnect(inner, 0.5, names=["wieght"])


def test_drop_connect_on_recurrent_layers() -> None:
    """At p = 1 on the recurrent weight, an LSTM's steps no longer see each other's hidden state."""
    inner = nn.LSTM(3, 4, num_layers=2)
    module = wp.DropConnect(inner, 1.0, names=["weight_hh_l0", "weight_hh_l1"])
    x = wp.random.normal((5, 2, 3), wp.Key(0))
    cut = copy.deepcopy(inner)
    for name in module.names:
        cut.get_parameter(name).detach().zero_()
    assert torch.equal(run(module, x)[0], cut(x)[0])
    assert not torch.equal(inner(x)[0], cut(x)[0])


def test_zoneout_keeps_elements_of_both_states_of_an_lstm_cell() -> None:
    cell = nn.LSTMCell(3, 4)
    module = wp.Zoneout(cell, 0.5, cell_p=0.25)
    filled(module)
    x = torch.ones(200, 3, dtype=torch.float64)
    state = torch.full((200, 4), 5.0).double(), torch.full((200, 4), 7.0).double()
    with wp.keyed(0):
        new = module(x, state)
    for before, after, moved, p in zip(state, cell(x, state), new, (0.5, 0.25), strict=True):
        stayed = moved == before
        assert torch.allclose(moved[~stayed], after[~stayed])
        assert abs(float(stayed.float().mean()) - p) < 5 * math.sqrt(p * (1 - p) / 800)
    assert torch.allclose(module.eval()(x, state)[0], 0.5 * state[0] + 0.5 * cell(x, state)[0])
    with pytest.raises(wp.WellposedError, match="expected an nn"):
        wp.Zoneout(nn.Linear(2, 2))  # type: ignore[arg-type]


def test_layer_drop_leaves_layers_out() -> None:
    layers = [linear() for _ in range(3)]
    module, x = wp.LayerDrop(layers, 0.5), torch.ones(1, 6)
    seen = []
    for step in range(40):
        y = run(module, x, step)
        matches = []
        for kept in itertools.product((0, 1), repeat=3):
            z = x
            for layer, keep in zip(layers, kept, strict=True):
                z = layer(z) if keep else z
            if torch.equal(z, y):
                matches.append(kept)
        assert len(matches) == 1
        seen += matches
    assert len(set(seen)) == 8


def test_concrete_dropout_learns_its_probability() -> None:
    """As the temperature falls it becomes dropout; its penalty alone draws p to one half."""
    layer = wp.ConcreteDropout(0.3, temperature=1e-4)
    y = run(layer, torch.ones(1 << 16)).detach()
    assert abs(float((y < 0.01).float().mean()) - 0.3) < 5 * math.sqrt(0.21 / (1 << 16))
    assert abs(float(y.mean()) - 1) < 0.02
    optimizer = torch.optim.SGD(layer.parameters(), lr=1.0)
    for _ in range(300):
        optimizer.zero_grad()
        layer.penalty(torch.zeros(4, 8), weight_decay=0.0, entropy=0.1).backward()
        optimizer.step()
    assert abs(float(layer.p.detach()) - 0.5) < 1e-3
    x = torch.ones(3)
    assert layer.eval()(x) is x
    with pytest.raises(wp.WellposedError, match=r"p in \(0, 1\)"):
        wp.ConcreteDropout(0.0)


def test_concrete_dropout_gradcheck() -> None:
    layer = wp.ConcreteDropout(0.3).double()
    x = wp.random.normal((3, 4), wp.Key(0), dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, logit: run(layer, x), (x, layer.logit))
    weight = torch.ones(2, 4, dtype=torch.float64)
    penalty = layer.penalty(weight, weight_decay=0.1, entropy=0.0)
    assert torch.allclose(penalty, 0.1 * weight.square().sum() / (1 - layer.p))
    assert torch.autograd.gradcheck(lambda logit: layer.penalty(weight, weight_decay=0.1, entropy=0.2), layer.logit)


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_the_mask_of_a_weight_does_not_depend_on_which_others_are_thinned(use_reentrant: bool) -> None:
    inner, x = nn.LSTM(4, 5), torch.ones(3, 2, 4, requires_grad=True)
    every = wp.DropConnect(inner, 0.5)
    assert every.names == ("weight_ih_l0", "weight_hh_l0")
    thinned = {n: wp.dropout(w, 0.5, key=weight_key(n)) for n, w in inner.named_parameters() if n in every.names}
    for names in (None, ["weight_hh_l0"]):
        module = wp.DropConnect(inner, 0.5, names)
        weights = {n: thinned[n] for n in module.names}
        wanted = torch.func.functional_call(inner, weights, x)[0]
        with torch.set_grad_enabled(not use_reentrant):  # as the checkpoint runs it: torch has kernels of two kinds
            forward = torch.func.functional_call(inner, weights, x)[0]
        with wp.keyed(0):
            y = checkpoint(module, x, use_reentrant=use_reentrant)[0]
            got = torch.autograd.grad(y.sum(), [x]) if not use_reentrant else [y.sum().backward(), x.grad][1:]
        assert torch.equal(y, forward)
        assert torch.allclose(got[0], torch.autograd.grad(wanted.sum(), x)[0])
        x.grad = None


def test_what_drop_connect_thins_by_default() -> None:
    assert set(wp.DropConnect(nn.MultiheadAttention(4, 2)).names) == {"in_proj_weight", "out_proj.weight"}
    layer = wp.DropConnect(nn.TransformerEncoderLayer(4, 2))
    assert not [name for name in layer.names if "norm" in name]
    with pytest.raises(wp.WellposedError, match="no weight to thin"):
        wp.DropConnect(nn.ReLU())
    with pytest.raises(wp.WellposedError, match="parametrisation"):
        wp.DropConnect(nn.utils.parametrizations.weight_norm(nn.Linear(2, 2)))


def test_zoneout_takes_states_as_they_are() -> None:
    """One of two, to the bit, in narrow dtypes too."""
    cell, x = nn.GRUCell(6, 4).bfloat16(), wp.random.normal((50, 6), wp.Key(0), dtype=torch.bfloat16)
    before = wp.random.normal((50, 4), wp.Key(1), dtype=torch.bfloat16)
    y, after = run(lambda x: wp.Zoneout(cell, 0.5)(x, before), x), cell(x, before)
    assert bool(((y == before) | (y == after)).all())
    assert torch.equal(run(lambda x: wp.Zoneout(cell, 0.0)(x, before), x), after)


@pytest.mark.parametrize("kind", [wp.GaussianDropout, wp.AlphaDropout, wp.DropBlock2d, wp.ConcreteDropout])
def test_integers_are_refused(kind: type[nn.Module]) -> None:
    with pytest.raises(wp.WellposedError, match="expected float32"):
        kind(0.5)(torch.ones(2, 3, 8, 8, dtype=torch.int64))
    if kind is not wp.DropBlock2d:
        with pytest.raises(wp.WellposedError, match="expected float32"):
            kind(0.5)(torch.ones(2, 3, dtype=torch.complex64))


def test_a_sequence_shorter_than_its_prefix_is_refused() -> None:
    with pytest.raises(wp.WellposedError, match="at least prefix=5"):
        wp.TokenDropout(0.5, prefix=5)(torch.ones(2, 3, 4))
