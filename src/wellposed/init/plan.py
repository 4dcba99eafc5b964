"""A plan: for each part of a model what it starts as and why; and the plan bound to a model's weights."""

import dataclasses
import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from wellposed.errors import WellposedError
from wellposed.init.initializers.initializer import Initializer
from wellposed.models.fans import Axes
from wellposed.models.names import listed
from wellposed.models.regions import local_parts
from wellposed.models.weights import Weight, weights
from wellposed.random.box import Box, layout
from wellposed.random.key import Key
from wellposed.tabular import Table, Tabular


@dataclass(frozen=True)
class Row:
    """What one part of a weight starts as, and why.

    Attributes:
        name: The weight's path in the model; of a tied weight the first one.
        shape: The part's shape; of one that is sharded or lies in a box, that of the whole.
        role: What the part is for.
        fans: Its (fan_in, fan_out); ``None`` where it has none.
        gain: The factor by which it is larger than fans alone would have it.
        initializer: What it starts as; ``None`` leaves it as it is.
        std_wanted: The standard deviation that its entries are meant to have; ``None`` where it is left as it is.
        std_got: The one that they have, once the plan has been applied.
        follows: What follows the weight in the model.
        traced: How that was found out; empty where it was not.
        note: Why, where it is not plain from the rest.
        axes: What the part's dimensions are for.
        block: The part's name within the weight; ``None`` for a weight of one part.
        where: The part, as (dimension, first, end); ``None`` for the whole weight.
        stream: What its key is folded from.
        others: The other paths of a tied weight.
        lr: By what the optimizer's learning rate for it is to be multiplied.
        boxes: Where the tensor that is there lies in the whole, if it is a part of it and does not know that itself.
    """

    name: str
    shape: tuple[int, ...]
    role: str
    fans: tuple[float, float] | None
    gain: float
    initializer: Initializer | None
    std_wanted: float | None
    std_got: float | None = None
    follows: str = ""
    traced: str = ""
    note: str = ""
    axes: Axes = Axes()  # noqa: RUF009
    block: str | None = None
    where: tuple[int, int, int] | None = None
    stream: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    lr: float = 1.0
    boxes: tuple[Box, ...] = ()

    @property
    def label(self) -> str:
        """The weight's path, with the block's name."""
        return self.name if self.block is None else f"{self.name}[{self.block}]"


@dataclass(frozen=True)
class Plan(Tabular[Row]):
    """What every weight of a model starts as and why, a row for each part of a weight.

    A plan is a value and holds no model. Printed it is a table.

    Attributes:
        scheme: The scheme's name.
        source: Where the scheme is from.
        key: The key from which every weight's is folded.
        rows: One for each part of a weight, in the model's order.
        notes: What else the user has to know or do.
        buffers: Buffers and frozen parameters without memory that nobody knows the values of; they are left as they
            are.

    Example:
        >>> import torch, wellposed as wp
        >>> model = torch.nn.Sequential(torch.nn.Linear(8, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
        >>> plan = wp.plan_initialize(model)
        >>> [(row.name, row.role, round(row.gain, 3), row.follows) for row in plan if row.role == "weight"]
        [('0.weight', 'weight', 1.414, 'ReLU'), ('2.weight', 'weight', 1.0, 'the output')]
    """

    scheme: str
    source: str
    key: Key
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    buffers: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> Row:
        """The row of a weight, or of a block of one as ``"path[block]"``."""
        for row in self.rows:
            if name in (row.label, row.name):
                return row
        raise KeyError(name)

    def table(self) -> Table:
        """The rows as a table of text."""
        numbers = ("fans", "gain", "initializer", "std wanted", "std got")
        header = ("name", "shape", "role", *numbers, "follows", "traced by", "note")
        title = f"scheme {self.scheme} ({self.source}), {self.key!r}, {len(self.rows)} parts"
        notes = [f"note: {note}" for note in self.notes]
        if self.buffers:
            notes.append(f"left without values: {', '.join(self.buffers)}")
        return Table(title, header, [_cells(row) for row in self.rows], notes, measured=("std got",))

    def to_dict(self) -> dict[str, Any]:
        """Everything in plain values, ready for JSON; initializers and axes as they print.

        Returns:
            ``schema``, ``scheme``, ``source``, ``seed``, ``notes``, ``buffers`` and ``rows``.
        """
        values = super().to_dict()
        del values["key"]
        return {"schema": 1, "seed": self.key.seed, **values}

    def to_json(self) -> str:
        """The same as JSON text."""
        return json.dumps(self.to_dict(), indent=2)

    def groups(self, model: nn.Module, lr: float, **options: Any) -> list[dict[str, Any]]:
        """Parameter groups for an optimizer, one for each learning rate that the plan asks for.

        Args:
            model: The model that the plan is for.
            lr: The learning rate that the rows' multipliers are of.
            options: What else each group is to hold, such as ``weight_decay``.

        Returns:
            Dictionaries with ``params``, ``lr`` and the options; every trainable parameter is in exactly one.

        Example:
            >>> import torch, wellposed as wp
            >>> model = torch.nn.Linear(3, 2)
            >>> [group["lr"] for group in wp.plan_initialize(model).groups(model, 0.1)]
            [0.1]
        """
        return bind(self, model).groups(lr, **options)

    def with_rows(self, changes: Mapping[str, Mapping[str, Any]]) -> "Plan":
        """The same plan with some fields of some rows changed, under the rows' labels."""
        rows = tuple(
            dataclasses.replace(row, **changes[row.label]) if row.label in changes else row for row in self.rows
        )
        return dataclasses.replace(self, rows=rows)


