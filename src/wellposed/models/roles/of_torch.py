"""What the parameters of torch's own modules are for."""

import math

import torch
from torch import nn

from wellposed._torch import AnyBatchOrInstanceNorm
from wellposed.models.fans import Axes
from wellposed.models.roles.registry import Part, Parts, blocks, describe_of, role, role_pattern

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_BIAS = Part("bias")
_SCALE = Part("scale")


@role(nn.Linear)
def _linear(module: nn.Linear) -> Parts:
    return {"weight": Part("weight"), "bias": _BIAS}


@role(nn.Bilinear)
def _bilinear(module: nn.Bilinear) -> Parts:
    return {"weight": Part("weight", Axes(out=0, in_=(1, 2))), "bias": _BIAS}


@role(nn.Conv1d, nn.Conv2d, nn.Conv3d)
def _convolution(module: nn.Conv2d) -> Parts:
    return {"weight": Part("weight", Axes(groups=module.groups, out_stride=math.prod(module.stride))), "bias": _BIAS}


@role(nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
def _transposed_convolution(module: nn.ConvTranspose2d) -> Parts:
    axes = Axes(out=1, in_=0, groups=module.groups, grouped=0, in_stride=math.prod(module.stride))
    return {"weight": Part("weight", axes), "bias": _BIAS}


@role(nn.Embedding, nn.EmbeddingBag)
def _embedding(module: nn.Embedding) -> Parts:
    table = Part("embedding", Axes(out=1, in_=(), batch=0))
    if module.padding_idx is None:
        return {"weight": table}
    row = module.padding_idx % module.num_embeddings
    return {"weight": (table, Part("fixed", table.axes, "padding", (0, row, row + 1), start=0.0))}


@role(nn.MultiheadAttention)
def _attention(module: nn.MultiheadAttention) -> Parts:
    return {
        "in_proj_weight": blocks("qkv", module.embed_dim, alias="{}_proj_weight"),
        "q_proj_weight": Part("weight"),
        "k_proj_weight": Part("weight"),
        "v_proj_weight": Part("weight"),
        "in_proj_bias": _BIAS,
        "bias_k": Part("token", Axes(out=2, in_=(), batch=(0, 1))),
        "bias_v": Part("token", Axes(out=2, in_=(), batch=(0, 1))),
    }


_GATES = {"RNN": ("h",), "LSTM": ("i", "f", "g", "o"), "GRU": ("r", "z", "n")}


@role(nn.RNNBase, nn.RNNCellBase)
def _recurrent(module: nn.RNNBase) -> Parts:
    name = next(
        name for name in ("LSTM", "GRU", "RNN") if isinstance(module, (getattr(nn, name), getattr(nn, name + "Cell")))
    )
    gates, size = _GATES[name], module.hidden_size
    parts: dict[str, tuple[Part, ...]] = {}
    for parameter, _ in module.named_parameters(recurse=False):
        if parameter.startswith("weight_ih"):
            parts[parameter] = blocks(gates, size)
        elif parameter.startswith("weight_hh"):
            parts[parameter] = blocks(gates, size, "recurrent")
        elif parameter.startswith("weight_hr"):
            parts[parameter] = (Part("weight"),)
        elif parameter.startswith("bias_ih") and name == "LSTM":
            i, f, g, o = blocks(gates, size, "bias")
            parts[parameter] = (i, Part("forget", f.axes, f.block, f.where), g, o)
        else:
            parts[parameter] = (_BIAS,)
    return parts


@role(
    AnyBatchOrInstanceNorm,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.RMSNorm,
)
def _normalisation(module: nn.Module) -> Parts:
    return {"weight": _SCALE, "bias": _BIAS}


@role_pattern(r".*\.\w*(LayerNorm|RMSNorm|GroupNorm|BatchNorm|LayerNorm2d|BatchNormAct2d)\w*")
def _normalisation_by_name(module: nn.Module) -> Parts:
    flat = all(p.ndim == 1 for p in module.parameters(recurse=False))
    return {"weight": _SCALE, "bias": _BIAS} if flat else {}


@role(nn.PReLU)
def _prelu(module: nn.PReLU) -> Parts:
    return {"weight": Part("slope", start=float(getattr(module, "init", 0.25)))}


def is_normalisation(module: nn.Module) -> bool:
    """Whether the table takes a module for a normalisation layer: its parameters, if any, are a scale and a bias."""
    return describe_of(type(module)) in (_normalisation, _normalisation_by_name) or isinstance(
        module, nn.LocalResponseNorm | nn.CrossMapLRN2d
    )


def buffers_of(module: nn.Module) -> dict[str, torch.Tensor]:
    """The values with which a module's buffers start, for the modules where they are known: running statistics."""
    if isinstance(module, AnyBatchOrInstanceNorm):
        return {
            "running_mean": torch.tensor(0.0),
            "running_var": torch.tensor(1.0),
            "num_batches_tracked": torch.tensor(0),
        }
    return {}
