"""Dropout of attention weights: torch's attention where nothing is dropped, thinned weights where something is."""

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import wellposed as wp

N, H, L, S, E = 2, 3, 4, 5, 6
NEARLY_ZERO = 2.0**-60  # drops nothing, but takes the way of what does


def values(*shape: int, name: str = "x") -> Tensor:
    return wp.random.normal(shape, wp.Key(0).fold(name), dtype=torch.float64)


def some(*shape: int, name: str = "mask") -> Tensor:
    """A mask with a row that hides everything."""
    mask = wp.random.bernoulli(shape, wp.Key(0).fold(name), 0.6)
    mask[..., 0, :] = False
    return mask


MASKS = {
    "none": None,
    "boolean": some(L, S),
    "for each head": some(N, H, L, S),
    "additive": values(L, S),
    "additive, with a hidden row": torch.zeros(L, S).double().masked_fill(~some(L, S), -math.inf),
}


@pytest.mark.parametrize("scale", [None, 0.3])
@pytest.mark.parametrize("mask", [*MASKS, "causal"])
def test_where_nothing_is_dropped_it_is_torchs_attention(mask: str, scale: float | None) -> None:
    options: dict[str, Any] = {"is_causal": mask == "causal", "scale": scale}
    inputs = [values(N, H, n, E, name=name).requires_grad_() for n, name in ((L, "q"), (S, "k"), (S, "v"))]
    outcomes = []
    ways: tuple[Any, Any] = wp.AttentionDropout(NEARLY_ZERO), nn.functional.scaled_dot_product_attention
    for attend in ways:
        y = attend(*inputs, attn_mask=MASKS.get(mask), **options)
        outcomes.append((y, *torch.autograd.grad(y.square().sum(), inputs)))
    for ours, torchs in zip(*outcomes, strict=True):
        assert torch.allclose(ours, torchs, rtol=1e-12, atol=1e-14)


def test_grouped_queries() -> None:
    q, k, v = values(N, 4, L, E, name="q"), values(N, 2, S, E, name="k"), values(N, 2, S, 3, name="v")
    ours = wp.AttentionDropout(NEARLY_ZERO)(q, k, v, enable_gqa=True)
    assert torch.allclose(ours, nn.functional.scaled_dot_product_attention(q, k, v, enable_gqa=True), rtol=1e-12)


@pytest.mark.parametrize("p", [0.0, 0.4])
@pytest.mark.parametrize("training", [True, False])
def test_a_mask_and_causality_are_refused_together(p: float, training: bool) -> None:
    attend, x = wp.AttentionDropout(p).train(training), values(N, H, L, E)
    with pytest.raises(wp.WellposedError, match="attn_mask and is_causal=True"):
        attend(x, x, x, attn_mask=torch.ones(L, L, dtype=torch.bool), is_causal=True)


def test_the_weights_dropped_are_the_bernoulli_draw() -> None:
    """With the identity for values the output is the thinned weights themselves."""
    q, k = values(N, H, L, E, name="q"), values(N, H, S, E, name="k")
    eye = torch.eye(S, dtype=torch.float64).expand(N, H, S, S)
    with wp.keyed(7, 3):
        thinned = wp.AttentionDropout(0.4)(q, k, eye)
    dropped = wp.random.bernoulli((N, H, L, S), wp.Key(7).fold(""), 0.4, call=3 << 32)
    weights = nn.functional.scaled_dot_product_attention(q, k, eye)
    assert torch.allclose(thinned, torch.where(dropped, 0.0, weights / 0.6), rtol=1e-12)


KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "batch first": {"batch_first": True},
    "no bias": {"bias": False},
    "biases of keys and values": {"add_bias_kv": True},
    "a zero to attend to": {"add_zero_attn": True, "add_bias_kv": True, "batch_first": True},
    "sizes of their own": {"kdim": 4, "vdim": 8},
}


def attention(kind: str, p: float) -> tuple[nn.MultiheadAttention, wp.MultiheadAttention]:
    torchs = nn.MultiheadAttention(E, H, dropout=p, **KINDS[kind]).double()
    for name, parameter in torchs.named_parameters():
        wp.random.normal_(parameter.detach(), wp.Key(0).fold(name), std=0.5)
    ours = wp.MultiheadAttention(E, H, dropout=p, **KINDS[kind]).double()
    ours.load_state_dict(torchs.state_dict())
    return torchs, ours


