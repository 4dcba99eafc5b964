"""Attention's scores start with a standard deviation of about 1, whatever the forward pass does to them."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

import wellposed as wp
from peers import peer

KEY = wp.Key(5)
WIDTH, HEADS = 64, 4
EACH = WIDTH // HEADS
X = wp.random.normal((8, 16, WIDTH), KEY)
Attend = Callable[[Tensor, Tensor], Tensor]
TABLE = wp.random.normal((1, 1, 16, 16), KEY.fold("bias"))
ANGLES = torch.arange(16.0)[:, None] / 10000 ** (torch.arange(EACH // 2) / (EACH // 2))
COS, SIN = (fn(torch.cat([ANGLES, ANGLES], -1)) for fn in (torch.cos, torch.sin))


def rotated(z: Tensor) -> Tensor:
    halves = z.chunk(2, -1)
    return z * COS + torch.cat([-halves[1], halves[0]], -1) * SIN


def added(q: Tensor, k: Tensor) -> Tensor:
    scores = q @ k.mT
    scores += TABLE
    return scores


def alpha(q: Tensor, k: Tensor, factor: float) -> Tensor:
    zeros = q.new_zeros(1)
    scores: Tensor = torch.baddbmm(zeros, q.flatten(0, 1), k.flatten(0, 1).mT, beta=0, alpha=factor)
    by_heads: Tensor = scores.unflatten(0, (-1, HEADS))
    return by_heads


# How the scores are made of queries and keys, (batch, heads, tokens, width) each -> what they are divided by in the end
SCORES: dict[str, tuple[Attend, float]] = {
    "not divided": (lambda q, k: q @ k.mT, 1),
    "divided by the root": (lambda q, k: q @ k.mT / math.sqrt(EACH), 4),
    "divided by the width": (lambda q, k: q @ k.mT / EACH, 16),
    "divided by a size": (lambda q, k: q @ k.mT / q.size(-1) ** 0.5, 4),
    "multiplied afterwards": (lambda q, k: torch.matmul(q, k.transpose(-1, -2)) * 0.5, 2),
    "queries multiplied": (lambda q, k: (q * 0.125) @ k.mT, 8),
    "queries and keys multiplied": (lambda q, k: (q * 0.5) @ (k * 0.5).mT, 4),
    "in place": (lambda q, k: (q @ k.mT).mul_(2.0), 0.5),
    "queries in place, through a view": (lambda q, k: (q.transpose(1, 2).flatten(2).mul_(0.5), q @ k.mT)[1], 2),
    "einsum": (lambda q, k: torch.einsum("bhqd,bhkd->bhqk", q, k), 1),
    "einsum with dots": (lambda q, k: torch.einsum("...qd, ...kd -> ...qk", q, k), 1),
    "baddbmm": (lambda q, k: alpha(q, k, 1.0), 1),
    "baddbmm with alpha": (lambda q, k: alpha(q, k, EACH**-0.5), 4),
    "a bias added": (added, 1),
    "masked": (lambda q, k: (q @ k.mT).masked_fill(torch.ones(16, 16).triu(1).bool(), -1e9), 1),
    "rotated": (lambda q, k: rotated(q) @ rotated(k).mT, 1),
    "capped": (lambda q, k: 30 * torch.tanh(q @ k.mT / 4 / 30), 4),
    "two sums of scores": (lambda q, k: q @ k.mT / 4 + (q @ k.mT.flip(-1)) / 4, 4 / math.sqrt(2)),
}
WAYS: dict[str, Callable[[Tensor], bool]] = {
    "torch.fx": lambda x: False,
    "torch.export": lambda x: len(range(x.shape[0])) > 9,
    "a run on the example": lambda x: float(x.sum()) > 1e9,
}


class Attention(nn.Module):
    def __init__(self, scores: Attend, way: str = "torch.fx", norm: bool = False) -> None:
        super().__init__()
        self.scores, self.way, self.seen = scores, way, torch.zeros(())
        self.q, self.k, self.v, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.norm = nn.LayerNorm(EACH) if norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        if WAYS[self.way](x):
            raise ValueError
        q, k, v = (layer(x).unflatten(-1, (HEADS, EACH)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        mixed = self.attend(self.norm(q), self.norm(k), v)
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return out

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        scores = self.scores(q, k)
        if not isinstance(scores, torch.fx.Proxy):
            self.seen = scores
        return scores.softmax(-1) @ v


class Fused(Attention):
    """Attention by torch's own function, with this scale."""

    def __init__(self, scale: float | None, way: str) -> None:
        super().__init__(lambda q, k: q @ k.mT * (EACH**-0.5 if scale is None else scale), way)
        self.scale = scale

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if not isinstance(q, torch.fx.Proxy):
            self.seen = self.scores(q, k)
        return F.scaled_dot_product_attention(q, k, v, scale=self.scale)


def check(model: Attention, way: str, divided: float) -> None:
    plan = wp.initialize(model, example=X)
    wanted = math.sqrt(divided / math.sqrt(EACH))
    for name in ("q.weight", "k.weight"):
        assert (plan[name].follows, plan[name].traced) == ("attention", way)
        assert plan[name].gain == pytest.approx(wanted, rel=1e-3)
    assert ("standard deviation" in plan["q.weight"].note) == (wanted != 1)
    assert (plan["v.weight"].gain, plan["out.weight"].gain) == (1, 1)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", SCORES)
