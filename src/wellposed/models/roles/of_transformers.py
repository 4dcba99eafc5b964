"""What the parameters of transformers' modules are for, by the modules' names: transformers is not imported."""

from typing import Any

from wellposed.models.fans import Axes
from wellposed.models.roles.registry import Part, Parts, blocks, role, role_pattern

_EXPERTS = Axes(out=1, in_=2, batch=0)
_TRANSPOSED = Axes(out=1, in_=0)


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
    return {"weight": Part("weight"), "bias": Part("bias"), "e_score_correction_bias": Part("fixed", start=0.0)}


@role("BertLMPredictionHead", "RobertaLMHead", "DistilBertForMaskedLM", "ElectraForMaskedLM")
def _prediction_bias(module: Any) -> Parts:
    return {"bias": Part("bias")}


@role("MambaMixer", "FalconMambaMixer", "JambaMambaMixer")
def _mamba(module: Any) -> Parts:
    return {
        "A_log": Part("decay"),
        "D": Part("fixed", start=1.0),
        "dt_proj.bias": Part("step", bounds=_bounds(module)),
    }


def _bounds(mixer: Any) -> tuple[float, float] | None:
    return (mixer.time_step_min, mixer.time_step_max) if hasattr(mixer, "time_step_min") else None


@role("Mamba2Mixer", "Zamba2MambaMixer", "BambaMixer")
def _mamba2(module: Any) -> Parts:
    return {
        "A_log": Part("decay"),
        "D": Part("fixed", start=1.0),
        "dt_bias": Part("step"),
    }


@role("ViTEmbeddings", "DeiTEmbeddings", "Dinov2Embeddings", "BeitEmbeddings", "CLIPVisionEmbeddings")
def _vision_embeddings(module: Any) -> Parts:
    names = ("cls_token", "mask_token", "distillation_token", "position_embeddings", "class_embedding")
    return dict.fromkeys(names, Part("token"))


@role_pattern(r"transformers\..*")
def _state_space(module: Any) -> Parts:
    """The constants of state space models, under the names that all of them use."""
    return {"A_log": Part("decay"), "dt_bias": Part("step")}
