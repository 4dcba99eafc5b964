"""``wp.monte_carlo``: dropout samples, nothing else moves."""

import copy
import dataclasses
import itertools
import math
import statistics
import threading
import warnings
from collections import OrderedDict, namedtuple
from collections.abc import Callable
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.utils._python_dispatch import TorchDispatchMode

import wellposed as wp
from peers import peer


def network(p: float = 0.5) -> nn.Sequential:
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU(), wp.Dropout(p), nn.Linear(16, 3), nn.Dropout(p)
        )


X = wp.random.normal((5, 4), wp.Key(0))


def test_samples_are_the_thinned_networks_of_their_steps() -> None:
    model = network().eval()
    result = wp.monte_carlo(model, X, samples=7, seed=3)
    assert result.samples.shape == (7, 5, 3)
    other = wp.convert_dropout(network()).eval()
    for index in (3, 5):
        other[index].train()
    for sample in range(7):
        with wp.keyed(3, sample), torch.no_grad():
            assert torch.allclose(result.samples[sample], other(X), atol=1e-6)
    assert torch.equal(result.mean, result.samples.mean(dim=0))
    assert torch.equal(result.variance, result.samples.var(dim=0))
    assert torch.allclose(result.weight_scaled, model(X))
    assert (result.samples[0] != result.samples[1]).any()


def test_nothing_of_the_model_or_of_torch_is_touched() -> None:
    model = network().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modules = list(model.modules())
    state = torch.get_rng_state()
    wp.monte_carlo(model, X, samples=3)
    assert torch.equal(state, torch.get_rng_state())
    assert modules == list(model.modules())
    assert all(module.training for module in modules)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_how_many_run_chunk_size_does_not_matter() -> None:
    model = network()
    whole = wp.monte_carlo(model, X, samples=10).samples
    for chunk_size in (1, 3, 10):
        assert torch.allclose(wp.monte_carlo(model, X, samples=10, chunk_size=chunk_size).samples, whole, atol=1e-6)
    assert torch.equal(wp.monte_carlo(model, X, samples=4, chunk_size=10).samples, whole[:4])


Pair = namedtuple("Pair", "y total")


@dataclasses.dataclass(frozen=True)
class Output:
    y: Tensor
    total: Tensor
    count: int = 3
    more: Any = None


def model_output(y: Tensor, total: Tensor) -> Any:
    return peer("transformers.modeling_outputs").BaseModelOutputWithPooling(last_hidden_state=y, pooler_output=total)


# kind of output -> how it is made of two tensors, and where they are found in it again
KINDS: dict[str, tuple[Callable[..., Any], Callable[[Any], tuple[Tensor, Tensor]]]] = {
    "tuple": (lambda y, total: (y, total), lambda out: out),
    "list": (lambda y, total: [[y], total], lambda out: (out[0][0], out[1])),
    "named tuple": (Pair, lambda out: (out.y, out.total)),
    "dict": (lambda y, total: {"y": y, "count": 3, "total": total}, lambda out: (out["y"], out["total"])),
    "ordered dict": (lambda y, total: OrderedDict(y=y, none=None, t=total), lambda out: (out["y"], out["t"])),
    "dataclass": (Output, lambda out: (out.y, out.total)),
    "nested": (
        lambda y, total: Output(y, y, more={"deep": Output(y, total)}),
        lambda out: (out.y, out.more["deep"].total),
    ),
    "model output": (model_output, lambda out: (out.last_hidden_state, out.pooler_output)),
}


