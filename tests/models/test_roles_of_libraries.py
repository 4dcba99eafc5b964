"""Models of timm and transformers, chosen to have parameters of every kind: each starts, runs and has a sane output."""

import math
from typing import Any

import pytest
import torch
from torch.nn import functional as F  # noqa: N812

import wellposed as wp
from peers import peer

timm, transformers = peer("timm"), peer("transformers")
quiet: Any = transformers.logging.set_verbosity_error
quiet()

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

# a model of timm -> what some of its parameters are for
PICTURES: dict[str, dict[str, str]] = {
    "vit_tiny_patch16_224": {"cls_token": "token", "pos_embed": "token"},
    "cait_xxs24_224": {"blocks.0.gamma_1": "gate"},
    "xcit_nano_12_p16_224": {"blocks.0.gamma1": "scale", "blocks.0.attn.temperature": "scale"},
    "beit_base_patch16_224": {"blocks.0.gamma_1": "gate", "blocks.0.attn.relative_position_bias_table": "token"},
    "levit_128s": {"stages.0.blocks.0.attn.attention_biases": "token"},
    "volo_d1_224": {"pos_embed": "token", "cls_token": "token"},
    "swinv2_cr_tiny_ns_224": {"stages.0.blocks.0.attn.logit_scale": "constant"},
    "coat_tiny": {"cls_token1": "token"},
    "nfnet_f0": {"stages.0.0.conv1.gain": "scale"},
    "poolformer_s12": {"stages.0.blocks.0.layer_scale1.scale": "gate"},
    "mobilevitv2_050": {},
    "efficientvim_m1": {"stages.0.blocks.0.mixer.D": "scale"},
}


@pytest.mark.parametrize("name", PICTURES)
def test_of_timm(name: str) -> None:
    model = timm.create_model(name, num_classes=10)
    plan = wp.init.initialize(model)
    assert {label: plan[label].role for label in PICTURES[name]} == PICTURES[name]
    x = torch.randn(4, *model.default_cfg["input_size"], generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        output = model.train()(x)
    assert bool(output.isfinite().all())
    assert 0 < float(output.std()) < 30


SIZES: dict[str, Any] = {
    "vocab_size": 1000,
    "hidden_size": 512,
    "intermediate_size": 1024,
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "tie_word_embeddings": True,
}
TWO: dict[str, Any] = {
    "vocab_size": 1000,
    "d_model": 512,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 8,
    "decoder_attention_heads": 8,
    "encoder_ffn_dim": 1024,
    "decoder_ffn_dim": 1024,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
# a language model of transformers whose head is its embedding -> its configuration, and what its norms start as
LANGUAGE: dict[str, tuple[str, dict[str, Any], dict[str, float]]] = {
    "Gemma": ("CausalLM", SIZES, {"model.norm.weight": 0.0}),
    "Gemma2": ("CausalLM", SIZES, {"model.norm.weight": 0.0}),
    "VaultGemma": ("CausalLM", SIZES, {"model.norm.weight": 0.0}),
    "Qwen3": ("CausalLM", SIZES, {"model.norm.weight": 1.0}),
    "Bloom": ("CausalLM", {**SIZES, "n_layer": 2, "n_head": 8}, {"transformer.ln_f.weight": 1.0}),
    "GPT2": ("CausalLM", {"vocab_size": 1000, "n_embd": 512, "n_layer": 2, "n_head": 8}, {}),
    "OpenAIGPT": ("CausalLM", {"vocab_size": 1000, "n_embd": 512, "n_layer": 2, "n_head": 8}, {}),
    "Mamba": ("CausalLM", {"vocab_size": 1000, "hidden_size": 512, "num_hidden_layers": 2}, {}),
    "GptOss": ("CausalLM", {**SIZES, "num_local_experts": 4}, {"model.norm.weight": 1.0}),
    "Bert": ("MaskedLM", SIZES, {}),
    "Bart": ("Seq2SeqLM", TWO, {}),
    "MBart": ("Seq2SeqLM", TWO, {}),
    "M2M100": ("Seq2SeqLM", TWO, {}),
}


@pytest.mark.parametrize("name", LANGUAGE)
def test_of_transformers(name: str) -> None:
    head, options, norms = LANGUAGE[name]
    config = getattr(transformers, f"{name}Config")(**options)
    model = getattr(transformers, f"AutoModelFor{head}").from_config(config)
    plan = wp.init.initialize(model)
    parameters = dict(model.named_parameters())
    for label, value in norms.items():
        assert bool((parameters[label] == value).all())
    numbers = torch.Generator().manual_seed(0)
    ids, targets = torch.randint(3, 1000, (2, 2, 32), generator=numbers)
    given = {"input_ids": ids} | ({"decoder_input_ids": ids.flip(0)} if config.is_encoder_decoder else {})
    logits = model.eval()(**given).logits
    loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten())
    assert 0.98 <= float(loss) / math.log(1000) <= 1.3
    loss.backward()
    dead = [n for n, p in parameters.items() if p.ndim > 1 and (p.grad is None or not p.grad.any())]
    assert [n for n in dead if "pos" not in n and "experts" not in n and "pooler" not in n] == []
    assert any("shared with a linear layer" in row.note for row in plan)


# another model of transformers -> its configuration, and what some of its parameters are for
OTHERS: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "CLIP": ({}, {"logit_scale": "constant"}),
    "ViTMAE": ({}, {"embeddings.cls_token": "token"}),
    "Dinov2": ({"num_hidden_layers": 2}, {"encoder.layer.0.layer_scale1.lambda1": "scale"}),
    "Beit": ({"num_hidden_layers": 2}, {"embeddings.cls_token": "token"}),
    "Wav2Vec2": ({"num_hidden_layers": 2}, {"masked_spec_embed": "token"}),
    "TimesFm": ({"num_hidden_layers": 2}, {}),
    "MiniMax": ({"num_hidden_layers": 2, "num_local_experts": 2}, {"norm.weight": "scale"}),
    "DFine": ({}, {"decoder.up": "computed"}),
}


@pytest.mark.parametrize("name", OTHERS)
def test_of_transformers_without_memory(name: str) -> None:
    options, wanted = OTHERS[name]
    with torch.device("meta"):
        model = transformers.AutoModel.from_config(getattr(transformers, f"{name}Config")(**options))
    plan = wp.plan_initialize(model)
    assert {label: plan[label].role for label in wanted} == wanted


def test_a_constant_that_is_drawn_stays_as_it_is() -> None:
    config = transformers.RecurrentGemmaConfig(
        hidden_size=64, num_hidden_layers=3, num_attention_heads=4, lru_width=64, vocab_size=90
    )
    model = transformers.AutoModel.from_config(config)
    before = model.layers[0].temporal_block.rg_lru.recurrent_param.detach().clone()
    plan = wp.init.initialize(model)
    assert plan["layers.0.temporal_block.rg_lru.recurrent_param"].note.startswith("a constant of its layer, left")
    assert torch.equal(model.layers[0].temporal_block.rg_lru.recurrent_param, before)
    assert not model.layers[0].temporal_pre_norm.weight.any()  # it multiplies by 1 + weight
