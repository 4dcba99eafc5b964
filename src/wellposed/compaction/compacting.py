"""A smaller model that does the same: channels, filters and heads that are zero are physically removed."""

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from wellposed.compaction.channels import CONVOLUTIONS, NORMS, Chain, chains, known, pads
from wellposed.compaction.heads import CompactAttention, objection_to_fewer_heads, without_idle_heads
from wellposed.errors import WellposedError
from wellposed.models.copying import copied
from wellposed.models.example import Arguments, arguments, tensors_in, with_tensors
from wellposed.models.tracing.branching import traced
from wellposed.penalties.optim.selection import columns


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


def compact(model: nn.Module, *, example: Any = None) -> nn.Module:
    """A copy of a model without the output units, filters and attention heads that do nothing.

    A channel goes when the weights that make it are all zero, what is left of it being a constant that moves into the
    next layer's bias, or when the weights that use it are. In evaluation mode the outputs are the same up to rounding.
    Followed are dense and convolution layers through activations, dropout, batch norm, pooling and flattening, as
    modules or as functions, on every way that the forward pass can take. What cannot be followed (sums of branches,
    grouped convolutions, layer norm, a ``view`` to fixed sizes, hooks, weights that the forward pass reads itself) is
    left as it is, with a warning that says why if it has zero channels.

    Without an example, inputs are taken to come in batches, and those of a dense layer before batch norm as rows
    ``(N, features)``. A ``torch.nn.TransformerEncoder`` that loses heads no longer packs its inputs: its outputs at
    padded positions, which mean nothing, are not the zeros that torch may put there.

    Args:
        model: The model; it is not changed.
        example: An input: a tensor, a tuple of arguments or a mapping of keyword arguments. The layers' dimensions are
            learnt from it, and the two models' outputs on it compared in double precision. Parts of a model that as a
            whole cannot be followed are tried only with one.

    Returns:
        The smaller model, in the mode (training or evaluation) of the given one. Attention layers that lose heads
        become :class:`~wellposed.compaction.heads.CompactAttention`.

    Raises:
        WellposedError: If the outputs on ``example`` differ by more than 1e-6 of their scale: then the model does
            something with its layers that its graph does not show. Also if the model cannot be copied, has no values
            yet, or does not take the example.

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
    small, plan = _made(model, example)
    for row in plan:
        if row.left:
            warnings.warn(f"{row.left} zero {row.what} of {row.name!r} stay: {row.reason}", UserWarning, stacklevel=2)
    return small


def plan_compact(model: nn.Module, *, example: Any = None) -> CompactPlan:
    """What :func:`compact` would remove, and what it would leave alone and why.

    Args:
        model: The model; it is not changed.
        example: As for :func:`compact`.

    Returns:
        The plan; print it.

    Raises:
        WellposedError: Where :func:`compact` would.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU(), torch.nn.Linear(3, 2))
        >>> [(row.name, row.before, row.after) for row in plan_compact(model)]
        [('0', 3, 3), ('2', 2, 2)]
    """
    return _made(model, example)[1]


def _made(model: nn.Module, example: Any) -> tuple[nn.Module, CompactPlan]:
    if not isinstance(model, nn.Module):
        raise WellposedError(f"compact was given {model!r}; expected a torch.nn.Module")
    for name, parameter in model.named_parameters():
        if is_lazy(parameter) or parameter.is_meta:
            raise WellposedError(f"{name} has no values yet: give the model its weights before making it smaller")
    if example is None:
        return _compacted(model, {}, inside=False)
    comparison = _Comparison(model, arguments(example))
    for inside in (True, False):
        small, plan = _compacted(model, comparison.ranks, inside)
        difference = comparison.difference(small)
        if not difference:
            return small, plan
    raise WellposedError(
        f"the compact model {difference} on the example: the model uses its layers in ways that its graph does not "
        "show, so it cannot be made smaller automatically"
    )


@torch.no_grad()
def _compacted(model: nn.Module, ranks: Mapping[str, int], inside: bool) -> tuple[nn.Module, CompactPlan]:
    small = copied(model)
    facts = known(small, traced(model, inside), ranks)
    before: dict[str, int] = {}
    rows: dict[str, CompactRow] = {}
    ways = tuple(chains(facts))
    removed = -1
    # Removing a channel can leave the layer before it with one that nobody uses, so it goes on until nothing changes.
    while removed:
        removed = 0
        for chain in ways:
            width = _width(small, chain.producer)
            first = before.setdefault(chain.producer, width)
            left, reason = _remove(small, chain)
            after = _width(small, chain.producer)
            removed += width - after
            rows[chain.producer] = CompactRow(chain.producer, "channels", first, after, left, reason if left else "")
    for name, module in list(small.named_modules()):
        if type(module) is nn.MultiheadAttention:
            fewer, row = without_idle_heads(module, objection_to_fewer_heads(facts, name))
            rows[name] = CompactRow(name, "heads", module.num_heads, *row)
            if isinstance(fewer, CompactAttention):
                small.set_submodule(name, fewer)
    for module in small.modules():
        if isinstance(module, nn.TransformerEncoder) and any(isinstance(m, CompactAttention) for m in module.modules()):
            # Torch's way for packed inputs is for whole attention layers only.
            module.enable_nested_tensor = module.use_nested_tensor = False
    counts = tuple(sum(p.numel() for p in m.parameters()) for m in (model, small))
    return small, CompactPlan(tuple(rows.values()), (counts[0], counts[1]))


def _width(model: nn.Module, name: str) -> int:
    layer = _layer(model, name)
    return int(getattr(layer, "out_channels", None) or layer.out_features)


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
    share, reason = _share(model, chain, producer, consumer)
    if not share:
        return int(dead.sum()), reason
    used = (consumer.weight.unflatten(1, (width, share)).movedim(1, 0).flatten(1) != 0).any(1)
    value, steady = _constants(model, chain, share)
    gone = ~used | (dead & steady)
    if gone.all():
        gone[0] = False
    left = dead & ~gone
    if gone.any():
        _fold(consumer, value, (gone & used).repeat_interleave(share))
        _slice(model, chain, ~gone, share)
    why = "a constant would not survive the padding on the way" if (left & ~steady).any() else "one channel has to stay"
    return int(left.sum()), why


def _share(model: nn.Module, chain: Chain, producer: nn.Linear, consumer: nn.Linear) -> tuple[int, str]:
    """How many of the consumer's inputs a channel has, or 0 and why it cannot be told."""
    made, taken = producer.weight.shape[0], consumer.weight.shape[1]
    apart = made
    flat = False
    for link in chain.links:
        if link.kind == "flatten":
            flat, apart = True, taken
        elif link.kind == "norm" and model.get_submodule(link.what).num_features != apart:
            return 0, f"{link.what} does not normalize its {made} channels"
    same_kind = isinstance(producer, nn.Linear) == isinstance(consumer, nn.Linear)
    if same_kind and made == taken and not (flat and isinstance(producer, CONVOLUTIONS)):
        return 1, ""
    if flat and isinstance(producer, CONVOLUTIONS) and isinstance(consumer, nn.Linear) and taken % made == 0:
        return taken // made, ""
    return 0, f"its {made} channels cannot be told apart in the {taken} inputs of {chain.consumer}"


