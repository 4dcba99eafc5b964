"""What each weight's output goes through: an abstract interpretation of a forward pass, operation by operation."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from wellposed._torch import tree_leaves, tree_map
from wellposed.models.tracing import operations
from wellposed.models.tracing.calls.scores import Attention, sum_of_scores
from wellposed.models.tracing.signals import Branch, End, Fn, Parameters, Signal, Source, Use, is_followed


@dataclass
class Flow:
    """What was found out about a model.

    Attributes:
        way: How it is being found out.
        uses: What each weight's output goes through.
        ways: How that was found out, for each weight.
        branches: The residual branches.
        attention: What was seen of attention.
        sources: Where the signals come from that are still being followed.
        notes: Which ways were tried in vain, and why.
    """

    way: str = ""
    uses: dict[str, list[Use]] = field(default_factory=dict)
    ways: dict[str, str] = field(default_factory=dict)
    branches: list[Branch] = field(default_factory=list)
    attention: Attention = field(default_factory=Attention)
    sources: list[Source] = field(default_factory=list)
    notes: tuple[str, ...] = ()

    def source(
        self, names: Iterable[str] = (), made_from: Iterable[Signal] = (), tail: Iterable[str] | None = None
    ) -> Signal:
        """A signal from a new source."""
        before = frozenset[Source]().union(*({s.source} | s.source.before for s in made_from))
        own = tuple(names)
        source = Source(own, before, own if tail is None else tuple(dict.fromkeys(tail)))
        self.sources.append(source)
        source.last = Signal(source)
        return source.last

    def use(self, signal: Signal, end: End, into: Sequence[str] = ()) -> None:
        """Note where a signal ends."""
        signal.source.used = True
        for name in signal.source.names:
            self._note(name, Use(signal.fn, "+".join(signal.label), end, tuple(into), bool(signal.norms)))

    def inside(self, names: Iterable[str], end: End) -> None:
        """Note what follows weights in a layer that is not looked into."""
        for name in names:
            self._note(name, Use(None, "", end))

    def _note(self, name: str, use: Use) -> None:
        self.uses.setdefault(name, []).append(use)
        self.ways[name] = self.way

    def finish(self, end: End) -> None:
        """Note where the signals end that nothing took."""
        for source in self.sources:
            if not source.used and source.last is not None:
                self.use(source.last, end)
        self.sources.clear()

    def step(
        self,
        name: str,
        fn: Callable[..., Any],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        tensors: tuple[Sequence[Any], Mapping[str, Any]] = ((), {}),
    ) -> Any:
        """Follow one operation.

        Args:
            name: The operation's name.
            fn: The operation.
            args: Its arguments, with a ``Signal`` or ``Parameters`` for each tensor that is followed.
            kwargs: Its keyword arguments, likewise.
            tensors: Both with tensors of any memory, where there are any.

        Returns:
            The ``Signal`` or ``Parameters`` that it gives, or ``None``.
        """
        name = operations.plain_name(name)
        args = args[1:] if name == "copy" else args
        leaves = tree_leaves((list(args), dict(kwargs)), is_leaf=is_followed)
        signals = list({id(leaf): leaf for leaf in leaves if isinstance(leaf, Signal)}.values())
        parameters = [leaf for leaf in leaves if isinstance(leaf, Parameters)]
        arrays = any(isinstance(leaf, Tensor) and leaf.ndim > 0 for leaf in leaves)
        names = tuple(dict.fromkeys(n for p in parameters for n in p.names))
        if name in operations.NOT_TENSORS or (name == "getattr" and args[1] not in operations.VIEWS):
            return None
        if not signals:
            if not parameters:
                return None
            if name in ("embedding", "embedding_bag") or (name in ("getitem", "index_select", "index") and arrays):
                return self.source(names)
            return Parameters(names, max(p.ndim for p in parameters))
        matrices = tuple(dict.fromkeys(n for p in parameters if p.ndim > 1 for n in p.names))
        if name in operations.PRODUCTS:
            for signal in signals:
                self.use(signal, "weight" if matrices else "attention", matrices)
            product = self.source(matrices, signals)
            if not matrices:
                self.attention.multiply(product, name, leaves, kwargs, tensors)
            return product
        if name in operations.NORMS:
            return self.norm(signals[0], names)
        if name in operations.REDUCTIONS:
            return self._reduce(signals)
        if name in operations.ATTENTION:
            end = self._end(signals, "attention")
            if name in operations.SOFTMAXES:
                self.attention.softmax(signals[0], end)
            else:
                self.attention.fused(leaves, kwargs, tensors)
            return end
        if name in operations.MERGES:
            alone = len({s.source for s in signals}) == 1
            return self._moved(signals[0], place=object()) if alone else self._end(signals, "merge")
        if name in operations.MOVES:
            return self._moved(signals[0], place=_place(name, signals[0]))
        if parameters:
            if name == "prelu":
                return self.apply(signals[0], lambda z: nn.functional.leaky_relu(z, 0.25), "prelu")
            if name in operations.MULTIPLICATIONS:
                return self._moved(signals[0], gates=signals[0].gates + names)
            if name in operations.SUMS:
                return self._moved(signals[0])
            # Somebody's own operator, of a signal and a matrix, is read as their product.
            return self.product(signals, matrices) if matrices else self._end(signals, "unknown")
        if len(signals) == 1 and arrays and name in operations.SUMS | operations.MULTIPLICATIONS:
            return self._moved(signals[0], weighted=name in operations.MULTIPLICATIONS)
        if not arrays and (len(signals) == 1 or _aligned(signals)):
            return self._compose(name, fn, args, kwargs, signals)
        if name in operations.SUMS:
            return self.sum(signals)
        return self._end(signals, "product" if name in operations.MULTIPLICATIONS else "unknown")

    def overwrite(self, old: Any, new: Signal) -> Any:
        """What a tensor holds once a part of it is overwritten."""
        return self.step("cat", torch.cat, ([old, new],), {})

    def norm(self, signal: Signal, names: Sequence[str] = ("norm",)) -> Signal:
        """A normalisation: a signal that was only moved stays in sight, of unit size; any other ends."""
        if signal.fn is None:
            return self._moved(signal, norms=signal.norms + (tuple(names) or ("norm",)))
        return self._end([signal], "norm")

    def apply(self, signal: Signal, fn: Fn, label: str) -> Signal:
        """An elementwise function of one signal."""
        inner = signal.fn
        # A function that works in place is given numbers of its own.
        outer = (lambda z: fn(z.clone())) if inner is None else lambda z: fn(inner(z))
        return self._moved(signal, fn=outer, label=(*signal.label, label))

    def product(self, signals: Sequence[Signal], names: Sequence[str]) -> Signal:
        """A layer with weights of its own."""
        for signal in signals:
            self.use(signal, "weight", names)
        return self.source(names, signals)

    def opaque(self, signals: Sequence[Signal]) -> Signal:
        """Something that cannot be looked into."""
        return self._end(signals, "unknown")

    def _compose(
        self, name: str, fn: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], signals: list[Signal]
    ) -> Signal:
        def outer(z: Tensor) -> Tensor:
            def value(leaf: Any) -> Any:
                if not isinstance(leaf, Signal):
                    return leaf
                return z.clone() if leaf.fn is None else leaf.fn(z)

            given, named = tree_map(value, (list(args), dict(kwargs)), is_leaf=is_followed)
            result: Tensor = fn(*given, **named)
            return result

        first = max(signals, key=lambda s: len(s.label))
        return self._moved(first, fn=outer, label=(*first.label, name))

    def sum(self, signals: list[Signal]) -> Signal:
        """A sum: of a stream and the branches that left it, or of signals that have nothing to do with each other."""
        if len({s.source for s in signals}) == 1 and all(s.weighted for s in signals):  # a rotation
            return self._moved(min(signals, key=lambda s: len(s.label)), place=object(), weighted=False)
        stream, *rest = sorted(signals, key=lambda s: len(s.source.before))
        through = {stream.source, *stream.source.before}
        ends = list(stream.source.tail)
        for signal in rest:
            reached = {signal.source, *signal.source.before}
            common = through & reached
            # What the branch takes from elsewhere, as cross-attention does, is not part of it.
            weights = self._weights({s for s in reached - through if s.before & common})
            shortcut = self._weights(through - reached)
            # A shortcut may be projected by one weight; sides that are alike, or no weight at the end, make no branch.
            residual = bool(common and signal.source.tail) and len(shortcut) <= 1 and len(weights) > len(shortcut)
            if residual:
                self._branch(Branch(weights, signal.source.tail, signal.norms, signal.gates))
                ends.clear()
            ends.extend(signal.source.tail)
            self.use(signal, "residual" if residual else "merge")
        self.use(stream, "merge")
        total = self.source((), signals, ends)
        total.source.scores = sum_of_scores(signals)
        return total

    def _branch(self, branch: Branch) -> None:
        """Note a residual branch, in place of those that turn out to lie inside it."""
        inside = set(branch.weights)
        self.branches = [b for b in self.branches if not set(b.weights) < inside] + [branch]

    def _weights(self, sources: set[Source]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for source in self.sources if source in sources for name in source.names))

    def _end(self, signals: Sequence[Signal], end: End) -> Signal:
        for signal in signals:
            self.use(signal, end)
        through = signals if end in ("product", "merge") else ()
        return self.source((), signals, (n for s in through if s.fn is None for n in s.source.tail))

    def _reduce(self, signals: Sequence[Signal]) -> Signal:
        """A statistic of a signal: a signal of its own, and no sign yet of what the signal itself is for."""
        for signal in signals:
            if signal.fn is not None:
                self.use(signal, "merge")
        return self.source((), signals, (n for s in signals if s.fn is None for n in s.source.tail))

    def _moved(self, signal: Signal, **changes: Any) -> Signal:
        moved = Signal(**{**vars(signal), **changes})
        moved.source.last = moved
        return moved


def _aligned(signals: Sequence[Signal]) -> bool:
    return len({s.source for s in signals}) == 1 == len({s.place for s in signals}) and signals[0].place is not None


def _place(name: str, signal: Signal) -> object:
    if name in operations.STILL:
        return signal.place
    return None if name in operations.SPLITS else object()
