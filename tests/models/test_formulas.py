"""Formulas: buffers and frozen tables from the meta device are those that a model built in memory has."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from peers import peer
from wellposed.models.formulas import formulas, without_values

timm, transformers = peer("timm"), peer("transformers")

pytestmark = pytest.mark.filterwarnings("ignore")
SIZES: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4}
LAYERS: dict[str, Any] = {
    f"{side}_{what}": value
    for side in ("encoder", "decoder")
    for what, value in {"layers": 1, "attention_heads": 4, "ffn_dim": 64}.items()
}
TOKENS: dict[str, Any] = {"vocab_size": 90, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


def language(name: str, **options: Any) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        config = getattr(transformers, f"{name}Config")(**TOKENS, **options)
        model: nn.Module = getattr(transformers, f"{name}Model")._from_config(config)
        return model

    return make


def picture(name: str, **options: Any) -> Callable[[], nn.Module]:
    return lambda: timm.create_model(name, **options)


MODELS: dict[str, Callable[[], nn.Module]] = {
    "pegasus": language("Pegasus", d_model=32, **LAYERS),
    "marian": language("Marian", d_model=32, decoder_start_token_id=0, **LAYERS),
    "whisper": language("Whisper", d_model=32, **LAYERS),
    "roformer": language("RoFormer", **SIZES),
    "m2m": language("M2M100", d_model=32, **LAYERS),
    "llama": language("Llama", **SIZES),
    "llama, scaled": language(
        "Llama", **SIZES, rope_parameters={"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}
    ),
    "bert": language("Bert", **SIZES),
    "gemma": language("Gemma", **SIZES, head_dim=8),
    "falcon_mamba": language("FalconMamba", hidden_size=32, num_hidden_layers=1, state_size=4),
    "falcon_h1": language(
        "FalconH1", **SIZES, mamba_d_ssm=32, mamba_n_heads=4, mamba_d_head=8, ssm_multipliers=[1.5, 0.5, 0.3, 2.0, 0.7]
    ),
    "gptj": language("GPTJ", n_embd=32, n_layer=1, n_head=4, rotary_dim=4),
    "swin": picture("swin_tiny_patch4_window7_224", depths=(1, 1, 1, 1)),
    "swinv2": picture("swinv2_cr_tiny_224", depths=(1, 1, 1, 1)),
    "relative positions": picture("test_vit_relpos"),
    "blurs": picture("resnetblur18"),
    "rotary pictures": picture("vit_small_patch16_dinov3", depth=1),
}


@pytest.mark.parametrize("name", MODELS)
def test_what_a_library_computes_is_computed(name: str) -> None:
    real = MODELS[name]()
    with torch.device("meta"):
        model = MODELS[name]()
    told = formulas(model)
    lacking = [f"{path}.{n}".lstrip(".") for path, module in model.named_modules() for n in without_values(module)]
    wanted = {**dict(real.named_buffers()), **dict(real.named_parameters())}
    assert lacking
    assert set(lacking) == set(told)
    assert all(torch.equal(value, wanted[path]) for path, value in told.items())
    assert all(parameter.is_meta for parameter in model.parameters())


class Kept(nn.Module):
    """Keeps under its arguments' names what they were, or what it made of them."""

    def __init__(self, size: int, scale: float = 2.0) -> None:
        super().__init__()
        self.size, self.scale = size, scale
        self.register_buffer("table", scale * torch.arange(size))


class Changed(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = 2 * size
        self.register_buffer("table", torch.arange(size) / self.size)


class Forgotten(nn.Module):
    def __init__(self, size: int, scale: float = 2.0) -> None:
        super().__init__()
        self.size = size
        self.register_buffer("table", scale * torch.arange(size))


class Random(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", torch.randn(3))


class Unwritten(nn.Module):
    def __init__(self, kind: torch.dtype) -> None:
        super().__init__()
        self.kind = kind
        self.register_buffer("table", torch.empty(3, dtype=kind))


class Counted(nn.Module):
    """One that can be built once a test alone."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", torch.arange(3))
        raise_if_again()


BUILT: list[int] = []


def raise_if_again() -> None:
    BUILT.append(1)
    if len(BUILT) > 1:
        raise OSError("once")


@pytest.mark.parametrize(
    "make",
    [
        lambda: Changed(3),
        lambda: Forgotten(3, 5.0),
        Random,
        lambda: Unwritten(torch.float32),
        lambda: Unwritten(torch.long),
        lambda: Unwritten(torch.bool),
        Counted,
        lambda: nn.Linear(3, 2).requires_grad_(False),
        lambda: nn.Embedding(3, 2).requires_grad_(False),
    ],
)
def test_what_cannot_be_told_is_not(make: Callable[[], nn.Module]) -> None:
    with torch.device("meta"):
        model = nn.ModuleList([make()])
    assert formulas(model) == {}


def test_arguments_are_read_back() -> None:
    with torch.device("meta"):
        model = nn.ModuleList([Kept(3, 5.0)])
    before = torch.get_rng_state()
    assert formulas(model)["0.table"].tolist() == [0, 5, 10]
    assert torch.equal(torch.get_rng_state(), before)
