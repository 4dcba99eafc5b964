"""Planning: from a model and a scheme to a plan, without touching a weight."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from typing import Any

import torch
from torch import nn

from wellposed.arguments import model as a_model
from wellposed.errors import WellposedError
from wellposed.init.boxes import Boxes, boxes_of, remarks
from wellposed.init.initializers.entrywise import Zeros
from wellposed.init.initializers.initializer import Initializer
from wellposed.init.initializers.orthogonal import Orthogonal
from wellposed.init.noticing import before
from wellposed.init.plan import Plan, Row
from wellposed.init.refusals import refuse
from wellposed.init.schemes.following import Following, followings
from wellposed.init.schemes.named import scheme_of
from wellposed.init.schemes.scheme import Choice, Scheme, Site
from wellposed.models.fans import Axes, fans
from wellposed.models.formulas import formulas, unknown
from wellposed.models.globs import matches
from wellposed.models.names import listed
from wellposed.models.roles import Part
from wellposed.models.roles.claiming import claimed_weights
from wellposed.models.tracing.branch_names import named_branches
from wellposed.models.tracing.flow import Flow
from wellposed.models.tracing.signals import Branch
from wellposed.models.tracing.trace import trace
from wellposed.models.weights import Weight
from wellposed.random.box import Box
from wellposed.random.key import Key
from wellposed.random.shards import is_sharded

Rules = Mapping[str, Initializer | tuple[Initializer, Axes] | None]
Ruled = dict[tuple[str, str | None], tuple[Initializer | None, Axes | None]]

_WITH_FANS = ("weight", "recurrent", "embedding")
_COMPUTED, _UNCLAIMED = "frozen, computed as its module does", "unclaimed"
_NOT_SEEN = Following("not seen", note="tracing did not reach it, so the gain is 1")


def plan_initialize(
    model: nn.Module,
    scheme: str | Scheme = "auto",
    *,
    seed: int | Key = 0,
    rules: Rules | None = None,
    boxes: Boxes | None = None,
    example: Any = None,
) -> Plan:
    """What :func:`initialize` would make of every weight of a model, and why; nothing is changed.

    What follows each weight is found by symbolic tracing (torch.fx); where that fails and there is an example, by
    torch.export, and where that fails too, by running a copy of the model; where all fails, by tracing its parts. The
    plan says for each weight which it was.

    Args:
        model: Any model, on any device, the meta device included.
        scheme: The name of a scheme, or a scheme.
        seed: Where all keys come from.
        rules: From globs on parameters' paths to an initializer, to an initializer and the axes to use it with, or to
            ``None`` for a weight that is to be left as it is. Of several that match the last one counts. The word
            ``"unclaimed"`` stands for all that no role claims: ``{"unclaimed": None}`` keeps what would be refused.
        boxes: For a model whose tensors are parts of larger ones and do not know it (a DTensor does): from globs, as in
            ``rules``, to where the tensor lies in the whole; a list of boxes for a tensor of as many equal pieces; or a
            function from the parameter to one of these, or to ``None`` for one that is a whole.
        example: An input: a tensor, a tuple of arguments or a mapping of keyword arguments.

    Returns:
        The plan.

    Raises:
        WellposedError: If there is no such scheme, a rule matches nothing, no row or rule claims a parameter, a
            parameter has no entries, holds no floats or shares memory with another, the example does not fit the
            model, or the scheme needs residual branches or an example that are not there.

    Example:
        >>> import wellposed as wp
        >>> model = nn.Sequential(nn.Linear(8, 4), nn.Tanh(), nn.Linear(4, 2))
        >>> print(wp.plan_initialize(model, rules={"2.*": wp.init.Zeros()})["2.weight"].initializer)
        Zeros()
    """
    chosen = scheme_of(scheme)
    found = claimed_weights(a_model(model, "initialize"), example)
    ruled = _ruled(found, rules or {})
    placed = _placed(found, boxes or {})
    left = {key for key, (initializer, _) in ruled.items() if initializer is None}
    left |= {key for weight in found if weight.is_frozen for key in _labels(weight) if key not in ruled}
    planned = [t for t in found if not all(key in left for key in _labels(t))]
    refuse(
        model,
        [t for t in found if not (_is_known(t) or t.is_frozen) and (t.name, None) not in ruled],
        planned,
    )
    if "example" in chosen.needs and example is None:
        raise WellposedError(f"the scheme {chosen.name!r} fits the weights to data; give some: example=batch")
    if chosen.fit is not None and (any(is_sharded(t.tensor) for t in planned) or any(placed.values())):
        raise WellposedError(
            f"the scheme {chosen.name!r} fits the weights to data, which is not done with shards; initialize the model "
            "before it is sharded"
        )
    flow = trace(model, example)
    branches = tuple(flow.branches) or named_branches(weight.name for weight in found)
    if "branches" in chosen.needs and not branches:
        raise WellposedError(
            f"the scheme {chosen.name!r} is for models with residual branches, and none was found; "
            "give an example of an input, so that the model can be followed: example=batch"
        )
    follows = followings(flow, {name: [part.block for part in t.parts] for t in found for name in t.names})
    outputs = {name for name, uses in flow.uses.items() if any(use.end == "output" for use in uses)}
    shared = {_width(t) for t in found if any(part.kind == "weight" for part in t.also)}
    rows: list[Row] = []
    for weight in found:
        for part in _parts(weight):
            places = placed.get((weight.name, part.block), ())
            site = _site(weight, part, places, follows, branches, outputs, shared)
            rows.append(_row(weight, site, places, chosen, ruled, flow))
    computed = formulas(model)
    key = seed if isinstance(seed, Key) else Key(seed)
    notes = ((chosen.note(branches),) if chosen.note else ()) + flow.notes
    filled = {row.name for row in rows if row.initializer is not None}
    known = {row.name for row in rows if row.name in computed} - filled
    rows = [replace(row, role="computed", note=_COMPUTED) if row.name in known else row for row in rows]
    given = {id(parameter) for weight in found if weight.name in filled for parameter in weight.parameters}
    return Plan(chosen.name, chosen.source, key, tuple(rows), notes, unknown(model, computed, given))


def _ruled(found: Sequence[Weight], rules: Rules) -> Ruled:
    """The rule for each part that has one."""
    ruled: Ruled = {}
    for glob, value in rules.items():
        initializer, axes = value if isinstance(value, tuple) else (value, None)
        if not isinstance(initializer, Initializer | None) or not isinstance(axes, Axes | None):
            raise WellposedError(
                f"the rule {glob!r} was given {value!r}; expected an initializer, (initializer, axes), or None to "
                "leave the weight as it is"
            )
        if glob == _UNCLAIMED:
            matched = [(t.name, part.block) for t in found if not _is_known(t) for part in _parts(t)]
        else:
            matched = [(t.name, part.block) for t, part in _meant(found, glob, "rule")]
        ruled |= dict.fromkeys(matched, (initializer, axes))
    return ruled


def _placed(found: Sequence[Weight], boxes: Boxes) -> dict[tuple[str, str | None], tuple[Box, ...]]:
    """The boxes for each part that has some."""
    last = {
        (t.name, part.block): (t, part, given)
        for glob, given in boxes.items()
        for t, part in _meant(found, glob, "box")
    }
    return {key: boxes_of(weight, part, given) for key, (weight, part, given) in last.items()}


def _meant(found: Sequence[Weight], glob: str, what: str) -> list[tuple[Weight, Part]]:
    """The parts that a glob is for."""
    matched = [(t, part) for t in found for part in _parts(t) if _is_meant(t, part, glob)]
    if not matched:
        names = [t.name for t in found]
        close = get_close_matches(glob, names, 3, 0.3) or names[:3]
        raise WellposedError(f"the {what} {glob!r} matches no parameter; there are, for example, {listed(close)}")
    return matched


def _parts(weight: Weight) -> tuple[Part, ...]:
    return weight.parts or (Part("weight"),)


def _labels(weight: Weight) -> list[tuple[str, str | None]]:
    return [(weight.name, part.block) for part in _parts(weight)]


def _is_known(weight: Weight) -> bool:
    """Whether it is known what a weight starts as; a constant that nobody knows has to be there."""
    is_open = any(part.kind == "constant" and part.start is None for part in weight.parts)
    return bool(weight.parts) and not (is_open and weight.tensor.is_meta)


def _is_meant(weight: Weight, part: Part, glob: str) -> bool:
    """Whether a glob is for a part: it matches a path of the weight, or one followed by the block's name."""
    paths = [*weight.names, weight.stream]
    if part.block is not None:
        paths += [f"{path}.{part.block}" for path in paths]
    return any(matches(path, glob) for path in paths)


