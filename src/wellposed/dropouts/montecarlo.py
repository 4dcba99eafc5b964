"""Monte Carlo dropout: predictions of many thinned networks, with everything but dropout left in evaluation."""

import contextlib
import copy
import dataclasses
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from wellposed._torch import tree_map, tree_structure
from wellposed.dropouts.convert import convert_dropout
from wellposed.dropouts.naming.scope import keyed, keyed_sample
from wellposed.dropouts.naming.streams import Stochastic
from wellposed.errors import WellposedError
from wellposed.models.copying import sharing_parameters
from wellposed.models.names import unwrapped
from wellposed.models.running import PeakMemory, own_generators, seed_all
from wellposed.random.key import Key

_AT_ONCE = 1 << 27  # bytes that the activations of the samples that are run at once take


@dataclass(frozen=True, eq=False)
class Samples:
    """What ``monte_carlo`` returns; each attribute is like the model's output: a tensor, tuple, dict or dataclass.

    Attributes:
        samples: The predictions of the thinned networks, along a new first dimension.
        weight_scaled: The prediction of the one network in evaluation mode, which approximates their mean.
    """

    samples: Any
    weight_scaled: Any

    @property
    def mean(self) -> Any:
        """The mean prediction."""
        return _of_numbers(lambda s: s.mean(dim=0), self.samples)

    @property
    def variance(self) -> Any:
        """The variance of the predictions, with S - 1 in the denominator."""
        return _of_numbers(lambda s: s.var(dim=0), self.samples)

    @property
    def probabilities(self) -> Any:
        """The mean of the samples' class probabilities, for outputs that are logits over the last dimension."""
        return _of_numbers(lambda s: s.softmax(dim=-1).mean(dim=0), self.samples)

    @property
    def predictive_entropy(self) -> Any:
        """The entropy of ``probabilities``, in nats: the whole uncertainty."""
        return _of_numbers(_entropy, self.probabilities)

    @property
    def mutual_information(self) -> Any:
        """``predictive_entropy`` minus the mean entropy of a sample, in nats: what is uncertain about the network."""
        return _of_numbers(
            lambda s: _entropy(s.softmax(dim=-1).mean(dim=0)) - _entropy(s.softmax(dim=-1)).mean(dim=0), self.samples
        )


def monte_carlo(
    model: nn.Module, *inputs: Any, samples: int = 100, seed: int | Key = 0, at_once: int | None = None, **options: Any
) -> Samples:
    """Predict with many thinned networks.

    The model is run in evaluation mode, batch normalisation and all, but for its dropout modules, which drop. The model
    itself is not touched, neither its mode nor its hooks nor its buffers, and neither are torch's generators. Known
    dropout modules of other libraries count as ``convert_dropout`` tells.

    Sample s has the masks of ``keyed(seed, step=s)``: they do not depend on how many samples there are or run at once.
    A model that draws random numbers of its own is warned of, and draws them from generators seeded for each sample.

    Args:
        model: The model, an ``nn.Module``.
        inputs: What it is called with.
        samples: How many thinned networks.
        seed: What their masks are drawn from.
        at_once: How many samples are run at once; as many as keep their activations, measured on the first sample,
            within 128 MiB when ``None``. A model that cannot be vectorised is run one sample at a time.
        options: Keyword arguments that it is called with.

    Returns:
        The predictions, without gradients.

    Raises:
        WellposedError: If the model has no dropout module with p > 0, cannot be copied or never calls its dropout; if
            its outputs are not tensors that can be stacked; or if ``samples`` or ``at_once`` is not positive.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 3))
        >>> result = monte_carlo(model, torch.ones(2, 4), samples=20)
        >>> result.samples.shape, result.mean.shape, result.mutual_information.shape
        (torch.Size([20, 2, 3]), torch.Size([2, 3]), torch.Size([2]))

    Source: Gal and Ghahramani (2016); mutual information: Houlsby et al. (2011).
    """
    for name, number in (("samples", samples), ("at_once", at_once)):
        if number is not None and number < 1:
            raise WellposedError(f"monte_carlo was given {name}={number}; expected at least 1")
    if not isinstance(model, nn.Module):
        raise WellposedError(f"monte_carlo was given a {type(model).__name__}; expected an nn.Module")
    return _Sampler(model, inputs, options, seed if isinstance(seed, Key) else Key(seed)).run(samples, at_once)