class Several(nn.Module):
    """Outputs of every kind, and keyword arguments."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.make, self.drop = KINDS[kind][0], wp.LockedDropout(0.5)

    def forward(self, x: Tensor, *, scale: float = 1.0) -> Any:
        y = self.drop(x) * scale
        return self.make(y, y.sum())


@pytest.mark.parametrize("chunk_size", [None, 1, 4])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore")
def test_outputs_may_be_of_many_kinds(kind: str, chunk_size: int | None) -> None:
    model, x, get = Several(kind), torch.ones(7, 2, 8), KINDS[kind][1]
    result = wp.monte_carlo(model, x, samples=6, scale=2.0, chunk_size=chunk_size)
    assert type(result.samples) is type(result.mean) is type(model(x))
    values, total = get(result.samples)
    assert values.shape == (6, 7, 2, 8)
    assert torch.equal(values.sum(dim=(1, 2, 3)), total)
    assert float(values.std(dim=1).max()) == 0  # one mask over time in each sample
    assert (values[0] != values[1]).any()
    assert torch.equal(get(result.mean)[0], values.mean(dim=0))
    if kind == "dict":
        assert result.samples["count"] == 3
    if kind == "dataclass":
        assert result.samples.count == result.variance.count == 3


class Given(nn.Module):
    """A dropout module, and what a function makes of its output and itself."""

    n: Tensor

    def __init__(self, function: Callable[..., Any], drop: nn.Module | None = None) -> None:
        super().__init__()
        self.function, self.drop = function, wp.Dropout(0.5) if drop is None else drop
        self.register_buffer("n", torch.zeros(()))

    def forward(self, x: Tensor) -> Any:
        return self.function(self, x)


REFUSED: dict[str, tuple[Callable[..., Any], str]] = {
    "a number": (lambda m, x: m.drop(x).sum().item(), "a float"),
    "an object": (lambda m, x: (m.drop(x), object()), "an object"),
    "shapes": (lambda m, x: m.drop(x)[: 1 + int(m.drop(x[0])[0] > 0)], "shape"),
    "structures": (lambda m, x: (m.drop(x),) * (1 + int(m.drop(x[0])[0] > 0)), "structure"),
    "only in training": (lambda m, x: m.drop(x) if m.training else x, "'drop'.* never drew"),
}


@pytest.mark.parametrize("chunk_size", [None, 1])
@pytest.mark.parametrize("case", REFUSED)
def test_what_would_not_be_samples_is_refused(case: str, chunk_size: int | None) -> None:
    function, message = REFUSED[case]
    with pytest.raises(wp.WellposedError, match=message):
        wp.monte_carlo(Given(function), torch.ones(5, 4), samples=30, chunk_size=chunk_size)


def test_dropout_that_never_drew_is_warned_of_where_other_dropout_did() -> None:
    model = nn.Sequential(wp.Dropout(0.5), Given(lambda m, x: m.drop(x) if m.training else x))
    with pytest.warns(UserWarning, match=r"\['1.drop'\].* never drew"):
        samples = wp.monte_carlo(model, X, samples=3).samples
    assert (samples[0] != samples[1]).any()


@pytest.mark.parametrize("padded", [False, True])
def test_torchs_fused_transformer_does_not_bypass_dropout(padded: bool) -> None:
    """With an even number of heads torch runs a layer in evaluation as one function."""
    model = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 32, 0.3, batch_first=True), 2).eval()
    x = wp.random.normal((2, 5, 16), wp.Key(0))
    options: dict[str, Any] = {"src_key_padding_mask": torch.tensor([[False] * 4 + [True]] * 2)} if padded else {}
    whole = wp.monte_carlo(model, x, samples=5, **options).samples
    assert bool((whole.var(dim=0)[:, :4] > 0).all())
    assert torch.allclose(wp.monte_carlo(model, x, samples=5, chunk_size=1, **options).samples, whole, atol=1e-5)


@pytest.mark.parametrize("randomness", ["different", "same"])
def test_a_model_that_vectorises_is_the_same_batched_and_looped(randomness: str) -> None:
    model = Given(lambda m, x: torch.func.vmap(m.drop, randomness=randomness)(x))
    x = torch.ones(3, 64)
    whole = wp.monte_carlo(model, x, samples=4).samples
    assert torch.equal(wp.monte_carlo(model, x, samples=4, chunk_size=1).samples, whole)
    assert bool((whole[0, 0] != whole[0, 1]).any()) == (randomness == "different")


def test_a_compiled_model_has_the_samples_of_the_model() -> None:
    model = network()
    wanted = wp.monte_carlo(model, X, samples=4).samples
    assert torch.equal(
        wp.monte_carlo(cast(nn.Module, torch.compile(model, backend="eager")), X, samples=4).samples, wanted
    )


def test_a_model_with_draws_of_its_own_is_warned_of_and_governed_by_the_seed() -> None:
    model = Given(lambda m, x: m.drop(x) * torch.rand_like(x).lt(0.5))
    state, x, found = torch.get_rng_state(), torch.ones(64), []
    for chunk_size, seed in ((None, 0), (2, 0), (1, 0), (1, 1)):
        torch.manual_seed(chunk_size or 0)
        before = torch.get_rng_state()
        with pytest.warns(UserWarning, match="random numbers of its own"):
            found.append(wp.monte_carlo(model, x, samples=6, seed=seed, chunk_size=chunk_size).samples)
        assert torch.equal(torch.get_rng_state(), before)
    torch.set_rng_state(state)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
    assert len({tuple(sample.tolist()) for sample in found[0]}) == 6
    assert not torch.equal(found[0], found[3])
    both = wp.Key(0).fold("drop")
    assert bool((found[0][0] == 0)[wp.random.bernoulli(64, both, 0.5)].all())


FUNCTIONS: dict[str, tuple[Callable[..., Any], tuple[int, ...]]] = {
    "dropout": (lambda m, x: F.dropout(x, 0.5, m.training), (64,)),
    "torch.dropout": (lambda m, x: torch.dropout(x, 0.5, m.training), (64,)),
    "alpha_dropout": (lambda m, x: F.alpha_dropout(x, 0.5, m.training), (64,)),
    "dropout2d": (lambda m, x: F.dropout2d(x, 0.5, m.training), (4, 8, 3, 3)),
    "attention": (lambda m, x: F.scaled_dot_product_attention(x, x, x, dropout_p=0.5 * m.training), (2, 8, 4)),
    "whatever the mode": (lambda m, x: F.dropout(x, 0.5), (64,)),
}


@pytest.mark.parametrize("chunk_size", [None, 1, 4])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_dropout_that_is_called_as_a_function_is_sampled(name: str, chunk_size: int | None) -> None:
    """Each sample has the masks that ``keyed`` gives a model in training mode."""
    function, shape = FUNCTIONS[name]
    x = wp.random.normal(shape, wp.Key(0))
    model = nn.Sequential(nn.Identity(), Given(function))
    samples = wp.monte_carlo(model, x, samples=6, chunk_size=chunk_size).samples
    for step, sample in enumerate(samples):
        with wp.keyed(0, step):
            assert torch.allclose(sample, model.train()(x), atol=1e-6)
    assert len({tuple(sample.flatten().tolist()) for sample in samples}) == 6


class TwoParts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(wp.Dropout(0.5), Given(lambda m, x: F.dropout(x, 0.5, m.training)))
        self.head = nn.Sequential(nn.Linear(64, 64), nn.Dropout(0.5))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.body(x), self.head(x)


def test_only_where_it_is_asked_for() -> None:
    """Monte Carlo dropout on the last layers: the others stay in evaluation mode, functions too."""
    model = TwoParts()
    trunk, head = wp.monte_carlo(model, torch.ones(64), samples=4, where="head.*").samples
    assert torch.equal(trunk, torch.ones(4, 64))
    assert len({tuple(sample.tolist()) for sample in head}) == 4
    trunk, head = wp.monte_carlo(model, torch.ones(64), samples=4, where=["body.1"]).samples
    assert torch.equal(head[0], head[1])
    assert set(trunk.flatten().tolist()) == {0.0, 2.0}
    with pytest.raises(wp.WellposedError, match=r"where \['nowhere'\] match"):
        wp.monte_carlo(model, torch.ones(64), where="nowhere")


IN_PLACE: dict[str, Callable[[], nn.Module]] = {
    "activation": lambda: nn.Sequential(nn.SiLU(inplace=True), nn.Linear(8, 8), nn.Dropout(0.5), nn.Linear(8, 3)),
    "normalised": lambda: Given(lambda m, x: m.drop(x.sub_(1.0).div_(2.0))),
    "argument": lambda: Given(lambda m, x: m.drop(x.mul_(m.n.add_(2.0)))),
}


@pytest.mark.parametrize("chunk_size", [None, 1, 3])
@pytest.mark.parametrize("name", IN_PLACE)
def test_what_a_model_is_called_with_is_never_changed(name: str, chunk_size: int | None) -> None:
    x = wp.random.normal((5, 8), wp.Key(3))
    before, model = x.clone(), IN_PLACE[name]().eval()
    result = wp.monte_carlo(model, x, samples=5, chunk_size=chunk_size)
    assert torch.equal(x, before)
    with torch.no_grad():
        assert torch.allclose(result.weight_scaled, copy.deepcopy(model)(x.clone()), atol=1e-6)
    drops = copy.deepcopy(wp.convert_dropout(model))
    for module in drops.modules():
        module.training = isinstance(module, wp.Dropout)
    for step, sample in enumerate(result.samples):
        with wp.keyed(0, step), torch.no_grad():
            assert torch.allclose(sample, copy.deepcopy(drops)(x.clone()), atol=1e-6)
    for look in (wp.lint_dropout, lambda m, x: wp.plan_convert_dropout(m, example=x)):
        look(model, x)
        assert torch.equal(x, before)


def test_other_threads_keep_torchs_generator_to_themselves() -> None:
    """Nothing is seeded and restored: a thread that draws meanwhile draws what it would have drawn."""
    models = [Given(lambda m, x: m.drop(x) + torch.rand(4).sum()), network()]
    torch.manual_seed(0)
    stop = threading.Event()

    def sample() -> None:
        while not stop.is_set():
            for model in models:
                wp.monte_carlo(model, X, samples=3, chunk_size=1)
            wp.lint_dropout(models[0], X)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        thread = threading.Thread(target=sample)
        thread.start()
        try:
            drawn = torch.cat([torch.rand(1) for _ in range(4000)])
        finally:
            stop.set()
            thread.join()
    torch.manual_seed(0)
    assert torch.equal(drawn, torch.cat([torch.rand(1) for _ in range(4000)]))


def test_operators_that_vmap_has_no_rule_for_are_not_told_of() -> None:
    """Warnings are errors here: torch asks for an issue for each."""
    model = Given(lambda m, x: torch.histc(m.drop(x), 4, 0, 2))
    samples = wp.monte_carlo(model, torch.ones(64), samples=5, chunk_size=5).samples
    assert torch.equal(samples.sum(dim=1), torch.full((5,), 64.0))


def test_filters_of_warnings_and_the_switch_for_those_of_vmap_stay_as_they_were() -> None:
    def slow() -> Tensor:
        return torch.func.vmap(lambda x: torch.histc(x, 4, 0, 2))(torch.ones(2, 3))

    before = list(warnings.filters)
    model = Given(lambda m, x: torch.histc(m.drop(x), 4, 0, 2))
    wp.monte_carlo(model, torch.ones(64), samples=3, chunk_size=2)
    assert list(warnings.filters) == before
    with pytest.warns(UserWarning, match="batching rule for aten::histc"):
        slow()
    switch = torch._C._functorch._set_vmap_fallback_warning_enabled  # type: ignore[attr-defined]
    switch(False)
    try:
        wp.monte_carlo(model, torch.ones(64), samples=3, chunk_size=2)
        slow()
    finally:
        switch(True)


def test_samples_print_without_their_tensors() -> None:
    result = wp.monte_carlo(Several("dataclass"), torch.ones(7, 2, 8), samples=3)
    assert repr(result.samples.y.shape) == "torch.Size([3, 7, 2, 8])"
    printed = repr(result)
    assert "y=float32[3, 7, 2, 8]" in printed
    assert "weight_scaled=Output(y=float32[7, 2, 8], total=float32[]" in printed
    assert "tensor(" not in printed
    assert (
        repr(wp.monte_carlo(network(), X, samples=2))
        == "Samples(samples=float32[2, 5, 3], weight_scaled=float32[5, 3])"
    )


@dataclasses.dataclass
class Tower:
    """An output with many fields."""

    last_hidden_state: Any
    hidden_states: Any
    attentions: Any = None
    text: str = "so and so " * 20


@pytest.mark.parametrize(
    ("outputs", "parts"),
    [
        (lambda x: x, 1),
        (lambda x: (x,) * 30, 30),
        (lambda x: [x, [x, (x,) * 12]], 14),
        (lambda x: {f"a name of {i}": x for i in range(9)}, 9),
        (lambda x: Pair((x,) * 6, {"states": [x] * 5}), 11),
        (lambda x: Tower(x, Pair(x, (x,) * 12)), 14),
        (lambda x: {"a" * 150: x}, 1),
    ],
    ids=["tensor", "tuple", "lists", "dict", "named tuple", "dataclass", "long name"],
)
def test_what_is_printed_fits_a_hundred_columns(outputs: Callable[[Any], Any], parts: int) -> None:
    samples = wp.dropouts.Samples(outputs(torch.ones(20, 4, 16)), outputs(torch.ones(4, 16)))
    printed = repr(samples)
    assert max(map(len, printed.splitlines())) <= 100
    assert printed.isascii()
    assert [printed.count(f"float32{shape}") for shape in ("[20, 4, 16]", "[4, 16]")] == [parts, parts]
    assert [line.split("=")[0] for line in printed.splitlines() if line[:5].strip()] in (
        ["Samples(samples"],
        ["Samples(", "    samples", "    weight_scaled", ")"],
    )


def test_mutual_information_is_never_negative() -> None:
    logits = wp.random.normal((64, 5), wp.Key(0), std=3.0).expand(50, 64, 5)
    result = wp.dropouts.Samples(logits, logits[0])
    assert float(result.mutual_information.min()) == 0.0


def counts(model: Given, x: Tensor) -> Tensor:
    model.n += 1
    return model.drop(x) + model.n  # type: ignore[no-any-return]


def reassigns(model: Given, x: Tensor) -> Tensor:
    model.n = model.n + 1
    return model.drop(x) + model.n  # type: ignore[no-any-return]


@pytest.mark.parametrize("function", [counts, reassigns])
def test_buffers_that_change_as_a_model_runs_start_anew_for_each_sample(function: Callable[..., Any]) -> None:
    model = Given(function)
    whole = wp.monte_carlo(model, torch.ones(64), samples=5).samples
    assert float(model.n) == 0
    assert set(whole.flatten().tolist()) == {1.0, 3.0}
    assert torch.equal(wp.monte_carlo(model, torch.ones(64), samples=5, chunk_size=1).samples, whole)


class Remembers(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        self.last: list[Tensor] = [super().forward(x)]  # type: ignore[no-untyped-call]
        return self.last[0]


HOLDING: dict[str, Callable[[], nn.Module]] = {
    "weight_norm": lambda: nn.Sequential(torch.nn.utils.weight_norm(nn.Linear(4, 3)), wp.Dropout(0.5)),
    "spectral_norm": lambda: nn.Sequential(torch.nn.utils.spectral_norm(nn.Linear(4, 3)), wp.Dropout(0.5)),
    "its last output": lambda: Remembers(nn.Linear(4, 3), wp.Dropout(0.5)),
}


@pytest.mark.parametrize("case", HOLDING)
@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated")
def test_models_that_hold_tensors_with_a_history(case: str) -> None:
    model = HOLDING[case]()
    y = model(X)
    assert wp.monte_carlo(model, X, samples=3).samples.shape == (3, 5, 3)
    assert wp.lint_dropout(model, X) == ()
    assert [(row.path, row.what) for row in wp.plan_convert_dropout(model, example=X)] == [("1", "named")]
    y.sum().backward()  # which nothing has cut
    weight: Any = next(model.parameters())
    assert weight.grad is not None


class Single(nn.Module):
    def __deepcopy__(self, memo: object) -> None:
        raise AssertionError("no copies of this")


def test_models_that_cannot_be_copied_are_refused() -> None:
    model = nn.Sequential(Single(), wp.Dropout(0.5))
    runs: list[Callable[[], object]] = [
        lambda: wp.monte_carlo(model, X),
        lambda: wp.lint_dropout(model, X),
        lambda: wp.plan_convert_dropout(model, example=X),
        lambda: wp.convert_dropout(model, example=X),
    ]
    for run in runs:
        with pytest.raises(wp.WellposedError, match=r"Sequential cannot be copied.*no copies of this"):
            run()


class Widest(TorchDispatchMode):
    """The size of the largest tensor that is made, in elements."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.elements = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = function(*args, **(kwargs or {}))
        if isinstance(output, Tensor):
            self.elements = max(self.elements, output.numel())
        return output