def _constants(model: nn.Module, chain: Chain, share: int) -> tuple[Tensor, Tensor]:
    """What channels without weights are worth to each of the consumer's inputs, and which are one number everywhere."""
    producer = _layer(model, chain.producer)
    width = producer.weight.shape[0]
    value = _wide(producer.weight.new_zeros(width) if producer.bias is None else producer.bias.clone())
    steady = torch.ones(width, dtype=torch.bool, device=value.device)
    for link in chain.links:
        if link.kind == "each":
            value = link.function(value)
        elif link.kind == "norm":
            norm = cast(nn.BatchNorm1d, model.get_submodule(link.what))
            assert norm.running_mean is not None
            assert norm.running_var is not None
            value = (value - norm.running_mean) / (_wide(norm.running_var) + norm.eps).sqrt()
            value = value if norm.weight is None else value * norm.weight
            value = value if norm.bias is None else value + norm.bias
        elif link.kind == "flatten" and len(value) == width:
            value = value.repeat_interleave(share)
        elif not link.steady:
            steady &= value == 0
    if pads(model.get_submodule(str(chain.consumer))):
        steady &= value == 0
    return value, steady


def _wide(tensor: Tensor) -> Tensor:
    """In double precision where the device has it, so that sums are rounded once."""
    return tensor if tensor.device.type == "mps" else tensor.to(torch.promote_types(tensor.dtype, torch.float64))


