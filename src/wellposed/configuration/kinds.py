"""Which types a dictionary can name: public ones, and a user's own initializers and penalties."""

import difflib
import inspect
from collections.abc import Iterable, Iterator
from functools import cache
from importlib import import_module

from torch import nn

from wellposed.errors import WellposedError

# The parts whose public types can be named, and what these have to be of.
_PARTS = {
    "wellposed.init": ("Initializer", "Scheme", "Axes"),
    "wellposed.penalties": ("Penalty", "Heads"),
    "wellposed.penalties.constraints": ("Constraint",),
    "wellposed.dropouts": ("Module",),
    "wellposed.schedules": ("Linear", "Cosine", "WarmUp", "Step", "Curriculum"),
}
_BASES = (("wellposed.init", "Initializer"), ("wellposed.penalties", "Penalty"))  # which users write their own of


def type_named(name: str) -> type:
    """The type that a dictionary means by ``"type": name``.

    Raises:
        WellposedError: If there is none, or several of a user's own.
    """
    found = public().get(name) or own_type(name) if isinstance(name, str) else None
    if found is None:
        raise WellposedError(unknown("type", name, public()))
    return found


def name_of(kind: type) -> str | None:
    """The name by which :func:`type_named` finds a type; ``None`` for one that it does not find."""
    name = kind.__name__
    return name if (public().get(name) or own_type(name)) is kind else None


def unknown(what: str, given: object, known: Iterable[str]) -> str:
    """What to say of a name that there is none of: the nearest one, or all of them."""
    names = {name.lower(): name for name in known}
    near = difflib.get_close_matches(str(given).lower(), names, n=1, cutoff=0.5)
    known = ", ".join(map(repr, sorted(names.values())))
    return f"there is no {what} {given!r}; " + (
        f"did you mean {names[near[0]]!r}?" if near else f"expected one of {known}"
    )


@cache
def public() -> dict[str, type]:
    """The public types by their names, each once."""
    found: dict[str, type] = {}
    for home, names in _PARTS.items():
        part = import_module(home)
        bases = (nn.Module,) if names == ("Module",) else tuple(getattr(part, name) for name in names)
        for name in getattr(part, "__all__", names):
            kind = getattr(part, name)
            if isinstance(kind, type) and issubclass(kind, bases) and not _is_abstract(kind):
                found[kind.__name__] = kind
    return found


def own_type(name: str, base: type = object) -> type | None:
    """An initializer or a penalty of that name that is not public: a user's, or what sums and products are.

    Raises:
        WellposedError: If there are several.
    """
    found = [
        kind
        for home, root in _BASES
        for kind in _below(getattr(import_module(home), root))
        if kind.__name__ == name and issubclass(kind, base) and not _is_abstract(kind)
    ]
    homes = sorted({f"{kind.__module__}.{kind.__qualname__}" for kind in found})
    if len(homes) > 1:
        raise WellposedError(f"the type {name!r} may be any of {', '.join(homes)}; give them names of their own")
    return found[-1] if found else None  # of one that was defined anew, as in a notebook, the last


def _below(kind: type) -> Iterator[type]:
    subclasses: list[type] = kind.__subclasses__()
    for sub in subclasses:
        yield sub
        yield from _below(sub)


def _is_abstract(kind: type) -> bool:
    return inspect.isabstract(kind) or kind.__name__ in ("Penalty", "Constraint")
