"""A smaller model that does the same: channels, filters and heads that are zero are physically removed."""

import copy
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from wellposed.errors import WellposedError
from wellposed.penalties.attention import CompactAttention, without_idle_heads
from wellposed.penalties.chains import CONVOLUTIONS, NORMS, Chain, chains, pads
from wellposed.penalties.plan import columns


@dataclass(frozen=True)
class CompactRow:
    """What happens to one layer.

    Args:
        name: The layer.
        what: "channels" or "heads".
        before: How many it has.
        after: How many it keeps.
        left: How many are zero and have to stay.
        reason: Why they do.
    """

    name: str
    what: str
    before: int
    after: int
    left: int
    reason: str


@dataclass(frozen=True)
class CompactPlan:
    """What :func:`compact` removes, and what it leaves alone and why; prints as a table.

    Args:
        rows: A row for each dense, convolution and attention layer.
        parameters: How many parameters the model has, and how many the compact one.
    """

    rows: tuple[CompactRow, ...]
    parameters: tuple[int, int]

    def __iter__(self) -> Iterator[CompactRow]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __str__(self) -> str:
        head = ("layer", "what", "before", "after", "zero but kept", "why")
        body = [(r.name, r.what, str(r.before), str(r.after), str(r.left), r.reason) for r in self]
        return "\n".join([f"parameters: {self.parameters[0]} -> {self.parameters[1]}", *columns(head, *body)])


def compact(model: nn.Module, *, example: Tensor | tuple[Any, ...] | None = None) -> nn.Module:
    """A copy of a model without the output units, filters and attention heads that do nothing.

    A channel goes when the weights that make it are all zero, what is left of it being a constant that moves into the
    next layer's bias, or when the weights that use it are. In evaluation mode the outputs are the same up to rounding.
    Followed are dense and convolution layers through activations, dropout, batch norm, pooling and flattening, as
    modules or as functions. What cannot be followed (sums of branches, grouped convolutions, layer norm, a ``view`` to
    fixed sizes) is left as it is, with a warning that says why if it has zero channels.

    Args:
        model: The model; it is not changed.
        example: Inputs to compare the two models' outputs on.

    Returns:
        The smaller model, in the mode (training or evaluation) of the given one. Attention layers that lose heads
        become :class:`~wellposed.penalties.attention.CompactAttention`.

    Raises:
        WellposedError: If the outputs on ``example`` differ by more than rounding: then the model does something with
            its layers that its graph does not show.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU(), torch.nn.Linear(3, 2))
        >>> with torch.no_grad():
        ...     _ = model[0].weight[1].zero_()
        >>> compact(model)
        Sequential(
          (0): Linear(in_features=4, out_features=2, bias=True)
          (1): ReLU()
          (2): Linear(in_features=2, out_features=2, bias=True)
        )
    """
    small, plan = _compacted(model)
    for row in plan:
        if row.left:
            warnings.warn(f"{row.left} zero {row.what} of {row.name!r} stay: {row.reason}", UserWarning, stacklevel=2)
    if example is not None:
        _compare(model, small, example if isinstance(example, tuple) else (example,))
    return small


def plan_compact(model: nn.Module) -> CompactPlan:
    """What :func:`compact` would remove, and what it would leave alone and why.

    Args:
        model: The model; it is not changed.

    Returns:
        The plan; print it.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU(), torch.nn.Linear(3, 2))
        >>> [(row.name, row.before, row.after) for row in plan_compact(model)]
        [('0', 3, 3), ('2', 2, 2)]
    """
    return _compacted(model)[1]


@torch.no_grad()
def _compacted(model: nn.Module) -> tuple[nn.Module, CompactPlan]:
    small = copy.deepcopy(model)
    before: dict[str, int] = {}
    rows: dict[str, CompactRow] = {}
    removed = -1
    # Removing a channel can leave the layer before it with one that nobody uses, so it goes on until nothing changes.
    while removed:
        removed = 0
        for chain in chains(small):
            producer = _layer(small, chain.producer)
            width = producer.weight.shape[0]
            first = before.setdefault(chain.producer, width)
            left, reason = _remove(small, chain)
            removed += width - producer.weight.shape[0]
            rows[chain.producer] = CompactRow(
                chain.producer, "channels", first, producer.weight.shape[0], left, reason if left else ""
            )
    for name, module in list(small.named_modules()):
        if type(module) is nn.MultiheadAttention:
            fewer, row = without_idle_heads(module)
            rows[name] = CompactRow(name, "heads", module.num_heads, *row)
            if isinstance(fewer, CompactAttention):
                small.set_submodule(name, fewer)
    counts = tuple(sum(p.numel() for p in m.parameters()) for m in (model, small))
    return small, CompactPlan(tuple(rows.values()), (counts[0], counts[1]))


def _layer(model: nn.Module, name: str) -> nn.Linear:
    return cast(nn.Linear, model.get_submodule(name))


