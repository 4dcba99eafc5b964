"""Swapping the dropout modules inside a model for wellposed's: the plan, and the conversion that follows it."""

import warnings
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, cast

from torch import nn

from wellposed.dropouts.equivalents import (
    difference,
    equivalent,
    is_fused,
    is_swapped,
    is_torchs,
    original,
    own_dropout,
    rate,
    remember,
    set_fused,
    was_fused,
)
from wellposed.dropouts.naming.function_calls import FunctionCalls
from wellposed.dropouts.naming.streams import Stochastic
from wellposed.models.names import joined, plain_path
from wellposed.models.tracing.draws import WatchedRun, draws, line_of_source
from wellposed.tabular import Table, Tabular

Model = TypeVar("Model", bound=nn.Module)
_NO_EXAMPLE = "modules are told by their classes; give an example to find dropout that is called as a function"
_LONG = 12  # rows from which on those that repeat are folded
_NO_RUN = WatchedRun({}, frozenset(), (), {})


@dataclass(frozen=True)
class DropoutRow:
    """What becomes of one module of a model.

    Attributes:
        path: The module's path in the model; empty for the model itself.
        what: "swapped" for one of wellposed's; "named" if it is one already, and only its stream is named; "left" as it
            is though it drops something; or "unseen", since the example did not reach it and what it does is not known.
        new: What stands there afterwards, printed; empty if nothing is swapped.
        stream: The name of the random stream that its masks have inside ``keyed``; ``None`` if none is known.
        reason: Why it is left or unseen; else empty.
        p: The probability that something is dropped; ``None`` where it is not known.
    """

    path: str
    what: Literal["swapped", "named", "left", "unseen"]
    new: str = ""
    stream: str | None = None
    reason: str = ""
    p: float | None = None


@dataclass(frozen=True)
class DropoutPlan(Tabular[DropoutRow]):
    """What ``convert_dropout`` does to a model: a row for each module that it swaps, names, leaves or cannot see.

    A plan is a value and holds no model.

    Attributes:
        rows: The rows, in the order of the model's modules.
        notes: What the plan cannot tell.
    """

    rows: tuple[DropoutRow, ...]
    notes: tuple[str, ...] = ()

    def table(self) -> Table:
        """The rows as a table of text."""
        if self.rows and all(row.p == 0 for row in self):
            return Table(f"nothing drops: p = 0 in all {len(self)} dropout modules", (), ())
        rows = [(row.path or "(the model)", row.what, row.new or row.reason, _stream_of(row)) for row in self]
        notes = [f"note: {note}" for note in self.notes]
        swapped = sum(row.what == "swapped" for row in self)
        title, header = f"{swapped} swapped of {len(self)} found", ("module", "what", "by or why", "stream")
        return Table(title, header if rows else (), rows, notes, long=_LONG)


def _stream_of(row: DropoutRow) -> str:
    """A stream as it is printed: nothing where it is the path, so that blocks which repeat can be folded."""
    return "" if row.stream is None or row.stream == row.path else row.stream.replace(row.path, "(module)")


def convert_dropout(model: Model, *, seed: int = 0, example: Any = None, back: bool = False) -> Model:
    """Swap a model's dropout modules in place for wellposed's, each with a random stream named after its path.

    Known are torch's dropout modules and ``MultiheadAttention``, timm's ``DropPath``, ``DropBlock2d`` and
    ``PatchDropout``, torchvision's ``StochasticDepth``, ``DropBlock2d`` and ``DropBlock3d``, and the ``DropPath`` and
    ``StableDropout`` of transformers; attention of timm's with ``attn_drop`` is set not to fuse, so that it calls that
    module. p and the mode stay. What is done is exactly what ``plan_convert_dropout`` tells, and what is left as it is
    is warned of. Dropout that a module calls as a function is seen only with an example.

    Args:
        model: The model.
        seed: Models converted with different seeds have different masks in one ``keyed`` block.
        example: An input: a tensor, a tuple of arguments or a mapping of keyword arguments. With it a copy of the model
            runs once in training mode, and every module that draws random numbers is found.
        back: Whether to undo a conversion: what was swapped out is put back, with the p and the mode that stand now.

    Returns:
        ``model``; or what takes its place if it is itself a dropout module.

    Raises:
        WellposedError: If there is an example and the model cannot be copied. It is then unchanged.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.2))
        >>> convert_dropout(model)[1], model[1].stream
        (Dropout(p=0.2), '1')
    """
    plan = plan_convert_dropout(model, seed=seed, example=example, back=back)
    model = swapped(model, plan, back=back)
    for what, message in (
        ("left", "left dropout as it is"),
        ("unseen", "does not know what did not run on the example"),
    ):
        if reasons := "; ".join(f"{row.path or 'the model'}: {row.reason}" for row in plan if row.what == what):
            warnings.warn(f"convert_dropout {message}: {reasons}", stacklevel=2)
    return model


