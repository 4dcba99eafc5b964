"""``keyed``: masks of dropout that are functions of a seed, a module's path and the training step alone."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from wellposed.arguments import described, integer
from wellposed.dropouts.naming.function_calls import watched_functions
from wellposed.dropouts.naming.nesting import entered, opened, own_scope
from wellposed.dropouts.naming.scope import COUNT_BITS, Scope
from wellposed.dropouts.sharding.places import Places
from wellposed.dropouts.sharding.telling import Placements, axes_of, check_mesh, told_by
from wellposed.errors import WellposedError
from wellposed.random.key import Key

_STEP, _MICROBATCH = 32, 12  # bits of a call number: the step, and the micro-batch in it; then come the calls in that


@contextlib.contextmanager
def keyed(
    seed: int | Key,
    step: int | Tensor = 0,
    microbatch: int = 0,
    *,
    row: int | None = None,
    mesh: Any = None,
    placements: Placements | Mapping[str, Placements] | None = None,
) -> Iterator[None]:
    """Draw dropout masks from a seed and a training step inside a ``with`` block, rather than from torch's generator.

    Inside the block a mask of wellposed's modules is a function of four things: the key ``Key(seed).fold(stream)``,
    where the stream is the module's path in the outermost model that is being called (or its ``stream`` attribute where
    that is set); the step; the micro-batch; and how often that stream has been drawn from in this block. So a run that
    is resumed at a step, even in the middle of an epoch, draws the masks that it would have drawn, and so does a
    compiled one. Dropout called as a function, as ``torch.nn.functional.dropout``, draws from the path of the module
    that calls it. Raw draws, such as ``torch.rand`` and ``x.bernoulli_()``, still read torch's generators.

    Activation checkpointing repeats masks if backward is called inside the block and each module is called once in it.
    For other cases, which raise rather than guess, there is ``checkpoint_context``. A block belongs to the thread that
    opened it: another thread opens one of its own.

    Args:
        seed: The seed, or a key.
        step: The training step, in [0, 2^32). An integer scalar tensor on a device is read there, each time that the
            block's work runs: so a CUDA graph that is captured by hand draws the masks of the step at each replay. What
            only drops and scales can follow it; all else raises while a graph is being captured.
        microbatch: The micro-batch within the step, in [0, 4096), for gradient accumulation.
        row: Where this batch's first row stands in a larger batch that it is a part of. Masks that vary over samples
            (dimension 0, but for time-first ``LockedDropout``) are then rows of the larger batch's mask, and masks of
            weights, words and layers are its own: split over micro-batches or devices, they stay the same.
        mesh: In a job of several processes, the ``DeviceMesh`` that the batch is split over: in equal parts, in the
            order of the processes; or with ``placements``, the mesh that these are for.
        placements: How plain tensors lie on the mesh, in equal parts, where that cannot be found: a placement for each
            of its dimensions, for all modules, or by globs on their paths (the last that matches counts). In the place
            of placements also a ``Box``, or several that follow one another in the tensor. DTensors know how they lie,
            and the local parts of DTensors are found by their gradients' graph.

    Raises:
        WellposedError: If a number is out of range, ``mesh`` or ``placements`` does not fit, or, when a module draws in
            a job of several processes, if which part of the whole its input is has neither been told nor is found.

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
    there = step if isinstance(step, Tensor) and not step.is_cpu else None
    if isinstance(step, Tensor):
        step = _step_of(step)
    step = integer(step, "keyed(step)", 0, 2**_STEP)
    microbatch = integer(microbatch, "keyed(microbatch)", 0, 2**_MICROBATCH)
    key = seed if isinstance(seed, Key) else Key(seed)
    call = (step << _MICROBATCH | microbatch) << COUNT_BITS
    row = None if row is None else integer(row, "keyed(row)", 0, 2**40)
    scope = Scope(key, call, row or 0, _places(row, mesh, placements))
    if there is not None:
        scope.device_step = there.long() << _MICROBATCH + COUNT_BITS
    with watched_functions(), opened(scope):
        yield


