"""Applying a plan: memory for what has none, then every part filled from its own key."""

import itertools
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from wellposed._torch import move_tensor_hooks
from wellposed.errors import WellposedError
from wellposed.init.copies import is_fully_sharded
from wellposed.init.plan import Plan, Row
from wellposed.init.regions import held
from wellposed.init.roles import buffers_of
from wellposed.init.targets import find, listed, reach
from wellposed.random.key import Key
from wellposed.random.memory import on_large_pages


def apply(plan: Plan, model: nn.Module, device: torch.device | str | int | None = None) -> None:
    """Fill a model's weights as a plan says.

    In place: requires_grad, dtypes, ties and hooks stay. Parameters on the meta device become parameters on ``device``
    and are filled there and then; buffers on the meta device become what their modules start them as, where that is
    known, and else stay.

    Args:
        plan: The plan, made for this model or one of the same names and shapes.
        model: The model.
        device: Where parameters of the meta device are to be; those that have a device stay on it.

    Raises:
        WellposedError: If a weight of the plan is not in the model or has another shape, or a parameter of the meta
            device has nowhere to go. The model is then as it was.

    Example:
        >>> import wellposed as wp
        >>> with torch.device("meta"):
        ...     model = nn.Linear(4, 3)
        >>> apply(wp.init.plan(model), model, "cpu")
        >>> model.weight.device
        device(type='cpu')
    """
    _check(plan, model, device)
    with torch.no_grad():
        for module in model.modules():
            if is_fully_sharded(module) and callable(reshard := getattr(module, "reshard", None)):
                reshard()  # gathered weights are let go, for what is written to them would be lost
        if device is not None:
            _materialise(plan, model, torch.device(device))
        for name, rows in _weights(plan):
            if any(row.initializer is not None for row in rows):
                _fill(plan.key, model, name, rows)


def _weights(plan: Plan) -> Iterator[tuple[str, list[Row]]]:
    for name, rows in itertools.groupby(plan.rows, key=lambda row: row.name):
        yield name, list(rows)


def _check(plan: Plan, model: nn.Module, device: torch.device | str | int | None) -> None:
    nowhere = []
    for name, rows in _weights(plan):
        module, attribute, stored = find(model, name)
        under = [reach(module, inner) for inner in stored.under] if stored else [reach(module, attribute)]
        shape = tuple(under[0].shape) if len(under) == 1 else None
        for row in rows:
            dim, _, end = row.where or (0, 0, 0)
            if shape is not None and (shape[dim] < end if row.where else shape != row.shape):
                raise WellposedError(f"{row.label} has shape {shape} in the model; make a new plan for this model")
        if any(tensor.is_meta for tensor in under) and (device is None or any(row.initializer is None for row in rows)):
            nowhere.append(name)
    if nowhere:
        raise WellposedError(
            f"{listed(nowhere)}: on the meta device, without memory; say where they are to be, for example "
            "device='cpu', and let no rule leave them as they are"
        )
    missing = unplanned(plan, model)
    if missing:
        raise WellposedError(f"the plan has no row for {listed(missing)}; make a new plan for this model")


def unplanned(plan: Plan, model: nn.Module) -> list[str]:
    """The parameters of a model that a plan has no row for."""
    known = {id(t) for name, _ in _weights(plan) for t in _under(model, name)}
    return [name for name, parameter in model.named_parameters() if id(parameter) not in known]


def _under(model: nn.Module, name: str) -> list[Tensor]:
    module, attribute, stored = find(model, name)
    return [reach(module, inner) for inner in (stored.under if stored else (attribute,))]


def _materialise(plan: Plan, model: nn.Module, device: torch.device) -> None:
    made: dict[int, nn.Parameter] = {}
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False, remove_duplicate=False)):
            if parameter.is_meta:
                if id(parameter) not in made:
                    made[id(parameter)] = _twin(parameter, device)
                setattr(module, name, made[id(parameter)])
        for name, value in buffers_of(module).items():
            buffer = getattr(module, name, None)
            if buffer is not None and buffer.is_meta:
                setattr(module, name, value.to(device, buffer.dtype).expand_as(buffer).clone())


def _twin(parameter: nn.Parameter, device: torch.device) -> nn.Parameter:
    """The same parameter with memory; what was hung on it comes along."""
    memory = on_large_pages(torch.empty_like(parameter, device=device, requires_grad=False))
    twin = nn.Parameter(memory, parameter.requires_grad)
    for name, value in vars(parameter).items():
        vars(twin).setdefault(name, value)  # a sharded one has its memory in there, too
    move_tensor_hooks(parameter, twin)
    return twin


def _fill(key: Key, model: nn.Module, name: str, rows: list[Row]) -> None:
    module, attribute, stored = find(model, name)
    if stored is None:
        weight = reach(module, attribute)
    else:
        like = reach(module, stored.under[0])
        weight = torch.empty(_whole(rows), dtype=like.dtype, device=like.device)
    for row in rows:
        if row.initializer is not None:
            part, box = held(weight, row.where)
            row.initializer.fill_(part, key.fold(*row.stream), axes=row.axes, box=box)
    if stored is not None:
        stored.write(weight)
        stored.settle(key.fold(rows[0].stream[0], "settle"))


def _whole(rows: list[Row]) -> tuple[int, ...]:
    shape = list(rows[0].shape)
    for row in rows:
        if row.where is not None:
            dim, _, end = row.where
            shape[dim] = max(shape[dim], end)
    return tuple(shape)