def _site(
    weight: Weight,
    part: Part,
    places: Sequence[Box],
    follows: Mapping[str, Following],
    branches: Sequence[Branch],
    outputs: set[str],
    shared: set[int],
) -> Site:
    names = weight.names
    whole = tuple(weight.tensor.shape)
    branch = next((b for b in branches if any(n in (*b.weights, *b.norms, *b.gates) for n in names)), None)
    last = branch is not None and any(n in (*branch.last, *branch.norms, *branch.gates) for n in names)
    shape = list(whole)
    if part.where is not None:
        dim, first, end = part.where
        shape[dim] = end - first
    if places:
        shape = list(places[0].shape)
        whole = whole if part.where is not None else places[0].shape
    following = Following("")
    if part.kind in ("weight", "recurrent"):
        following = next((follows[n] for n in names if n in follows), _NOT_SEEN)
    if following.text == "attention" and part.block not in (None, "q", "k"):  # these alone make scores
        following = Following("attention")
    if part.block == "up":
        following = Following("a product")
    return Site(
        name=weight.name,
        stream=weight.stream,
        part=part,
        shape=tuple(shape),
        fans=fans(shape, part.axes) if part.kind in _WITH_FANS and weight.parts else (0, 0),
        following=following,
        branch=branch,
        last=last,
        branches=tuple(branches),
        output=any(n in outputs for n in names),
        shared=next((p.axes for p in weight.also if p.kind == "weight"), None),
        enlarged=weight.enlarged,
        beside_shared=_width(weight) in shared,
        module=weight.module,
        whole=whole,
    )


