"""``keyed``: in it, a seed, a module's path and where training stands name the masks, and nothing global is read."""

import contextlib
import itertools
import operator
import threading
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn

from wellposed import _torch
from wellposed.errors import WellposedError
from wellposed.models.names import plain_path
from wellposed.random.key import Key

_STEP, _MICROBATCH, _COUNT = 32, 12, 20  # bits of a call number: the step, the micro-batch in it, the call in that


class Scope:
    """What a ``keyed`` block has handed out so far: names of modules, keys of names, and how often each was used."""

    def __init__(self, key: Key, call: int, row: int) -> None:
        self.key, self.call, self.row = key, call, row
        self.counts: dict[str, int] = {}
        self.shift: Tensor | None = None  # what ``wellposed::stream`` adds to a name, a row for each sample under vmap
        self.thread, self.threads = threading.get_ident(), threading.enumerate()
        self.backward = _torch.backward_pass()  # the backward pass that it was opened in; -1 outside of all
        self.runs: dict[nn.Module, _Run] = {}
        self._roots: tuple[nn.Module, ...] = ()
        self._paths: dict[nn.Module, dict[nn.Module, str]] = {}
        self._names: dict[tuple[nn.Module, nn.Module], str] = {}
        self._owners: dict[str, nn.Module] = {}
        self._keys: dict[str, int] = {}
        self._first_node = _torch.next_node_number()
        self._inner: list[tuple[int, int]] = []  # the nodes of blocks that were opened in this one

    def next_stream(self, module: nn.Module, stream: str | None) -> tuple[int, int]:
        """The key's 64 bits and the number of this call."""
        if _torch.backward_pass() != self.backward:
            return self._repeated(module)
        name = stream if stream is not None else self._name(module)
        if self._owners.setdefault(name, module) is not module:
            raise WellposedError(
                f"{self._owners[name]} and {module} are both named {name!r} in one wp.keyed block, so their masks "
                "would depend on which is called first; call the model that contains both, or name their streams with "
                "wp.convert_dropout(model), for two models with two seeds, or by their stream attribute"
            )
        before, thread = self.runs.get(module), threading.get_ident()
        if before is not None and before[3] != thread:
            raise WellposedError(
                f"dropout {name!r} was called by two threads in one wp.keyed block, so its masks would depend on which "
                "is first; open a wp.keyed block in each thread, with a step or micro-batch of its own"
            )
        count = self.counts.get(name, 0)
        if count >> _COUNT:
            raise WellposedError(f"dropout {name!r} was called more than {2**_COUNT} times in one keyed block")
        self.counts[name] = count + 1
        if name not in self._keys:
            self._keys[name] = self.key.fold(name).seed
        key, call = self._keys[name], self.call | count
        self.runs[module] = (1 if before is None else before[0] + 1, key, call, thread)
        return key, call

    def replay(self, counts: dict[str, int], roots: tuple[nn.Module, ...]) -> "Scope":
        """This scope as it was when the counts were ``counts``, for a segment of the roots that runs again."""
        again = Scope(self.key, self.call, self.row)
        again.counts, again._roots = dict(counts), roots
        again._names, again._keys, again._paths, again._owners = self._names, self._keys, self._paths, self._owners
        return again

    def roots(self) -> tuple[nn.Module, ...]:
        """The modules that are being called, outermost first."""
        return *self._roots, *_torch.called_modules()

    def close(self, outer: "Scope | None") -> None:
        """Tell the block around this one, and the modules, which nodes of the graph are this one's."""
        last = _torch.next_node_number()
        if outer is not None:
            outer._inner.append((self._first_node, last))
        for module, (_, _, _, runner) in self.runs.items():
            thread, first, end = getattr(module, "_keyed_nodes", None) or (runner, self._first_node, last)
            alone = thread == runner == self.thread  # nodes are numbered in each thread anew
            nodes = (thread, min(first, self._first_node), max(end, last)) if alone else (thread, 0, 2**63)
            vars(module)["_keyed_nodes"] = nodes

    def _repeated(self, module: nn.Module) -> tuple[int, int]:
        """Refuse to guess: in a backward pass, where checkpointing runs modules again, only a lone call is certain."""
        times, key, call, thread = self.runs.get(module, (0, 0, 0, self.thread))
        if not _torch.runs_again():
            raise WellposedError(
                f"{module} is called in a backward pass, as by a hook, so whether this repeats a call of the forward "
                "pass is not known; for a new mask open a wp.keyed block in the hook, to repeat one pass "
                "context_fn=wp.checkpoint_context to torch.utils.checkpoint.checkpoint (with use_reentrant=False)"
            )
        number = _torch.node_number()
        is_outside = (
            number is None or number < self._first_node or any(first <= number < last for first, last in self._inner)
        )
        if times == 0 or thread != self.thread or is_outside:
            raise WellposedError(
                f"{module} runs again in a backward pass (activation checkpointing) but did not run forward in "
                "this wp.keyed block; call backward inside the block that ran the forward pass, or pass "
                "context_fn=wp.checkpoint_context to torch.utils.checkpoint.checkpoint"
            )
        if times > 1:
            raise WellposedError(
                f"{module} runs again in a backward pass (activation checkpointing) and was called {times} "
                "times in this wp.keyed block, so which call this repeats is not known; pass "
                "context_fn=wp.checkpoint_context to torch.utils.checkpoint.checkpoint (with use_reentrant=False)"
            )
        return key, call

    def _name(self, module: nn.Module) -> str:
        """The module's path in the outermost model that is being called and contains it."""
        for root in itertools.chain(self._roots, _torch.called_modules()):
            name = self._names.get((root, module))
            if name is not None:
                return name
            if root not in self._paths:
                self._paths[root] = {child: path for path, child in root.named_modules()}
            if module in self._paths[root]:
                name = self._names[root, module] = plain_path(root, self._paths[root][module])
                return name
        if any(running is module for running in _torch.modules_being_called()):
            return ""
        raise WellposedError(
            f"{module} ran in a wp.keyed block, and no model that contains it is being called: a compiled function has "
            "taken its place, so its path is not known; compile the model itself, torch.compile(model), or name its "
            "streams with wp.convert_dropout(model)"
        )


