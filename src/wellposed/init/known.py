"""Roles of parameters in other people's modules, by the modules' names: nothing here imports them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from wellposed import random
from wellposed.init.base import Entrywise
from wellposed.init.entrywise import Constant, Normal, Ones, Zeros
from wellposed.init.fans import LINEAR, Axes
from wellposed.init.orthogonal import Whole
from wellposed.init.roles import Part, Parts, blocks, role, role_pattern
from wellposed.random.box import Box
from wellposed.random.key import Key


@dataclass(frozen=True)
class DecayRates(Whole):
    """log(1), log(2), ... along the last dimension: the rates at which a state space model's states decay.

    Source: Gu et al. (2022), the real diagonal start S4D-Real; Gu & Dao (2023).
    """

    keyed: ClassVar[bool] = False

    def _whole(self, shape: tuple[int, ...], axes: Axes, key: Key, like: Tensor) -> Tensor:
        return self._rates(shape[-1]).to(like.device).expand(shape)

    def _check(self, shape: tuple[int, ...], axes: Axes) -> None:
        return

    def _rates(self, size: int) -> Tensor:
        return torch.arange(1, size + 1, dtype=torch.float64, device="cpu").log()

    def std_for(self, shape: Sequence[int], axes: Axes = LINEAR) -> float:
        """The standard deviation of the rates."""
        return float(self._rates(shape[-1]).std(correction=0)) if shape[-1] else 0.0


@dataclass(frozen=True)
class StepSizes(Entrywise):
    """What softplus turns into step sizes that are log-uniform between two bounds.

    Source: Gu & Dao (2023), section 3.6.
    """

    low: float = 1e-3
    high: float = 0.1

    def _fill_(self, tensor: Tensor, key: Key, box: Box | None) -> Tensor:
        random.uniform_(tensor, key, math.log(self.low), math.log(self.high), box=box)
        return tensor.copy_(self._inverse(tensor.double()))

    def _inverse(self, log_step: Tensor) -> Tensor:
        step = log_step.exp()
        return step + (-(-step).expm1()).log()

    def _std(self) -> float:
        grid = torch.linspace(math.log(self.low), math.log(self.high), 20_001, dtype=torch.float64, device="cpu")
        return float(self._inverse((grid[1:] + grid[:-1]) / 2).std(correction=0))


_EXPERTS = Axes(out=1, in_=2, batch=0)
_TRANSPOSED = Axes(out=1, in_=0)
_TOKEN = Part("token")


@role("transformers.pytorch_utils.Conv1D")
def _transposed(module: Any) -> Parts:
    return {"weight": Part("weight", _TRANSPOSED), "bias": Part("bias")}


@role(
    "transformers.models.gpt2.modeling_gpt2.GPT2Attention",
    "transformers.models.decision_transformer.modeling_decision_transformer.DecisionTransformerGPT2Attention",
)
def _gpt2_attention(module: Any) -> Parts:
    if module.is_cross_attention:
        return {"c_attn.weight": blocks("kv", module.split_size, axes=_TRANSPOSED, dim=1)}
    return {"c_attn.weight": blocks("qkv", module.split_size, axes=_TRANSPOSED, dim=1)}


@role_pattern(r"transformers\..*\.\w*Experts")
def _experts(module: Any) -> Parts:
    """Stacked weights of the form (experts, out, in), gate and up projection side by side."""
    transposed = getattr(module, "is_transposed", False)
    axes = Axes(out=2, in_=1, batch=0) if transposed else _EXPERTS
    parts: dict[str, Any] = {"down_proj": Part("weight", axes), "up_proj": Part("weight", axes)}
    parts |= {"gate_up_proj_bias": Part("bias"), "down_proj_bias": Part("bias"), "up_proj_bias": Part("bias")}
    packed = getattr(module, "gate_up_proj", None)
    if packed is not None and packed.ndim == 3:
        dim = 2 if transposed else 1
        parts["gate_up_proj"] = blocks(("gate", "up"), packed.shape[dim] // 2, axes=axes, dim=dim)
    return parts


@role_pattern(r"transformers\..*\.\w*(TopKRouter|MoeRouter|MoERouter)")
def _router(module: Any) -> Parts:
    return {"weight": Part("weight"), "bias": Part("bias"), "e_score_correction_bias": Part("fixed", start=Zeros())}


@role("GemmaRMSNorm", "Gemma2RMSNorm", "Gemma3RMSNorm", "Gemma3nRMSNorm", "Qwen3NextRMSNorm")
def _one_more(module: Any) -> Parts:
    """These multiply by one more than the weight."""
    return {"weight": Part("scale", start=Zeros())}


@role("BertLMPredictionHead", "RobertaLMHead", "DistilBertForMaskedLM", "ElectraForMaskedLM")
def _prediction_bias(module: Any) -> Parts:
    return {"bias": Part("bias")}


@role("MambaMixer", "FalconMambaMixer", "JambaMambaMixer")
def _mamba(module: Any) -> Parts:
    return {
        "A_log": Part("fixed", start=DecayRates()),
        "D": Part("fixed", start=Ones()),
        "dt_proj.bias": Part("fixed", start=StepSizes(module.time_step_min, module.time_step_max))
        if hasattr(module, "time_step_min")
        else Part("fixed", start=StepSizes()),
    }


@role("Mamba2Mixer", "Zamba2MambaMixer", "BambaMixer")
def _mamba2(module: Any) -> Parts:
    return {
        "A_log": Part("fixed", start=DecayRates()),
        "D": Part("fixed", start=Ones()),
        "dt_bias": Part("fixed", start=StepSizes()),
    }


@role(
    "timm.models.vision_transformer.VisionTransformer",
    "timm.models.deit.VisionTransformerDistilled",
    "timm.models.eva.Eva",
    "timm.models.cait.Cait",
)
def _vision_transformer(module: Any) -> Parts:
    return dict.fromkeys(("cls_token", "reg_token", "dist_token", "pos_embed"), _TOKEN)


@role("timm.layers.attention.Attention", "timm.models.vision_transformer.Attention", "timm.models.beit.Attention")
def _packed_attention(module: Any) -> Parts:
    qkv = getattr(module, "qkv", None)
    parts: dict[str, Any] = {"q_bias": Part("bias"), "v_bias": Part("bias")}
    parts["relative_position_bias_table"] = _TOKEN
    if qkv is not None and qkv.weight.shape[0] % 3 == 0:
        parts["qkv.weight"] = blocks("qkv", qkv.weight.shape[0] // 3)
    return parts


@role("timm.models.swin_transformer.WindowAttention", "timm.models.swin_transformer_v2.WindowAttention")
def _window_attention(module: Any) -> Parts:
    parts = dict(_packed_attention(module))
    parts["logit_scale"] = Part("fixed", start=Constant(math.log(10.0)))
    return parts


@role("timm.layers.layer_scale.LayerScale", "timm.layers.layer_scale.LayerScale2d", "LayerScale", "LayerScale2d")
def _layer_scale(module: Any) -> Parts:
    return {"gamma": Part("gate", start=Constant(float(getattr(module, "init_values", 1e-5))))}


@role("timm.models.convnext.ConvNeXtBlock")
def _convnext_block(module: Any) -> Parts:
    return {"gamma": Part("gate", start=Constant(1e-6))}


@role("ViTEmbeddings", "DeiTEmbeddings", "Dinov2Embeddings", "BeitEmbeddings", "CLIPVisionEmbeddings")
def _vision_embeddings(module: Any) -> Parts:
    names = ("cls_token", "mask_token", "distillation_token", "position_embeddings", "class_embedding")
    return dict.fromkeys(names, Part("token", start=Normal(0.0, 0.02)))