def _places(row: int | None, mesh: Any, placements: Any) -> Places | None:
    """What is told of where tensors lie; ``None`` for rows alone, in a job of one process."""
    if mesh is not None:
        check_mesh(mesh)
        if placements is None and row is not None:
            raise WellposedError(
                f"keyed was given row={row} and a mesh, over which the batch is split; expected one of them, or "
                "placements that say what is on the mesh"
            )
    told = {} if placements is None else told_by(placements, mesh)
    world = dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
    if world == 1 and not told:
        return None
    samples = axes_of(mesh) if mesh is not None and placements is None else ()
    return Places(world, row, tuple(axis for axis in samples if len(axis.ranks) > 1), told)


def _step_of(step: Tensor) -> int:
    """The step that a scalar tensor holds; 0 for one on a device, which the host does not read."""
    if step.dim() or step.dtype.is_floating_point or step.dtype.is_complex or step.dtype == torch.bool:
        raise WellposedError(
            f"keyed(step) was given a tensor {described(step)}; expected an integer, or a scalar of one"
        )
    return int(step) if step.is_cpu else 0


@contextlib.contextmanager
def keyed_sample(seed: int | Key, first: int, sample: Tensor) -> Iterator[None]:
    """``keyed(seed, first + sample)`` under ``torch.func.vmap``, where the sample is a batched int64 scalar."""
    key = seed if isinstance(seed, Key) else Key(seed)
    scope = Scope(key, first << _MICROBATCH + COUNT_BITS, 0)
    zero = torch.zeros_like(sample)
    scope.shift = torch.stack([zero, sample << _MICROBATCH + COUNT_BITS, zero])
    with watched_functions(), opened(scope):
        yield


def checkpoint_context() -> tuple[contextlib.AbstractContextManager[None], contextlib.AbstractContextManager[None]]:
    """Context managers with which activation checkpointing repeats the masks of a ``keyed`` block in every case.

    Give it as ``context_fn`` to ``torch.utils.checkpoint.checkpoint(..., use_reentrant=False)``. Modules may then be
    called several times in a block, and backward may be called outside it.

    Returns:
        A context manager for the forward pass of the checkpointed segment, and one for its recomputation.

    Example:
        >>> import wellposed as wp
        >>> from torch.utils.checkpoint import checkpoint
        >>> layer, x = wp.Dropout(0.5), torch.ones(64, requires_grad=True)
        >>> options = {"use_reentrant": False, "context_fn": wp.checkpoint_context}
        >>> with wp.keyed(0):
        ...     y = checkpoint(lambda x: layer(layer(x).sin()), x, **options)
        >>> y.sum().backward()
    """
    scope = own_scope()
    if scope is None:
        return contextlib.nullcontext(), contextlib.nullcontext()
    return _Recorded(scope), _Replay(scope)


class _Recorded(contextlib.AbstractContextManager[None]):
    """Tells a scope that what runs meanwhile is repeated by ``_Replay``."""

    def __init__(self, scope: Scope) -> None:
        self._scope, self._before = scope, scope.is_repeated

    def __enter__(self) -> None:
        self._scope.is_repeated = True

    def __exit__(self, *problem: Any) -> None:
        self._scope.is_repeated = self._before


class _Replay(contextlib.AbstractContextManager[None]):
    """Recomputes a checkpointed segment, as often as backward asks, with the call counts that it started from."""

    def __init__(self, scope: Scope) -> None:
        self._scope, self._counts, self._roots = scope, dict(scope.counts), scope.roots()
        self._open: list[contextlib.ExitStack] = []

    def __enter__(self) -> None:
        stack = contextlib.ExitStack()
        stack.enter_context(watched_functions())
        stack.enter_context(entered(self._scope.replay(self._counts, self._roots)))
        self._open.append(stack)

    def __exit__(self, *problem: Any) -> None:
        self._open.pop().__exit__(*problem)
