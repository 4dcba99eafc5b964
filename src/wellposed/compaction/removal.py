"""Removing channels that do nothing, and folding the constants that they gave into the next layer's bias."""

import math
from typing import Any, cast

import torch
from torch import Tensor, nn

from wellposed.compaction.channels import Chain
from wellposed.compaction.links import CONVOLUTIONS, Link, pads


def width_of(model: nn.Module, name: str) -> int:
    """How many channels a layer makes."""
    layer = _layer(model, name)
    return int(getattr(layer, "out_channels", None) or layer.out_features)


def _layer(model: nn.Module, name: str) -> nn.Linear:
    return cast(nn.Linear, model.get_submodule(name))


def remove_(model: nn.Module, chain: Chain) -> tuple[int, str]:
    """Remove the channels of a chain that do nothing, in place, and fold what they gave into the consumer's bias.

    A channel does nothing if the consumer's weights for it are zero, or if it is a constant: its own weights are zero,
    or the scale of a normalisation on the way is.

    Args:
        model: The model, which is changed.
        chain: The way from the layer that makes the channels to the one that uses them.

    Returns:
        How many channels of zero weights or scales stay, and why.
    """
    producer = _layer(model, chain.producer)
    width = producer.weight.shape[0]
    transposed = getattr(producer, "transposed", False)
    dead = ((producer.weight.movedim(1, 0) if transposed else producer.weight).flatten(1) == 0).all(1)
    for link in chain.links if chain.consumer is None else ():
        if link.kind in ("norm", "group norm"):
            dead = dead | _switched_off(model, link, len(dead))
    if chain.consumer is None:
        return int(dead.sum()), chain.reason
    consumer = _layer(model, chain.consumer)
    per_channel, reason = _inputs_per_channel(model, chain, producer, consumer)
    if not per_channel:
        return int(dead.sum()), reason
    used = (consumer.weight.unflatten(1, (width, per_channel)).movedim(1, 0).flatten(1) != 0).any(1)
    value, constant, steady = _constants(model, chain, per_channel, dead)
    dead = dead | constant
    unit = _unit(model, chain)
    gone = (~used | (constant & steady)).view(-1, unit).all(1).repeat_interleave(unit)
    if gone.all():
        gone[:unit] = False
    left = dead & ~gone
    if gone.any():
        _fold(consumer, value, (gone & used).repeat_interleave(per_channel))
        _slice(model, chain, ~gone, per_channel)
    if (left & constant & ~steady).any():
        return int(left.sum()), "a constant would not survive the padding on the way"
    why = "one channel has to stay" if unit == 1 else "channels that are normalized together go together or not at all"
    return int(left.sum()), why


