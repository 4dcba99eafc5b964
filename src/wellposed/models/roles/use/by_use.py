"""What a parameter is for by how it enters a forward pass: added, multiplied, gathered, contracted, or curved first."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from wellposed._torch import tree_leaves, tree_map
from wellposed.models.fans import Axes
from wellposed.models.roles.by_name import kind_by_name
from wellposed.models.roles.registry import Kind, Part
from wellposed.models.roles.use import contractions
from wellposed.models.roles.use.contractions import Contraction, Made, View
from wellposed.models.roles.use.named_arguments import ARGUMENTS, settled_by_name
from wellposed.models.tracing import operations

_INDEXING = frozenset({"getitem", "index_select", "index", "gather", "take", "take_along_dim"})
_MERGES = operations.MERGES | {"setitem", "masked_scatter", "index_copy", "copy", "masked_fill", "slice_scatter"}
_BOUNDS = frozenset({"maximum", "minimum", "clamp", "clamp_min", "clamp_max", "pow", "lerp", "hardtanh"})
_KEEPS = operations.STILL | {"clamp", "clamp_min", "clamp_max", "nan_to_num", "round", "neg", "mul", "div", "normalize"}
_CURVES = frozenset(
    (
        *(
            "exp",
            "expm1",
            "log",
            "log1p",
            "sigmoid",
            "logsigmoid",
            "tanh",
            "softplus",
            "softmax",
            "log_softmax",
            "relu",
        ),
        *("elu", "silu", "gelu", "abs", "square", "sqrt", "rsqrt", "reciprocal", "pow", "cos", "sin", "rpow"),
    )
)
# A parameter that enters in several ways is what comes first here.
_ORDER: tuple[Kind, ...] = ("embedding", "weight", "slope", "constant", "scale", "bias", "token")


@dataclass
class Entries:
    """How the parameters of a model enter its forward pass, as far as it was followed.

    Attributes:
        found: For each parameter's path, the parts it was seen to play, each once.
        rows: What becomes of each embedding's rows: ``"scaled"`` by a number, ``"normalised"``, ``"added"`` to signals;
            and likewise of that sum, as ``"sum normalised"``.
    """

    found: dict[str, list[Part]] = field(default_factory=dict)
    rows: dict[str, set[str]] = field(default_factory=dict)

    def roles(self, names: Iterable[str]) -> tuple[Part, ...]:
        """What a parameter of these paths is for, first the use that decides; empty for one that was not seen."""
        parts = dict.fromkeys(part for name in names for part in self.found.get(name, ()))
        return tuple(sorted(parts, key=lambda part: _ORDER.index(part.kind)))

    def step(self, name: str, fn: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Follow one operation.

        Args:
            name: The operation's name.
            fn: The operation.
            args: Its arguments, with a ``View`` for what was made from a parameter, and ``Made`` for signals.
            kwargs: Its keyword arguments, likewise.

        Returns:
            What stands for its result: a ``View``, a list of them, a ``Made``, or ``None`` for anything else.
        """
        reverse, name = "rsub" in name, operations.plain_name(name)
        leaves = tree_leaves((list(args), dict(kwargs)))
        views = [leaf for leaf in leaves if isinstance(leaf, View)]
        signals = [leaf for leaf in leaves if isinstance(leaf, Made)]
        if name in operations.NOT_TENSORS or (name == "getattr" and args[1] not in operations.VIEWS):
            return None
        if not views:
            return self._onward(name, signals, leaves) if signals else None
        products = contractions.contracted(name, args, kwargs)
        for view, contraction in products:
            self._contract(view, contraction)
        named = settled_by_name(name, args, kwargs)
        for view, kind in named:
            self.enter(view, kind)
        if products or name in operations.PRODUCTS:
            return Made()
        if tables := frozenset(view.name for view, kind in named if kind == "embedding"):
            return Made(tables)
        if name in _INDEXING and isinstance(args[0], View) and _has_tensors((args[1:], kwargs)):
            return self._gather(args[0], args[1:], kwargs)
        if signals:
            self._meet(name, views, {id(view) for view, _ in named})
            return self._onward(name, signals, leaves)
        return self._alone(name, fn, args, kwargs, views, reverse)

    def _onward(self, name: str, signals: Sequence[Made], leaves: Sequence[Any]) -> Made:
        """A signal after an operation; what becomes of the rows of embeddings is noted."""
        tables = frozenset[str]().union(*(signal.tables for signal in signals))
        if not tables:
            return Made()
        alone, summed = all(signal.tables for signal in signals), any(signal.summed for signal in signals)
        if name in operations.SUMS and not alone:
            fate = "added"
        elif name in operations.NORMS | operations.REDUCTIONS | {"pow", "square"}:  # some norms are written out
            fate = "normalised"
        elif name in operations.MULTIPLICATIONS and alone and not any(leaf in (1, 1.0) for leaf in _numbers(leaves)):
            fate = "scaled"
        else:
            kept = name in operations.MOVES or (alone and name in operations.SUMS | operations.MULTIPLICATIONS)
            return Made(tables, summed) if kept else Made()
        for table in tables:
            self.rows.setdefault(table, set()).add(f"sum {fate}" if summed else fate)
        kept = fate == "scaled" or (fate == "added" and not summed)
        return Made(tables, summed or fate == "added") if kept else Made()

    def note(self, view: View, part: Part) -> None:
        """Note what a parameter is for, and those that lie beside it."""
        for each in (view, *view.beside):
            parts = self.found.setdefault(each.name, [])
            if part not in parts:
                parts.append(part)

    def _meet(self, name: str, views: Sequence[View], settled: set[int]) -> None:
        """Parameters in an operation with a signal."""
        for view in views:
            if id(view) in settled:
                continue
            if name in operations.MULTIPLICATIONS:
                self.enter(view, "scale")
            elif name in operations.SUMS:
                self.enter(view, "bias")
            elif name in _MERGES:
                self.enter(view, "token")
            elif name in _BOUNDS:
                self.enter(view, "constant")

    def enter(self, view: View, kind: Kind | None) -> None:
        """Note that a parameter enters where the arithmetic makes it one of this kind."""
        for each in (view, *view.beside):
            if kind is not None:
                self.note(dataclasses.replace(each, beside=()), _part(each, kind))

    def _contract(self, view: View, contraction: Contraction) -> None:
        for each in (view, *view.beside):
            if contraction.left and kind_by_name(each.name, len(each.shape)) == "token":
                self.enter(dataclasses.replace(each, beside=()), "token")
            elif each.tensor is not None:
                axes = contractions.axes(each.shape, each.tensor, contraction)
                self.note(dataclasses.replace(each, beside=()), Part("weight", axes))

    def _gather(self, view: View, *index: Any) -> Any:
        """Entries of a parameter picked by an index: an embedding if the input says which."""
        rows = view.tensor
        by_input = any(isinstance(leaf, Made) for leaf in tree_leaves(index))
        named = kind_by_name(view.name, len(view.shape))
        if by_input and named != "bias" and (rows is None or rows.ndim <= 2):
            self.enter(view, "embedding")
            return Made(frozenset({view.name}))
        first = None if rows is None or not rows.ndim else rows.select(0, 0)
        return dataclasses.replace(view, tensor=first, gathered=not by_input)

    def _alone(
        self,
        name: str,
        fn: Callable[..., Any],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        views: Sequence[View],
        reverse: bool,
    ) -> Any:
        """Parameters in an operation with each other, with numbers, or with tensors that the model was made with."""
        settled = {id(view) for view, _ in settled_by_name(name, args, kwargs) if view is not args[0]}
        views = [view for view in views if id(view) not in settled]
        if not views:
            return None
        largest = max(views, key=lambda view: torch.Size(view.shape).numel())
        others = tuple(view for view in views if view.name != largest.name)
        if name in operations.SUMS:
            numbers = _numbers(args)
            for view in others:
                self.enter(view, "token")
            if numbers:
                turned = reverse or (name == "sub" and args[0] is numbers[0])
                sign = -1.0 if name == "sub" else 1.0
                return dataclasses.replace(largest, offset=largest.offset + sign * numbers[0], curved=turned)
            return largest
        if name in operations.MULTIPLICATIONS:
            for view in others:
                self.enter(view, "scale")
            return largest
        if name in operations.MERGES:
            return dataclasses.replace(largest, beside=(*largest.beside, *_flat(others)))
        if name in _CURVES:
            return dataclasses.replace(largest, curved=True)
        if name in _KEEPS or name in ARGUMENTS:
            return largest
        return _viewed(fn, args, kwargs, largest)