CALLS: dict[str, dict[str, Any]] = {
    "plain": {},
    "weights of heads": {"average_attn_weights": False},
    "no weights": {"need_weights": False},
    "mask": {"attn_mask": ~some(L, S).index_fill(0, torch.tensor([0]), True)},
    "mask of heads": {"attn_mask": values(N * H, L, S)},
    "padding": {"key_padding_mask": torch.tensor([[False] * 4 + [True], [False] * 3 + [True] * 2])},
}
CALLS["all"] = CALLS["mask of heads"] | {"key_padding_mask": values(N, S), "average_attn_weights": False}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("call", CALLS)
def test_multihead_attention_is_torchs_where_nothing_is_dropped(kind: str, call: str) -> None:
    torchs, _ = attention(kind, 0.0)
    _, ours = attention(kind, NEARLY_ZERO)
    axis = 0 if torchs.batch_first else 1
    sizes = (L, E, "q"), (S, torchs.kdim, "k"), (S, torchs.vdim, "v")
    inputs = [values(N, n, e, name=name).movedim(0, axis).requires_grad_() for n, e, name in sizes]
    for got, wanted in zip(ours(*inputs, **CALLS[call]), torchs(*inputs, **CALLS[call]), strict=True):
        assert (got is None) == (wanted is None)
        if got is not None:
            assert torch.allclose(got, wanted, rtol=1e-10, atol=1e-12)
            for a, b in zip(
                torch.autograd.grad(got.square().sum(), inputs, allow_unused=True, retain_graph=True),
                torch.autograd.grad(wanted.square().sum(), inputs, allow_unused=True, retain_graph=True),
                strict=True,
            ):
                assert (a is None) == (b is None)
                assert a is None or torch.allclose(a, b, rtol=1e-9, atol=1e-11)


def test_multihead_attention_of_one_sample() -> None:
    torchs, ours = attention("plain", NEARLY_ZERO)[0], attention("plain", NEARLY_ZERO)[1]
    torchs.eval()
    x = values(L, E)
    for got, wanted in zip(ours(x, x, x), torchs(x, x, x), strict=True):
        assert got.shape == wanted.shape
        assert torch.allclose(got, wanted, rtol=1e-10)


def test_multihead_attention_returns_the_weights_that_it_used() -> None:
    _, ours = attention("batch first", 0.4)
    x = values(N, L, E)
    with wp.keyed(0):
        y, weights = ours(x, x, x, average_attn_weights=False)
    dropped = wp.random.bernoulli((N, H, L, L), wp.Key(0).fold("drop"), 0.4)
    assert torch.equal(weights == 0, dropped)
    ours.eval()
    assert torch.allclose(torch.where(dropped, 0.0, ours(x, x, x, average_attn_weights=False)[1] / 0.6), weights)
    assert not torch.allclose(ours(x, x, x)[0], y)


@pytest.mark.parametrize("heads", [2, 3])
def test_torchs_transformer_is_converted_whole(heads: int) -> None:
    """Also with an even number of heads, where torch runs a layer in evaluation as one function."""
    layer = nn.TransformerEncoderLayer(E, heads, 8, 0.3, batch_first=True)
    model = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).double()
    before = copy.deepcopy(model).eval()
    x = values(N, L, E)
    assert {row.what for row in wp.plan_convert_dropout(model, example=x)} == {"swapped"}
    parameters = [id(parameter) for parameter in model.parameters()]
    wp.convert_dropout(model, example=x)
    assert [id(parameter) for parameter in model.parameters()] == parameters
    assert isinstance(model.layers[1].self_attn, wp.MultiheadAttention)
    assert model.layers[1].self_attn.drop.stream == "layers.1.self_attn.drop"
    state = torch.get_rng_state()
    with wp.keyed(0):
        first = model(x)
    with wp.keyed(0):
        assert torch.equal(model(x), first)
    assert torch.equal(state, torch.get_rng_state())
    assert torch.allclose(model.eval()(x), before(x))
    samples = wp.monte_carlo(before, x, samples=2).samples
    assert (samples[0] != samples[1]).any()
