"""Groups of a weight's elements: by dimensions, by attention heads, or by labels."""

import math
import operator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from wellposed._torch import version_of
from wellposed.errors import WellposedError
from wellposed.models.fans import Axes, matrices
from wellposed.penalties.computing.shard import Shard


@dataclass(frozen=True)
class Heads:
    """One group for each attention head: a dimension is ``packed`` stacks of ``count`` blocks of equal size.

    Args:
        count: The number of heads, >= 1.
        dim: What the heads are: 0 for the outputs of query, key and value weights, 1 for the inputs of the output
            weight, in whichever dimensions the layer has these.
        packed: How many projections are stacked in the dimension: 3 for ``in_proj_weight`` of
            ``torch.nn.MultiheadAttention``; ``None`` for what the table of roles knows, 1 without a layer.

    Raises:
        WellposedError: If a number is out of range.
    """

    count: int
    dim: int = 0
    packed: int | None = None

    def __post_init__(self) -> None:
        packed = 1 if self.packed is None else self.packed
        if operator.index(self.count) < 1 or operator.index(self.dim) not in (0, 1) or operator.index(packed) < 1:
            raise WellposedError(f"{self!r} was given; expected count >= 1, dim 0 or 1, and packed >= 1")


@dataclass(frozen=True)
class _Across:
    """The processes that hold parts of the groups: by the dimensions of their mesh.

    Args:
        shard: What this process holds; ``None`` for a weight that is not sharded.
        within: Along which a group is spread over several processes.
        between: Along which processes hold different groups.
    """

    shard: Shard | None = None
    within: tuple[int, ...] = ()
    between: tuple[int, ...] = ()

    def sum(self, x: Tensor) -> Tensor:
        """Of sums over the parts of groups that are here the sums over the groups."""
        return x if self.shard is None else self.shard.total(x, self.within)

    def largest(self, x: Tensor) -> Tensor:
        """Of the largest in the parts of groups that are here the largest in the groups."""
        return x if self.shard is None else self.shard.largest(x, self.within)

    def total(self, x: Tensor) -> Tensor:
        """Of sums over the groups that are here the sum over all groups."""
        return x if self.shard is None else self.shard.total(x, self.between)


_HERE = _Across()

_NAMED: dict[str, tuple[int, ...]] = {
    "rows": (0,),
    "filters": (0,),
    "columns": (1,),
    "channels": (1,),
    "kernels": (0, 1),
    "all": (),
}
"""By what the groups are numbered: outputs (0), inputs (1), both or nothing."""


class Grouping(Protocol):
    """A cut of a weight: from elements to one number a group, and back."""

    def sums(self, x: Tensor) -> Tensor:
        """The sum of ``x`` over each group."""

    def largest(self, x: Tensor) -> Tensor:
        """The largest of ``x`` in each group."""

    def norms(self, w: Tensor) -> Tensor:
        """The Euclidean norm of each group, with gradient 0 at 0."""

    def sizes(self, w: Tensor) -> Tensor:
        """The number of elements in each group."""

    def spread(self, values: Tensor) -> Tensor:
        """One number a group, given to each of the group's elements (by broadcasting)."""

    def total(self, value: Tensor) -> Tensor:
        """The sum over all groups, of a sum over the groups that this process holds (of a shard)."""

    @property
    def room(self) -> tuple[int, ...]:
        """The shape of one number a group."""

    def on(self, shard: Shard) -> "Grouping":
        """The cut of what a process holds of the weight; sums are those of the whole groups."""

    def part(self, values: Tensor, shard: Shard) -> Tensor:
        """Of one number a group those of the groups that a process holds; by broadcasting, too."""


Groups = str | tuple[int, ...] | Heads | Tensor | Grouping
"""What a user may give: a name, the tensor's dimensions that number the groups, heads, or labels. Or a cut itself."""