def swapped(model: Model, plan: DropoutPlan | None = None, *, back: bool = False) -> Model:
    """Do what a plan says, that of ``plan_convert_dropout`` by default, and warn of nothing."""
    replaced: dict[nn.Module, nn.Module] = {}
    for row in plan or plan_convert_dropout(model, back=back):
        module: Any = model.get_submodule(row.path)
        if row.what == "named":
            _stochastic(module)[1].stream = row.stream
        if row.what != "swapped" or module in replaced.values():  # whose parent has two paths
            continue
        new = replaced.get(module) or (original(module) if back and is_swapped(module) else equivalent(module))
        if new is None:
            set_fused(module, back)
            continue
        if module not in replaced and not back:
            remember(new.train(module.training), module)
            _stochastic(new)[1].stream = row.stream
        replaced[module] = new
        parent, _, name = row.path.rpartition(".")
        if name:
            setattr(model.get_submodule(parent), name, new)
        else:
            model = cast(Model, new)
    return model


def plan_convert_dropout(model: nn.Module, *, seed: int = 0, example: Any = None, back: bool = False) -> DropoutPlan:
    """Tell what ``convert_dropout`` would do with the same arguments, and change nothing.

    Without an example modules are told by their classes, so dropout that is called as a function, such as
    ``torch.nn.functional.dropout``, is not seen; a note in the plan says so.

    Args:
        model: The model.
        seed: As for ``convert_dropout``.
        example: As for ``convert_dropout``.
        back: As for ``convert_dropout``.

    Returns:
        What would be swapped, what only named, what left as it is and why, and what the example did not reach.

    Raises:
        WellposedError: If there is an example and the model cannot be copied.

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.Dropout(0.2), nn.LSTM(4, 2, 2, dropout=0.1))
        >>> for row in plan_convert_dropout(model, example=torch.ones(3, 4)):
        ...     print(row.path, row.what, row.new or row.reason)
        0 swapped Dropout(p=0.2)
        1 left LSTM drops between layers inside a function (dropout=0.1); inside wp.keyed its masks are named after it
    """
    if back:
        return _plan_back(model)
    calls = _Calls()
    run = _NO_RUN if example is None else draws(model, example, training=True, beside=lambda _: calls)
    streams: dict[nn.Module, str] = {}

    def stream(path: str, module: nn.Module) -> str:
        """What a module is named after: of several paths the first."""
        if module not in streams:
            name = plain_path(model, path)
            streams[module] = name if seed == 0 else f"{seed}/{name}"
        return streams[module]

    rows: list[DropoutRow] = []
    for path, module in model.named_modules(remove_duplicate=False):
        new = equivalent(module)
        if isinstance(module, Stochastic):
            own = stream(path, module) if module.stream is None else module.stream
            rows.append(DropoutRow(path, "named", stream=own, p=rate(module)))
        elif is_fused(module):
            rows.append(DropoutRow(path, "swapped", f"{type(module).__name__}(fused_attn=False)"))
        elif new is not None and not difference(module):
            inside, dropout = _stochastic(new)
            printed = repr(new) if dropout is new else f"{type(new).__name__}(dropout={module.dropout})"
            own = stream(joined(path, inside) if inside else path, module)
            rows.append(DropoutRow(path, "swapped", printed, own, p=rate(dropout)))
        elif why := _why_left(path, module, run):
            drawn = set(run.drawn.get(path, ()))
            is_named = drawn <= calls.lines if drawn else is_torchs(module)
            named = plain_path(model, path) if is_named else None
            why += "; inside wp.keyed its masks are named after it" if is_named else ""
            rows.append(DropoutRow(path, "left", "", named, why, rate(module)))
        elif path in run.unseen:
            rows.append(DropoutRow(path, "unseen", reason=f"{type(module).__name__} was not called"))
    return DropoutPlan(tuple(rows), (_NO_EXAMPLE,) if example is None else ())


def _plan_back(model: nn.Module) -> DropoutPlan:
    rows: list[DropoutRow] = []
    for path, module in model.named_modules(remove_duplicate=False):
        if is_swapped(module):
            rows.append(DropoutRow(path, "swapped", repr(original(module)), p=rate(module)))
        elif was_fused(module):
            rows.append(DropoutRow(path, "swapped", f"{type(module).__name__}(fused_attn=True)"))
        elif isinstance(module, Stochastic) and not path.endswith(".drop"):
            rows.append(DropoutRow(path, "left", reason="no conversion put it there", p=rate(module)))
    return DropoutPlan(tuple(rows))


class _Calls(FunctionCalls):
    """Notes the lines that call dropout as a function.

    Attributes:
        lines: The lines, as ``draws`` has them.
    """

    def __init__(self) -> None:
        self.lines: set[str] = set()
        super().__init__(note=lambda *_: self.lines.add(line_of_source()))


def _why_left(path: str, module: nn.Module, run: WatchedRun) -> str:
    """How a module that is not swapped drops something, as far as is known."""
    if equivalent(module) is not None:
        return difference(module)
    if path in run.drawn:
        return own_dropout(module) or f"{type(module).__name__} draws at {', '.join(run.drawn[path])}"
    return "" if path in run.ran else own_dropout(module)


def _stochastic(module: nn.Module) -> tuple[str, Stochastic]:
    """The module that draws, a module itself or one in it, and its path there."""
    return next((path, part) for path, part in module.named_modules() if isinstance(part, Stochastic))
