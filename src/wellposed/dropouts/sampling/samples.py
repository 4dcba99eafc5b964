"""``Samples``: predictions of many thinned networks, and what they tell of uncertainty."""

import textwrap
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from wellposed.dropouts.sampling.outputs import map_leaves

_WIDTH = 100
_FIRM = "\N{NO-BREAK SPACE}"  # where a line is not to be folded


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
        """The entropy of ``probabilities`` in nats, which is the whole uncertainty."""
        return _of_numbers(_entropy, self.probabilities)

    @property
    def mutual_information(self) -> Any:
        """``predictive_entropy`` minus the mean entropy of a sample, in nats; large where the networks disagree.

        It is never negative; what rounding makes of 0 is 0.
        """

        def information(s: Tensor) -> Tensor:
            p = s.softmax(dim=-1)
            return (_entropy(p.mean(dim=0)) - _entropy(p).mean(dim=0)).clamp_min(0.0)

        return _of_numbers(information, self.samples)

    def __repr__(self) -> str:
        """What there is, by shape and dtype, in lines of at most 100 letters: tensors are not printed in full."""
        parts = [f"{field.name}={map_leaves(_Short, getattr(self, field.name))!r}" for field in fields(self)]
        text = f"Samples({', '.join(parts)})"
        if len(text) > _WIDTH or "\n" in text:
            folded = textwrap.TextWrapper(_WIDTH - 1, "    ", "        ", break_on_hyphens=False)
            text = "Samples(\n" + ",\n".join(map(folded.fill, parts)) + "\n)"
        return text.replace(_FIRM, " ")


class _Short:
    """A value that prints a tensor by its dtype and shape."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def __repr__(self) -> str:
        if not isinstance(self._value, Tensor):
            return repr(self._value)
        shape = str(list(self._value.shape)).replace(" ", _FIRM)
        return f"{str(self._value.dtype).removeprefix('torch.')}{shape}"


def _of_numbers(function: Callable[[Tensor], Tensor], samples: Any) -> Any:
    """The function of every floating-point tensor in ``samples``; the rest as it is."""
    return map_leaves(lambda s: function(s) if isinstance(s, Tensor) and s.is_floating_point() else s, samples)


def _entropy(probabilities: Tensor) -> Tensor:
    entropy: Tensor = torch.special.entr(probabilities).sum(dim=-1)
    return entropy
