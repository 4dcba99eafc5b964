"""Dropout that is called as a function, as ``nn.functional.dropout``, inside ``keyed``: its masks are named as well.

A function mode sees the calls and draws their masks from the path of the module that makes them, counted as the calls
of a module are. So torch's own dropout modules, which call these functions, have the masks of wellposed's.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.compiler import is_compiling
from torch.nn import functional

from wellposed._torch import (
    CallsOnly,
    backward_pass,
    function_modes,
    modules_being_called,
    out_of_graphs,
    with_its_calls_watched,
)
from wellposed.dropouts.functional import check_input, check_real
from wellposed.dropouts.layers.attention_dropout import AttentionDropout
from wellposed.dropouts.layers.elements import Dropout
from wellposed.dropouts.layers.thinning import Thinning
from wellposed.dropouts.masks import Law
from wellposed.dropouts.naming.nesting import current_scope
from wellposed.dropouts.naming.scope import Scope
from wellposed.dropouts.torch_dropout import FUNCTIONS, RECURRENT, dropout_arguments


class FunctionCalls(CallsOnly):
    """Draws the masks of dropout that is called as a function from the ``keyed`` block that is open.

    Args:
        drops: Whether a function drops, given the module that calls it and whether it is told that the model is in
            training mode; ``None`` for just what it is told.
        note: Is told of each call: the module, the function, and its p.
    """

    def __init__(
        self,
        *,
        drops: Callable[[nn.Module | None, bool], bool] | None = None,
        note: Callable[[nn.Module | None, Any, float], object] | None = None,
    ) -> None:
        super().__init__()
        self.drops, self.note = drops, note

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if function not in _ANSWERED and function is not Tensor.unflatten:  # as nearly all of a model's calls
            return function(*args, **kwargs) if kwargs else function(*args)
        if function in _WATCHED:
            given: Any = dropout_arguments(function, args, kwargs or {})
            if self.note is not None or self.drops is not None or (given["training"] and given["p"] != 0):
                return _drawn(self, function, given, args, kwargs or {})
        if function in _BACKWARD and not is_compiling():  # in which checkpointing may call functions again
            with self:
                return with_its_calls_watched(function, *args, **(kwargs or {}))
        if function is Tensor.unflatten and is_compiling():  # whose code, with super() in it, they cannot trace
            return args[0].unflatten(*args[1:], **(kwargs or {}))
        return function(*args, **(kwargs or {}))


@contextlib.contextmanager
def watched_functions(mode: FunctionCalls | None = None) -> Iterator[None]:
    """See the calls of functions in a ``with`` block.

    Args:
        mode: What sees them; ``None`` for one that draws masks, unless there is one already.
    """
    if mode is not None:
        with mode:
            yield
        return
    is_new = not any(isinstance(other, FunctionCalls) for other in function_modes())
    if is_new:
        _calls.__enter__()  # type: ignore[no-untyped-call]
    before = _open.blocks
    _open.blocks += 1
    try:
        yield
    finally:
        _open.blocks -= 1
        _open.modes += is_new
        if _open.blocks in (before, 0):  # or else a generator's block ends, and one that was opened later does not
            for _ in range(_open.modes):
                _calls.__exit__(None, None, None)  # type: ignore[no-untyped-call]
            _open.modes = 0


@out_of_graphs(
    "wp.keyed names a mask by the module that calls torch's function for dropout, and a graph has no modules; "
    "have the model call a module, such as wp.Dropout, or compile it without fullgraph=True"
)
def _drawn(mode: FunctionCalls, function: Any, given: dict[str, Any], args: Any, kwargs: Any) -> Any:
    """What a function for dropout gives, with masks of the block that is open."""
    scope, caller, p = current_scope(), next(modules_being_called(), None), given["p"]
    drops = given["training"] if mode.drops is None else mode.drops(caller, given["training"])
    if mode.note is not None:
        mode.note(caller, function, p)
    if scope is None or not drops or p == 0:
        return function(*args, **kwargs)
    if function is functional.multi_head_attention_forward:  # which calls one of the others
        with mode:
            return with_its_calls_watched(function, **_others(given), dropout_p=p, training=True)
    if function in RECURRENT:
        return _by_layers(function, args, lambda x: _stand_in(scope, caller, Dropout, p).thin(x))
    if function is functional.scaled_dot_product_attention:
        return _stand_in(scope, caller, AttentionDropout, p)(**_others(given))
    x = given["input"]
    if function is torch.native_dropout:
        scale = _stand_in(scope, caller, Dropout, p).thin(torch.ones_like(x))
        return x * scale, scale != 0
    check_input(function.__name__, x)
    function(x.detach(), p, False)  # torch checks the arguments, and warns of some
    where = _THINNED[function]
    if where.law == "selu":
        check_real(function.__name__, x)
    dims = where.dims if x.dim() != where.unbatched else (0,)
    thinned = _stand_in(scope, caller, Dropout, p).thin(x, dims, -1 if dims == (0,) else 0, where.law)
    return x.copy_(thinned) if given.get("inplace") or function.__name__.endswith("_") else thinned


def _stand_in(scope: Scope, caller: nn.Module | None, kind: type[Thinning], p: float) -> Any:
    """A module that draws from the stream of the path of a caller."""
    if backward_pass() != scope.backward:  # in which a part of the model may run again by itself, under another path
        again = [layer for key, layer in scope.functions.items() if key[1:] == (caller, kind)]
        if len(again) == 1:
            return again[0]
    name = "" if caller is None else scope.name_of(caller)
    layer = scope.functions.get((name, caller, kind))
    if layer is None:
        layer = scope.functions[name, caller, kind] = kind()
        layer.stream, vars(layer)["owner"] = name, caller or _NO_MODULE
    if layer.p != p:
        layer.p = float(p)
    scope.must_repeat(layer)
    return layer


def _by_layers(function: Any, given: tuple[Any, ...], drop: Callable[[Tensor], Tensor]) -> tuple[Tensor, ...]:
    """What torch's function for a recurrent network of several layers gives, with dropout between them."""
    first = 2 if isinstance(given[2], list | tuple) else 3
    (x, *sizes, state), (weights, biases, layers, _, training, both, *rest) = given[:first], given[first:]
    each, directions = len(weights) // layers, 2 if both else 1
    states: list[Any] = []
    for layer in range(layers):
        own = slice(layer * directions, (layer + 1) * directions)
        before = state[own] if isinstance(state, Tensor) else [part[own] for part in state]
        its = weights[layer * each : (layer + 1) * each]
        x, *after = function(drop(x) if layer else x, *sizes, before, its, biases, 1, 0.0, training, both, *rest)
        states.append(after)
    return x, *(torch.cat(parts) for parts in zip(*states, strict=True))