def _remove(model: nn.Module, chain: Chain) -> tuple[int, str]:
    """Remove what a chain allows; returns how many zero channels stay, and why."""
    producer = _layer(model, chain.producer)
    width = producer.weight.shape[0]
    transposed = getattr(producer, "transposed", False)
    dead = ((producer.weight.movedim(1, 0) if transposed else producer.weight).flatten(1) == 0).all(1)
    if chain.consumer is None:
        return int(dead.sum()), chain.reason
    consumer = _layer(model, chain.consumer)
    share, reason = _share(chain, producer, consumer)
    if not share:
        return int(dead.sum()), reason
    used = (consumer.weight.unflatten(1, (width, share)).movedim(1, 0).flatten(1) != 0).any(1)
    value, steady = _constants(model, chain, producer, consumer)
    gone = ~used | (dead & steady)
    if gone.all():
        gone[0] = False
    left = dead & ~gone
    if gone.any():
        _fold(consumer, value, gone & used, share)
        _slice(model, chain, ~gone, share)
    why = "a constant would not survive the padding on the way" if (left & ~steady).any() else "one channel has to stay"
    return int(left.sum()), why


def _share(chain: Chain, producer: nn.Linear, consumer: nn.Linear) -> tuple[int, str]:
    """How many of the consumer's inputs a channel has, or 0 and why it cannot be told."""
    flat = any(link.kind == "flatten" for link in chain.links)
    made, taken = producer.weight.shape[0], consumer.weight.shape[1]
    same_kind = isinstance(producer, nn.Linear) == isinstance(consumer, nn.Linear)
    if same_kind and made == taken and not (flat and isinstance(producer, CONVOLUTIONS)):
        return 1, ""
    if flat and isinstance(producer, CONVOLUTIONS) and isinstance(consumer, nn.Linear) and taken % made == 0:
        return taken // made, ""
    return 0, f"its {made} channels cannot be told apart in the {taken} inputs of {chain.consumer}"


def _constants(model: nn.Module, chain: Chain, producer: nn.Linear, consumer: nn.Module) -> tuple[Tensor, Tensor]:
    """What a channel whose weights are zero is worth to the consumer, and whether that is one number everywhere."""
    value = producer.weight.new_zeros(producer.weight.shape[0]) if producer.bias is None else producer.bias.clone()
    steady = torch.ones_like(value, dtype=torch.bool)
    for link in chain.links:
        if link.kind == "each":
            value = link.function(value)
        elif link.kind == "norm":
            norm = cast(nn.BatchNorm1d, model.get_submodule(link.name))
            assert norm.running_mean is not None
            assert norm.running_var is not None
            value = (value - norm.running_mean) / (norm.running_var + norm.eps).sqrt()
            value = value if norm.weight is None else value * norm.weight + norm.bias
        elif not link.steady:
            steady &= value == 0
    if pads(consumer):
        steady &= value == 0
    return value, steady


def _fold(consumer: nn.Linear, value: Tensor, gone: Tensor, share: int) -> None:
    """Add to the consumer's bias what the constants of the channels that go gave it."""
    weight = consumer.weight.unflatten(1, (len(value), share)).flatten(2).sum(2)
    given = weight[:, gone] @ value[gone]
    if not given.any():
        return
    if consumer.bias is None:
        consumer.bias = nn.Parameter(given, requires_grad=consumer.weight.requires_grad)
    else:
        consumer.bias.add_(given)


def _slice(model: nn.Module, chain: Chain, kept: Tensor, share: int) -> None:
    producer, consumer = _layer(model, chain.producer), _layer(model, str(chain.consumer))
    for name in ("weight", "bias"):
        _keep(producer, name, kept)
    for link in chain.links:
        norm = model.get_submodule(link.name) if link.kind == "norm" else None
        if isinstance(norm, NORMS):
            for name in ("weight", "bias", "running_mean", "running_var"):
                _keep(norm, name, kept)
            norm.num_features = int(kept.sum())
    columns_kept = kept.repeat_interleave(share)
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


@torch.no_grad()
def _compare(model: nn.Module, small: nn.Module, inputs: tuple[Any, ...]) -> None:
    modes = {module: module.training for m in (model, small) for module in m.modules()}
    try:
        wanted, found = (_first(m.eval()(*inputs)) for m in (model, small))
    finally:
        for module, training in modes.items():
            module.training = training
    tolerance = 1e4 * torch.finfo(wanted.dtype).eps * float(1 + wanted.abs().max())
    if wanted.shape != found.shape or not float((wanted - found).abs().max()) <= tolerance:
        raise WellposedError(
            "the compact model gives other outputs on the example: the model uses its layers in ways that its graph "
            "does not show, so it cannot be made smaller automatically"
        )


def _first(output: Any) -> Tensor:
    return output if isinstance(output, Tensor) else _first(next(iter(output)))
