"""Copies of models, to be traced: with other tensors in place of their own, and without what sharding put on them."""

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from wellposed._torch import forward_hooks
from wellposed.random.shards import is_sharded


def tensors_of(model: nn.Module) -> Iterator[Tensor]:
    """A model's parameters and buffers."""
    yield from model.parameters()
    yield from model.buffers()


def without_memory(tensor: Tensor) -> Tensor:
    """A tensor on the meta device; of a sharded one, the whole."""
    if is_sharded(tensor):
        return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")
    return tensor.detach().to("meta")


def copied(model: nn.Module, tensors: Mapping[int, Any]) -> nn.Module:
    """A copy of a model in evaluation mode.

    Args:
        model: The model; it is not changed.
        tensors: What takes the place of each of its tensors, by the tensor's id.

    Returns:
        The copy, of the classes that the modules had before they were sharded, and without the hooks of sharding.
    """
    memo = dict(tensors)
    plain: dict[nn.Module, nn.Module] = {}
    for module in model.modules():
        for hook in (hook for hooks in forward_hooks(module) for hook in hooks.values()):
            if _shards(hook) and hasattr(hook, "__self__"):
                memo[id(hook.__self__)] = hook.__self__  # the state of the sharding, which cannot be copied
        if is_fully_sharded(module):
            plain[module] = memo[id(module)] = object.__new__(type(module).__bases__[1])
    for module, twin in plain.items():
        vars(twin).update(copy.deepcopy(vars(module), memo))
    twin = copy.deepcopy(model, memo)
    for module in twin.modules():
        for hooks in forward_hooks(module):
            for name in [name for name, hook in hooks.items() if _shards(hook)]:
                del hooks[name]
    return twin.eval()


def is_fully_sharded(module: nn.Module) -> bool:
    """Whether a module has been given a class of its own that gathers its shards."""
    first, *rest = type(module).__bases__
    return len(rest) == 1 and first.__module__.startswith("torch.distributed")


def _shards(hook: Any) -> bool:
    return str(getattr(hook, "__module__", "")).startswith("torch.distributed")
