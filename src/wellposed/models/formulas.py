"""Values that a module computes rather than learns: rotary frequencies, sinusoidal tables, indices, blur filters.

A model that was built on the meta device has none of them. They are taken from a twin of the module on the CPU: by what
its library fills such tensors with, or by building it again from its own attributes. What comes out otherwise under
other random numbers, or was never written, is no formula and is not taken.
"""

import copy
import inspect
from collections.abc import Callable, Container, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from wellposed.models.names import joined
from wellposed.models.roles import buffers_of
from wellposed.random.shards import is_sharded

_FILLS = ("init_non_persistent_buffers", "_init_buffers", "reset_parameters")  # timm has the first two, torch the last
_WHERE = ("device", "dtype")  # arguments of constructors that are about memory, and seldom kept


def without_values(module: nn.Module) -> list[str]:
    """The buffers and the frozen parameters of a module itself that have no memory and no known start.

    Example:
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
    found: dict[str, Tensor] = {}
    lineage: list[tuple[str, nn.Module]] = []  # the modules from the model down to the present one
    for path, module in model.named_modules():
        while lineage and not _is_below(path, lineage[-1][0]):
            lineage.pop()
        lineage.append((path, module))
        names = without_values(module)
        for way in _ways(lineage):
            if not names:
                break
            values = _told(way, module, names)
            found |= {joined(path, name): value for name, value in values.items()}
            names = [name for name in names if name not in values]
    return found


def unknown(model: nn.Module, told: Container[str], given: Container[int]) -> tuple[str, ...]:
    """The paths of a model's tensors without values, but those that are told and those whose ids are given."""
    return tuple(
        joined(path, name)
        for path, module in model.named_modules()
        for name in without_values(module)
        if joined(path, name) not in told and id(getattr(module, name)) not in given
    )


def _is_below(path: str, above: str) -> bool:
    return not above or path.startswith(f"{above}.")


def _ways(lineage: list[tuple[str, nn.Module]]) -> Iterator[Callable[[], nn.Module]]:
    """How to make a twin of the last module that has the values, in several ways."""
    path, module = lineage[-1]
    for fill in (getattr(type(module), name, None) for name in _FILLS):
        if fill is not None:
            yield lambda fill=fill: _filled(module, "", fill)  # type: ignore[misc]
    yield lambda: _built_again(module)
    # What transformers' models fill modules with, one at a time; some fill those right below.
    for _, above in reversed(lineage):
        fill = getattr(above, "_init_weights", None)
        if fill is not None and hasattr(above, "config"):
            for inner_path, outer in reversed(lineage[-2:]):
                within = path[len(inner_path) :].lstrip(".") if outer is not module else ""
                yield lambda fill=fill, outer=outer, within=within: _filled(outer, within, fill)  # type: ignore[misc]


def _told(way: Callable[[], nn.Module], module: nn.Module, names: list[str]) -> dict[str, Tensor]:
    """The tensors that a way gives alike under two seeds, in the shapes and dtypes that the module has them."""
    twins = []
    for seed in (0, 1):
        try:
            with torch.random.fork_rng(devices=[]), torch.device("cpu"), torch.no_grad(), _NothingUnwritten():
                torch.manual_seed(seed)
                twins.append(way())
        except Exception:  # any constructor may be run here, and one that fails has merely nothing to tell
            return {}
    told = {}
    for name in names:
        wanted, (one, other) = getattr(module, name), (getattr(twin, name, None) for twin in twins)
        if (
            isinstance(one, Tensor)
            and isinstance(other, Tensor)
            and not one.is_meta
            and (one.shape, one.dtype) == (wanted.shape, wanted.dtype)
            and torch.equal(one, other)  # which NaN never is
        ):
            told[name] = one.detach()
    return told


def _filled(outer: nn.Module, within: str, fill: Callable[[nn.Module], Any]) -> nn.Module:
    """A twin in which the inner module's own tensors alone have memory, filled by a function of its library's."""
    twin = copy.deepcopy(outer)
    inner = twin.get_submodule(within)
    for name, tensor in (*inner.named_parameters(recurse=False), *inner.named_buffers(recurse=False)):
        blank = torch.empty_like(tensor, device="cpu", requires_grad=False)
        is_parameter = isinstance(tensor, nn.Parameter)
        setattr(inner, name, nn.Parameter(blank, requires_grad=False) if is_parameter else blank)
    fill(twin)
    return inner


def _built_again(module: nn.Module) -> nn.Module:
    """A module of the same type, from the attributes that are called as its constructor's arguments are."""
    given = _arguments(module)
    twin = type(module)(**given)
    if any(not _same(value, given[name]) for name, value in _arguments(twin).items()):
        raise ValueError("what is kept under an argument's name is not what was given")
    return twin


def _arguments(module: nn.Module) -> Mapping[str, Any]:
    parameters = inspect.signature(type(module)).parameters
    return {
        name: getattr(module, name)
        for name, parameter in parameters.items()
        if name not in _WHERE and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    }


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


_UNWRITTEN = (torch.empty, torch.empty_like, torch.empty_strided, Tensor.new_empty)
