"""What the first checkpoint of a model holds: each tensor, and how its values are made piece by piece."""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import torch
from torch import Tensor, nn

from wellposed.errors import WellposedError
from wellposed.init.applying import fill
from wellposed.init.initializers.initializer import Distributed
from wellposed.init.plan import Bound, Plan, Row, bind
from wellposed.models.copying import copied
from wellposed.models.formulas import formulas
from wellposed.models.names import joined, listed
from wellposed.models.regions import part_in
from wellposed.models.roles import buffers_of
from wellposed.models.weights import Weight, weights
from wellposed.random.box import Box
from wellposed.random.key import Key

PIECE = 32 * 2**20  # bytes that are made at a time: enough for all threads, little beside what a process takes anyway


@dataclass(frozen=True, eq=False)
class Stored:
    """One tensor of a checkpoint.

    Attributes:
        names: Its names in the model's state dict; those of a tied one in the model's order.
        dtype: Its dtype.
        shape: Its shape.
        recipe: All that its values depend on, in plain values.
        pieces: Makes its values anew: contiguous tensors on the CPU, in the order of its memory.
    """

    names: tuple[str, ...]
    dtype: torch.dtype
    shape: tuple[int, ...]
    recipe: Any
    pieces: Callable[[], Iterator[Tensor]]

    @property
    def size(self) -> int:
        """Its bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


_Source = tuple[Any, Callable[[], Iterator[Tensor]]]  # a recipe, and the pieces


def known_values(model: nn.Module) -> dict[str, Tensor]:
    """The values of a model's buffers and frozen parameters without memory that are formulas, or are known to start so.

    Args:
        model: The model; it is not changed.

    Returns:
        The values on the CPU, under the tensors' paths.
    """
    found = formulas(model)
    for path, module in model.named_modules():
        for name, value in buffers_of(module).items():
            buffer = getattr(module, name, None)
            if buffer is not None and buffer.is_meta:
                found[joined(path, name)] = value.expand(buffer.shape)
    kept = model.state_dict(keep_vars=True)
    return {path: value for path, value in found.items() if path in kept}


def contents(plan: Plan, model: nn.Module, known: Mapping[str, Tensor]) -> tuple[Stored, ...]:
    """The tensors of a model's state dict, each once, in the model's order, as a plan starts them.

    Args:
        plan: The plan, made for the model.
        model: The model, which need not have memory; it is not changed.
        known: The values of tensors that the plan leaves as they are, under their paths.

    Returns:
        An entry for each tensor.

    Raises:
        WellposedError: If the state dict holds what is not a tensor, or what has no value.

    Example:
        >>> import wellposed as wp
        >>> with torch.device("meta"):
        ...     model = nn.Linear(3, 2)
        >>> weight, bias = contents(wp.plan_initialize(model), model, {})
        >>> next(bias.pieces())
        tensor([0., 0.])
    """
    state = model.state_dict(keep_vars=True)
    strange = [name for name, value in state.items() if not isinstance(value, Tensor)]
    if strange:
        raise WellposedError(f"{listed(strange)}: not tensors, which is all that a checkpoint without pickles can hold")
    names: dict[int, list[str]] = {}
    for name, tensor in state.items():
        names.setdefault(id(tensor), []).append(name)
    sources = _sources(plan, model, known)
    tensors = {id(tensor): tensor for tensor in state.values()}
    nowhere = [names[i][0] for i, tensor in tensors.items() if tensor.is_meta and i not in sources]
    if nowhere:
        raise WellposedError(
            f"{listed(nowhere)}: nothing says what these start as, for a model that is built without memory; give "
            "weights a rule with an initializer, make values that a module computes a buffer with persistent=False, "
            "or build them on the CPU: device='cpu'"
        )
    return tuple(
        Stored(tuple(names[i]), tensor.dtype, tuple(tensor.shape), *(sources.get(i) or _given(tensor)))
        for i, tensor in tensors.items()
    )


def _sources(plan: Plan, model: nn.Module, known: Mapping[str, Tensor]) -> dict[int, _Source]:
    """Where the values of tensors come from that do not have them, by the tensors' ids."""
    paths = dict((*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)))
    found = {id(tensor): _given(known[path].to(tensor.dtype)) for path, tensor in paths.items() if path in known}
    for weight, rows in bind(plan, model).weights:
        if all(row.initializer is None for row in rows):
            continue
        recipe = [_recipe(plan.key, row) for row in rows]
        if weight.computed is not None:
            make = functools.lru_cache(1)(functools.partial(_computed, plan, weight, rows))
            for i in _written_by(weight, make):
                found[i] = recipe, functools.partial(_one_of, make, i)
        elif not weight.tensor.is_meta or all(row.initializer is not None for row in rows):
            found[id(weight.tensor)] = recipe, functools.partial(_filled, plan.key, weight.tensor, rows)
    return found


