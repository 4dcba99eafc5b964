"""Dropout that is called as a function inside ``wp.keyed``: by torch's modules, by models, and in no module at all."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.utils.checkpoint import checkpoint

import wellposed as wp
from dropout_cases import gradient

pytestmark = pytest.mark.filterwarnings("ignore:.*dropout[23]d:UserWarning")

TORCHS: list[tuple[Callable[[float], nn.Module], tuple[int, ...]]] = [
    (nn.Dropout, (4, 6)),
    (nn.Dropout1d, (4, 6, 5)),
    (nn.Dropout1d, (6, 5)),
    (nn.Dropout2d, (4, 6, 5, 5)),
    (nn.Dropout2d, (4, 6, 5)),
    (nn.Dropout3d, (2, 6, 3, 3, 3)),
    (nn.Dropout3d, (6, 3, 3, 3)),
    (nn.AlphaDropout, (4, 6)),
    (nn.FeatureAlphaDropout, (4, 6, 5)),
]


def keyed(model: Callable[..., Any], *inputs: Any, step: int = 0, **options: Any) -> Any:
    """The output in a block, in which nothing global is read."""
    state = torch.get_rng_state()
    with wp.keyed(5, step, **options):
        output = model(*inputs)
    assert torch.equal(state, torch.get_rng_state())
    return output


@pytest.mark.parametrize("case", range(len(TORCHS)))
def test_torchs_modules_have_the_masks_of_what_would_take_their_place(case: int) -> None:
    kind, shape = TORCHS[case]
    x = wp.random.normal(shape, wp.Key(0), dtype=torch.float64).requires_grad_()
    torchs, ours = nn.Sequential(nn.Identity(), kind(0.4)), nn.Sequential(nn.Identity(), kind(0.4))
    wp.convert_dropout(ours)
    for step in range(3):
        got, wanted = keyed(torchs, x, step=step), keyed(ours, x, step=step)
        assert torch.equal(got, wanted)
        assert torch.equal(*(torch.autograd.grad(y.square().sum(), x)[0] for y in (got, wanted)))
    assert not torch.equal(keyed(torchs, x), keyed(torchs, x, step=1))
    assert torch.equal(torchs.eval()(x), keyed(torchs.eval(), x))


class Calls(nn.Module):
    """A function of the module and an input."""

    layer: Any  # that the function may call

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function
        self.weight = nn.Parameter(torch.eye(4).repeat(3, 1), requires_grad=False)

    def forward(self, x: Tensor) -> Any:
        return self.function(self, x)


def many_heads(model: Calls, x: Tensor, weights: bool) -> Tensor:
    y: Tensor = F.multi_head_attention_forward(
        x, x, x, 4, 2, model.weight, None, None, None, False, 0.5, model.weight[:4], None, need_weights=weights
    )[0]
    return y


FUNCTIONS: dict[str, Callable[[Calls, Tensor], Any]] = {
    "dropout": lambda _, x: F.dropout(x, 0.5),
    "in place": lambda _, x: F.dropout(x + 0, 0.5, inplace=True),
    "torch.dropout": lambda _, x: torch.dropout(x, 0.5, True),
    "torch.dropout_": lambda _, x: torch.dropout_(x + 0, 0.5, True),
    "torch.feature_dropout": lambda _, x: torch.feature_dropout(x, 0.5, True),
    "torch.native_dropout": lambda _, x: torch.native_dropout(x, 0.5, True)[0],
    "torch.alpha_dropout": lambda _, x: torch.alpha_dropout(x, 0.5, True),
    "torch.feature_alpha_dropout": lambda _, x: torch.feature_alpha_dropout(x, 0.5, True),
    "attention": lambda _, x: F.scaled_dot_product_attention(x, x, x, None, 0.5, False),
    "causal attention": lambda _, x: F.scaled_dot_product_attention(x, x, x, dropout_p=0.5, is_causal=True, scale=2.0),
    "many heads": lambda model, x: many_heads(model, x, False),
    "many heads with weights": lambda model, x: many_heads(model, x, True),
}
RECURRENT = [f"{kind}, {way}" for kind in ("LSTM", "GRU", "RNN") for way in ("forth", "both ways")]
LAYERS = [*FUNCTIONS, "MultiheadAttention", "TransformerEncoderLayer", *RECURRENT]
X = wp.random.normal((3, 7, 4), wp.Key(1))


def layer(name: str) -> nn.Module:
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        if name == "TransformerEncoderLayer":
            return nn.TransformerEncoderLayer(4, 2, 8, 0.5, batch_first=True)
        made = Calls(FUNCTIONS.get(name, lambda model, x: model.layer(x)[0]))
        if name == "MultiheadAttention":
            made = Calls(lambda model, x: model.layer(x, x, x)[0])
            made.layer = nn.MultiheadAttention(4, 2, 0.5)
        if name in RECURRENT:
            made.layer = getattr(nn, name.split(",")[0])(4, 5, 3, dropout=0.5, bidirectional="both" in name)
    return made


@pytest.mark.parametrize("name", LAYERS)
def test_masks_depend_on_seed_step_path_and_count_alone(name: str) -> None:
    one = layer(name)
    model = nn.Sequential(one, nn.Identity())
    outputs = [keyed(model, X, step=step) for step in (0, 0, 1)]
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0], outputs[2])
    assert not torch.equal(outputs[0], keyed(nn.Sequential(nn.Identity(), one), X))
    with wp.keyed(5):
        assert torch.equal(model(X), outputs[0])
        assert not torch.equal(model(X), outputs[0])


@pytest.mark.parametrize("name", ["LSTM, forth", "GRU, both ways", "RNN, forth"])
@pytest.mark.parametrize("packed", [False, True])
def test_recurrent_layers_are_torchs_but_for_the_masks(name: str, packed: bool) -> None:
    """With every element kept, layer by layer is the whole."""
    network: Any = layer(name)
    x = X.transpose(0, 1)
    given = nn.utils.rnn.pack_padded_sequence(x, torch.tensor([7, 4, 2])) if packed else x
    network.layer.dropout = 1e-12
    with wp.keyed(0):
        got, state = network.layer(given)
    network.layer.eval()
    wanted, final = network.layer(given)
    for one, other in ((got, wanted), (state, final)):
        for a, b in zip(*(v if isinstance(v, tuple) else (v,) for v in (one, other)), strict=True):
            if isinstance(a, Tensor):
                assert torch.allclose(a, b, atol=1e-6)


def test_attention_is_torchs_in_expectation() -> None:
    """Within 5 standard errors of what it is without dropout."""
    attend = Calls(FUNCTIONS["causal attention"])
    samples = torch.stack([keyed(attend, X, step=step) for step in range(2000)])
    wanted = F.scaled_dot_product_attention(X, X, X, is_causal=True, scale=2.0)
    error = samples.std(dim=0) / 2000**0.5 + 1e-6
    assert bool(((samples.mean(dim=0) - wanted).abs() < 5 * error).all())


def test_rows_of_a_larger_batch() -> None:
    model = nn.Sequential(nn.Dropout(0.5), Calls(FUNCTIONS["dropout"]))
    whole = keyed(model, X)
    assert torch.equal(torch.cat([keyed(model, X[:1]), keyed(model, X[1:], row=1)]), whole)


def test_outside_of_blocks_torch_draws() -> None:
    torch.manual_seed(3)
    with_torch = F.dropout(X)
    torch.manual_seed(3)
    keyed(F.dropout, X)
    assert torch.equal(F.dropout(X), with_torch)
    torch.manual_seed(3)


def test_a_function_that_no_module_calls_has_a_name_too() -> None:
    assert torch.equal(keyed(F.dropout, X), keyed(F.dropout, X))
    assert torch.equal(keyed(F.dropout, X) == 0, wp.random.bernoulli(X.shape, wp.Key(5).fold(""), 0.5))
    with wp.keyed(0):
        F.dropout(X)
        with pytest.raises(wp.WellposedError, match=r"a function that no module calls and Dropout.* both named ''"):
            wp.Dropout(0.5)(X)


def test_two_models_of_one_path_are_not_confused() -> None:
    with wp.keyed(0):
        nn.Sequential(nn.Dropout(0.5))(X)
        with pytest.raises(wp.WellposedError, match="are both named '0'"):
            nn.Sequential(nn.Dropout(0.5))(X)


@pytest.mark.parametrize("use_reentrant", [False, True])
@pytest.mark.parametrize("name", ["dropout", "attention", "many heads"])
def test_checkpointing_repeats_the_masks(name: str, use_reentrant: bool) -> None:
    model = nn.Sequential(nn.Linear(4, 4), layer(name), nn.Linear(4, 4))

    def outcome(run: Callable[[Tensor], Tensor]) -> Tensor:
        x = X.clone().requires_grad_()
        with wp.keyed(2):
            run(x).square().sum().backward()
        return gradient(x)

    assert torch.equal(outcome(lambda x: checkpoint(model, x, use_reentrant=use_reentrant)), outcome(model))


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_checkpointing_a_part_of_a_model_repeats_the_masks(use_reentrant: bool) -> None:
    """The part runs again by itself, so that the path of what drops is another one."""

    class Whole(nn.Module):
        def __init__(self, is_checkpointed: bool) -> None:
            super().__init__()
            self.part = nn.Sequential(nn.Linear(4, 4), layer("dropout"), nn.Linear(4, 4))
            self.is_checkpointed = is_checkpointed

        def forward(self, x: Tensor) -> Tensor:
            if not self.is_checkpointed:
                return self.part(x)  # type: ignore[no-any-return]
            return checkpoint(self.part, x, use_reentrant=use_reentrant)  # type: ignore[no-any-return]

    def outcome(model: nn.Module) -> Tensor:
        x = X.clone().requires_grad_()
        with wp.keyed(2):
            model(x).square().sum().backward()
        return gradient(x)

    plain, checkpointed = Whole(False), Whole(True)
    checkpointed.load_state_dict(plain.state_dict())
    assert torch.equal(outcome(checkpointed), outcome(plain))


def test_a_backward_pass_after_the_block_repeats_the_masks_or_is_refused() -> None:
    """Torch's function would draw another mask in silence."""
    model, x = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.Linear(4, 4)), X.clone().requires_grad_()
    wanted = torch.autograd.grad(keyed(model, x).square().sum(), x)[0]
    for use_reentrant in (False, True):
        with pytest.raises(wp.WellposedError, match=r"'1'.*call backward inside the block"), wp.keyed(5):
            checkpoint(model, x, use_reentrant=use_reentrant)
    with wp.keyed(5):
        y = checkpoint(model, x, use_reentrant=False, context_fn=wp.checkpoint_context)
    assert torch.equal(torch.autograd.grad(y.square().sum(), x)[0], wanted)
    with torch.no_grad(), wp.keyed(5):
        checkpoint(model, x, use_reentrant=False)