# How often a module was called in a block, and the key, call number and thread of the last time.
_Run = tuple[int, int, int, int]

_scope: ContextVar[Scope | None] = ContextVar("wellposed_keyed", default=None)


@contextlib.contextmanager
def keyed(seed: int | Key, step: int = 0, microbatch: int = 0, *, row: int = 0) -> Iterator[None]:
    """Name the masks of wellposed's dropout modules by a seed and a step, rather than by torch's generator.

    Inside the block a module's mask is a function of four things: the key ``Key(seed).fold(path)``, where ``path`` is
    the module's path in the outermost model that is being called (or its ``stream`` attribute where that is set); the
    step; the micro-batch; and how often a module of that path has been called in this block. So a run resumed at a
    step, even in the middle of an epoch, draws the masks that it would have drawn, and so does a compiled one.

    Activation checkpointing repeats masks if backward is called inside the block and each module is called once in it.
    For other cases, which raise rather than guess, there is ``checkpoint_context``. The block is its thread's alone:
    another thread opens one of its own.

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
    with _open(Scope(key, call, _within("row", row, 2**40))):
        yield


@contextlib.contextmanager
def keyed_sample(seed: int | Key, first: int, sample: Tensor) -> Iterator[None]:
    """``keyed(seed, first + sample)``, where the sample is an int64 scalar that vmap may have batched."""
    key = seed if isinstance(seed, Key) else Key(seed)
    scope = Scope(key, first << _MICROBATCH + _COUNT, 0)
    zero = torch.zeros_like(sample)
    scope.shift = torch.stack([zero, sample << _MICROBATCH + _COUNT, zero])
    with _open(scope):
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
    """The innermost ``keyed`` block that we are in; a thread that autograd started is in the one that is open."""
    scope = _scope.get()
    if scope is None and _entered and _torch.backward_pass() != -1 and _is_autograds_thread():
        opened = [scope for scope in _entered if scope.backward == -1]
        if len({scope.thread for scope in opened}) > 1:
            raise WellposedError(
                "dropout runs again in a backward pass (activation checkpointing) while several threads have a "
                "wp.keyed block open, so which block it belongs to is not known; pass "
                "context_fn=wp.checkpoint_context to torch.utils.checkpoint.checkpoint (with use_reentrant=False)"
            )
        return opened[-1] if opened else None
    return scope


def check_no_other_thread(module: nn.Module) -> None:
    """Refuse to draw outside of all blocks while another thread's block has run the module or started this thread."""
    ours = threading.get_ident()
    for scope in tuple(_entered):
        if scope.thread != ours and (module in scope.runs or threading.current_thread() not in scope.threads):
            raise WellposedError(
                f"{module} ran in a thread without a wp.keyed block while another thread has one open, which is that "
                "thread's alone; open a wp.keyed block in each thread, or hand this one on by "
                "contextvars.copy_context().run"
            )


def _is_autograds_thread() -> bool:
    ours = threading.get_ident()
    return all(isinstance(t, threading._DummyThread) for t in threading.enumerate() if t.ident == ours)


_entered: list[Scope] = []


@contextlib.contextmanager
def _open(scope: Scope) -> Iterator[None]:
    outer = _scope.get()
    try:
        with _enter(scope):
            yield
    finally:
        scope.close(outer)


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
        self._scope, self._counts, self._roots = scope, dict(scope.counts), scope.roots()
        self._open: list[contextlib.AbstractContextManager[None]] = []

    def __enter__(self) -> None:
        self._open.append(_enter(self._scope.replay(self._counts, self._roots)))
        self._open[-1].__enter__()

    def __exit__(self, *problem: Any) -> None:
        self._open.pop().__exit__(*problem)


def _within(name: str, value: int, end: int) -> int:
    number = operator.index(value)
    if not 0 <= number < end:
        raise WellposedError(f"keyed was given {name}={number}; expected an integer in [0, {end})")
    return number
