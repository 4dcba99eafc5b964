"""Targets: every weight of a model, with its names, its parts and where it is stored."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from wellposed.errors import WellposedError
from wellposed.init.names import unwrapped_all
from wellposed.init.roles import Part, parts_of
from wellposed.init.stored import Stored, stored_in


@dataclass(frozen=True)
class Target:
    """One weight of a model.

    Attributes:
        name: Its path in the model; of a tied weight the first one.
        others: The other paths of a tied weight.
        stream: The path that its key comes from, without what wrappers put into it.
        module: The module that holds it.
        tensor: The weight, or what stands for its shape and dtype.
        parts: What its blocks are for; empty when no row of the table claims it.
        also: What the other modules that share it use it for.
        stored: How it is computed from other parameters; ``None`` for a parameter of its own.
    """

    name: str
    others: tuple[str, ...]
    stream: str
    module: nn.Module
    tensor: Tensor
    parts: tuple[Part, ...]
    also: tuple[Part, ...] = ()
    stored: Stored | None = None


def targets(model: nn.Module) -> list[Target]:
    """Every weight of a model, tied ones once, in the model's order.

    Raises:
        WellposedError: If a lazy module has not been given its shapes yet.
    """
    lazy = [name for name, p in model.named_parameters() if isinstance(p, UninitializedParameter)]
    if lazy:
        raise WellposedError(
            f"{listed(lazy)}: lazy modules have no shape yet; run the model once on an example, then initialize it"
        )
    claims: dict[str, tuple[Part, ...]] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        for name, parts in parts_of(module).items():
            claims.setdefault(_join(path, name), parts)
    names: dict[int, list[str]] = defaultdict(list)
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names[id(parameter)].append(name)
    found = list(_walk(model))
    streams = unwrapped_all([name for name, *_ in found])
    result = []
    for name, module, tensor, stored in found:
        first, *others = names.get(id(tensor)) or [name]
        if name not in (first, *others):  # computed from the parameter of another name
            first, others = name, []
        also = tuple(part for other in others for part in claims.get(other, ()))
        result.append(
            Target(name, tuple(others), streams[name], module, tensor, claims.get(first) or also, also, stored)
        )
    return result


def _walk(model: nn.Module) -> Iterator[tuple[str, nn.Module, Tensor, Stored | None]]:
    """The path of each weight, the module that holds it, the weight, and how it is stored."""
    modules = list(model.named_modules())
    computed = {module: list(stored_in(module)) for _, module in modules}
    seen = {id(reach(module, inner)) for module, ways in computed.items() for _, way in ways for inner in way.under}
    for path, module in modules:
        for name, way in computed[module]:
            under = [reach(module, inner) for inner in way.under]
            if under:
                yield _join(path, name), module, under[0] if len(under) == 1 else way.read(), way
        for name, parameter in module.named_parameters(recurse=False):
            if id(parameter) not in seen:
                seen.add(id(parameter))
                yield _join(path, name), module, parameter, None


def find(model: nn.Module, name: str) -> tuple[nn.Module, str, Stored | None]:
    """The module that holds the weight of a path, its name there, and how it is stored.

    Raises:
        WellposedError: If the model has no such weight.
    """
    path, _, attribute = name.rpartition(".")
    try:
        module = model.get_submodule(path)
    except AttributeError:
        module = None
    if module is not None:
        for computed, stored in stored_in(module):
            if computed == attribute:
                return module, attribute, stored
        if attribute in dict(module.named_parameters(recurse=False, remove_duplicate=False)):
            return module, attribute, None
    raise WellposedError(f"the model has no parameter {name!r}; make a new plan for this model")


def reach(module: nn.Module, dotted: str) -> Tensor:
    """The tensor at a dotted path."""
    path, _, name = dotted.rpartition(".")
    tensor: Tensor = getattr(module.get_submodule(path), name)
    return tensor


def listed(names: Sequence[str], most: int = 20) -> str:
    """Names in a sentence, the first of many."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