@torch.no_grad()
def test_compiled_models_have_the_masks_or_say_why_not() -> None:
    torch.compiler.reset()
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), Calls(FUNCTIONS["dropout"]), wp.Dropout(0.5), nn.Tanh())
    compiled = torch.compile(model, backend="aot_eager")
    for step in range(3):
        assert torch.allclose(keyed(compiled, X, step=step), keyed(model, X, step=step), atol=1e-6)
    torch.compiler.reset()
    with pytest.raises(Exception, match=r"wp.keyed names a mask by the module that calls"):
        keyed(torch.compile(model, backend="eager", fullgraph=True), X)
    torch.compiler.reset()


def test_vectorised_functions_draw_for_each_sample() -> None:
    model = nn.Sequential(nn.Dropout(0.5), Calls(FUNCTIONS["attention"]))
    with wp.keyed(0):
        together = torch.func.vmap(model, randomness="different")(X)
    with wp.keyed(0):
        one_by_one = torch.stack([model(x) for x in X])
    assert torch.allclose(together, one_by_one, atol=1e-6)


def generator(seed: int, drop: nn.Module) -> Iterator[Tensor]:
    with wp.keyed(seed):
        while True:
            yield drop(torch.ones(64))


def test_blocks_of_generators_that_take_turns_are_right_or_refused() -> None:
    one, two = wp.Dropout(0.5), wp.Dropout(0.5)
    alone = [generator(seed, drop) for seed, drop in enumerate((one, two))]
    wanted = [[next(g), next(g)] for g in reversed(alone)][::-1]
    for g in reversed(alone):
        g.close()  # type: ignore[attr-defined]
    first, second = (generator(seed, drop) for seed, drop in enumerate((one, two)))
    assert torch.equal(next(first), wanted[0][0])
    assert torch.equal(next(second), wanted[1][0])
    with pytest.raises(wp.WellposedError, match="opened by a generator that is suspended"):
        next(first)  # which ends it, while the block of the other is open
    assert torch.equal(next(second), wanted[1][1])
    second.close()  # type: ignore[attr-defined]
    with wp.keyed(0):
        assert torch.equal(wp.Dropout(0.5)(torch.ones(64)), wanted[0][0])


def test_a_block_that_a_generator_opens_for_others_is_theirs() -> None:
    def steps() -> Iterator[int]:
        for step in range(2):
            with wp.keyed(5, step):
                yield step

    drop = wp.Dropout(0.5)
    for step in steps():
        found = drop(X)
        assert torch.equal(
            found, torch.where(wp.random.bernoulli(X.shape, wp.Key(5).fold(""), 0.5, call=step << 32), 0, 2 * X)
        )


def test_what_is_no_step_is_refused() -> None:
    wrong: list[dict[str, Any]] = [{"step": 1.5}, {"step": "a"}, {"microbatch": -1}, {"row": "a"}, {"step": 2**32}]
    for options in wrong:
        with pytest.raises(wp.WellposedError, match=r"keyed\(.* was given"), wp.keyed(0, **options):
            pass
