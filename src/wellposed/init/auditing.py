"""Auditing: whether a model's weights are what a plan says they are."""

import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from wellposed.errors import WellposedError
from wellposed.init.plan import Bound, Plan, Row, bind
from wellposed.init.propagation import findings
from wellposed.init.refusals import overlaps
from wellposed.models.names import listed
from wellposed.models.regions import local_parts
from wellposed.random import shards

_CHUNK = 1 << 15  # entries looked at a time: few enough for one thread
_MOST = 1 << 19  # entries of a weight that its standard deviation is taken from
_SIGMAS = 6.0
_TELLING = 8  # entries of a shard: fewer may be alike by chance


def audit(plan: Plan, model: nn.Module, *, example: Any = None) -> Plan:
    """Check that a model's weights are what a plan says: finite, distinct, of the planned standard deviation.

    A weight fails when the plan has no row for it, when it shares memory with another, is still on the meta device, has
    no entries, holds NaN or infinity, is bit for bit another one's equal, or has a standard deviation off the one
    planned by more than six standard errors of a sample of its size.

    With an example a copy of the model is run once, forward and backward, and its signal is looked at, too. It fails
    where an output is constant or not a number, a weight that takes part gets no gradient, or the output of a block of
    layers is a thousandth or a thousand times its input. Gates, and what starts at zero on purpose, are open in it.

    Args:
        plan: The plan.
        model: The model; it is not changed.
        example: An input: a tensor, a tuple of arguments or a mapping of keyword arguments. One that is constant tells
            nothing, and neither does a model that is sharded or without memory; a note of the plan says so.

    Returns:
        The plan with the standard deviations that were got.

    Raises:
        WellposedError: If any weight or the signal fails: all that is wrong is named.

    Example:
        >>> import wellposed as wp
        >>> model = nn.Linear(4, 3)
        >>> audit(wp.init.initialize(model), model)["bias"].std_got
        0.0
    """
    return check(bind(plan, model), example)


def check(bound: Bound, example: Any = None) -> Plan:
    """Check the weights of a plan that is bound to its model, as :func:`audit` does."""
    filled = [weight for weight, rows in bound.weights if any(row.initializer is not None for row in rows)]
    problems = [f"{pair} share memory and were filled twice" for pair in overlaps(filled)]
    got: dict[str, dict[str, float]] = {}
    siblings: dict[tuple[object, ...], list[tuple[Row, list[Tensor]]]] = defaultdict(list)
    with torch.no_grad():
        for row, weight, blocks in _rows(bound):
            if weight.is_meta and row.initializer is None:
                continue
            if weight.is_meta:
                problems.append(f"{row.label} is still on the meta device")
                continue
            if weight.numel() == 0 and row.initializer is not None and row.role != "token":
                problems.append(f"{row.label} is zero-sized")
                continue
            pieces = _pieces(row, weight, blocks)
            mean, variance, count = _over_all(weight, *_moments(pieces))
            if not math.isfinite(variance):
                problems.append(f"{row.label} holds NaN or infinity")
                continue
            got[row.label] = {"std_got": math.sqrt(variance)}
            if row.initializer is None or row.std_wanted is None:
                continue
            if not _within(row.std_wanted, math.sqrt(variance), count, abs(mean) * torch.finfo(weight.dtype).eps):
                problems.append(
                    f"{row.label} has a standard deviation of {math.sqrt(variance):.6g} where {row.std_wanted:.6g} is "
                    f"planned, over {count} entries"
                )
            parts = [part for part in _held(weight, row.where) if part.numel()]
            # Chance may make very small shards alike.
            is_telling = not shards.is_sharded(weight) or sum(part.numel() for part in parts) >= _TELLING
            if parts and variance > 0 and row.initializer.keyed and is_telling:
                first = parts[0]
                ends = tuple(first.flatten()[:8].tolist()) if first.numel() < _CHUNK else _ends(first)
                siblings[(tuple(part.shape for part in parts), first.dtype, ends)].append((row, parts))
    for alike in siblings.values():
        for i, (row, parts) in enumerate(alike):
            equal = next((other for other, seen in alike[:i] if all(map(torch.equal, parts, seen))), None)
            if equal is not None:
                problems.append(f"{row.label} is bit for bit equal to {equal.label}")
    if problems:
        raise WellposedError("the weights are not what was planned: " + "; ".join(problems))
    plan = bound.plan.with_rows(got)
    return plan if example is None else _check_signal(bound, plan, example)


