"""The parameters of a model, and what each is for: by the table of roles, by use, or else by name and dimensions."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from torch import Tensor, nn

from wellposed.errors import WellposedError
from wellposed.models.names import unwrapped
from wellposed.models.roles import Part, is_called_normalisation, kind_by_name
from wellposed.models.roles.use.entering import entries_of
from wellposed.models.weights import Weight, weights

Model = nn.Module | Iterable[tuple[str, Tensor]]
"""A model, or pairs of a name and a parameter."""

PARAMETRISED = "parametrised"


@dataclass(frozen=True, eq=False)
class Candidate:
    """A parameter of the model.

    Args:
        names: Its names; several if it is tied.
        parameter: The parameter.
        owner: The module that holds it under its first name, if there are modules.
        uses: What it is used for: the kinds of its blocks under its first name, then those under the others.
        note: How its role is known, if not by the table of roles.
        parts: Of a weight what its dimensions and blocks are for, as far as the table knows.
    """

    names: list[str]
    parameter: Tensor
    owner: nn.Module | None
    uses: tuple[frozenset[str], ...]
    note: str = ""
    parts: tuple[Part, ...] = ()

    @property
    def role(self) -> str:
        """What it is for, in words."""
        return ", ".join(dict.fromkeys(kind for use in self.uses for kind in sorted(use)))

    def serves_as(self, kinds: frozenset[str]) -> bool:
        """Whether one of its uses is of these kinds throughout."""
        return any(use <= kinds for use in self.uses)


def candidates(model: Model) -> list[Candidate]:
    """Each distinct parameter of a model, in the model's order.

    Raises:
        WellposedError: If there is none, or a pair is none.
    """
    if not isinstance(model, nn.Module | Iterable):
        raise WellposedError(
            f"regularize was given a model {model!r}; expected a torch.nn.Module, or pairs of a name and a parameter"
        )
    found = _of_module(model) if isinstance(model, nn.Module) else _of_pairs(model)
    if not found:
        raise WellposedError("regularize was given a model without parameters")
    return found


def _of_pairs(pairs: Iterable[tuple[str, Tensor]]) -> list[Candidate]:
    """Parameters without their modules, told by names and dimensions."""
    names: dict[Tensor, list[str]] = {}
    for pair in pairs:
        if not (isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[1], Tensor)):
            raise WellposedError(
                f"regularize was given a model that holds {pair!r}; expected a torch.nn.Module, or pairs of a name and "
                "a parameter"
            )
        names.setdefault(pair[1], []).append(pair[0])
    return [
        Candidate(several, p, None, (frozenset({kind_by_name(several[0], p.ndim)}),), "by its name and dimensions")
        for p, several in names.items()
    ]


def _of_module(model: nn.Module) -> list[Candidate]:
    """Parameters with what the table of roles or their use says of them, in the model's order."""
    _, model = unwrapped(model)
    holding = {parameter: weight for weight in _seen(model, weights(model)) for parameter in weight.parameters}
    modules = dict(model.named_modules(remove_duplicate=False))
    names: dict[Tensor, list[str]] = {}
    for name, held in model.named_parameters(remove_duplicate=False):
        names.setdefault(held, []).append(name)
    found = []
    for parameter, several in names.items():
        path = several[0].rpartition(".")[0]
        weight, owner = holding[parameter], modules[path]
        uses: tuple[frozenset[str], ...] = (frozenset({PARAMETRISED}),)
        note = f"{weight.name} is computed from it"
        if weight.computed is None:
            uses, note = _uses(weight.parts, weight.also), weight.note
            if is_called_normalisation(owner):
                uses = (frozenset({"normalisation"}),)
            elif not uses:
                uses = (frozenset({kind_by_name(several[0], parameter.ndim)}),)
                note = "no role claims it: by its name and dimensions"
            elif {"embedding"} in uses and {"weight"} in uses:
                note = "a table of vectors that multiplies signals too"
        found.append(Candidate(several, parameter, owner, uses, note, _layout(weight)))
    return found


def _seen(model: nn.Module, held: list[Weight]) -> list[Weight]:
    """Weights that the table of roles does not know with what they are by how they enter the forward pass."""
    if all(weight.parts or weight.computed is not None for weight in held):
        return held
    entries = entries_of(model)
    found = []
    for weight in held:
        seen = () if weight.parts or weight.computed is not None else entries.roles(weight.names)
        note = "by how it enters the forward pass"
        found.append(replace(weight, parts=seen[:1], also=seen[1:], note=note) if seen else weight)
    return found


def _layout(weight: Weight) -> tuple[Part, ...]:
    """The blocks of a weight that multiplies signals, in its first use that is one; nothing of other parameters."""
    if weight.computed is not None and len(weight.parameters) > 1:
        return ()
    multiplies = frozenset({"weight", "recurrent"})
    if {part.kind for part in weight.parts} <= multiplies:
        return weight.parts
    return next(((part,) for part in weight.also if part.kind in multiplies and part.where is None), ())


def _uses(parts: Iterable[Part], also: Iterable[Part]) -> tuple[frozenset[str], ...]:
    """The kinds of a weight's blocks, and those of each other use; rows that stay as they start are of no kind else."""
    first, others = ([_kind(part) for part in several] for several in (parts, also))
    changing = [kind for kind in first if kind != "fixed"] or first
    return tuple(dict.fromkeys(frozenset(use) for use in (changing, *([kind] for kind in others)) if use))


def _kind(part: Part) -> str:
    return "normalisation" if part.kind == "scale" else part.kind
