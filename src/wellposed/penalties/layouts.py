"""Penalties that go by what a weight's dimensions are for, and sums of them over the blocks of packed weights."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from wellposed.arguments import Number
from wellposed.models.fans import LINEAR, Axes, several
from wellposed.models.roles import Part
from wellposed.penalties.computing import operands
from wellposed.penalties.computing.shard import Shard
from wellposed.penalties.grouping import Grouping, Groups, Heads, grouping
from wellposed.penalties.penalty import OnWhole, Penalty, changed
from wellposed.penalties.proximal import Traits


class LayoutPenalty(Penalty):
    """A penalty with a field ``axes``: what the weight's dimensions are for, ``None`` for those of a linear layer."""

    axes: Axes | None

    def for_layer(self, parts: Sequence[Part]) -> Penalty:
        """With the layer's axes, unless it was given others; of packed blocks for each, as if it were stored alone."""
        if self.axes is not None or not parts:
            return self
        if len(parts) == 1 or self._spans(parts):
            return self._with_axes(parts[0].axes)
        each = ((self._with_axes(part.axes), part.where) for part in parts if part.where is not None)
        return SideBySide(tuple(each))

    def _apart(self, shape: tuple[int, ...]) -> set[int]:
        return set() if self.axes is None else {d % len(shape) for d in several(self.axes.batch)}

    def _spans(self, parts: Sequence[Part]) -> bool:
        """Whether what the penalty is of the whole is the sum of what it is of the blocks."""
        return False

    def _with_axes(self, axes: Axes) -> "LayoutPenalty":
        # Strides change what a weight does to a signal's size, not which units it has.
        units = replace(axes, in_stride=1, out_stride=1)
        return self if units == LINEAR else replace(self, axes=units)  # type: ignore[call-arg]


class GroupPenalty(LayoutPenalty):
    """A penalty with fields ``groups`` and ``axes``, which cut a weight into groups together."""

    groups: Groups

    def for_layer(self, parts: Sequence[Part]) -> Penalty:
        """With the layer's axes; what is said of the tensor and not of units (dimensions, labels, "all") stays."""
        if isinstance(self.groups, Heads) and self.groups.packed is None and len(parts) > 1:
            return replace(self, groups=replace(self.groups, packed=len(parts))).for_layer(parts)  # type: ignore[call-arg]
        of_units = isinstance(self.groups, Heads) or (isinstance(self.groups, str) and self.groups != "all")
        return super().for_layer(parts) if of_units else self

    def _spans(self, parts: Sequence[Part]) -> bool:
        # Outputs of blocks that lie side by side along the outputs are groups of their own already.
        if isinstance(self.groups, Heads):
            return True
        return self.groups in ("rows", "filters", "kernels") and all(
            part.where is not None and part.where[0] in several(part.axes.out) for part in parts
        )

    def for_shard(self, shard: Shard) -> Penalty:
        """With the groups of which the shard has parts; their norms are those of the whole groups."""
        return changed(self, groups=self._cut(shard.outline).on(shard))

    def _cut(self, w: Tensor) -> Grouping:
        return grouping(self.groups, w, self.axes)


@dataclass(frozen=True, eq=False, repr=False)
class SideBySide(Penalty):
    """The sum of penalties on blocks that lie side by side in one parameter, such as a packed projection's.

    Args:
        blocks: Penalties of one kind, each with its block as (dimension, first, end); together they are the parameter.
    """

    blocks: tuple[tuple[Penalty, tuple[int, int, int]], ...]

    @property
    def traits(self) -> Traits:
        """Those of the penalties."""
        return self.blocks[0][0].traits

    @property
    def _tangent(self) -> Penalty | None:
        tangents = [(penalty._tangent, where) for penalty, where in self.blocks]
        known = tuple((tangent, where) for tangent, where in tangents if tangent is not None)
        return SideBySide(known) if len(known) == len(tangents) else None

    @property
    def gathers(self) -> bool:
        """Whether a penalty does."""
        return any(penalty.gathers for penalty, _ in self.blocks)

    def for_shard(self, shard: Shard) -> Penalty:
        """The sum of the penalties on what the shard has of the blocks."""
        blocks = []
        for penalty, where in self.blocks:
            part, there = shard.narrow(*where)
            blocks.append((penalty.for_shard(part), there))
        on_blocks = SideBySide(tuple(blocks))
        return OnWhole(self, shard) if on_blocks.gathers else on_blocks

    def _value_of(self, w: Tensor) -> Tensor:
        # From the weight as it is, since constraints allow for its dtype's rounding.
        return torch.stack([penalty._value_of(_block(w, where)) for penalty, where in self.blocks]).sum()

    def _refuse_misfit(self, w: Tensor) -> None:
        operands.weight(w, self)
        for penalty, where in self.blocks:
            penalty._refuse_misfit(_block(w, where))

    def _value(self, w: Tensor) -> Tensor:
        return torch.stack([penalty._value(_block(w, where)) for penalty, where in self.blocks]).sum()

    def _grad(self, w: Tensor) -> Tensor:
        return self._joined(lambda penalty, where: penalty._grad(_block(w, where)))

    def _prox(self, w: Tensor, step: Number) -> Tensor:
        steps = step.expand_as(w) if isinstance(step, Tensor) and step.ndim else step

        def one(penalty: Penalty, where: tuple[int, int, int]) -> Tensor:
            size = _block(steps, where) if isinstance(steps, Tensor) and steps.ndim else steps
            return penalty._prox(_block(w, where), size)

        return self._joined(one)

    def _joined(self, one: Callable[[Penalty, tuple[int, int, int]], Tensor]) -> Tensor:
        return torch.cat([one(penalty, where) for penalty, where in self.blocks], dim=self.blocks[0][1][0])

    def _scaled(self, factor: Number) -> Penalty:
        return replace(self, blocks=tuple((penalty._scaled(factor), where) for penalty, where in self.blocks))

    def _without_prox(self) -> str:
        return self.blocks[0][0]._without_prox()

    def __repr__(self) -> str:
        return f"{self.blocks[0][0]!r} on each of {len(self.blocks)} blocks"


def _block(w: Tensor, where: tuple[int, int, int]) -> Tensor:
    dim, first, end = where
    return w.narrow(dim, first, end - first)
