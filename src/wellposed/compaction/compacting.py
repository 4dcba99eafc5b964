"""``compact``: a copy of a model without its zero channels, filters and heads, and the plan of it."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from wellposed.arguments import model as a_model
from wellposed.arguments import unwritable
from wellposed.compaction.channels import chains, known
from wellposed.compaction.comparison import Comparison
from wellposed.compaction.heads import CompactAttention, objection_to_fewer_heads, without_idle_heads
from wellposed.compaction.links import NORMS
from wellposed.compaction.removal import remove_, width_of
from wellposed.errors import WellposedError
from wellposed.models.copying import copied
from wellposed.models.example import arguments
from wellposed.models.tracing.branching import traced
from wellposed.random.shards import is_sharded
from wellposed.tabular import Table, Tabular


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
class CompactPlan(Tabular[CompactRow]):
    """What :func:`compact` removes, and what it leaves alone and why; prints as a table.

    Args:
        rows: A row for each dense, convolution and attention layer.
        parameters: How many parameters the model has, and how many the compact one.
    """

    rows: tuple[CompactRow, ...]
    parameters: tuple[int, int]

    def table(self) -> Table:
        """The rows as a table of text."""
        head = ("layer", "what", "before", "after", "zero but kept", "why")
        body = [(r.name, r.what, str(r.before), str(r.after), str(r.left), r.reason) for r in self]
        return Table(f"parameters: {self.parameters[0]} -> {self.parameters[1]}", head, body)


def compact(model: nn.Module, *, example: Any = None) -> nn.Module:
    """A copy of a model without the output units, filters and attention heads that do nothing.

    A channel goes when the weights that make it are all zero, or the scale of a batch norm after them is (network
    slimming), what is left of it being a constant that moves into the next layer's bias, or when the weights that use
    it are. In evaluation mode the outputs are the same up to rounding.
    Followed are dense and convolution layers through activations, dropout, batch, instance and group norm (of which
    only whole groups go), pooling and flattening, as modules or as functions, on every way that the forward pass can
    take. What cannot be followed (sums of branches,
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
            yet, is sharded, or does not take the example.

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
    for name, parameter in a_model(model, "compact").named_parameters():
        if is_lazy(parameter) or parameter.is_meta:
            raise WellposedError(f"{name} has no values yet: give the model its weights before making it smaller")
        if is_sharded(parameter):
            raise WellposedError(
                f"{name} is sharded, and channels are removed from whole weights: load the model's state (that of "
                "torch.distributed.checkpoint.state_dict.get_model_state_dict, with full_state_dict=True) into a model "
                "that is not sharded, and make that one smaller"
            )
        if why := unwritable(parameter):
            raise WellposedError(f"{name} {why}")
    if example is None:
        return _compacted(model, {}, inside=False)
    comparison = Comparison(model, arguments(example))
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
            width = width_of(small, chain.producer)
            first = before.setdefault(chain.producer, width)
            left, reason = remove_(small, chain)
            after = width_of(small, chain.producer)
            removed += width - after
            rows[chain.producer] = CompactRow(chain.producer, "channels", first, after, left, reason if left else "")
    followed = {link.what for chain in ways for link in chain.links if link.is_module}
    for name, module in list(small.named_modules()):
        scale = getattr(module, "weight", None)
        if type(module) in NORMS and isinstance(scale, Tensor) and name not in followed and not scale.all():
            why = "their scale is zero, but they count in statistics, or no layer is known that makes them alone"
            rows[name] = CompactRow(name, "channels", scale.numel(), scale.numel(), int((scale == 0).sum()), why)
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