@dataclass(frozen=True, eq=False)
class Bound:
    """A plan's rows with handles on a model's weights: each weight is found once, and all that follows works on it.

    Attributes:
        plan: The plan.
        model: The model.
        weights: Each weight that the plan has rows for, and the rows, in the plan's order.
    """

    plan: Plan
    model: nn.Module
    weights: tuple[tuple[Weight, tuple[Row, ...]], ...]

    def part(self, label: str) -> Tensor:
        """The tensor that a row is about, a view of the weight; of a sharded one, of the block that this process holds.

        Raises:
            KeyError: If there is no such row.
            WellposedError: If the weight is sharded so that this process holds no block of it, or several.

        Example:
            >>> import torch, wellposed as wp
            >>> module = torch.nn.MultiheadAttention(4, 2)
            >>> keys = bind(wp.plan_initialize(module), module).part("in_proj_weight[k]")
            >>> keys.shape, keys.storage_offset()
            (torch.Size([4, 4]), 16)
        """
        for weight, rows in self.weights:
            for row in rows:
                if label in (row.label, row.name):
                    parts = local_parts(weight.tensor, row.where)
                    if len(parts) != 1:
                        raise WellposedError(
                            f"{row.label}: of its shards this process holds {len(parts)} blocks, not one"
                        )
                    return parts[0][0]
        raise KeyError(label)

    def groups(self, lr: float, **options: Any) -> list[dict[str, Any]]:
        """Parameter groups for an optimizer, as :meth:`Plan.groups` has them."""
        factor = {id(parameter): rows[-1].lr for weight, rows in self.weights for parameter in weight.parameters}
        groups: dict[float, list[nn.Parameter]] = {}
        for parameter in self.model.parameters():
            if parameter.requires_grad:
                groups.setdefault(factor[id(parameter)], []).append(parameter)
        return [{"params": group, "lr": lr * times, **options} for times, group in groups.items()]


def bind(plan: Plan, model: nn.Module) -> Bound:
    """Find the weights that a plan is about in a model.

    Args:
        plan: The plan, made for this model or one of the same names and shapes.
        model: The model.

    Returns:
        The plan's rows, with handles on the model's weights.

    Raises:
        WellposedError: If a weight of the plan is not in the model or has another shape, or the model has a parameter
            that the plan has no row for.
    """
    by_name = {name: weight for weight in weights(model) for name in weight.names}
    found = []
    for name, group in itertools.groupby(plan.rows, key=lambda row: row.name):
        if name not in by_name:
            raise WellposedError(f"the model has no parameter {name!r}; make a new plan for this model")
        weight, rows = by_name[name], tuple(group)
        shape = tuple(weight.tensor.shape)
        for row in rows:
            dim, _, end = row.where or (0, 0, 0)
            if shape[dim] < end if row.where else not row.boxes and shape != row.shape:
                raise WellposedError(f"{row.label} has shape {shape} in the model; make a new plan for this model")
            try:
                for block, box in local_parts(weight.tensor, row.where, row.boxes) if row.boxes else ():
                    layout(tuple(block.shape), box)
            except WellposedError as error:
                raise WellposedError(f"{row.label}: {error}; make a new plan for this model") from error
        found.append((weight, rows))
    known = {id(parameter) for weight, _ in found for parameter in weight.parameters}
    missing = [name for name, parameter in model.named_parameters() if id(parameter) not in known]
    if missing:
        raise WellposedError(f"the plan has no row for {listed(missing)}; make a new plan for this model")
    return Bound(plan, model, tuple(found))


def _short(initializer: Initializer | None) -> str:
    """An initializer without arguments that are the defaults, in four digits."""
    if initializer is None:
        return "as it is"
    if not dataclasses.is_dataclass(initializer):
        return repr(initializer)
    given = [(f.name, getattr(initializer, f.name)) for f in dataclasses.fields(initializer) if f.repr]
    defaults = {f.name: f.default for f in dataclasses.fields(initializer)}
    said = [
        f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value!r}"
        for name, value in given
        if value != defaults[name]
    ]
    return f"{type(initializer).__name__}({', '.join(said)})"


def _cells(row: Row) -> tuple[str, ...]:
    def number(value: float | None) -> str:
        return "" if value is None else f"{value:.4g}"

    note = "; ".join([row.note] * bool(row.note) + [f"tied to {other}" for other in row.others])
    if row.lr != 1:
        note = "; ".join([*[note] * bool(note), f"lr times {row.lr:.4g}"])
    return (
        row.label,
        "x".join(map(str, row.shape)) or "scalar",
        row.role,
        "" if row.fans is None else "/".join(map(number, row.fans)),
        number(row.gain) if row.fans is not None else "",
        _short(row.initializer),
        number(row.std_wanted),
        number(row.std_got),
        row.follows,
        row.traced,
        note,
    )