def _given(tensor: Tensor) -> _Source:
    """A tensor that has its values."""
    value = tensor.detach().cpu().contiguous()
    digest = blake2b(bytes_of(value), digest_size=16).hexdigest()
    return digest, lambda: iter([value])


def bytes_of(tensor: Tensor) -> memoryview:
    """The bytes of a tensor on the CPU, without a copy where they lie side by side."""
    array: Any = tensor.detach().reshape(-1).view(torch.uint8).numpy()
    return memoryview(array)


def _filled(key: Key, tensor: Tensor, rows: tuple[Row, ...]) -> Iterator[Tensor]:
    shape = tuple(tensor.shape)
    is_drawn = all(isinstance(row.initializer, Distributed | None) for row in rows)  # else a piece takes the whole
    for offset, size in runs(shape, PIECE // tensor.dtype.itemsize if is_drawn else math.prod(shape)):
        piece = torch.empty(size, dtype=tensor.dtype, device="cpu")
        if not tensor.is_meta:
            piece.copy_(tensor.detach()[tuple(slice(o, o + n) for o, n in zip(offset, size, strict=True))])
        for row in rows:
            part, box = part_in(piece, Box(shape, offset), row.where)
            if row.initializer is not None and part.numel():
                row.initializer.fill_(part, key.fold(*row.stream), axes=row.axes, box=box)
        yield piece


def runs(shape: tuple[int, ...], most: int) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    """The blocks, as offsets and sizes, of at most so many elements that a tensor's memory consists of, in its order.

    Example:
        >>> list(runs((3, 4), 8))
        [((0, 0), (2, 4)), ((2, 0), (1, 4))]
    """
    row = math.prod(shape[1:])
    if not shape or row * shape[0] <= most:
        yield (0,) * len(shape), shape
    elif row <= most:
        for first in range(0, shape[0], most // row):
            yield (first, *(0 for _ in shape[1:])), (min(most // row, shape[0] - first), *shape[1:])
    else:
        for first in range(shape[0]):
            for offset, size in runs(shape[1:], most):
                yield (first, *offset), (1, *size)


def _computed(plan: Plan, weight: Weight, rows: tuple[Row, ...]) -> dict[int, Tensor]:
    """What a weight is computed from once it is filled, made in a copy of its module; by the ids of the originals."""
    module = weight.module
    own = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
    if isinstance(inner := getattr(module, "parametrizations", None), nn.Module):
        own += [*inner.parameters(), *inner.buffers()]
    memory = {id(tensor): _blank(tensor) for tensor in own if tensor.is_floating_point()}
    twin = copied(module, memory)
    handle = next(other for other in weights(twin) if other.attribute == weight.attribute)
    fill(Bound(plan, twin, ((handle, rows),)))
    return {i: value.detach() for i, value in memory.items() if not value.isnan().any()}


def _blank(tensor: Tensor) -> Tensor:
    """Memory for a tensor that shows where nobody has written."""
    memory = torch.full_like(tensor, torch.nan, device="cpu") if tensor.is_meta else tensor.detach().clone()
    return nn.Parameter(memory, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else memory


def _written_by(weight: Weight, make: Callable[[], dict[int, Tensor]]) -> set[int]:
    """The ids of the tensors that filling a computed weight writes; estimates among them are found by filling it."""
    under = {id(parameter) for parameter in weight.parameters}
    return under | set(make()) if any(True for _ in weight.module.buffers()) else under


def _one_of(make: Callable[[], dict[int, Tensor]], i: int) -> Iterator[Tensor]:
    yield make()[i]


def _recipe(key: Key, row: Row) -> Any:
    initializer = row.initializer
    is_plain = initializer is None or dataclasses.is_dataclass(initializer)
    how = repr(initializer) if is_plain else f"{type(initializer).__module__}.{type(initializer).__qualname__}"
    return [how, key.fold(*row.stream).seed, repr(row.axes), row.where]
