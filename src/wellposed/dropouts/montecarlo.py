"""Monte Carlo dropout: predictions of many thinned networks, with everything but dropout left in evaluation."""

import copy
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map, tree_unflatten

from wellposed.dropouts.convert import convert_dropout
from wellposed.dropouts.scope import keyed, keyed_sample
from wellposed.dropouts.streams import Stochastic
from wellposed.errors import WellposedError
from wellposed.random.key import Key

_AT_ONCE = 1 << 22  # elements of input that are run at once


@dataclass(frozen=True, eq=False)
class Samples:
    """What ``monte_carlo`` returns; each attribute is shaped like the model's output, be it a tensor, tuple or dict.

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
    itself is not touched: neither its mode nor its hooks, and neither is torch's generator. Known dropout modules of
    other libraries count as ``convert_dropout`` tells.

    Sample s has the masks of ``keyed(seed, step=s)``: they do not depend on how many samples there are or run at once.

    Args:
        model: The model, an ``nn.Module``.
        inputs: What it is called with.
        samples: How many thinned networks.
        seed: What their masks are drawn from.
        at_once: How many samples are run at once; as many as give 4 million elements of input when ``None``. A model
            that cannot be vectorised is run one sample at a time.
        options: Keyword arguments that it is called with.

    Returns:
        The predictions, without gradients.

    Raises:
        WellposedError: If the model has no dropout module with p > 0, or ``samples`` is not positive.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 3))
        >>> result = monte_carlo(model, torch.ones(2, 4), samples=20)
        >>> result.samples.shape, result.mean.shape, result.mutual_information.shape
        (torch.Size([20, 2, 3]), torch.Size([2, 3]), torch.Size([2]))

    Source: Gal and Ghahramani (2016); mutual information: Houlsby et al. (2011).
    """
    if samples < 1:
        raise WellposedError(f"monte_carlo was given samples={samples}; expected at least 1")
    if not isinstance(model, nn.Module):
        raise WellposedError(f"monte_carlo was given a {type(model).__name__}; expected an nn.Module")
    twin = _sampling_twin(model)
    if at_once is None:
        size = sum(leaf.numel() for leaf in tree_leaves((inputs, options)) if isinstance(leaf, Tensor))
        at_once = max(1, _AT_ONCE // max(1, size))
    with torch.no_grad():
        scaled = _evaluated(twin, inputs, options)
        chunks = []
        for first in range(0, samples, at_once):
            chunks.append(_chunk(twin, inputs, options, seed, first, min(at_once, samples - first)))
        leaves = [tree_flatten(chunk)[0] for chunk in chunks]
        spec = tree_flatten(chunks[0])[1]
        joined = [torch.cat(parts) if isinstance(parts[0], Tensor) else parts[0] for parts in zip(*leaves, strict=True)]
    return Samples(tree_unflatten(joined, spec), scaled)


def _sampling_twin(model: nn.Module) -> nn.Module:
    """A copy that shares every tensor with the model, in evaluation mode but for its dropout."""
    shared = {id(t): t for t in itertools.chain(model.parameters(), model.buffers())}
    twin = convert_dropout(copy.deepcopy(model, shared)).eval()
    active = [m for m in twin.modules() if isinstance(m, Stochastic) and getattr(m, "p", 1.0) != 0]
    if not active:
        raise WellposedError(
            "monte_carlo was given a model without a dropout module of p > 0; "
            "add one, as in wp.Dropout(0.1), since dropout that is called as a function cannot be sampled"
        )
    for module in active:
        module.training = True
    return twin


def _evaluated(twin: nn.Module, inputs: tuple[Any, ...], options: dict[str, Any]) -> Any:
    active = [m for m in twin.modules() if isinstance(m, Stochastic) and m.training]
    for module in active:
        module.training = False
    try:
        return twin(*inputs, **options)
    finally:
        for module in active:
            module.training = True


def _chunk(
    twin: nn.Module, inputs: tuple[Any, ...], options: dict[str, Any], seed: int | Key, first: int, count: int
) -> Any:
    """Samples ``first`` to ``first + count``, at once where that can be."""

    def one(sample: Tensor) -> Any:
        with keyed_sample(seed, first, sample):
            return twin(*inputs, **options)

    if count > 1:
        try:
            return torch.func.vmap(one, randomness="different")(torch.arange(count))
        except (RuntimeError, NotImplementedError, TypeError, ValueError):
            pass  # what vmap cannot run is run below, where a true error shows itself
    outputs = []
    for sample in range(first, first + count):
        with keyed(seed, sample):
            outputs.append(twin(*inputs, **options))
    return tree_map(lambda *leaves: torch.stack(leaves) if isinstance(leaves[0], Tensor) else leaves[0], *outputs)


def _of_numbers(function: Callable[[Tensor], Tensor], samples: Any) -> Any:
    """The function of every floating-point tensor in ``samples``; the rest as it is."""
    return tree_map(lambda s: function(s) if isinstance(s, Tensor) and s.is_floating_point() else s, samples)


def _entropy(probabilities: Tensor) -> Tensor:
    entropy: Tensor = torch.special.entr(probabilities).sum(dim=-1)
    return entropy
