"""The weights of a model: each found once, with its names, its parts, and a handle to read and write it by."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from wellposed.errors import WellposedError
from wellposed.models.names import joined, listed, plain_path
from wellposed.models.parametrized import Computed, computed_in
from wellposed.models.roles import Part, parts_of


@dataclass(frozen=True, eq=False)
class Weight:
    """One weight of a model, and a handle on it.

    Attributes:
        name: Its path in the model; of a tied weight the first one.
        others: The other paths of a tied weight.
        stream: The path that its key comes from: its name without what wrappers put into it.
        module: The module that holds it.
        parts: What its blocks are for; empty when no row of the table claims it.
        also: What the other modules that share it use it for.
        computed: How it is computed from other parameters; ``None`` for a parameter of its own.
        note: How its role is known, where it is not by the table.
        enlarged: Whether the rows of an embedding make up the residual stream, however small they start.
    """

    name: str
    others: tuple[str, ...]
    stream: str
    module: nn.Module
    parts: tuple[Part, ...]
    also: tuple[Part, ...] = ()
    computed: Computed | None = None
    note: str = ""
    enlarged: bool = False

    @property
    def attribute(self) -> str:
        """Its name in its module."""
        return self.name.rpartition(".")[2]

    @property
    def names(self) -> tuple[str, ...]:
        """All its paths in the model."""
        return (self.name, *self.others)

    @property
    def parameters(self) -> tuple[Tensor, ...]:
        """The parameters that hold it, which an optimizer has: itself, or those that it is computed from."""
        under = (self.attribute,) if self.computed is None else self.computed.under
        return tuple(_reach(self.module, name) for name in under)

    @property
    def tensor(self) -> Tensor:
        """The weight, or the one parameter that stands for its shape and dtype."""
        parameters = self.parameters
        return parameters[0] if self.computed is None or len(parameters) == 1 else self.computed.read()

    @property
    def is_frozen(self) -> bool:
        """Whether it is not learnt, or is computed from a parameter that is not: none is written through the other."""
        return not all(parameter.requires_grad for parameter in self.parameters)

    def read(self) -> Tensor:
        """The weight as it was last written."""
        if self.computed is not None and self.computed.linear:
            return self.computed.read()
        return self.parameters[0]

    def write(self, values: Tensor) -> None:
        """Make the weight these values, as far as what it is computed by allows."""
        if self.computed is None:
            self.parameters[0].copy_(values)
        else:
            self.computed.write(values)


def weights(model: nn.Module) -> list[Weight]:
    """Every weight of a model, tied ones once, in the model's order.

    Raises:
        WellposedError: If a lazy module has not been given its shapes yet.

    Example:
        >>> [weight.name for weight in weights(nn.Sequential(nn.Linear(2, 3), nn.Tanh()))]
        ['0.weight', '0.bias']
    """
    lazy = [name for name, p in model.named_parameters() if isinstance(p, UninitializedParameter)]
    if lazy:
        raise WellposedError(f"{listed(lazy)}: lazy modules have no shape yet; run the model once on an example first")
    claims: dict[str, tuple[Part, ...]] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        for name, parts in parts_of(module).items():
            claims.setdefault(joined(path, name), parts)
    names: dict[int, list[str]] = defaultdict(list)
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names[id(parameter)].append(name)
    result = []
    for name, module, tensor, computed in _walk(model):
        first, *others = names.get(id(tensor)) or [name]
        if name not in (first, *others):  # computed from the parameter of another name
            first, others = name, []
        also = tuple(part for other in others for part in claims.get(other, ()))
        parts = claims.get(first) or also
        result.append(Weight(name, tuple(others), plain_path(model, name), module, parts, also, computed))
    return result


def _walk(model: nn.Module) -> Iterator[tuple[str, nn.Module, Tensor | None, Computed | None]]:
    """The path of each weight, the module that holds it, the one parameter that it is, and how it is computed."""
    modules = list(model.named_modules())
    computed = {module: list(computed_in(module)) for _, module in modules}
    seen = {id(_reach(module, inner)) for module, ways in computed.items() for _, way in ways for inner in way.under}
    for path, module in modules:
        for name, way in computed[module]:
            under = [_reach(module, inner) for inner in way.under]
            if under:
                yield joined(path, name), module, under[0] if len(under) == 1 else None, way
        for name, parameter in module.named_parameters(recurse=False):
            if id(parameter) not in seen:
                seen.add(id(parameter))
                yield joined(path, name), module, parameter, None


def _reach(module: nn.Module, dotted: str) -> Tensor:
    path, _, name = dotted.rpartition(".")
    tensor: Tensor = getattr(module.get_submodule(path), name)
    return tensor
