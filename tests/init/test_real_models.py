"""Models nobody here wrote, from their configurations: from the meta device to audited weights, with sensible gains."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

import wellposed as wp
from peers import peer

timm, transformers = peer("timm"), peer("transformers")
quiet: Any = transformers.logging.set_verbosity_error
quiet()

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

IDS = torch.zeros(1, 8, dtype=torch.long)
IMAGE = torch.zeros(1, 3, 224, 224)
GELU, SILU, RELU = (wp.init.gain(fn) for fn in (F.gelu, F.silu, F.relu))
TOKENS: dict[str, Any] = {"vocab_size": 90, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
SIZES: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}


def picture(name: str) -> Callable[[], nn.Module]:
    return lambda: timm.create_model(name)


def language(config: str, head: str = "AutoModelForCausalLM", **options: Any) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        model: nn.Module = getattr(transformers, head).from_config(
            getattr(transformers, config)(**TOKENS, **options), attn_implementation="eager"
        )
        return model

    return make


# name -> how to make it, an example, how many residual branches it has, some of its gains
MODELS: dict[str, tuple[Callable[[], nn.Module], Any, int, dict[str, float]]] = {
    "vit": (picture("vit_tiny_patch16_224"), IMAGE, 24, {"blocks.3.mlp.fc1.weight": GELU, "head.weight": 1}),
    "deit3": (picture("deit3_small_patch16_224"), IMAGE, 24, {"blocks.3.mlp.fc1.weight": GELU}),
    "convnext": (picture("convnext_atto"), IMAGE, 12, {"stages.1.blocks.0.mlp.fc1.weight": GELU}),
    "resnet": (picture("resnet18"), IMAGE, 8, {"conv1.weight": RELU, "layer2.0.conv1.weight": RELU, "fc.weight": 1}),
    "efficientnet": (picture("efficientnet_b0"), IMAGE, 9, {"conv_stem.weight": SILU}),
    "swin": (picture("swin_tiny_patch4_window7_224"), IMAGE, 24, {"layers.0.blocks.0.mlp.fc1.weight": GELU}),
    "mixer": (picture("mixer_s32_224"), IMAGE, 16, {"blocks.1.mlp_tokens.fc1.weight": GELU}),
    "bert": (
        language("BertConfig", "AutoModelForMaskedLM", **SIZES),
        {"input_ids": IDS},
        4,
        {"bert.encoder.layer.1.intermediate.dense.weight": GELU, "bert.encoder.layer.0.output.dense.weight": 0.5},
    ),
    "gpt2": (
        language("GPT2Config", n_embd=32, n_layer=2, n_head=4),
        {"input_ids": IDS},
        4,
        {"transformer.h.1.mlp.c_fc.weight": GELU, "transformer.h.1.mlp.c_proj.weight": 0.5},
    ),
    "llama": (
        language("LlamaConfig", **SIZES),
        {"input_ids": IDS},
        4,
        {"model.layers.1.mlp.gate_proj.weight": SILU, "model.layers.1.mlp.up_proj.weight": 1},
    ),
    "gemma": (
        language("GemmaConfig", **SIZES, head_dim=8, num_key_value_heads=2),
        {"input_ids": IDS},
        4,
        {"model.layers.1.mlp.gate_proj.weight": GELU},
    ),
    "mixtral": (
        language("MixtralConfig", **SIZES, num_key_value_heads=2),
        {"input_ids": IDS},
        4,
        {
            "model.layers.1.mlp.experts.gate_up_proj[gate]": SILU,
            "model.layers.1.mlp.experts.gate_up_proj[up]": 1,
            "model.layers.1.mlp.experts.down_proj": 0.5,
        },
    ),
    "mamba": (
        language("MambaConfig", hidden_size=32, num_hidden_layers=2),
        {"input_ids": IDS},
        2,
        {"backbone.layers.1.mixer.conv1d.weight": SILU, "backbone.layers.1.mixer.out_proj.weight": 2**-0.5},
    ),
    "mamba2": (
        language("Mamba2Config", hidden_size=32, num_hidden_layers=2, num_heads=8, head_dim=8, n_groups=1),
        {"input_ids": IDS},
        2,
        {"backbone.layers.1.mixer.out_proj.weight": 2**-0.5},
    ),
    "t5": (
        language("T5Config", "AutoModelForSeq2SeqLM", d_model=32, d_ff=64, num_layers=2, num_heads=4, d_kv=8),
        {"input_ids": IDS, "decoder_input_ids": IDS},
        10,
        {"encoder.block.1.layer.1.DenseReluDense.wi.weight": RELU},
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_from_meta_to_audited_weights(name: str) -> None:
    make, example, branches, gains = MODELS[name]
    with torch.device("meta"):
        model = make()
    assert all(p.is_meta for p in model.parameters())
    plan = wp.init.initialize(model, example=example, device="cpu")
    assert not any(p.is_meta for p in model.parameters())
    for label, gain in gains.items():
        # GELU by its tanh approximation differs in the fourth digit.
        assert plan[label].gain == pytest.approx(gain, rel=1e-3), label
    assert all(0.05 < row.gain < 3 for row in plan if row.role == "weight")
    told = [row.follows for row in plan if row.role == "weight"]
    assert sum(follows in ("unknown", "not seen") for follows in told) <= len(told) // 20
    ends = {row.note for row in plan if "residual branches" in row.note}
    if ends:
        assert {f"ends one of {branches} residual branches: divided by the square root of their number"} == ends
    else:
        assert all(row.name.split(".")[-1] != "gamma" for row in plan)  # branches that end in a normalisation


@pytest.mark.parametrize("name", MODELS)
def test_without_an_example_too(name: str) -> None:
    make, _, _, gains = MODELS[name]
    with torch.device("meta"):
        model = make()
    plan = wp.plan_initialize(model)
    assert all(row.initializer is not None for row in plan)
    found = [plan[label].gain for label in gains]
    assert any(gain == pytest.approx(wanted, rel=1e-3) for gain, wanted in zip(found, gains.values(), strict=True))


@pytest.mark.parametrize("name", MODELS)
def test_every_way_of_tracing_tells_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What follows each weight, its gain and its start, by torch.fx where it can, by torch.export and by a run."""
    make, example, _, _ = MODELS[name]
    with torch.device("meta"):
        model = make()

    def fails(*_: Any) -> None:
        raise NotImplementedError

    ways, told = ["symbolic_graph", "follow_exported", "follow_run"], []
    for way in ways:
        plan = wp.plan_initialize(model, example=example)
        told.append([dataclasses.replace(row, traced="") for row in plan])
        monkeypatch.setattr(f"wellposed.models.tracing.trace.{way}", fails)
    assert told[0] == told[1] == told[2]
    assert {row.traced for row in plan if row.role == "weight"} <= {"a run on the example", ""}


