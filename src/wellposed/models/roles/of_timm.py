"""What the parameters of timm's modules are for, by the modules' names: timm is not imported."""

import math
from typing import Any

from wellposed.models.roles.registry import Part, Parts, blocks, role

_TOKEN = Part("token")


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
    parts["logit_scale"] = Part("fixed", start=math.log(10.0))
    return parts


@role("timm.layers.layer_scale.LayerScale", "timm.layers.layer_scale.LayerScale2d", "LayerScale", "LayerScale2d")
def _layer_scale(module: Any) -> Parts:
    return {"gamma": Part("gate", start=float(getattr(module, "init_values", 1e-5)))}


@role("timm.models.convnext.ConvNeXtBlock")
def _convnext_block(module: Any) -> Parts:
    return {"gamma": Part("gate", start=1e-6)}
