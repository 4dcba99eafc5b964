"""Monte Carlo dropout: predictions of many thinned networks, with everything but dropout in evaluation mode."""

import contextlib
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from wellposed.dropouts.convert import convert_dropout
from wellposed.dropouts.naming.keyed import keyed, keyed_sample
from wellposed.dropouts.naming.streams import Stochastic
from wellposed.dropouts.sampling.outputs import Stacked, map_leaves, with_sample_dimension
from wellposed.dropouts.sampling.samples import Samples
from wellposed.dropouts.naming.function_calls import FunctionCalls as DropoutCalls
from wellposed.errors import WellposedError
from wellposed.models.copying import sharing_parameters
from wellposed.models.names import unwrapped
from wellposed.models.running import PeakMemory, own_generators, seed_all
from wellposed.random.key import Key

_CHUNK = 1 << 27  # bytes of activations that a chunk of samples may take
_TENSOR = object()  # stands where a tensor is


def monte_carlo(
    model: nn.Module,
    *inputs: Any,
    samples: int = 100,
    seed: int | Key = 0,
    chunk_size: int | None = None,
    **options: Any,
) -> Samples:
    """Predict with many thinned networks, which differ in their dropout masks.

    A copy of the model is run in evaluation mode, batch normalisation and all, but for its dropout modules, which drop.
    The model itself is not touched, neither its mode nor its hooks nor its buffers, and neither are torch's generators.
    Which dropout modules of other libraries are known ``convert_dropout`` tells; dropout that is called as a function
    and that evaluation mode turns off is not sampled, with a warning where the function is called all the same.

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
        options: Keyword arguments that it is called with.

    Returns:
        The predictions, without gradients.

    Raises:
        WellposedError: If the model has no dropout module with p > 0, cannot be copied or never calls its dropout; if
            its outputs are not tensors that can be stacked; or if ``samples`` or ``chunk_size`` is not positive.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 3))
        >>> result = monte_carlo(model, torch.ones(2, 4), samples=20)
        >>> result.samples.shape, result.mean.shape, result.mutual_information.shape
        (torch.Size([20, 2, 3]), torch.Size([2, 3]), torch.Size([2]))

    Source: Gal and Ghahramani (2016); mutual information: Houlsby et al. (2011).
    """
    for name, number in (("samples", samples), ("chunk_size", chunk_size)):
        if number is not None and number < 1:
            raise WellposedError(f"monte_carlo was given {name}={number}; expected at least 1")
    if not isinstance(model, nn.Module):
        raise WellposedError(f"monte_carlo was given a {type(model).__name__}; expected an nn.Module")
    return _Sampler(model, inputs, options, seed if isinstance(seed, Key) else Key(seed)).run(samples, chunk_size)


class _Sampler:
    """A copy of a model in evaluation mode but for its dropout, and what it is called with."""

    def __init__(self, model: nn.Module, inputs: tuple[Any, ...], options: dict[str, Any], key: Key) -> None:
        self._key, self._arguments = key, (inputs, options)
        self._copy = convert_dropout(sharing_parameters(unwrapped(model)[1])).eval()
        self._drops = {path: m for path, m in self._copy.named_modules() if isinstance(m, Stochastic)}
        self._waiting = {path for path, module in self._drops.items() if getattr(module, "p", 1.0) != 0}
        if not self._waiting:
            raise WellposedError(
                "monte_carlo was given a model without a dropout module of p > 0; "
                "add one, as in wp.Dropout(0.1), since dropout that is called as a function cannot be sampled"
            )
        for path, module in self._drops.items():
            module.next_stream = self._noted(path, module.next_stream)  # type: ignore[method-assign]
        for layer in self._copy.modules():
            if isinstance(layer, nn.TransformerEncoderLayer):
                layer.training = True  # or else torch runs it as one function, without the modules in it

    def run(self, samples: int, chunk_size: int | None) -> Samples:
        tensors = (*self._arguments, *self._copy.parameters(), *self._copy.buffers())
        with torch.no_grad(), own_generators(tensors) as generators:
            with DropoutCalls() as calls:
                scaled = self._call()
            self._warn_of(calls)
            for module in self._drops.values():
                module.training = True
            with PeakMemory() if chunk_size is None else contextlib.nullcontext() as memory:
                example, draws = self._alone(0, generators)
            if draws:
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
                outputs = self._together(first, count, generators) if count > 1 else None
                if outputs is None:  # which vmap cannot run, as little as it can any further samples
                    outputs, count, chunk_size = with_sample_dimension(self._alone(first, generators)[0]), 1, 1
                stacked.put(first, outputs)
                first += count
        self._check_all_drew()
        return Samples(stacked.outputs, scaled)

    def _warn_of(self, calls: DropoutCalls) -> None:
        paths = {module: path or "the model" for path, module in self._copy.named_modules()}
        if found := sorted({f"{paths.get(module, 'the model')} calls {name}" for module, name in calls.off}):
            warnings.warn(
                "monte_carlo was given a model that calls dropout as a function, which evaluation mode turns off, so "
                f"it is not sampled: {', '.join(found)}; use a module such as wp.Dropout instead",
                stacklevel=5,
            )

    def _call(self) -> Any:
        """Call the copy, with buffers that are this call's own."""
        buffers = {name: buffer.clone() for name, buffer in self._copy.named_buffers()}
        return functional_call(self._copy, buffers, *self._arguments)

    def _alone(self, sample: int, generators: list[torch.Generator]) -> tuple[Any, bool]:
        """One sample, and whether the model drew from torch's generators."""
        states = seed_all(generators, self._key.fold("torch", sample).words)
        with keyed(self._key, sample):
            outputs = self._call()
        return outputs, not _are_in(generators, states)

    def _together(self, first: int, count: int, generators: list[torch.Generator]) -> Any:
        """A chunk of samples by ``vmap``, or ``None`` where the model cannot be vectorised."""
        states = [generator.get_state() for generator in generators]
        rest: list[Any] = []

        def one(sample: Tensor) -> list[Tensor]:
            tensors: list[Tensor] = []

            def taken(leaf: Any) -> Any:
                if isinstance(leaf, Tensor):
                    tensors.append(leaf)
                    return _TENSOR
                return leaf

            with keyed_sample(self._key, first, sample):
                rest.append(map_leaves(taken, self._call()))
            return tensors

        try:
            stacked = iter(torch.func.vmap(one, randomness="different")(torch.arange(count, device="cpu")))
        except Exception:
            return None  # a true error shows itself when samples are run alone
        if not _are_in(generators, states):
            return None
        return map_leaves(lambda leaf: next(stacked) if leaf is _TENSOR else leaf, rest[0])

    def _noted(self, path: str, next_stream: Callable[..., Any]) -> Callable[..., Any]:
        """``next_stream`` of a module, taking note that it is called."""

        def noted(*arguments: Any, **options: Any) -> Any:
            self._waiting.discard(path)
            return next_stream(*arguments, **options)

        return noted

    def _check_all_drew(self) -> None:
        if not self._waiting:
            return
        message = (
            f"the dropout modules {sorted(self._waiting)} of the model given to monte_carlo never drew a mask, so the "
            "samples do not vary by them: they are not called, or only where the module above them is in training "
            "mode; let that one call its dropout in both modes"
        )
        if any(getattr(m, "p", 1.0) != 0 and path not in self._waiting for path, m in self._drops.items()):
            warnings.warn(message, stacklevel=4)
        else:
            raise WellposedError(message)


def _are_in(generators: list[torch.Generator], states: list[Tensor]) -> bool:
    return all(torch.equal(g.get_state(), state) for g, state in zip(generators, states, strict=True))
