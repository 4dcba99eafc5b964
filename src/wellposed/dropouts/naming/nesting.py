"""Which ``keyed`` block a mask is drawn in, where blocks lie inside one another, in threads and in generators."""

import contextlib
import threading
from collections.abc import Iterator
from contextvars import ContextVar

from torch import nn

from wellposed import _torch
from wellposed.dropouts.naming.scope import Scope
from wellposed.errors import WellposedError

_scope: ContextVar[Scope | None] = ContextVar("wellposed_keyed", default=None)
open_scopes: list[Scope] = []  # those of all threads


@contextlib.contextmanager
def opened(scope: Scope) -> Iterator[None]:
    """Open a new scope for the length of a ``with`` block, and note its autograd nodes at the end."""
    outer = _scope.get()
    try:
        with entered(scope):
            yield
            scope.check_repeated()
    finally:
        scope.close(outer)


@contextlib.contextmanager
def entered(scope: Scope) -> Iterator[None]:
    """Make a scope the current one of this thread for the length of a ``with`` block."""
    scope.outer, scope.generator = _scope.get(), _torch.generator_that_opens()
    _scope.set(scope)
    open_scopes.append(scope)
    try:
        yield
    finally:
        open_scopes.remove(scope)
        _leave(scope)
        scope.outer = scope.generator = None
        scope.origins.clear()  # lest autograd's graph, which may hold the scope, be held by it


def _leave(scope: Scope) -> None:
    """Take a scope out of those that are open, of which it need not be the innermost: generators may be interleaved."""
    inner = _scope.get()
    if inner is scope:
        _scope.set(scope.outer)
    while inner is not None:
        if inner.outer is scope:
            inner.outer = scope.outer
        inner = inner.outer


def own_scope() -> Scope | None:
    """The scope of the innermost ``keyed`` block that this thread has open.

    Raises:
        WellposedError: If a generator that is suspended opened it inside another block, so that either may be meant.
    """
    scope = _scope.get()
    if scope is None or scope.generator is None or scope.outer is None:
        return scope
    if not _torch.is_running(scope.generator):
        raise WellposedError(
            "several wp.keyed blocks are open, and the last was opened by a generator that is suspended, so which of "
            "them a mask belongs to is not known; close the block before each yield and open it anew after it"
        )
    return scope


def current_scope() -> Scope | None:
    """The scope that a mask is drawn in: this thread's own, or in a thread of autograd's the one that is open."""
    scope = own_scope()
    if scope is None and open_scopes and _torch.backward_pass() != -1 and _is_autograds_thread():
        outside = [scope for scope in open_scopes if scope.backward == -1]
        if len({scope.thread for scope in outside}) > 1:
            raise WellposedError(
                "dropout runs again in a backward pass (activation checkpointing) while several threads have a "
                "wp.keyed block open, so which block it belongs to is not known; pass "
                "context_fn=wp.checkpoint_context to torch.utils.checkpoint.checkpoint (with use_reentrant=False)"
            )
        return outside[-1] if outside else None
    return scope


def check_no_other_thread(module: nn.Module) -> None:
    """Refuse to draw outside of all blocks while another thread's block has run the module or started this thread."""
    ours = threading.get_ident()
    for scope in tuple(open_scopes):
        if scope.thread != ours and (module in scope.runs or threading.current_thread() not in scope.threads):
            raise WellposedError(
                f"{module} ran in a thread without a wp.keyed block while another thread has one open, which is that "
                "thread's alone; open a wp.keyed block in each thread, or hand this one on by "
                "contextvars.copy_context().run"
            )


def _is_autograds_thread() -> bool:
    ours = threading.get_ident()
    return all(isinstance(t, threading._DummyThread) for t in threading.enumerate() if t.ident == ours)
