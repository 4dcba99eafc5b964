"""The scope of a ``keyed`` block: which RNG stream each call of a dropout module in it draws its mask from.

Activation checkpointing runs modules again in a backward pass, where a mask must be repeated rather than drawn anew. A
scope tells such a call from a new one by autograd's numbers: that of the backward pass, and the sequence numbers of the
autograd nodes that were made inside the block.
"""

import itertools
import threading
from types import FrameType
from typing import Any, NamedTuple

from torch import Tensor, nn

from wellposed import _torch
from wellposed.dropouts.sharding.blockwise import Outward, Placed
from wellposed.dropouts.sharding.origins import Known
from wellposed.dropouts.sharding.places import Asked, Places, Where
from wellposed.errors import WellposedError
from wellposed.models.names import plain_path
from wellposed.random.key import Key
from wellposed.random.shards import is_sharded

COUNT_BITS = 20  # the low bits of a call number, which count the calls of one stream in a block


class _Run(NamedTuple):
    """How often a module was called in a block, and the last time's key, call number, thread, and stream's name."""

    times: int
    key: int
    call: int
    thread: int
    name: str


class Scope:
    """What a ``keyed`` block has handed out so far: the streams of modules, and how often each was drawn from.

    Args:
        key: The key that the streams' keys are folded from.
        call: The call number of each stream's first call in the block.
        row: Where the batch's first row stands in the larger batch that it is a part of.
        places: What is told of where tensors lie, in a job of several processes; ``None`` in one of one process.
    """

    def __init__(self, key: Key, call: int, row: int, places: Places | None = None) -> None:
        self.key, self.call, self.row, self.places = key, call, row, places
        self.origins: Known = {}  # of autograd's nodes, as long as the block is open
        self._where: dict[nn.Module, Where] = {}  # each module's input lay the last time
        self.counts: dict[str, int] = {}
        self.device_step: Tensor | None = None  # added to the call number by what draws
        self.shift: Tensor | None = None  # added to (key, call, row): under vmap a row for each Monte Carlo sample
        self.thread, self.threads = threading.get_ident(), threading.enumerate()
        self.backward = _torch.backward_pass()  # the backward pass that the block was opened in; -1 outside of all
        self.runs: dict[nn.Module, _Run] = {}
        self.outer: Scope | None = None  # the one of the block around this one
        self.generator: FrameType | None = None  # the generator that opened the block, if one did
        self.functions: dict[Any, Any] = {}  # what stands in for dropout that is called as a function
        self.is_repeated = False  # whether ``checkpoint_context`` repeats what runs now
        self._to_repeat: set[nn.Module] = set()  # what a backward pass has to run again in this block
        self._roots: tuple[nn.Module, ...] = ()
        self._paths: dict[nn.Module, dict[nn.Module, str]] = {}
        self._names: dict[tuple[nn.Module, nn.Module], str] = {}
        self._owners: dict[str, nn.Module] = {}
        self._keys: dict[str, int] = {}
        self._first_node = _torch.next_node_number()
        self._inner: list[tuple[int, int]] = []  # the autograd nodes of blocks that were opened in this one

    def next_stream(self, module: nn.Module, stream: str | None, owner: Any = None) -> tuple[int, int]:
        """The key's 64 bits and the call number of a module's next mask, or in a recomputation of the one to repeat.

        Args:
            module: The module that draws.
            stream: The name of its stream; ``None`` for its path in the model that is being called.
            owner: Who draws from the stream; ``None`` for the module.

        Raises:
            WellposedError: If the mask would depend on the order of calls or of threads, or if which mask is to be
                repeated is not known.
        """
        if _torch.backward_pass() != self.backward:
            return self._repeated(module)
        name = stream if stream is not None else self.name_of(module)
        if owner is None:
            owner = module
        if self._owners.setdefault(name, owner) is not owner:
            raise WellposedError(
                f"{self._owners[name]} and {owner} are both named {name!r} in one wp.keyed block, so their masks "
                "would depend on which is called first; call the model that contains both, or name their streams with "
                "wp.convert_dropout(model), for two models with two seeds, or by their stream attribute"
            )
        before, thread = self.runs.get(module), threading.get_ident()
        if before is not None and before.thread != thread:
            raise WellposedError(
                f"dropout {name!r} was called by two threads in one wp.keyed block, so its masks would depend on which "
                "is first; open a wp.keyed block in each thread, with a step or micro-batch of its own"
            )
        count = self.counts.get(name, 0)
        if count >> COUNT_BITS:
            raise WellposedError(f"dropout {name!r} was called more than {2**COUNT_BITS} times in one keyed block")
        self.counts[name] = count + 1
        if name not in self._keys:
            self._keys[name] = self.key.fold(name).seed
        key, call = self._keys[name], self.call | count
        self.runs[module] = _Run(1 if before is None else before.times + 1, key, call, thread, name)
        return key, call

    def where(self, module: nn.Module, x: Tensor, batch: int) -> Where:
        """Where the input of a module lies, whose next stream has been asked for; in a recomputation, where it lay."""
        if self.places is None:
            if not is_sharded(x):
                return Where(self.row)
            return Where(0, Placed(None, (Outward(batch, row=self.row),) if self.row and batch >= 0 else ()))
        if _torch.backward_pass() == self.backward:
            asked = Asked(x, batch, module, self.runs[module].name, self.roots)
            self._where[module] = self.places.of(asked, self.origins)
        return self._where[module]

    def must_repeat(self, module: nn.Module) -> None:
        """Note that a backward pass runs what draws here again, and can repeat its mask in this block alone."""
        if not self.is_repeated and _torch.backward_pass() == self.backward and _torch.is_checkpointed():
            self._to_repeat.add(module)

    def check_repeated(self) -> None:
        """Refuse to close the block before the backward pass, where that would draw a mask of torch's in its place."""
        if self._to_repeat:
            names = sorted({str(vars(module).get("stream")) for module in self._to_repeat})
            raise WellposedError(
                f"dropout was called as a function by {names} under activation checkpointing in a wp.keyed block, "
                "which ends before the backward pass that has to repeat its mask; call backward inside the block, or "
                "pass context_fn=wp.checkpoint_context to torch.utils.checkpoint.checkpoint (with use_reentrant=False)"
            )

    def replay(self, counts: dict[str, int], roots: tuple[nn.Module, ...]) -> "Scope":
        """A scope for the recomputation of a checkpointed segment, with the counts and roots that it started from."""
        again = Scope(self.key, self.call, self.row, self.places)
        again.device_step = self.device_step
        again.counts, again._roots = dict(counts), roots
        again._names, again._keys, again._paths, again._owners = self._names, self._keys, self._paths, self._owners
        return again

    def roots(self) -> tuple[nn.Module, ...]:
        """The modules that are being called, outermost first."""
        return *self._roots, *_torch.called_modules()

    def close(self, outer: "Scope | None") -> None:
        """Tell the block around this one, and the modules, which autograd nodes were made in this one."""
        last = _torch.next_node_number()
        if outer is not None:
            outer._inner.append((self._first_node, last))
        for module, run in self.runs.items():
            thread, first, end = getattr(module, "_keyed_nodes", None) or (run.thread, self._first_node, last)
            alone = thread == run.thread == self.thread  # nodes are numbered in each thread anew
            nodes = (thread, min(first, self._first_node), max(end, last)) if alone else (thread, 0, 2**63)
            vars(module)["_keyed_nodes"] = nodes

    def _repeated(self, module: nn.Module) -> tuple[int, int]:
        """The mask to repeat in a backward pass: certain only if the module was called once in this block."""
        times, key, call, thread, _ = self.runs.get(module, (0, 0, 0, self.thread, ""))
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
        self._to_repeat.discard(module)
        return key, call

    def name_of(self, module: nn.Module) -> str:
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
