"""Which parameters a penalty acts on, and why: selection by role, name, module or callable."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor, nn

from wellposed.arguments import unwritable
from wellposed.errors import WellposedError
from wellposed.models.globs import last_match, matches
from wellposed.penalties.optim.candidates import PARAMETRISED, Candidate, Model, candidates
from wellposed.penalties.penalty import Penalty
from wellposed.tabular import Table, Tabular

Where = str | type[nn.Module] | Callable[[str, Tensor], bool]
"""Roles in the plural ("weights", "biases", "norms", "embeddings", "tokens", "all"), a glob on the name, a callable, or
a module type: all parameters of its own but biases."""

Penalties = Penalty | Mapping[str, Penalty | None]
"""One penalty for all, or one for each glob; the last glob that matches counts, and None leaves a parameter out."""

_ROLES: dict[str, frozenset[str]] = {
    "weights": frozenset({"weight", "recurrent"}),
    "biases": frozenset({"bias", "forget"}),
    "norms": frozenset({"normalisation"}),
    "embeddings": frozenset({"embedding"}),
    "tokens": frozenset({"token"}),
}


@dataclass(frozen=True)
class PlanRow:
    """What happens to one parameter.

    Args:
        name: The parameter's first name in the model.
        shape: Its shape.
        role: What it is for: "weight", "recurrent", "embedding", "token", "bias", "forget", "normalisation", "slope",
            "gate", "decay", "step" or "fixed", as in ``wellposed.init.Part``; "vector" for one of fewer than two
            dimensions that no role claims; "parametrised" for one that another weight is computed from. Several if
            its blocks differ, or if it is tied.
        penalty: What acts on it, or ``None``.
        reason: Why it is in or out.
    """

    name: str
    shape: tuple[int, ...]
    role: str
    penalty: Penalty | None
    reason: str


@dataclass(frozen=True)
class PenaltyPlan(Tabular[PlanRow]):
    """Which parameters are penalised, how, and why; prints as a table.

    Args:
        rows: One row for each distinct parameter of the model, in the model's order.
        mode: How the penalty acts.
        objective: What training then minimises.
    """

    rows: tuple[PlanRow, ...]
    mode: str
    objective: str

    def table(self) -> Table:
        """The rows as a table of text."""
        head = ("parameter", "shape", "role", "penalty", "why")
        body = [(r.name, str(r.shape), r.role, "-" if r.penalty is None else repr(r.penalty), r.reason) for r in self]
        return Table(f"mode {self.mode}: minimises {self.objective}", head, body)


class Entry(NamedTuple):
    """A parameter and the row that was made for it."""

    row: PlanRow
    parameter: Tensor


def plan_entries(model: Model, penalty: Penalties, where: Where | Iterable[Where]) -> list[Entry]:
    """A row for each distinct parameter of ``model``.

    Args:
        model: A module (compiled and data-parallel wrappers are looked through), or pairs of name and parameter.
        penalty: The penalty, or penalties by glob.
        where: Which parameters; of several conditions one has to hold.

    Returns:
        The rows, each with its parameter.

    Raises:
        WellposedError: If nothing is selected, a condition or a glob matches nothing, or a selected parameter is an
            integer or on the meta device.
    """
    conditions = _conditions(where)
    rules = dict(penalty) if isinstance(penalty, Mapping) else {"*": penalty}
    named = candidates(model)
    for rule, given in rules.items():
        if not (given is None or isinstance(given, Penalty)):
            raise WellposedError(
                f"regularize was given the penalty {given!r} for {rule!r}; expected one like wp.L1(1e-4), or one of "
                "your own that extends wp.Penalty"
            )
        if not any(matches(n, rule) for item in named for n in item.names):
            raise WellposedError(f"the penalty for {rule!r} matches no parameter; {_known(named)}")
    for condition in conditions:
        if not any(_holds(condition, item) for item in named):
            raise WellposedError(f"where={_show(condition)} matches no parameter; {_known(named)}")
    entries = [Entry(_row(item, rules, conditions), item.parameter) for item in named]
    if all(entry.row.penalty is None for entry in entries):
        raise WellposedError(f"no parameter is left to penalise with where={where!r}; {_known(named)}")
    for row, parameter in entries:
        if row.penalty is not None and parameter.is_meta:
            raise WellposedError(f"{row.name!r} is on the meta device and has no values; materialise the model first")
        if row.penalty is not None and (why := unwritable(parameter)):
            raise WellposedError(f"{row.name!r} {why}, or leave it out with {{'*': penalty, {row.name!r}: None}}")
    return entries


def _row(item: Candidate, rules: Mapping[str, Penalty | None], conditions: list[Where]) -> PlanRow:
    name = item.names[0]
    notes = [item.note, f"tied: {', '.join(item.names[1:])}" if len(item.names) > 1 else ""]

    def row(penalty: Penalty | None, reason: str) -> PlanRow:
        return PlanRow(name, tuple(item.parameter.shape), item.role, penalty, "; ".join(filter(None, [reason, *notes])))

    matched = [condition for condition in conditions if _holds(condition, item)]
    if not matched:
        return row(None, f"not selected by where={', '.join(map(_show, conditions))}")
    rule = last_match(item.names, rules)
    if rule is None:
        return row(None, "no rule matches it")
    if rules[rule] is not None and not (item.parameter.is_floating_point() or item.parameter.is_complex()):
        raise WellposedError(
            f"{name!r} has dtype {item.parameter.dtype}; a penalty needs floating-point parameters: leave it out, for "
            f"example with {{'*': penalty, {name!r}: None}}"
        )
    if not item.parameter.requires_grad:
        return row(None, "frozen (requires_grad is False)")
    chosen = rules[rule]
    penalty = None if chosen is None else chosen.for_layer(item.parts)
    return row(penalty, f"where={_show(matched[0])}" + ("" if rule == "*" else f", rule {rule!r}"))


def _conditions(where: Where | Iterable[Where]) -> list[Where]:
    several: list[Where] = [where] if isinstance(where, str) or not isinstance(where, Iterable) else list(where)
    for condition in several:
        if not (isinstance(condition, str) or callable(condition)):
            raise WellposedError(
                f"where was given {condition!r}; expected one of {', '.join((*_ROLES, 'all'))}, a glob on the "
                "parameter's name, a module type, or a callable of name and parameter"
            )
    if not several:
        raise WellposedError("where was given no conditions; expected at least one, for example 'weights'")
    return several


def _holds(condition: Where, item: Candidate) -> bool:
    if isinstance(condition, str):
        if condition in _ROLES:
            return item.serves_as(_ROLES[condition])
        if condition == "all":
            return not item.serves_as(frozenset({PARAMETRISED}))
        return any(matches(name, condition) for name in item.names)
    if isinstance(condition, type):
        return isinstance(item.owner, condition) and not item.serves_as(_ROLES["biases"] | {PARAMETRISED})
    return bool(condition(item.names[0], item.parameter))


def _show(condition: Where) -> str:
    return repr(condition) if isinstance(condition, str) else getattr(condition, "__name__", repr(condition))


def _known(named: list[Candidate]) -> str:
    shown = [f"{item.names[0]} ({item.role})" for item in named[:8]]
    more = "" if len(named) <= 8 else f" and {len(named) - 8} more"
    return f"the model has {', '.join(shown)}{more}"