def _part(view: View, kind: Kind) -> Part:
    """The part that a parameter plays where its arithmetic makes it one of this kind; a name settles what is close."""
    named = kind_by_name(view.name, len(view.shape))
    if kind == "embedding":
        rest = tuple(range(1, len(view.shape)))
        return Part("embedding", Axes(out=rest[0] if len(rest) == 1 else rest, in_=(), batch=0))
    if kind in ("scale", "constant") and named == "token":
        return Part("token")
    if kind == "scale" and (view.curved or view.offset not in (0.0, 1.0)):
        return Part("constant")
    if kind == "scale":
        return Part("scale", start=0.0) if view.offset else Part("scale")
    if kind == "bias" and named != "bias":
        flat = sum(size > 1 for size in view.shape) <= 1 and named not in ("token", "embedding")
        return Part("bias" if flat and not view.gathered else "token")
    return Part("token" if view.gathered and kind == "bias" else kind)


def _flat(views: Iterable[View]) -> list[View]:
    """Views and those that lie beside them."""
    return [each for view in views for each in (dataclasses.replace(view, beside=()), *view.beside)]


def _numbers(leaves: Sequence[Any]) -> list[int | float]:
    return [leaf for leaf in leaves if isinstance(leaf, int | float)]


def _has_tensors(index: Any) -> bool:
    return any(isinstance(leaf, Tensor | View | Made) for leaf in tree_leaves(index))


def _viewed(fn: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], view: View) -> Any:
    """What an operation that moves entries makes of a parameter: its dimensions are followed by their strides."""
    try:
        with torch.no_grad():
            given, named = tree_map(
                lambda leaf: leaf.tensor if isinstance(leaf, View) else leaf, (list(args), dict(kwargs))
            )
            result = fn(*given, **named)
    except Exception:
        return dataclasses.replace(view, tensor=None)
    made = [
        dataclasses.replace(view, tensor=tensor if contractions.is_view(tensor) else None)
        for tensor in tree_leaves(result)
        if isinstance(tensor, Tensor)
    ]
    return made if isinstance(result, list | tuple) else made[0] if made else None
