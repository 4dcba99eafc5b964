"""What a module makes its own tensors, asked of a twin of it on the CPU.

The twin is filled by what its library fills such modules with, or is built again from its own attributes. What comes
out otherwise under other random numbers or arguments that are not known, or was never written, nobody can tell.
"""

import contextlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from wellposed.models.copying import copied, without_memory

# timm has the first two and the last, torch the third
_FILLS = ("init_non_persistent_buffers", "_init_buffers", "reset_parameters", "init_weights")
_WHERE = ("device", "dtype")  # arguments of constructors that are about memory, and seldom kept
_LARGEST, _SMALL = 1 << 24, 1 << 16  # entries of a module that is built with memory, else of tensors that get some
_Way = Callable[[bool], nn.Module]


def told(model: nn.Module, path: str, names: Sequence[str], *, build: bool = True) -> dict[str, Tensor]:
    """The tensors on the CPU that a module makes its own ones of these names, whatever the random numbers.

    Args:
        model: The model; it is not changed.
        path: The module's path in it.
        names: The names of parameters or buffers in the module.
        build: Whether to build the module again, where nothing fills it.

    Returns:
        The values under the names; those that cannot be told are left out.

    Example:
        >>> told(nn.Sequential(nn.LayerNorm(2)), "0", ["weight"])
        {'weight': tensor([1., 1.])}
    """
    found = filled(model, path, names)
    left = [name for name in names if name not in found]
    return found | built(model, path, left) if build and left else found


def filled(model: nn.Module, path: str, names: Sequence[str]) -> dict[str, Tensor]:
    """The same, as far as the library has a function that fills the module; names may be paths of tensors below it."""
    module = model.get_submodule(path)
    fills = [getattr(type(module), name, None) for name in _FILLS]
    # What transformers' models fill modules with, one at a time; some fill those below, too.
    fills += [getattr(above, "_init_weights", None) for above in reversed(_lineage(model, path))]
    found: dict[str, Tensor] = {}
    for fill in filter(callable, fills):
        if left := [name for name in names if name not in found]:
            found |= _alike(lambda _, fill=fill, left=left: _filled(module, left, fill), module, left)  # type: ignore[misc]
    return found


def built(model: nn.Module, path: str, names: Sequence[str]) -> dict[str, Tensor]:
    """The same, as far as the module can be built again from its attributes."""
    lineage = _lineage(model, path)
    config = next((above.config for above in reversed(lineage) if hasattr(above, "config")), None)
    return _alike(lambda other: _built_again(lineage[-1], config, other), lineage[-1], names)


def _lineage(model: nn.Module, path: str) -> list[nn.Module]:
    """The modules that a path leads through, the model first."""
    words = path.split(".") if path else []
    return [model.get_submodule(".".join(words[:i])) for i in range(len(words) + 1)]


def _alike(way: _Way, module: nn.Module, names: Sequence[str]) -> dict[str, Tensor]:
    """The tensors that a way gives alike under two seeds, in the shapes and dtypes that the module has them."""
    found: dict[str, Tensor] = {}
    for seed in (0, 1):
        before = found
        try:
            with torch.random.fork_rng(devices=[]), torch.device("cpu"), torch.no_grad(), _NothingUnwritten():
                torch.default_generator.manual_seed(seed)
                twin = way(bool(seed))
        except Exception:  # any constructor may be run here, and one that fails has merely nothing to tell
            return {}
        found = {}
        for name in before if seed else names:
            wanted, made = _reached(module, name), _reached(twin, name)
            if not isinstance(made, Tensor) or made.is_meta:
                continue
            is_like = (made.shape, made.dtype) == (wanted.shape, wanted.dtype)
            if is_like and torch.equal(made, before.get(name, made)):  # which NaN never is
                found[name] = made.detach()
        if not found:
            break
    return found


def _reached(module: nn.Module, name: str) -> Any:
    reached: Any = module
    for word in name.split("."):
        reached = getattr(reached, word, None)
    return reached


def _filled(module: nn.Module, names: Sequence[str], fill: Callable[[nn.Module], Any]) -> nn.Module:
    """A twin in which the modules that hold these tensors alone have memory, filled by a function of its library's."""
    blank = {id(t): _like(t, "meta") for t in (*module.parameters(), *module.buffers())}
    for path in {name.rpartition(".")[0] for name in names}:
        holder = module.get_submodule(path)
        tensors = (*holder.parameters(recurse=False), *holder.buffers(recurse=False))
        blank |= {id(t): _like(t, "cpu") for t in tensors}
    twin = copied(module, blank)
    fill(twin)
    return twin


def _like(tensor: Tensor, device: str) -> Tensor:
    empty = torch.empty_like(without_memory(tensor), device=device)
    return nn.Parameter(empty, requires_grad=False) if isinstance(tensor, nn.Parameter) else empty


def _built_again(module: nn.Module, config: Any, other: bool) -> nn.Module:
    """A module of the same type, from the attributes that are called as its constructor's arguments are.

    What is not kept is left to its default, or, if ``other``, made something else: what depends on it differs then.
    """
    given = {}
    for name, parameter in _parameters(module).items():
        if name == "config" and not hasattr(module, name):
            given[name] = config
        elif parameter.default is not parameter.empty and isinstance(getattr(module, name, module), nn.Module):
            given |= {name: _another(parameter.default)} if other else {}
        else:
            given[name] = getattr(module, name)
    with contextlib.ExitStack() as stack:
        if sum(t.numel() for t in (*module.parameters(), *module.buffers())) > _LARGEST:
            stack.enter_context(torch.device("meta"))
            stack.enter_context(_MemoryForSmall())
        twin = type(module)(**given)
    kept = {name: getattr(twin, name) for name in _parameters(module) if name in given and hasattr(twin, name)}
    if any(not _same(value, given[name]) for name, value in kept.items() if not isinstance(value, nn.Module)):
        raise ValueError("what is kept under an argument's name is not what was given")
    return twin


def _parameters(module: nn.Module) -> Mapping[str, inspect.Parameter]:
    return {
        name: parameter
        for name, parameter in inspect.signature(type(module)).parameters.items()
        if name not in _WHERE and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    }


def _another(value: Any) -> Any:
    """Another value of an argument's kind."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value / 2 if 0 < value < 1 else value + 1 if isinstance(value, int) else value + 0.5
    raise ValueError("another value is not known")


def _same(one: Any, other: Any) -> bool:
    return one is other or (type(one) is type(other) and bool(one == other))


class _NothingUnwritten(TorchFunctionMode):
    """Has memory that nobody has written to hold NaN, or else the seed, so that it is not taken for a value."""

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        if function in _UNWRITTEN and result.device.type == "cpu":
            return result.fill_(torch.nan if result.is_floating_point() else torch.initial_seed())
        return result


class _MemoryForSmall(TorchFunctionMode):
    """Makes small tensors on the CPU where others are made without memory."""

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        result = function(*args, **kwargs)
        if function in _MADE and kwargs.get("device") is None and result.numel() <= _SMALL:
            return function(*args, **kwargs | {"device": "cpu"})
        return result


_MADE = (torch.zeros, torch.ones, torch.full, torch.tensor, torch.arange, torch.linspace, torch.empty, torch.randn)
_UNWRITTEN = (torch.empty, torch.empty_like, torch.empty_strided, Tensor.new_empty)