def _fold(consumer: nn.Linear, value: Tensor, gone: Tensor) -> None:
    """Add to the consumer's bias what the constants of the channels that go gave it."""
    given = (
        _wide(consumer.weight.flatten(2).sum(2) if consumer.weight.ndim > 2 else consumer.weight)[:, gone] @ value[gone]
    )
    if not given.any():
        return
    if consumer.bias is None:
        consumer.bias = nn.Parameter(given.to(consumer.weight.dtype), requires_grad=consumer.weight.requires_grad)
    else:
        consumer.bias.copy_(consumer.bias + given)


def _slice(model: nn.Module, chain: Chain, kept: Tensor, share: int) -> None:
    producer, consumer = _layer(model, chain.producer), _layer(model, str(chain.consumer))
    for name in ("weight", "bias"):
        _keep(producer, name, kept)
    for link in chain.links:
        norm = model.get_submodule(link.what) if link.kind == "norm" else None
        if isinstance(norm, NORMS):
            features = kept.repeat_interleave(norm.num_features // len(kept))
            for name in ("weight", "bias", "running_mean", "running_var"):
                _keep(norm, name, features)
            norm.num_features = int(features.sum())
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


class _Comparison:
    """A model's outputs on an example, to hold another model's against, and how many dimensions each module's have.

    They are computed in double precision, so that 1e-6 of their scale is far from rounding. A model that takes only its
    own type, or a device without double precision, gets what its own rounding allows.
    """

    def __init__(self, model: nn.Module, inputs: Arguments) -> None:
        self.inputs, self.ranks = inputs, dict[str, int]()
        self.double = not any(tensor.device.type == "mps" for tensor in (*model.parameters(), *tensors_in(inputs)))
        try:
            self.wanted = self._outputs(model, self.ranks)
        except Exception:
            self.double = False
            try:
                self.wanted = self._outputs(model, self.ranks)
            except Exception as error:
                raise WellposedError(f"the model does not take the example: {error}") from error
        own = [p.dtype for p in model.parameters() if p.is_floating_point() or p.is_complex()]
        rounding = max((torch.finfo(dtype).eps for dtype in own), default=0.0)
        self.tolerance = max(1e-6, (8 if self.double else 64) * rounding)

    def difference(self, other: nn.Module) -> str:
        """How another model's outputs differ, or nothing."""
        try:
            found = self._outputs(other, {})
        except Exception as error:  # whatever a broken model may raise
            return f"fails ({error})"
        if [tensor.shape for tensor in found] != [tensor.shape for tensor in self.wanted]:
            return "gives outputs of other shapes"
        for a, b in zip(self.wanted, found, strict=True):
            scale = float(a[a.isfinite()].abs().max()) if a.isfinite().any() else 0.0
            if not torch.allclose(a, b, rtol=0.0, atol=self.tolerance * scale, equal_nan=True):
                return f"gives other outputs (by {float((a - b).abs().max()):.2g}, where they reach {scale:.2g})"
        return ""

    @torch.no_grad()
    def _outputs(self, model: nn.Module, ranks: dict[str, int]) -> list[Tensor]:
        trial = copied(model).eval()
        for name, module in trial.named_modules():
            module.register_forward_hook(_Rank(name, ranks))
        packing = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)  # it puts zeros where the input is padding
        try:
            args, kwargs = with_tensors(self.inputs, _doubled) if self.double else self.inputs
            given = (trial.double() if self.double else trial)(*args, **kwargs)
        finally:
            torch.backends.mha.set_fastpath_enabled(packing)
        return [tensor.to(torch.promote_types(tensor.dtype, torch.float32)) for tensor in tensors_in(given)]


class _Rank:
    """A hook that writes down how many dimensions a module's output has."""

    only_watches = True

    def __init__(self, name: str, ranks: dict[str, int]) -> None:
        self.name, self.ranks = name, ranks

    def __call__(self, module: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            self.ranks[self.name] = output.ndim


def _doubled(tensor: Tensor) -> Tensor:
    return tensor.double() if tensor.is_floating_point() else tensor