@pytest.mark.parametrize("inner", [2**10, 2**20])
def test_memory_is_bounded_by_activations_and_not_by_the_size_of_the_input(inner: int) -> None:
    """Indices are few and what is made of them is large: 2^22 and 2^32 bytes in 1024 samples."""
    model = Given(lambda m, x: m.drop(x.expand(inner)).cumsum(0)[-1:])
    with Widest() as widest:
        samples = wp.monte_carlo(model, torch.ones(1), samples=1024 if inner == 2**10 else 40).samples
    assert samples.shape[1:] == (1,)
    most = 2**27 // 4
    assert widest.elements <= most
    assert widest.elements >= min(most // 4, 1023 * inner)


def test_samples_are_independent_of_each_other_and_between_layers() -> None:
    """At a fixed key: of all pairs of 40 samples' masks of 2 layers, and of the samples of one unit.

    Two independent fair masks of n units agree in Binomial(n, 1/2) places, and those counts are independent over
    pairs two by two; if all is right, one of 3160 pairs lies beyond the bound with probability 1e-6, and so does one
    of the 4096 units' numbers of samples that keep it.
    """
    n, samples = 2048, 40
    model = Given(lambda m, x: torch.stack([m.drop[0](x), m.drop[1](x)]), nn.ModuleList([wp.Dropout(), wp.Dropout()]))
    kept = (wp.monte_carlo(model, torch.ones(n), samples=samples, seed=11).samples != 0).flatten(0, 1)
    signs = kept.double() * 2 - 1
    correlation = (signs @ signs.T / n**0.5).triu(1)
    pairs = 2 * samples * (2 * samples - 1) // 2
    assert pairs == 3160
    assert float(correlation.abs().max()) < statistics.NormalDist().inv_cdf(1 - 1e-6 / 2 / pairs)
    assert float(correlation.square().sum()) == pytest.approx(pairs, abs=5 * (2 * pairs) ** 0.5)
    units = signs.view(samples, 2 * n).sum(dim=0) / samples**0.5
    assert float(units.abs().max()) <= statistics.NormalDist().inv_cdf(1 - 1e-6 / 2 / (2 * n))


def test_what_cannot_be_vectorised_is_run_one_by_one() -> None:
    model = wp.LayerDrop([nn.Linear(4, 4) for _ in range(4)], 0.5)
    samples = wp.monte_carlo(model, X, samples=12).samples
    assert len({tuple(s.flatten().tolist()) for s in samples}) > 3


def test_entropies() -> None:
    """Two samples that are each certain and disagree know nothing together, and all of it is about the network."""
    samples = torch.tensor([[[50.0, 0.0], [50.0, 0.0]], [[0.0, 50.0], [50.0, 0.0]]])
    result = wp.dropouts.Samples(samples, samples[0])
    assert torch.allclose(result.predictive_entropy, torch.tensor([math.log(2), 0.0]), atol=1e-6)
    assert torch.allclose(result.mutual_information, torch.tensor([math.log(2), 0.0]), atol=1e-6)
    assert torch.allclose(result.probabilities, torch.tensor([[0.5, 0.5], [1.0, 0.0]]), atol=1e-6)


def test_models_without_dropout_are_refused() -> None:
    for model in (nn.Linear(4, 4), network(p=0.0)):
        with pytest.raises(wp.WellposedError, match="without a dropout module"):
            wp.monte_carlo(model, X)
    wrong: list[Any] = [0, -1, 1.5, "a"]
    for number in wrong:
        for name in ("samples", "chunk_size"):
            with pytest.raises(wp.WellposedError, match=rf"monte_carlo\({name}\) was given '?{number}"):
                wp.monte_carlo(network(), X, **{name: number})
    with pytest.raises(wp.WellposedError, match=r"expected an nn\.Module"):
        wp.monte_carlo(lambda x: x, X)  # type: ignore[arg-type]


def test_the_mean_of_many_samples_is_the_expectation_over_all_masks() -> None:
    """Against all 2^6 masks of a small layer; within 5 standard errors."""
    weight = wp.random.normal((2, 6), wp.Key(1))
    linear = nn.Linear(6, 2, bias=False)
    linear.weight.data.copy_(weight)
    model = nn.Sequential(wp.Dropout(0.5), linear, nn.Tanh())
    x = wp.random.normal(6, wp.Key(2))
    masks = torch.tensor(list(itertools.product((0.0, 2.0), repeat=6)))
    exact = torch.tanh((masks * x) @ weight.T)
    result = wp.monte_carlo(model, x, samples=4000)
    error = exact.std(dim=0) / math.sqrt(4000)
    assert bool(((result.mean - exact.mean(dim=0)).abs() < 5 * error).all())


def test_weight_scaling_is_the_geometric_mean_ensemble_of_a_softmax_of_a_linear_layer() -> None:
    """Exactly, over all masks of the inputs, in float64 (Goodfellow et al., 2016, section 7.12)."""
    p, n = 0.3, 8
    weight = wp.random.normal((3, n), wp.Key(1), dtype=torch.float64)
    bias = wp.random.normal(3, wp.Key(2), dtype=torch.float64)
    x = wp.random.normal(n, wp.Key(3), dtype=torch.float64)
    linear = nn.Linear(n, 3).double()
    linear.weight.data.copy_(weight)
    linear.bias.data.copy_(bias)
    model = nn.Sequential(wp.Dropout(p), linear)
    scaled = wp.monte_carlo(model, x, samples=1).weight_scaled.softmax(dim=0)
    kept = torch.tensor(list(itertools.product((0.0, 1.0), repeat=n)), dtype=torch.float64)
    chance = (p ** (1 - kept) * (1 - p) ** kept).prod(dim=1)
    logs = ((kept * x / (1 - p)) @ weight.T + bias).log_softmax(dim=1)
    geometric = (chance @ logs).softmax(dim=0)
    assert torch.allclose(scaled, geometric, rtol=1e-12)


@pytest.mark.filterwarnings("ignore")
def test_models_of_libraries_that_call_dropout_as_a_function() -> None:
    """A residual network before its head, and attention in a language model, whichever way that is computed."""
    network = peer("timm").create_model("resnet18", drop_rate=0.2, num_classes=3)
    samples = wp.monte_carlo(network, wp.random.normal((2, 3, 32, 32), wp.Key(0)), samples=4).samples
    assert len({tuple(sample.flatten().tolist()) for sample in samples}) == 4
    transformers, words = peer("transformers"), torch.arange(12).reshape(2, 6)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    for way in ("eager", "sdpa"):
        config = transformers.BertConfig(**sizes, vocab_size=40, attn_implementation=way)
        bert, outputs = transformers.BertModel(config).train(), []
        for converted in (False, True):
            for seed in (1, 2):
                if converted:
                    wp.convert_dropout(bert)
                torch.manual_seed(seed)
                with wp.keyed(0):
                    outputs.append(bert(words)[0])
        assert all(torch.equal(output, outputs[0]) for output in outputs)