def test_scores_have_unit_variance(name: str, way: str) -> None:
    """A mean over 8 x 4 x 16 x 16 scores, which depend on each other: a tenth and a half is allowed."""
    scores, divided = SCORES[name]
    model = Attention(scores, way)
    check(model, way, divided)
    with torch.no_grad():
        model(X)
    seen = model.seen if name != "masked" else model.seen[model.seen > -1e8]
    extra = 2**0.5 if name == "a bias added" else 1.0
    assert float(seen.std()) == pytest.approx(extra, rel=0.15)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("scale", [None, 1.0, 1 / EACH])
def test_the_scale_of_torchs_attention_is_followed(scale: float | None, way: str) -> None:
    model = Fused(scale, way)
    check(model, way, math.sqrt(EACH) if scale is None else 1 / scale)
    with torch.no_grad():
        model.q(X)
        model.way = "torch.fx"
        model(X)
    assert float(model.seen.std()) == pytest.approx(1, rel=0.15)


@pytest.mark.parametrize("way", WAYS)
def test_normalised_queries_and_keys_are_left(way: str) -> None:
    plan = wp.plan_initialize(Attention(SCORES["not divided"][0], way, norm=True), example=X)
    assert [plan[f"{name}.weight"].gain for name in "qk"] == [1, 1]


def test_without_an_example_the_plan_says_that_nothing_divides() -> None:
    for scores, said in ((SCORES["not divided"][0], True), (SCORES["divided by a size"][0], False)):
        row = wp.plan_initialize(Attention(scores))["q.weight"]
        assert row.gain == 1
        assert ("nothing divides its scores" in row.note) == said


class Packed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, -1)
        out: Tensor = (q @ k.mT).softmax(-1) @ v
        return out


class PackedInBlocks(Packed):
    pass


def test_of_a_packed_projection_queries_and_keys_alone_are_scaled() -> None:
    row = wp.plan_initialize(Packed(), example=X)["qkv.weight"]
    assert row.gain == 1
    assert "so it is left" in row.note
    parts = tuple(wp.init.Part("weight", block=n, where=(0, i * WIDTH, (i + 1) * WIDTH)) for i, n in enumerate("qkv"))
    wp.init.role(PackedInBlocks)(lambda module: {"qkv.weight": parts})
    model = PackedInBlocks()
    plan = wp.initialize(model, example=X)
    assert [plan[f"qkv.weight[{n}]"].gain for n in "qkv"] == pytest.approx([8**-0.5, 8**-0.5, 1])
    q, k, _ = model.qkv(X).detach().chunk(3, -1)
    assert float((q @ k.mT).std()) == pytest.approx(1, rel=0.15)


def test_schemes_that_fix_their_own_sizes_are_left() -> None:
    plans = {scheme: wp.plan_initialize(Attention(SCORES["not divided"][0]), scheme, example=X) for scheme in GAINS}
    assert {scheme: plan["q.weight"].gain for scheme, plan in plans.items()} == GAINS


GAINS: dict[Any, float] = {
    "auto": 0.5,
    "orthogonal": 0.5,
    "glorot": 1.0,
    wp.init.mup(Attention(SCORES["not divided"][0])): 1.0,
}


def entropy(attentions: tuple[Tensor, ...]) -> float:
    """The least mean entropy of a layer's attention, of the most that there can be over as many tokens."""
    return min(float(-(p * p.clamp_min(1e-30).log()).sum(-1).mean()) for p in attentions) / math.log(
        attentions[0].shape[-1]
    )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["T5", "GPTNeo"])
def test_models_that_leave_the_division_out(name: str) -> None:
    """Attention is about as even as that of scores of variance 1, whose entropy is lower than the maximum by a half."""
    transformers = peer("transformers")
    tokens: dict[str, Any] = {"vocab_size": 90, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    sizes: dict[str, Any] = {
        "T5": {"d_model": 64, "d_kv": 64, "d_ff": 128, "num_layers": 2, "num_heads": 4, "decoder_start_token_id": 0},
        "GPTNeo": {"hidden_size": 256, "num_layers": 2, "num_heads": 4, "attention_types": [[["global"], 2]]},
    }
    config = getattr(transformers, f"{name}Config")(**tokens, **sizes[name])
    ids = torch.arange(2, 66).reshape(2, 32)
    make = transformers.AutoModelForSeq2SeqLM if name == "T5" else transformers.AutoModelForCausalLM
    example = {"input_ids": ids} | ({"decoder_input_ids": ids} if name == "T5" else {})
    model = make.from_config(config, attn_implementation="eager").eval()
    wp.initialize(model, example=example)
    for module in model.modules():
        if hasattr(module, "relative_attention_bias"):
            module.relative_attention_bias.weight.data.zero_()
    with torch.no_grad():
        outputs = model(**example, output_attentions=True)
    got = outputs.encoder_attentions if name == "T5" else outputs.attentions
    full = got if name == "T5" else tuple(p[:, :, -1:] for p in got)
    assert entropy(full) > 1 - 0.6 / math.log(32)