def _others(given: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in given.items() if name not in ("p", "training")}


class _Where(NamedTuple):
    """The dimensions that a mask varies over, of an input with a batch; how many one has without; and the law."""

    dims: tuple[int, ...] | None
    unbatched: int = -1
    law: Law = "scaled"


_KINDS = {
    "dropout": _Where(None),
    "dropout1d": _Where((0, 1), unbatched=2),
    "dropout2d": _Where((0, 1)),
    "dropout3d": _Where((0, 1), unbatched=4),
    "feature_dropout": _Where((0, 1)),
    "alpha_dropout": _Where(None, law="selu"),
    "feature_alpha_dropout": _Where((0, 1), law="selu"),
}
_THINNED = {f: _KINDS[f.__name__.rstrip("_")] for f in FUNCTIONS if f.__name__.rstrip("_") in _KINDS}
_WATCHED = frozenset((*FUNCTIONS, *RECURRENT))
_BACKWARD = frozenset((Tensor.backward, torch.autograd.backward, torch.autograd.grad))
_ANSWERED = _WATCHED | _BACKWARD


class _NoModule:
    def __repr__(self) -> str:
        return "a function that no module calls"


_NO_MODULE = _NoModule()


class _Open(threading.local):
    """How many blocks of this thread see calls, of which one mode serves all, and how many modes are to be left."""

    blocks = modes = 0


_open, _calls = _Open(), FunctionCalls()
