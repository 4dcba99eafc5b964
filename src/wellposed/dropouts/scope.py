"""``keyed``: in it, a seed, a module's path and where training stands name the masks, and nothing global is read."""

import contextlib
import operator
import sys
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn

from wellposed.errors import WellposedError
from wellposed.random.key import Key

_STEP, _MICROBATCH, _COUNT = 32, 12, 20  # bits of a call number: the step, the micro-batch in it, the call in that
# What torch's wrappers call the module inside: the name -> their classes.
_WRAPPERS = {
    "_orig_mod": ("OptimizedModule",),
    "_checkpoint_wrapped_module": ("CheckpointWrapper", "OffloadWrapper"),
    "_fsdp_wrapped_module": ("FullyShardedDataParallel",),
    "module": ("DataParallel", "DistributedDataParallel"),
}


class Scope:
    """What a ``keyed`` block has handed out so far: names of modules, keys of names, and how often each was used."""

    def __init__(self, key: Key, call: int, row: int) -> None:
        self.key, self.call, self.row = key, call, row
        self.counts: dict[str, int] = {}
        self.replays = False  # whether the counts are those of a checkpointed segment that runs again
        self.shift: Tensor | None = None  # what ``wellposed::stream`` adds to a name, a row for each sample under vmap
        self._names: dict[nn.Module, str] = {}
        self._keys: dict[str, tuple[int, int]] = {}
        self._first_node = torch._C._autograd._get_sequence_nr()

    def next_stream(self, module: nn.Module, stream: str | None) -> tuple[tuple[int, int], int]:
        """The key's words and the number of this call."""
        name = stream if stream is not None else self._names.get(module)
        if name is None:
            name = self._learn_names(module)
        count = self.counts.get(name, 0)
        if torch._C._current_graph_task_id() != -1 and not self.replays:
            self._check_recomputation(name, count)
            count = 0
        elif count >> _COUNT:
            raise WellposedError(f"dropout {name!r} was called more than {2**_COUNT} times in one keyed block")
        else:
            self.counts[name] = count + 1
        if name not in self._keys:
            self._keys[name] = self.key.fold(name).words
        return self._keys[name], self.call | count

    def replay(self, counts: dict[str, int]) -> "Scope":
        """This scope as it was when the counts were ``counts``, for a segment that runs again."""
        again = Scope(self.key, self.call, self.row)
        again.counts, again.replays = dict(counts), True
        again._names, again._keys = self._names, self._keys
        return again

    def _check_recomputation(self, name: str, count: int) -> None:
        """Refuse to guess: in a backward pass, where checkpointing runs modules again, only a lone call is certain."""
        node = torch._C._current_autograd_node()
        if count == 0 or node is None or node._sequence_nr() < self._first_node:
            raise WellposedError(
                f"dropout {name!r} runs again in a backward pass (activation checkpointing) but did not run forward in "
                "this wp.keyed block; call backward inside the block that ran the forward pass, or pass "
                "context_fn=wp.checkpoint_context to torch.utils.checkpoint.checkpoint"
            )
        if count > 1:
            raise WellposedError(
                f"dropout {name!r} runs again in a backward pass (activation checkpointing) and was called {count} "
                "times in this wp.keyed block, so which call this repeats is not known; pass "
                "context_fn=wp.checkpoint_context to torch.utils.checkpoint.checkpoint (with use_reentrant=False)"
            )

    def _learn_names(self, module: nn.Module) -> str:
        """Name every module of the outermost model that is being called and contains ``module`` by its path in it."""
        for root in reversed(list(modules_being_called())):
            paths = {child: _plain_path(root, path) for path, child in root.named_modules()}
            if module in paths:
                self._names = paths | self._names
                return self._names[module]
        raise WellposedError(
            f"{module} ran in a wp.keyed block, and no model that contains it is being called: a compiled function has "
            "taken its place, so its path is not known; compile the model itself, torch.compile(model), or name its "
            "streams with wp.convert_dropout(model)"
        )


_scope: ContextVar[Scope | None] = ContextVar("wellposed_keyed", default=None)