def grouping(groups: Groups, w: Tensor, axes: Axes | None = None) -> Grouping:
    """The cut of ``w`` that ``groups`` describes.

    Args:
        groups: What the user gave.
        w: The weight.
        axes: What its dimensions are for; ``None`` for outputs in the first and inputs in the second.

    Raises:
        WellposedError: If it does not fit the weight's shape.
    """
    shape = tuple(w.shape)
    if isinstance(groups, _ByDimension | _ByLabel):
        return groups
    if isinstance(groups, Tensor):
        if groups.shape != w.shape or groups.is_floating_point() or groups.is_complex():
            raise WellposedError(
                f"groups was given a tensor of shape {tuple(groups.shape)} and dtype {groups.dtype} for a weight of "
                f"shape {shape}; expected integer labels of the weight's shape"
            )
        index, count = _numbered(groups, w.device)
        return _ByLabel(index.view(shape), count, shape)
    if isinstance(groups, Heads):
        dim, stacks = _dim_of_heads(groups, shape, axes), groups.packed or 1
        if dim >= w.ndim or shape[dim] % (groups.count * stacks):
            raise WellposedError(
                f"groups={groups!r} does not fit a weight of shape {shape}; dimension {dim} has to be a "
                f"multiple of {groups.count * stacks}"
            )
        return _ByLabel(_head_labels(groups.count, stacks, dim, w), groups.count, shape)
    if axes is not None and isinstance(groups, str) and _NAMED.get(groups):
        m = matrices(shape, axes)
        numbering = {*m.numbering, *(d for side in _NAMED[groups] for d in (m.dims.out, m.dims.in_)[side])}
        return _ByDimension(tuple(d for d in range(len(m.split)) if d not in numbering), m.split, m.dims.grouped)
    dims = _NAMED.get(groups) if isinstance(groups, str) else groups
    if not isinstance(dims, tuple) or not all(isinstance(d, int) for d in dims):
        raise WellposedError(
            f"groups was given {groups!r}; expected one of {', '.join(map(repr, _NAMED))}, a tuple of dimensions, "
            "Heads, or a tensor of labels"
        )
    if any(not 0 <= d < w.ndim for d in dims):
        raise WellposedError(f"groups={groups!r} does not fit a weight of shape {shape}, which has {w.ndim} dimensions")
    return _ByDimension(tuple(d for d in range(w.ndim) if d not in dims), shape)


@dataclass(frozen=True)
class _ByDimension:
    over: tuple[int, ...]
    shape: tuple[int, ...]  # the weight's, with a dimension that is split in two in its place
    split: int | None = None
    size: int | None = None  # how many elements a group has, if it has some elsewhere
    across: _Across = _HERE

    @property
    def room(self) -> tuple[int, ...]:
        return tuple(1 if d in self.over else n for d, n in enumerate(self.shape))

    def sums(self, x: Tensor) -> Tensor:
        return self.across.sum(self._apart(x).sum(self.over, keepdim=True)) if self.over else self._apart(x)

    def largest(self, x: Tensor) -> Tensor:
        x = self._apart(x)
        if not self.over:
            return x
        here = x.amax(self.over, keepdim=True) if all(self.shape[d] for d in self.over) else x.new_zeros(self.room)
        return self.across.largest(here)

    def norms(self, w: Tensor) -> Tensor:
        if self.across.within:
            return _root(self.sums(w.abs().square()))
        w = self._apart(w)
        return torch.linalg.vector_norm(w, dim=self.over, keepdim=True) if self.over else w.abs()

    def sizes(self, w: Tensor) -> Tensor:
        count = self.size or math.prod(self.shape[d] for d in self.over)
        return torch.full((), float(count), dtype=w.abs().dtype, device=w.device)

    def spread(self, values: Tensor) -> Tensor:
        if self.split is None or values.ndim == 0:
            return values
        return values.expand(self.shape).flatten(self.split, self.split + 1)

    def total(self, value: Tensor) -> Tensor:
        return self.across.total(value)

    def on(self, shard: Shard) -> Grouping:
        if self.split in shard.splits:
            return self._by_label(shard.device).on(shard)
        held = list(shard.held)
        if self.split is not None:
            held[self.split : self.split + 1] = self.shape[self.split : self.split + 2]
        summed = {d if self.split is None or d <= self.split else d - 1 for d in self.over}
        within, between = (
            tuple(sorted(m for d, along in shard.splits.items() if (d in summed) is inside for m in along))
            for inside in (True, False)
        )
        size = math.prod(self.shape[d] for d in self.over)
        return _ByDimension(self.over, tuple(held), self.split, size, _Across(shard, within, between))

    def part(self, values: Tensor, shard: Shard) -> Tensor:
        if self.split is None or values.ndim == 0:
            part: Tensor = shard.part(values)
            return part
        return values.expand(self.room).flatten() if self.split in shard.splits else values

    def _by_label(self, device: torch.device) -> "_ByLabel":
        """The same cut by labels, which any shard has a part of."""
        assert self.split is not None
        labels = torch.arange(math.prod(self.room), device=device).view(self.room)
        pair = [n if d in (self.split, self.split + 1) else -1 for d, n in enumerate(self.shape)]
        shape = [*self.shape[: self.split], math.prod(self.shape[self.split : self.split + 2])]
        labels = labels.expand(pair).flatten(self.split, self.split + 1)
        return _ByLabel(labels, math.prod(self.room), (*shape, *self.shape[self.split + 2 :]))

    def _apart(self, x: Tensor) -> Tensor:
        return x if self.split is None else x.reshape(self.shape)


