"""Monte Carlo dropout: predictions of many thinned networks, with everything but dropout in evaluation mode."""

import contextlib
import warnings
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call

from wellposed.arguments import integer
from wellposed.dropouts.convert import swapped
from wellposed.dropouts.layers.thinning import Thinning
from wellposed.dropouts.naming.function_calls import FunctionCalls, watched_functions
from wellposed.dropouts.naming.keyed import keyed, keyed_sample
from wellposed.dropouts.naming.streams import Stochastic
from wellposed.dropouts.sampling.outputs import Stacked, map_leaves, with_sample_dimension
from wellposed.dropouts.sampling.samples import Samples
from wellposed.errors import WellposedError
from wellposed.models.copying import sharing_parameters
from wellposed.models.example import copied
from wellposed.models.globs import last_match
from wellposed.models.names import unwrapped
from wellposed.models.running import OwnGenerators, PeakMemory, ignored
from wellposed.random.key import Key

_CHUNK = 1 << 27  # bytes of activations that a chunk of samples may take
_NO_RULE = "There is a performance drop because we have not yet implemented the batching rule"  # vmap warns
_TENSOR = object()  # stands where a tensor is


def monte_carlo(
    model: nn.Module,
    *inputs: Any,
    samples: int = 100,
    seed: int | Key = 0,
    chunk_size: int | None = None,
    where: str | Sequence[str] = (),
    **options: Any,
) -> Samples:
    """Predict with many thinned networks, which differ in their dropout masks.

    A copy of the model is run in evaluation mode, batch normalisation and all, but for its dropout, which drops. The
    model itself is not touched, neither its mode nor its hooks nor its buffers, nor what it is called with, nor torch's
    generators. Which dropout modules of other libraries are known ``convert_dropout`` tells. Dropout that is called as
    a function drops too, though evaluation mode turns it off; not seen is a call that is not made in evaluation mode at
    all, which ``plan_convert_dropout(model, example=...)`` finds.

    Sample s has the masks of ``keyed(seed, step=s)``, which depend neither on how many samples there are nor on the
    size of a chunk. A model that draws random numbers otherwise is warned of, and draws them from generators that are
    seeded for each sample.

    Args:
        model: The model, an ``nn.Module``.
        inputs: What it is called with.
        samples: How many thinned networks.
        seed: What their masks are drawn from.
        chunk_size: How many samples are run at once, by ``torch.func.vmap``; when ``None`` as many as keep their
            activations, measured on the first sample, within 128 MiB. A model that cannot be vectorised is run one
            sample at a time.
        where: Globs on module paths, such as ``"head.*"``, of which one has to match where dropout drops; elsewhere
            all stays in evaluation mode. Empty for everywhere.
        options: Keyword arguments that it is called with.

    Returns:
        The predictions, without gradients.

    Raises:
        WellposedError: If the model has no dropout with p > 0, cannot be copied or never calls its dropout; if the
            inputs cannot be copied; if its outputs are not tensors that can be stacked; or if ``samples`` or
            ``chunk_size`` is not a positive integer.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 3))
        >>> result = monte_carlo(model, torch.ones(2, 4), samples=20)
        >>> result.samples.shape, result.mean.shape, result.mutual_information.shape
        (torch.Size([20, 2, 3]), torch.Size([2, 3]), torch.Size([2]))

    Source: Gal and Ghahramani (2016); mutual information: Houlsby et al. (2011).
    """
    samples = integer(samples, "monte_carlo(samples)", 1, 2**32)
    chunk_size = None if chunk_size is None else integer(chunk_size, "monte_carlo(chunk_size)", 1, 2**63)
    if not isinstance(model, nn.Module):
        raise WellposedError(f"monte_carlo was given a {type(model).__name__}; expected an nn.Module")
    globs = (where,) if isinstance(where, str) else tuple(where)
    sampler = _Sampler(model, inputs, options, seed if isinstance(seed, Key) else Key(seed), globs)
    return sampler.run(samples, chunk_size)