@contextlib.contextmanager
def keyed(seed: int | Key, step: int = 0, microbatch: int = 0, *, row: int = 0) -> Iterator[None]:
    """Name the masks of wellposed's dropout modules by a seed and a step, rather than by torch's generator.

    Inside the block a module's mask is a function of four things: the key ``Key(seed).fold(path)``, where ``path`` is
    the module's path in the outermost model that is being called (or its ``stream`` attribute where that is set); the
    step; the micro-batch; and how often a module of that path has been called in this block. So a run resumed at a
    step, even in the middle of an epoch, draws the masks that it would have drawn, and so does a compiled one.

    Activation checkpointing repeats masks if backward is called inside the block and each path is called once in it.
    For other cases, which raise rather than guess, there is ``checkpoint_context``.

    Args:
        seed: The seed, or a key.
        step: The training step, in [0, 2^32).
        microbatch: The micro-batch within the step, in [0, 4096), for gradient accumulation.
        row: Where this batch's first row stands in a larger batch that it is a part of. Masks that vary over samples
            (dimension 0, but for time-first ``LockedDropout``) are then rows of the larger batch's mask, and masks of
            weights, words and layers are its own: split over micro-batches or devices, they stay the same.

    Raises:
        WellposedError: If a number is out of range.

    Example:
        >>> import wellposed as wp
        >>> model = torch.nn.Sequential(torch.nn.Identity(), wp.Dropout(0.5))
        >>> def masked(step, rows=slice(None), row=0):
        ...     with wp.keyed(0, step, row=row):
        ...         return model(torch.ones(8, 16)[rows])
        >>> torch.equal(masked(3), masked(3)), torch.equal(masked(3), masked(4))
        (True, False)
        >>> torch.equal(torch.cat([masked(3, slice(5)), masked(3, slice(5, 8), row=5)]), masked(3))
        True
    """
    step = _within("step", step, 2**_STEP)
    microbatch = _within("microbatch", microbatch, 2**_MICROBATCH)
    key = seed if isinstance(seed, Key) else Key(seed)
    call = (step << _MICROBATCH | microbatch) << _COUNT
    with _enter(Scope(key, call, _within("row", row, 2**40))):
        yield


@contextlib.contextmanager
def keyed_sample(seed: int | Key, first: int, sample: Tensor) -> Iterator[None]:
    """``keyed(seed, first + sample)``, where the sample is an int64 scalar that vmap may have batched."""
    key = seed if isinstance(seed, Key) else Key(seed)
    scope = Scope(key, first << _MICROBATCH + _COUNT, 0)
    zero = torch.zeros_like(sample)
    scope.shift = torch.stack([zero, sample << _MICROBATCH + _COUNT, zero])
    with _enter(scope):
        yield


def checkpoint_context() -> tuple[contextlib.AbstractContextManager[None], contextlib.AbstractContextManager[None]]:
    """Contexts with which activation checkpointing repeats the masks of a ``keyed`` block in every case.

    Give it as ``context_fn`` to ``torch.utils.checkpoint.checkpoint(..., use_reentrant=False)``. Modules may then be
    called several times in a block, and backward may be called outside it.

    Returns:
        A context for the forward pass of the segment and one for running it again.

    Example:
        >>> import wellposed as wp
        >>> from torch.utils.checkpoint import checkpoint
        >>> layer, x = wp.Dropout(0.5), torch.ones(64, requires_grad=True)
        >>> options = {"use_reentrant": False, "context_fn": wp.checkpoint_context}
        >>> with wp.keyed(0):
        ...     y = checkpoint(lambda x: layer(layer(x).sin()), x, **options)
        >>> y.sum().backward()
    """
    scope = _scope.get()
    if scope is None:
        return contextlib.nullcontext(), contextlib.nullcontext()
    return contextlib.nullcontext(), _Replay(scope)


def current_scope() -> Scope | None:
    """The innermost ``keyed`` block that we are in; a thread that autograd started is in the newest of all."""
    scope = _scope.get()
    if scope is None and _entered and torch._C._current_graph_task_id() != -1:
        return _entered[-1]
    return scope


_entered: list[Scope] = []


@contextlib.contextmanager
def _enter(scope: Scope) -> Iterator[None]:
    token = _scope.set(scope)
    _entered.append(scope)
    try:
        yield
    finally:
        _entered.remove(scope)
        _scope.reset(token)


class _Replay(contextlib.AbstractContextManager[None]):
    """Runs a segment again as often as backward does, each time with the counts that it first started from."""

    def __init__(self, scope: Scope) -> None:
        self._scope, self._counts = scope, dict(scope.counts)
        self._open: list[contextlib.AbstractContextManager[None]] = []

    def __enter__(self) -> None:
        self._open.append(_enter(self._scope.replay(self._counts)))
        self._open[-1].__enter__()

    def __exit__(self, *problem: Any) -> None:
        self._open.pop().__exit__(*problem)


def _within(name: str, value: int, end: int) -> int:
    number = operator.index(value)
    if not 0 <= number < end:
        raise WellposedError(f"keyed was given {name}={number}; expected an integer in [0, {end})")
    return number


def modules_being_called() -> Iterator[nn.Module]:
    """The modules whose methods are on the stack, innermost first: a method's first argument is its object.

    A compiled graph asks a module for its stream without calling it, so that alone is no call.
    """
    frame = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        first = frame.f_locals.get(code.co_varnames[0]) if code.co_argcount else None
        if isinstance(first, nn.Module) and code.co_name != "next_name":
            yield first
        frame = frame.f_back  # type: ignore[assignment]


def _plain_path(root: nn.Module, path: str) -> str:
    """A module's path in ``root`` without the wrappers of compiling, sharding and checkpointing."""
    module, plain = root, []
    for part in path.split("."):
        if not _is_wrapper(module, part):
            plain.append(part)
        module = getattr(module, part, module)
    return ".".join(plain)


def _is_wrapper(module: nn.Module, part: str) -> bool:
    classes = _WRAPPERS.get(part, ())
    return any(c.__name__ in classes and c.__module__.startswith("torch.") for c in type(module).__mro__)
