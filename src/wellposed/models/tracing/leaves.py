"""Leaf modules of tracing: those that are followed as one operation, whatever they do inside."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from wellposed.models.roles import CONVOLUTIONS, is_normalisation
from wellposed.models.tracing.flow import Flow
from wellposed.models.tracing.signals import End, Signal

_LAYERS = (
    nn.Linear,
    nn.Bilinear,
    *CONVOLUTIONS,
    nn.Embedding,
    nn.EmbeddingBag,
)
_COMPOSED = (nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)
_OPAQUE = (nn.MultiheadAttention, nn.RNNBase, nn.RNNCellBase)
_DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)
_STILL = (*_DROPOUTS, nn.Identity, nn.Flatten, nn.Unflatten)


def is_leaf(module: nn.Module) -> bool:
    """Whether a module is a leaf of tracing: followed as one operation."""
    if isinstance(module, (*_LAYERS, *_OPAQUE, *_COMPOSED)):
        return True
    if next(module.children(), None) is not None:
        return False
    return not has_parameters(module) or is_normalisation(module) or isinstance(module, nn.PReLU)


def is_composed(module: nn.Module) -> bool:
    """Whether a leaf module is a transformer layer of torch's, made of others in a known way."""
    return isinstance(module, _COMPOSED)


def has_parameters(module: nn.Module) -> bool:
    """Whether a module, or any inside it, has a parameter."""
    return next(module.parameters(), None) is not None


def follow(flow: Flow, module: nn.Module, path: str, given: Sequence[Any]) -> Any:
    """Follow a signal through a leaf module.

    Args:
        flow: What is being found out.
        module: The module.
        path: Its path in the model.
        given: Its arguments, with a ``Signal`` for each tensor that is followed.

    Returns:
        The ``Signal`` that it gives, or ``None``.
    """
    signals = [leaf for leaf in given if isinstance(leaf, Signal)]
    dot = f"{path}." if path else ""
    if isinstance(module, _LAYERS):
        return flow.product(signals, [f"{dot}weight"])
    if isinstance(module, _OPAQUE):
        end: End = "attention" if isinstance(module, nn.MultiheadAttention) else "gates"
        flow.inside((dot + name for name, p in module.named_parameters(recurse=False) if p.ndim > 1), end)
    if isinstance(module, nn.MultiheadAttention):
        return flow.product(signals, [f"{dot}out_proj.weight"])
    if not signals:
        return None
    if isinstance(module, _COMPOSED):
        return follow_composed(flow, module, dot, signals)
    if isinstance(module, _OPAQUE):
        return flow.opaque(signals)
    if is_normalisation(module):
        return flow.norm(signals[0], [f"{dot}weight"])
    if isinstance(module, nn.PReLU):
        slope = getattr(module, "init", 0.25)
        return flow.apply(signals[0], lambda z: nn.functional.leaky_relu(z, slope), "PReLU")
    name = type(module).__name__
    if isinstance(module, _STILL) or "Drop" in name:
        return flow.step("dropout", module, signals[:1], {})
    if "Pool" in name or "Pad" in name or "Upsample" in name or "Pixel" in name or name == "Unfold":
        return flow.step("view", module, signals[:1], {})
    if isinstance(module, nn.Softmax | nn.LogSoftmax | nn.Softmax2d | nn.Softmin):
        return flow.step("softmax", module, signals, {})
    if len(given) == 1 == len(signals):
        return flow.apply(signals[0], module, name)
    return flow.opaque(signals)


def follow_composed(flow: Flow, module: nn.Module, dot: str, signals: Sequence[Signal]) -> Signal:
    """Follow a transformer layer of torch's, which symbolic tracing cannot enter, by what it is known to do."""
    value = signals[0]
    attentions = ["self_attn"] + (["multihead_attn"] if isinstance(module, nn.TransformerDecoderLayer) else [])
    for name in attentions:
        attention = module.get_submodule(name)
        flow.inside((f"{dot}{name}.{n}" for n, p in attention.named_parameters(recurse=False)), "attention")
        value = flow.sum([value, flow.product([value], [f"{dot}{name}.out_proj.weight"])])
    inner = flow.apply(flow.product([value], [f"{dot}linear1.weight"]), _activation(module), _label(module.activation))
    return flow.sum([value, flow.product([inner], [f"{dot}linear2.weight"])])


def _activation(module: nn.Module) -> Callable[[Tensor], Tensor]:
    fn: Callable[[Tensor], Tensor] = module.activation  # type: ignore[assignment]
    return fn


def _label(fn: Any) -> str:
    return getattr(fn, "__name__", type(fn).__name__)
