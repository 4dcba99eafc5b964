"""Values that a module computes rather than learns: rotary frequencies, sinusoidal tables, indices, blur filters.

A model that was built on the meta device has none of them. They are taken from a twin of the module on the CPU.
"""

from collections.abc import Container

from torch import Tensor, nn

from wellposed.models.names import joined
from wellposed.models.roles import buffers_of
from wellposed.models.roles.twins import built, filled
from wellposed.random.shards import is_sharded


def without_values(module: nn.Module) -> list[str]:
    """The buffers and the frozen parameters of a module itself that have no memory and no known start.

    Example:
        >>> import torch
        >>> with torch.device("meta"):
        ...     module = nn.Embedding.from_pretrained(torch.ones(2, 3))
        >>> without_values(module.to("meta")), without_values(nn.BatchNorm1d(2, device="meta"))
        (['weight'], [])
    """
    known = buffers_of(module)
    buffers = [name for name, b in module.named_buffers(recurse=False) if b.is_meta and name not in known]
    frozen = [name for name, p in module.named_parameters(recurse=False) if p.is_meta and not p.requires_grad]
    return [name for name in (*buffers, *frozen) if not is_sharded(getattr(module, name))]


def formulas(model: nn.Module) -> dict[str, Tensor]:
    """The values on the CPU of a model's buffers and frozen parameters without memory, where they are formulas.

    Args:
        model: The model; it is not changed.

    Returns:
        The values under the tensors' paths; those that cannot be told are left out.

    Example:
        >>> import torch
        >>> class Positions(nn.Module):
        ...     def __init__(self, length):
        ...         super().__init__()
        ...         self.length = length
        ...         self.register_buffer("index", torch.arange(length))
        >>> with torch.device("meta"):
        ...     model = nn.Sequential(Positions(3))
        >>> formulas(model)
        {'0.index': tensor([0, 1, 2])}
    """
    modules = list(model.named_modules())
    own = {path: names for path, module in modules if (names := without_values(module))}
    left = [joined(path, name) for path, names in own.items() for name in names]
    found: dict[str, Tensor] = {}
    for path, _ in reversed(modules):  # what is nearest knows best
        start = f"{path}." if path else ""
        if below := [name.removeprefix(start) for name in left if name.startswith(start)]:
            found |= {joined(path, name): value for name, value in filled(model, path, below).items()}
            left = [name for name in left if name not in found]
    for path, names in own.items():
        if unfilled := [name for name in names if joined(path, name) not in found]:
            found |= {joined(path, name): value for name, value in built(model, path, unfilled).items()}
    return found


def unknown(model: nn.Module, told: Container[str], given: Container[int]) -> tuple[str, ...]:
    """The paths of a model's tensors without values, but those that are told and those whose ids are given."""
    return tuple(
        joined(path, name)
        for path, module in model.named_modules()
        for name in without_values(module)
        if joined(path, name) not in told and id(getattr(module, name)) not in given
    )