class _Sampler:
    """A copy of a model in evaluation mode but for its dropout, and what it is called with."""

    def __init__(
        self, model: nn.Module, inputs: tuple[Any, ...], options: dict[str, Any], key: Key, where: Sequence[str]
    ) -> None:
        self._key, self._arguments, self._where = key, (inputs, options), where
        self._copy = swapped(sharing_parameters(unwrapped(model)[1])).eval()
        self._paths: dict[Any, str] = {module: path for path, module in self._copy.named_modules()}
        self._drops = {path: m for path, m in self._copy.named_modules() if isinstance(m, Stochastic)}
        for path in [path for path in self._drops if not self._is_sampled(path)]:
            del self._drops[path]
        self._waiting = {path for path, module in self._drops.items() if getattr(module, "p", 1.0) != 0}
        self._callers: set[nn.Module | None] = set()  # of functions that drop with p > 0
        self._silent: set[nn.Module] = set()  # of functions that drop with p = 0 while they are not in training mode
        for path, module in self._drops.items():
            module.next_stream = self._noted(path, module.next_stream)  # type: ignore[method-assign]
        for layer in self._copy.modules():
            if isinstance(layer, nn.TransformerEncoderLayer):
                layer.training = True  # or else torch runs it as one function, without the modules in it

    def run(self, samples: int, chunk_size: int | None) -> Samples:
        with torch.no_grad():
            with OwnGenerators(self._key.fold("torch").words), watched_functions(FunctionCalls(note=self._note_off)):
                scaled = self._call()
            for module in (*self._drops.values(), *(m for m in self._silent if _has_a_rate(m))):
                module.training = True
            with PeakMemory() if chunk_size is None else contextlib.nullcontext() as memory:
                example, self._draws = self._alone(0)
            self._check_that_something_drew()
            if self._draws:
                warnings.warn(
                    "monte_carlo was given a model that draws random numbers of its own, in evaluation too "
                    "(wp.lint_dropout(model, example) tells where); they are part of the samples, drawn from "
                    "generators that are seeded for each",
                    stacklevel=4,
                )
                chunk_size = 1
            elif memory is not None:
                chunk_size = max(1, _CHUNK // max(1, memory.most))
            stacked = Stacked(example, samples)
            first = 1
            while first < samples:
                count = min(chunk_size or 1, samples - first)
                outputs = self._together(first, count) if count > 1 else None
                if outputs is None:  # which vmap cannot run, as little as it can any further samples
                    outputs, count, chunk_size = with_sample_dimension(self._alone(first)[0]), 1, 1
                stacked.put(first, outputs)
                first += count
        self._check_that_all_drew()
        return Samples(stacked.outputs, scaled)

    def _call(self) -> Any:
        """Call the copy, with inputs and buffers that are this call's own."""
        buffers = {name: buffer.clone() for name, buffer in self._copy.named_buffers()}
        return functional_call(self._copy, buffers, *copied(self._arguments))

    def _alone(self, sample: int) -> tuple[Any, bool]:
        """One sample, and whether the model drew from torch's generators, which are then not torch's but its own."""
        own = OwnGenerators(self._key.fold("torch", sample).words)
        draws = own if sample == 0 or self._draws else contextlib.nullcontext()
        with draws, watched_functions(self._calls()), keyed(self._key, sample, row=0):
            outputs = self._call()
        return outputs, own.drew

    def _together(self, first: int, count: int) -> Any:
        """A chunk of samples by ``vmap``, or ``None`` where the model cannot be vectorised."""
        rest: list[Any] = []

        def one(sample: Tensor) -> list[Tensor]:
            tensors: list[Tensor] = []

            def taken(leaf: Any) -> Any:
                if isinstance(leaf, Tensor):
                    tensors.append(leaf)
                    return _TENSOR
                return leaf

            with watched_functions(self._calls()), keyed_sample(self._key, first, sample):
                rest.append(map_leaves(taken, self._call()))
            return tensors

        try:
            with ignored(_NO_RULE):
                stacked = iter(torch.func.vmap(one, randomness="different")(torch.arange(count, device="cpu")))
        except Exception:
            return None  # a true error shows itself when samples are run alone
        return map_leaves(lambda leaf: next(stacked) if leaf is _TENSOR else leaf, rest[0])

    def _calls(self) -> FunctionCalls:
        return FunctionCalls(drops=self._drops_in, note=self._note_on)

    def _note_on(self, module: nn.Module | None, function: Any, p: float) -> None:
        if p != 0 and self._drops_in(module, True):
            self._callers.add(module)

    def _drops_in(self, module: nn.Module | None, training: bool) -> bool:
        """Whether a function drops that a module calls: in evaluation mode too, but not outside of what is sampled."""
        return self._is_sampled(self._paths.get(module, ""))

    def _is_sampled(self, path: str) -> bool:
        return not self._where or last_match([path], self._where) is not None

    def _note_off(self, module: nn.Module | None, function: Any, p: float) -> None:
        if p == 0 and module in self._paths and self._is_sampled(self._paths[module]):
            self._silent.add(cast(nn.Module, module))

    def _noted(self, path: str, next_stream: Callable[..., Any]) -> Callable[..., Any]:
        """``next_stream`` of a module, taking note that it is called."""

        def noted(*arguments: Any, **options: Any) -> Any:
            self._waiting.discard(path)
            return next_stream(*arguments, **options)

        return noted

    def _check_that_something_drew(self) -> None:
        if self._waiting or self._callers or any(getattr(m, "p", 1.0) != 0 for m in self._drops.values()):
            return
        place = f" where {list(self._where)} match" if self._where else ""
        raise WellposedError(
            f"monte_carlo was given a model without a dropout module of p > 0{place}, and without a function that "
            "drops with p > 0; add one, as in wp.Dropout(0.1)"
        )

    def _check_that_all_drew(self) -> None:
        called = {self._paths.get(module, "") for module in self._callers}
        self._waiting -= {path for path in self._waiting if path.rpartition(".")[0] in called}  # whose p a function has
        if not self._waiting:
            return
        message = (
            f"the dropout modules {sorted(self._waiting)} of the model given to monte_carlo never drew a mask, so the "
            "samples do not vary by them: they are not called, or only where the module above them is in training "
            "mode; let that one call its dropout in both modes"
        )
        drew = any(getattr(m, "p", 1.0) != 0 and path not in self._waiting for path, m in self._drops.items())
        if drew or self._callers:
            warnings.warn(message, stacklevel=4)
        else:
            raise WellposedError(message)


def _has_a_rate(module: nn.Module) -> bool:
    """Whether a module has a rate of dropout above 0, which it may give to a function in training mode alone."""
    own = {name: value for name, value in vars(module).items() if "drop" in name and isinstance(value, float)}
    parts = {name: getattr(part, "p", 0.0) for name, part in module.named_children() if isinstance(part, Thinning)}
    return any(rate > 0 for rate in (own | parts).values())