@dataclass(frozen=True)
class _ByLabel:
    labels: Tensor  # it broadcasts to the weight
    count: int
    shape: tuple[int, ...]
    across: _Across = _HERE

    @property
    def room(self) -> tuple[int, ...]:
        return (self.count,)

    @property
    def index(self) -> Tensor:
        return self.labels.expand(self.shape).flatten()

    def sums(self, x: Tensor) -> Tensor:
        return self.across.sum(x.new_zeros(self.count).index_add(0, self.index, x.flatten()))

    def largest(self, x: Tensor) -> Tensor:
        here = x.new_zeros(self.count).scatter_reduce(0, self.index, x.flatten(), "amax", include_self=False)
        return self.across.largest(here)

    def norms(self, w: Tensor) -> Tensor:
        return _root(self.sums(w.abs().square()))

    def sizes(self, w: Tensor) -> Tensor:
        return self.sums(torch.ones_like(w.abs()))

    def spread(self, values: Tensor) -> Tensor:
        return values[self.index].view(self.shape)

    def total(self, value: Tensor) -> Tensor:
        return value  # each process has all groups

    def on(self, shard: Shard) -> Grouping:
        return _ByLabel(shard.part(self.labels), self.count, shard.held, _Across(shard, shard.along[1]))

    def part(self, values: Tensor, shard: Shard) -> Tensor:
        return values


def _root(square: Tensor) -> Tensor:
    """The square root, with gradient 0 at 0."""
    return torch.where(square > 0, torch.where(square > 0, square, 1).sqrt(), square)


_numbers: WeakIdKeyDictionary = WeakIdKeyDictionary()


def _numbered(labels: Tensor, device: torch.device) -> tuple[Tensor, int]:
    """The labels numbered from 0, in one dimension, and how many there are; remembered, since counting them waits."""
    version, index, count = _numbers.get(labels, (None, labels, 0))
    if version != version_of(labels) or index.device != device:
        found, index = labels.flatten().unique(return_inverse=True)
        version, index, count = version_of(labels), index.to(device), len(found)
        _numbers[labels] = (version, index, count)
    return index, count


def _dim_of_heads(heads: Heads, shape: tuple[int, ...], axes: Axes | None) -> int:
    if axes is None:
        return heads.dim
    resolved = axes.resolve(shape)
    dims = resolved.in_ if heads.dim else resolved.out
    if len(dims) != 1:
        raise WellposedError(f"groups={heads!r} does not fit {axes}, which has {len(dims)} dimensions for that")
    return dims[0]


def _head_labels(count: int, stacks: int, dim: int, w: Tensor) -> Tensor:
    size = w.shape[dim] // (count * stacks)
    labels = torch.arange(count, device=w.device).repeat_interleave(size).repeat(stacks)
    return labels.view([-1 if d == dim else 1 for d in range(w.ndim)])
