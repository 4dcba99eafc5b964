"""``Samples``: predictions of many thinned networks, and what they tell of uncertainty."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from wellposed.dropouts.sampling.outputs import map_leaves


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


def _of_numbers(function: Callable[[Tensor], Tensor], samples: Any) -> Any:
    """The function of every floating-point tensor in ``samples``; the rest as it is."""
    return map_leaves(lambda s: function(s) if isinstance(s, Tensor) and s.is_floating_point() else s, samples)


def _entropy(probabilities: Tensor) -> Tensor:
    entropy: Tensor = torch.special.entr(probabilities).sum(dim=-1)
    return entropy