def test_a_large_model_without_memory_is_followed_past_a_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its forward pass asks whether the mask is all true, which only torch.export can answer where it has no values."""
    monkeypatch.setattr("wellposed.models.tracing.trace._SMALL", 0)
    make, example, branches, _ = MODELS["gpt2"]
    with torch.device("meta"):
        model: Any = make()
    model.config._attn_implementation = "sdpa"
    plan = wp.plan_initialize(model, example=example | {"attention_mask": torch.ones_like(IDS)})
    assert {row.traced for row in plan if row.role == "weight"} == {"torch.export"}
    assert plan["transformer.h.1.mlp.c_proj.weight"].gain == pytest.approx(branches**-0.5)


def test_a_built_model_starts_as_one_from_meta() -> None:
    make, example, _, _ = MODELS["gpt2"]
    real = make()
    with torch.device("meta"):
        model = make()
    for each in (real, model):
        wp.init.initialize(each, example=example, device="cpu")
    assert all(torch.equal(a, b) for a, b in zip(real.parameters(), model.parameters(), strict=True))
    assert not real.training or real.eval()
    logits = real.eval()(IDS).logits
    assert bool(torch.isfinite(logits).all())
    assert 0.2 < float(logits.detach().std()) < 5


def test_gpt2_by_its_own_scheme() -> None:
    make, example, _, _ = MODELS["gpt2"]
    plan = wp.plan_initialize(make(), "gpt2", example=example)
    assert plan["transformer.wte.weight"].std_wanted == 0.02
    assert plan["transformer.h.0.attn.c_proj.weight"].std_wanted == pytest.approx(0.02 / 4**0.5)
    assert plan["transformer.h.0.attn.c_attn.weight[q]"].fans == (32, 32)


def test_buffers_that_a_meta_model_never_computed_are_computed() -> None:
    make, example, _, _ = MODELS["llama"]
    real: Any = make()
    with torch.device("meta"):
        model: Any = make()
    plan = wp.init.initialize(model, example=example, device="cpu")
    assert plan.buffers == ()
    assert torch.equal(model.model.rotary_emb.inv_freq, real.model.rotary_emb.inv_freq)
    assert bool(torch.isfinite(model(IDS).logits).all())