def _width(weight: Weight) -> int:
    return weight.tensor.shape[-1] if weight.tensor.ndim else 0


def _row(weight: Weight, site: Site, places: tuple[Box, ...], scheme: Scheme, ruled: Ruled, flow: Flow) -> Row:
    part = site.part
    initializer: Initializer | None
    rule = ruled.get((weight.name, part.block))
    if rule is not None and (part.kind != "fixed" or part.block is None or rule[0] is None):
        initializer, given = rule
        choice = Choice(initializer or Zeros(), note="by rule", axes=given)
    elif weight.is_frozen and rule is None:
        initializer, choice = None, Choice(Zeros(), note="frozen, left as it is")
    elif weight.computed is not None and weight.computed.orthogonal:
        initializer = Orthogonal()
        choice = Choice(initializer, note="its parametrization allows nothing else")
    elif part.kind == "constant" and part.start is None:
        initializer, choice = None, Choice(Zeros(), note="a constant of its layer, left as it is")
    else:
        choice = scheme.choose(site)
        initializer = choice.initializer
    axes = choice.axes or part.axes
    is_left = weight.is_frozen and rule is None  # what it is for does not matter then
    notes = [note for note in (choice.note, "" if is_left else weight.note) if note]
    if initializer is not None:
        _rehearse(initializer, weight, site, axes)
        notes += before(weight, part, initializer)
        notes += remarks(weight, site.shape, places, initializer)
    return Row(
        name=weight.name,
        shape=site.shape,
        role=part.kind if weight.parts else _UNCLAIMED,
        fans=fans(site.shape, axes) if part.kind in _WITH_FANS and weight.parts else None,
        gain=choice.gain,
        initializer=initializer,
        std_wanted=None if initializer is None else initializer.std_for(site.shape, axes),
        follows=site.following.text,
        traced=next((flow.ways[n] for n in weight.names if n in flow.ways and site.following.text), ""),
        note="; ".join(notes),
        axes=axes,
        block=part.block,
        where=part.where,
        stream=_stream(weight, part),
        others=weight.others,
        lr=choice.lr,
        boxes=places,
    )


def _rehearse(initializer: Initializer, weight: Weight, site: Site, axes: Axes) -> None:
    """Try the initializer on the meta device, so that what cannot be filled is refused before anything is."""
    try:
        initializer.fill_(torch.empty(site.shape, dtype=weight.tensor.dtype, device="meta"), Key(0), axes=axes)
    except WellposedError as error:
        raise WellposedError(f"{site.name}: {error}") from error


def _stream(weight: Weight, part: Part) -> tuple[str, ...]:
    """What the key of a part is folded from: the path it would have by itself, or the weight's and the block's name."""
    if part.alias is not None:
        path, dot, _ = weight.stream.rpartition(".")
        return (path + dot + part.alias,)
    return (weight.stream,) if part.block is None else (weight.stream, part.block)