def _unit(model: nn.Module, chain: Chain) -> int:
    """How many channels, side by side, can only go together: those that share statistics of the input."""
    norms = [model.get_submodule(link.what) for link in chain.links if link.kind == "group norm"]
    return math.lcm(*(n.num_channels // n.num_groups for n in norms if isinstance(n, nn.GroupNorm)))


def _switched_off(model: nn.Module, link: Link, width: int) -> Tensor:
    """Which channels a normalisation multiplies by exactly zero, in all that they extend over."""
    scale = model.get_submodule(link.what).weight
    if not isinstance(scale, Tensor) or scale.numel() % width:
        return torch.zeros(width, dtype=torch.bool, device=scale.device if isinstance(scale, Tensor) else None)
    return (scale == 0).view(width, -1).all(1)


def _inputs_per_channel(model: nn.Module, chain: Chain, producer: nn.Linear, consumer: nn.Linear) -> tuple[int, str]:
    """How many of the consumer's inputs a channel has, or 0 and why it cannot be told."""
    made, taken = producer.weight.shape[0], consumer.weight.shape[1]
    apart = made
    flat = False
    for link in chain.links:
        if link.kind == "flatten":
            flat, apart = True, taken
        elif link.kind in ("norm", "group norm"):
            norm = model.get_submodule(link.what)
            normalized = norm.num_channels if isinstance(norm, nn.GroupNorm) else norm.num_features
            if normalized != apart or (flat and link.kind == "group norm"):
                return 0, f"{link.what} does not normalize its {made} channels"
    same_kind = isinstance(producer, nn.Linear) == isinstance(consumer, nn.Linear)
    if same_kind and made == taken and not (flat and isinstance(producer, CONVOLUTIONS)):
        return 1, ""
    if flat and isinstance(producer, CONVOLUTIONS) and isinstance(consumer, nn.Linear) and taken % made == 0:
        return taken // made, ""
    return 0, f"its {made} channels cannot be told apart in the {taken} inputs of {chain.consumer}"


def _constants(model: nn.Module, chain: Chain, per_channel: int, dead: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What constant channels are worth to each of the consumer's inputs, which these are, and which are one number.

    Constant is what has no weights (``dead``), until the input's statistics come in, and what was multiplied by zero.
    """
    producer = _layer(model, chain.producer)
    width = producer.weight.shape[0]
    value = _float64(producer.weight.new_zeros(width) if producer.bias is None else producer.bias.clone())
    constant, steady = dead, torch.ones_like(dead)
    for link in chain.links:
        if link.kind == "each":
            value = link.function(value)
        elif link.kind == "norm":
            norm = cast(nn.BatchNorm1d, model.get_submodule(link.what))
            assert norm.running_mean is not None
            assert norm.running_var is not None
            value = (value - norm.running_mean) / (_float64(norm.running_var) + norm.eps).sqrt()
            value = value if norm.weight is None else value * norm.weight
            value = value if norm.bias is None else value + norm.bias
            off = _switched_off(model, link, width)
            constant, steady = constant | off, steady | off
        elif link.kind == "group norm":
            shift, off = model.get_submodule(link.what).bias, _switched_off(model, link, width)
            value = _float64(shift.clone()) if isinstance(shift, Tensor) else torch.zeros_like(value)
            constant, steady = off, off
        elif link.kind == "flatten" and len(value) == width:
            value = value.repeat_interleave(per_channel)
        elif not link.steady:
            steady = steady & (value == 0)
    if pads(model.get_submodule(str(chain.consumer))):
        steady = steady & (value == 0)
    return value, constant, steady


def _float64(tensor: Tensor) -> Tensor:
    """In float64 where the device has it, so that sums are rounded once."""
    return tensor if tensor.device.type == "mps" else tensor.to(torch.promote_types(tensor.dtype, torch.float64))


def _fold(consumer: nn.Linear, value: Tensor, gone: Tensor) -> None:
    """Add to the consumer's bias what the constants of the channels that go gave it."""
    weight = consumer.weight.flatten(2).sum(2) if consumer.weight.ndim > 2 else consumer.weight
    given = _float64(weight)[:, gone] @ value[gone]
    if not given.any():
        return
    if consumer.bias is None:
        consumer.bias = nn.Parameter(given.to(consumer.weight.dtype), requires_grad=consumer.weight.requires_grad)
    else:
        consumer.bias.copy_(consumer.bias + given)


def _slice(model: nn.Module, chain: Chain, kept: Tensor, per_channel: int) -> None:
    producer, consumer = _layer(model, chain.producer), _layer(model, str(chain.consumer))
    for name in ("weight", "bias"):
        _keep(producer, name, kept)
    for link in chain.links:
        if link.kind not in ("norm", "group norm"):
            continue
        norm: Any = model.get_submodule(link.what)
        groups = isinstance(norm, nn.GroupNorm)
        before = norm.num_channels if groups else norm.num_features
        features = kept.repeat_interleave(before // len(kept))
        for name in ("weight", "bias", "running_mean", "running_var"):
            _keep(norm, name, features)
        after = int(features.sum())
        if groups:
            norm.num_groups, norm.num_channels = norm.num_groups * after // before, after
        else:
            norm.num_features = after
    columns_kept = kept.repeat_interleave(per_channel)
    consumer.weight = nn.Parameter(consumer.weight[:, columns_kept].clone(), consumer.weight.requires_grad)
    for layer in (producer, consumer):
        out, in_ = layer.weight.shape[:2]
        if isinstance(layer, nn.Linear):
            layer.out_features, layer.in_features = out, in_
        else:
            layer.out_channels, layer.in_channels = out, in_


def _keep(module: nn.Module, name: str, kept: Tensor) -> None:
    tensor = getattr(module, name, None)
    if tensor is None:
        return
    part = tensor[kept].clone()
    setattr(module, name, nn.Parameter(part, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else part)
