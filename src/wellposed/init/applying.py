"""Applying a plan: memory for what has none, then every part filled from its own key."""

import torch
from torch import nn

from wellposed._torch import move_tensor_hooks
from wellposed.errors import WellposedError
from wellposed.init.plan import Bound, Plan, Row, bind
from wellposed.models.copying import is_fully_sharded
from wellposed.models.formulas import formulas
from wellposed.models.names import joined, listed
from wellposed.models.regions import local_parts
from wellposed.models.roles import buffers_of
from wellposed.models.weights import Weight
from wellposed.random.key import Key


def apply(plan: Plan, model: nn.Module, device: torch.device | str | int | None = None) -> None:
    """Fill a model's weights as a plan says.

    In place: requires_grad, dtypes, ties and hooks stay. Parameters on the meta device become parameters on ``device``
    and are filled there and then; buffers and frozen parameters on the meta device become what their modules start them
    as or compute, where that is known, and else stay.

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
        >>> apply(wp.plan_initialize(model), model, "cpu")
        >>> model.weight.device
        device(type='cpu')
    """
    fill(bind(plan, model), device)


def fill(bound: Bound, device: torch.device | str | int | None = None) -> None:
    """Fill the weights of a plan that is bound to its model, as :func:`apply` does."""
    _refuse_nowhere(bound, device)
    with torch.no_grad():
        for module in bound.model.modules():
            if is_fully_sharded(module) and callable(reshard := getattr(module, "reshard", None)):
                reshard()  # gathered weights are let go, for what is written to them would be lost
        if device is not None:
            _materialise(bound, torch.device(device))
        for weight, rows in bound.weights:
            if _is_filled(rows):
                _fill(bound.plan.key, weight, rows)


def _refuse_nowhere(bound: Bound, device: torch.device | str | int | None) -> None:
    nowhere = [
        weight.name
        for weight, rows in bound.weights
        if any(parameter.is_meta for parameter in weight.parameters)
        and (device is None or any(row.initializer is None for row in rows))
        and (_is_filled(rows) or not weight.is_frozen or device is None)
    ]
    if nowhere:
        raise WellposedError(
            f"{listed(nowhere)}: on the meta device, without memory; say where they are to be, for example "
            "device='cpu', and let no rule leave them as they are"
        )


def _materialise(bound: Bound, device: torch.device) -> None:
    made: dict[int, nn.Parameter] = {}
    values = formulas(bound.model)
    filled = {id(p) for weight, rows in bound.weights if _is_filled(rows) for p in weight.parameters}
    for path, module in bound.model.named_modules():
        for name, parameter in list(module.named_parameters(recurse=False, remove_duplicate=False)):
            value = values.get(joined(path, name))
            if parameter.is_meta and id(parameter) not in made and (id(parameter) in filled or value is not None):
                made[id(parameter)] = _with_memory(parameter, device)
                if value is not None:
                    made[id(parameter)].copy_(value)
        for name, value in buffers_of(module).items():
            buffer = getattr(module, name, None)
            if buffer is not None and buffer.is_meta:
                setattr(module, name, value.to(device, buffer.dtype).expand_as(buffer).clone())
        for name, _ in list(module.named_buffers(recurse=False)):
            if (value := values.get(joined(path, name))) is not None:
                setattr(module, name, value.to(device))
    for module in bound.model.modules():  # a tied one everywhere, once it has memory
        for name, parameter in list(module.named_parameters(recurse=False, remove_duplicate=False)):
            if id(parameter) in made:
                setattr(module, name, made[id(parameter)])


def _is_filled(rows: tuple[Row, ...]) -> bool:
    return any(row.initializer is not None for row in rows)


def _with_memory(parameter: nn.Parameter, device: torch.device) -> nn.Parameter:
    """A parameter like one of the meta device, with memory; its attributes and hooks come along."""
    memory = torch.empty_like(parameter, device=device, requires_grad=False)
    new = nn.Parameter(memory, parameter.requires_grad)
    for name, value in vars(parameter).items():
        vars(new).setdefault(name, value)  # a sharded one has its memory in there, too
    move_tensor_hooks(parameter, new)
    return new


def _fill(key: Key, weight: Weight, rows: tuple[Row, ...]) -> None:
    first = weight.parameters[0]
    whole = first
    if weight.computed is not None:
        whole = torch.empty(_whole(rows), dtype=first.dtype, device=first.device)
    for row in rows:
        if row.initializer is not None:
            blocks = local_parts(whole, row.where, row.boxes)
            row.initializer.fill_blocks(blocks, key.fold(*row.stream), axes=row.axes)
    if weight.computed is not None:
        weight.write(whole)
        weight.computed.settle(key.fold(rows[0].stream[0], "settle"))


def _whole(rows: tuple[Row, ...]) -> tuple[int, ...]:
    shape = list(rows[0].shape)
    for row in rows:
        if row.where is not None:
            dim, _, end = row.where
            shape[dim] = max(shape[dim], end)
    return tuple(shape)