class _Sampler:
    """A copy of a model in evaluation mode but for its dropout, and what it is called with."""

    def __init__(self, model: nn.Module, inputs: tuple[Any, ...], options: dict[str, Any], key: Key) -> None:
        self._key, self._arguments = key, (inputs, options)
        self._twin = convert_dropout(sharing_parameters(unwrapped(model)[1])).eval()
        self._drops = {path: m for path, m in self._twin.named_modules() if isinstance(m, Stochastic)}
        self._waiting = {path for path, module in self._drops.items() if getattr(module, "p", 1.0) != 0}
        if not self._waiting:
            raise WellposedError(
                "monte_carlo was given a model without a dropout module of p > 0; "
                "add one, as in wp.Dropout(0.1), since dropout that is called as a function cannot be sampled"
            )
        for path, module in self._drops.items():
            module.next_name = self._noted(path, module.next_name)  # type: ignore[method-assign]
        for layer in self._twin.modules():
            if isinstance(layer, nn.TransformerEncoderLayer):
                layer.training = True  # or else torch runs it as one function, without the modules in it

    def run(self, samples: int, at_once: int | None) -> Samples:
        tensors = (*self._arguments, *self._twin.parameters(), *self._twin.buffers())
        with torch.no_grad(), own_generators(tensors) as generators:
            scaled = self._call()
            for module in self._drops.values():
                module.training = True
            with PeakMemory() if at_once is None else contextlib.nullcontext() as memory:
                example, draws = self._alone(0, generators)
            if draws:
                warnings.warn(
                    "monte_carlo was given a model that draws random numbers of its own, in evaluation too "
                    "(wp.lint_dropout(model, example) tells where); they are part of the samples, drawn from "
                    "generators that are seeded for each",
                    stacklevel=4,
                )
                at_once = 1
            elif memory is not None:
                at_once = max(1, _AT_ONCE // max(1, memory.most))
            whole = _Whole(example, samples)
            first = 1
            while first < samples:
                count = min(at_once or 1, samples - first)
                outputs = self._together(first, count, generators) if count > 1 else None
                if outputs is None:  # which vmap cannot run, as little as it can any further samples
                    outputs, count, at_once = _with_dimension(self._alone(first, generators)[0]), 1, 1
                whole.put(first, outputs)
                first += count
        self._check_all_drew()
        return Samples(whole.outputs, scaled)

    def _call(self) -> Any:
        """Call the copy, with buffers that are this call's own."""
        buffers = {name: buffer.clone() for name, buffer in self._twin.named_buffers()}
        return functional_call(self._twin, buffers, *self._arguments)

    def _alone(self, sample: int, generators: list[torch.Generator]) -> tuple[Any, bool]:
        """A sample, and whether the model drew from torch's generators."""
        states = seed_all(generators, self._key.fold("torch", sample).words)
        with keyed(self._key, sample):
            outputs = self._call()
        return outputs, not _are_in(generators, states)

    def _together(self, first: int, count: int, generators: list[torch.Generator]) -> Any:
        """Samples ``first`` to ``first + count`` at once, or ``None`` where that cannot be."""
        states = [generator.get_state() for generator in generators]
        rest: list[Any] = []

        def one(sample: Tensor) -> list[Tensor]:
            with keyed_sample(self._key, first, sample):
                outputs = self._call()
            rest.append(_map(lambda leaf: _TENSOR if isinstance(leaf, Tensor) else leaf, outputs))
            return [leaf for leaf in _leaves(outputs) if isinstance(leaf, Tensor)]

        try:
            stacked = iter(torch.func.vmap(one, randomness="different")(torch.arange(count, device="cpu")))
        except Exception:
            return None  # a true error shows itself when samples are run alone
        if not _are_in(generators, states):
            return None
        return _map(lambda leaf: next(stacked) if leaf is _TENSOR else leaf, rest[0])

    def _noted(self, path: str, next_name: Callable[..., Any]) -> Callable[..., Any]:
        """``next_name`` of a module, taking note that it is called."""

        def noted(*arguments: Any, **options: Any) -> Any:
            self._waiting.discard(path)
            return next_name(*arguments, **options)

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


class _Whole:
    """The outputs of all samples, as they come in."""

    def __init__(self, example: Any, samples: int) -> None:
        self.outputs = _map(
            lambda leaf: leaf.new_empty((samples, *leaf.shape)) if isinstance(leaf, Tensor) else leaf, example
        )
        self.put(0, _with_dimension(example))

    def put(self, first: int, outputs: Any) -> None:
        """Put in the outputs of some samples from ``first`` on; what is no tensor must be the same in all."""

        def place(whole: Any, part: Any) -> None:
            if isinstance(whole, Tensor) and isinstance(part, Tensor):
                if part.shape[1:] != whole.shape[1:]:
                    shapes = f"{tuple(whole.shape[1:])} and {tuple(part.shape[1:])}"
                    raise WellposedError(f"monte_carlo was given a model whose outputs differ in shape: {shapes}")
                whole[first : first + len(part)] = part
            elif not _are_equal(whole, part):
                raise WellposedError(
                    f"monte_carlo was given a model whose output holds {_a(whole)}, which differs between samples and "
                    "cannot be stacked; have the model return tensors (of transformers, with use_cache=False)"
                )

        _map(place, self.outputs, outputs)


_TENSOR = object()  # stands where a tensor is


def _map(function: Callable[..., Any], *trees: Any) -> Any:
    """``tree_map``, which enters dataclasses too."""

    def at(*leaves: Any) -> Any:
        if not dataclasses.is_dataclass(leaves[0]) or isinstance(leaves[0], type):
            return function(*leaves)
        if len({type(leaf) for leaf in leaves}) > 1:
            raise WellposedError(different)
        new = copy.copy(leaves[0])
        for field in dataclasses.fields(new):
            of_all = [getattr(leaf, field.name) for leaf in leaves]
            object.__setattr__(new, field.name, _map(function, *of_all))
        return new

    different = "monte_carlo was given a model whose outputs differ in structure between samples"
    if any(tree_structure(tree) != tree_structure(trees[0]) for tree in trees[1:]):
        raise WellposedError(different)
    return tree_map(at, *trees)


def _leaves(tree: Any) -> list[Any]:
    leaves: list[Any] = []
    _map(leaves.append, tree)
    return leaves


def _with_dimension(outputs: Any) -> Any:
    """The outputs of one sample, as those of several."""
    return _map(lambda leaf: leaf[None] if isinstance(leaf, Tensor) else leaf, outputs)


def _are_equal(a: Any, b: Any) -> bool:
    try:
        return a is b or bool(a == b)
    except (RuntimeError, TypeError, ValueError):  # arrays do not compare to one truth value
        return False


def _are_in(generators: list[torch.Generator], states: list[Tensor]) -> bool:
    return all(torch.equal(g.get_state(), state) for g, state in zip(generators, states, strict=True))


def _a(value: Any) -> str:
    name = type(value).__name__
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


def _of_numbers(function: Callable[[Tensor], Tensor], samples: Any) -> Any:
    """The function of every floating-point tensor in ``samples``; the rest as it is."""
    return _map(lambda s: function(s) if isinstance(s, Tensor) and s.is_floating_point() else s, samples)


def _entropy(probabilities: Tensor) -> Tensor:
    entropy: Tensor = torch.special.entr(probabilities).sum(dim=-1)
    return entropy
