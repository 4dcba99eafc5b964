"""Copies of models, to be run or changed apart: the model itself stays as it is."""

import copy
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from wellposed._torch import forward_hooks
from wellposed.errors import WellposedError
from wellposed.random.shards import is_sharded

Model = TypeVar("Model", bound=nn.Module)


def copied(model: Model, tensors: Mapping[int, Any] | None = None) -> Model:
    """A copy of a model, in its mode.

    Tensors that the model holds with their history, such as an output it has kept, are copied without; sharded modules
    are copied as modules of the class that they had before, without the hooks of sharding.

    Args:
        model: The model; it is not changed.
        tensors: What takes the place of some of its tensors, by the tensors' ids. The others are copied.

    Returns:
        The copy.

    Raises:
        WellposedError: If the model holds what cannot be copied.

    Example:
        >>> model = nn.BatchNorm1d(4)
        >>> other = copied(model, {id(model.weight): model.weight})
        >>> other.weight is model.weight, other.running_mean is model.running_mean
        (True, False)
    """
    memo = dict(tensors or {})
    plain: dict[nn.Module, nn.Module] = {}
    for module in model.modules():
        for hook in (hook for hooks in forward_hooks(module) for hook in hooks.values()):
            if _shards(hook) and hasattr(hook, "__self__"):
                memo[id(hook.__self__)] = hook.__self__  # the state of the sharding, which cannot be copied
        if is_fully_sharded(module):
            plain[module] = memo[id(module)] = object.__new__(type(module).__bases__[1])
    try:
        with WithoutHistory():
            for module, other in plain.items():
                vars(other).update(copy.deepcopy(vars(module), memo))
            other = copy.deepcopy(model, memo)
    except Exception as problem:
        raise WellposedError(
            f"{type(model).__name__} cannot be copied, and only a copy is worked on, to leave the model as it is "
            f"({type(problem).__name__}: {problem}); keep out of it what copy.deepcopy refuses"
        ) from problem
    for module in other.modules():
        for hooks in forward_hooks(module):
            for name in [name for name, hook in hooks.items() if _shards(hook)]:
                del hooks[name]
    return other


def sharing_parameters(model: Model) -> Model:
    """A copy that shares the model's parameters; buffers and all else that running it may change are its own.

    Args:
        model: The model.

    Returns:
        The copy, in the model's mode.

    Raises:
        WellposedError: If the model is sharded, or cannot be copied.
    """
    if any(is_fully_sharded(module) or any(map(is_sharded, tensors_of(module))) for module in model.modules()):
        raise WellposedError(
            f"{type(model).__name__} is sharded, and only a copy is run, which could not gather its shards; pass the "
            "model as it is before it is sharded"
        )
    return copied(model, {id(parameter): parameter for parameter in model.parameters()})


def tensors_of(model: nn.Module) -> Iterator[Tensor]:
    """A model's parameters and buffers."""
    yield from model.parameters()
    yield from model.buffers()


def without_memory(tensor: Tensor) -> Tensor:
    """A tensor on the meta device; of a sharded one, the whole."""
    if is_sharded(tensor):
        return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")
    return tensor.detach().to("meta")


def is_fully_sharded(module: nn.Module) -> bool:
    """Whether a module has been given a class of its own that gathers its shards."""
    first, *rest = type(module).__bases__
    return len(rest) == 1 and first.__module__.startswith("torch.distributed")


def _shards(hook: Any) -> bool:
    return str(getattr(hook, "__module__", "")).startswith("torch.distributed")


class WithoutHistory(TorchFunctionMode):
    """Lets tensors that have a history be copied, which torch refuses."""

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if function is Tensor.__deepcopy__ and not args[0].is_leaf:
            return args[0].detach().clone()
        return function(*args, **(kwargs or {}))