def _check_signal(bound: Bound, plan: Plan, example: Any) -> Plan:
    problems, reason = findings(bound, example)
    if problems:
        raise WellposedError(
            f"the model starts as planned, but its signal does not carry: {listed(problems)}; mend the model or the "
            "roles of these weights, or, if it is meant so, plan it with the example and apply the plan (wp.init.apply)"
        )
    return replace(plan, notes=(*plan.notes, f"the signal was not looked at: {reason}")) if reason else plan


def _rows(bound: Bound) -> Iterator[tuple[Row, Tensor, list[tuple[int, int, int]]]]:
    """Each row, the weight as it was written, and the blocks of that weight that have rows of their own."""
    for weight, rows in bound.weights:
        values, blocks = weight.read(), sorted(row.where for row in rows if row.where is not None)
        for row in rows:
            yield row, values, blocks


def _ends(part: Tensor) -> tuple[float, ...]:
    while part.ndim > 1:
        part = part[0]
    return tuple(part[:8].tolist())


def _pieces(row: Row, weight: Tensor, inner: list[tuple[int, int, int]]) -> list[Tensor]:
    """The parts of a weight that a row alone is about: not those of blocks that have rows of their own."""
    if row.where is not None or not inner:
        return _held(weight, row.where)
    dim = inner[0][0]
    edges = [0, *(edge for _, first, end in inner for edge in (first, end)), weight.shape[dim]]
    gaps = [(first, end) for first, end in zip(edges[::2], edges[1::2], strict=True) if first < end]
    return [piece for first, end in gaps or [(0, weight.shape[dim])] for piece in _held(weight, (dim, first, end))]


def _held(weight: Tensor, where: tuple[int, int, int] | None) -> list[Tensor]:
    return [part for part, _ in local_parts(weight, where)]


def _moments(pieces: list[Tensor]) -> tuple[float, float, int]:
    """The mean and the variance of entries, and how many were looked at; not finite where any entry is not."""
    pieces = [piece for piece in pieces if piece.numel()]
    if not pieces:
        return 0.0, 0.0, 0
    pivot = float(pieces[0][(0,) * pieces[0].ndim])
    count, total, squares = 0, 0.0, 0.0
    for piece in pieces:
        if not all(math.isfinite(float(end)) for end in torch.aminmax(piece)):
            return math.nan, math.nan, 1
        for block in _blocks(piece):
            entries = block.to(torch.promote_types(block.dtype, torch.float32)).flatten() - pivot
            count += entries.numel()
            total += float(entries.sum())
            squares += float(entries.square_().sum())
    mean = total / count
    return pivot + mean, max(squares / count - mean * mean, 0.0), count


def _over_all(weight: Tensor, mean: float, variance: float, count: int) -> tuple[float, float, int]:
    """The mean, variance and count over all shards of a weight, from those of the local one."""
    if not shards.is_sharded(weight):
        return mean, variance, count
    entries, first = shards.total(
        torch.tensor([count, count * mean], dtype=torch.float64, device="cpu"), weight
    ).tolist()
    centre = first / max(entries, 1)
    (second,) = shards.total(
        torch.tensor([count * (variance + (mean - centre) ** 2)], dtype=torch.float64, device="cpu"), weight
    ).tolist()
    return centre, second / max(entries, 1), int(entries)


def _blocks(tensor: Tensor) -> Iterator[Tensor]:
    """A tensor in parts along its first dimension; of a very large one, some of them, evenly spread."""
    if tensor.ndim == 0:
        yield tensor
        return
    rows = tensor.view(-1) if tensor.is_contiguous() else tensor
    inner = rows[0].numel()
    size = max(1, _CHUNK // inner)
    starts = range(0, rows.shape[0], size)
    step = max(1, len(starts) * min(size * inner, _CHUNK) // _MOST)
    for start in starts[::step]:
        yield rows[start : start + size]


def _within(wanted: float, got: float, count: int, rounding: float) -> bool:
    """Whether a sample's standard deviation is within sampling and rounding of the one wanted."""
    if wanted == 0 or count < 2:
        return got <= rounding or count < 2
    # The second term carries the tail of small samples, which is heavier than a normal one's.
    slack = _SIGMAS * math.sqrt(2 / count) + 40 / count + 0.01
    return 1 - slack <= (got / wanted) ** 2 <= 1 + slack
