"""What each weight of a model is for: by the table of types, by how it enters the forward pass, or by its name."""

import dataclasses
from collections.abc import Iterable
from typing import Any

from torch import nn

from wellposed.models.fans import fans
from wellposed.models.roles.by_name import kind_by_name
from wellposed.models.roles.own_start import own_start
from wellposed.models.roles.registry import Kind, Part, is_own_row
from wellposed.models.roles.use.entering import entries_of, of_torch
from wellposed.models.weights import Weight, weights

# What the table and a forward pass can disagree about; the other kinds say more than arithmetic tells.
_PLAIN: frozenset[Kind] = frozenset({"weight", "embedding", "bias", "scale", "token"})


def claimed_weights(model: nn.Module, example: Any = None) -> list[Weight]:
    """Every weight of a model with what it is for.

    The table of types knows most. How a parameter enters the forward pass says what it is for where the table does not,
    and goes before our rows of the table where the two disagree, though not before those that a user registered. A name
    alone is believed where neither says anything.

    Args:
        model: The model; it is not changed.
        example: An input, as :func:`wellposed.plan_initialize` takes it.

    Returns:
        The weights, in the model's order; those that nothing claims without parts.

    Example:
        >>> import torch
        >>> class Scaled(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.kernel = nn.Parameter(torch.empty(16, 4))
        ...     def forward(self, x):
        ...         return x @ self.kernel
        >>> [(weight.parts[0].kind, weight.parts[0].axes) for weight in claimed_weights(Scaled())]
        [('weight', Axes(out=1, in_=0))]
    """
    entries = entries_of(model, example)
    found = []
    for weight in weights(model):
        if weight.computed is None:
            seen = entries.roles(weight.names)
            weight = _claimed(model, weight, seen)
            fates = set[str]().union(*(entries.rows.get(name, ()) for name in weight.names))
            weight = dataclasses.replace(weight, enlarged=_is_enlarged(fates))
        found.append(weight)
    return found


def _is_enlarged(fates: set[str]) -> bool:
    """Whether an embedding's rows make up the residual stream, from what becomes of them.

    They are lost in it where the stream has them as they are and each branch takes them normalised, for then what the
    branches add is much larger.
    """
    if "scaled" in fates or fates == {"normalised"}:
        return True
    return "added" in fates and "normalised" not in fates and "sum normalised" in fates and "sum added" not in fates


def _claimed(model: nn.Module, weight: Weight, seen: tuple[Part, ...]) -> Weight:
    """A weight with what it was seen to do, what the table says, and its name taken together."""
    other = tuple(
        part for part in seen if part.kind == "weight" and not _is_one_of(part, (*weight.parts, *weight.also))
    )
    if not weight.parts:
        if seen:
            first = _with_start(model, weight, seen[0])
            note = f"{_said(first)} by how it enters the forward pass"
            return dataclasses.replace(weight, parts=(first,), also=tuple(p for p in other if p != seen[0]), note=note)
        start = own_start(model, weight.name, look=False)
        if start is not None:
            return dataclasses.replace(weight, parts=(Part("constant", start=start),), note="as its module starts it")
        kind = kind_by_name(weight.name, weight.tensor.ndim)
        if kind in ("bias", "token", "embedding"):
            part = Part("bias") if kind == "bias" else Part("token")
            return dataclasses.replace(weight, parts=(part,), note=f"a {part.kind} by its name alone")
        return weight
    told = weight.parts[0]
    if len(weight.parts) == 1 and seen and not of_torch(weight.module) and _disagree(told, seen):
        note = f"the table of types says {_said(told)}, but it enters the forward pass as {_said(seen[0])}"
        if not is_own_row(type(weight.module)):  # the user's word stands
            return dataclasses.replace(weight, note=note)
        first = _with_start(model, weight, seen[0])
        return dataclasses.replace(weight, parts=(first,), note=note)
    if told.kind == "embedding" and other:
        return dataclasses.replace(weight, also=(*weight.also, *other))
    if told.kind == "weight" and len(weight.parts) == 1:
        return _widest(weight, told, other)
    return weight


def _widest(weight: Weight, told: Part, other: tuple[Part, ...]) -> Weight:
    """A weight that is contracted in several ways, as the one that sums most inputs: so it enlarges no signal."""
    shape = tuple(weight.tensor.shape)
    most = max((told, *other), key=lambda part: fans(shape, part.axes)[0])
    if fans(shape, most.axes)[0] == fans(shape, told.axes)[0]:
        return weight
    note = f"also contracted as {_said(most)}, which sums more inputs and counts"
    return dataclasses.replace(weight, parts=(dataclasses.replace(told, axes=most.axes),), note=note)


def _disagree(told: Part, seen: tuple[Part, ...]) -> bool:
    """Whether a weight was seen, and never as what the table says it is."""
    if told.kind not in _PLAIN or seen[0].kind not in _PLAIN or {told.kind, seen[0].kind} == {"embedding", "token"}:
        return False
    return not _is_one_of(told, seen)


def _is_one_of(part: Part, parts: Iterable[Part]) -> bool:
    return any(
        part.kind == other.kind
        and (part.kind != "weight" or part.axes == other.axes)
        and (part.kind != "scale" or (part.start == 0) == (other.start == 0))
        for other in parts
    )


def _with_start(model: nn.Module, weight: Weight, part: Part) -> Part:
    """A scale or a constant with the number that its module starts it as; a scale that starts elsewhere is a gate."""
    if part.kind not in ("scale", "constant") or part.start is not None:
        return part
    start = own_start(model, weight.name)
    kind: Kind = "gate" if part.kind == "scale" and start not in (None, 1.0) else part.kind
    return dataclasses.replace(part, kind=kind, start=start)


def _said(part: Part) -> str:
    if part.kind == "weight":
        return f"a weight of {part.axes!r}"
    return {"scale": "a scale" if part.start != 0 else "an offset scale", "embedding": "an embedding"}.get(
        part.kind, f"a {part.kind}"
    )
