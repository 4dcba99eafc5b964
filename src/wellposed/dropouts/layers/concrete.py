"""Dropout whose probability is learned."""

import math

import torch
from torch import Tensor, nn

from wellposed._torch import is_ordinary
from wellposed.dropouts.functional import check_beside, check_real
from wellposed.dropouts.layers.noise import noise
from wellposed.dropouts.masks import check_probability, stream_tensor
from wellposed.dropouts.naming.streams import Stochastic
from wellposed.dropouts.sharding.blockwise import arrived, filled_blocks
from wellposed.errors import WellposedError
from wellposed.random.distributions import uniform_
from wellposed.random.key import Key
from wellposed.random.shards import is_sharded

_TINY = 1e-7  # keeps logarithms finite


class ConcreteDropout(Stochastic):
    """Dropout with a relaxed mask, so that its probability p can be learned by gradient descent.

    While training an element is multiplied by (1 - z) / (1 - p) with z = sigmoid((logit p + logit u) / temperature) and
    u uniform. What p is learned for is the loss plus ``penalty``.

    Args:
        p: The probability that it starts from, in (0, 1).
        temperature: How soft the mask is; dropout is the limit 0.
        inplace: Only ``False`` is possible; taken since torch's modules take it.

    Attributes:
        logit: The parameter that is learned, log(p / (1 - p)).

    Shape:
        Any, and the output is like the input.

    Raises:
        WellposedError: If p is not in (0, 1), ``inplace`` is true, or the temperature is not positive.

    Example:
        >>> layer = ConcreteDropout(0.1)
        >>> loss = layer(torch.ones(8)).sum() + layer.penalty(torch.ones(3, 8), weight_decay=1e-4, entropy=1e-3)
        >>> loss.backward()
        >>> layer.logit.grad is not None
        True

    Source: Gal, Hron and Kendall (2017).
    """

    def __init__(self, p: float = 0.1, *, temperature: float = 0.1, inplace: bool = False) -> None:
        super().__init__(inplace)
        check_probability("ConcreteDropout", p)
        if p in (0.0, 1.0) or not temperature > 0:
            raise WellposedError(
                f"ConcreteDropout was given p={p} and temperature={temperature}; expected p in (0, 1) and more than 0"
            )
        self.temperature = temperature
        self.logit = nn.Parameter(torch.tensor(math.log(p) - math.log1p(-p)))

    @property
    def p(self) -> Tensor:
        """The probability, as a tensor that carries its gradient."""
        return self.logit.sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        """Soften elements of ``x``; outside training, return ``x`` itself."""
        if not self.training:
            return x
        check_real("ConcreteDropout", x)
        check_beside("ConcreteDropout", self, x)
        x = arrived(x)
        u = self._noise(x)
        logit = self.logit.to(torch.promote_types(self.logit.dtype, torch.float32))  # 1 - p may be 0 in narrow dtypes
        logits = logit + torch.log(u + _TINY) - torch.log1p(_TINY - u)
        kept = torch.sigmoid(-logits / self.temperature)
        product: Tensor = x * kept / torch.sigmoid(-logit)
        return product.to(x.dtype)

    def _noise(self, x: Tensor) -> Tensor:
        """Uniform noise that lies as ``x`` does."""
        if not (is_ordinary(x) or is_sharded(x)):
            return noise(x, self.next_stream_tensor(x.detach()), x.shape, "uniform")
        key, call, row, placed, _ = self.next_stream(x)
        if placed is None:
            return noise(x, stream_tensor(key, call, row), x.shape, "uniform")
        dtype = torch.promote_types(x.dtype, torch.float32)
        return filled_blocks(x, placed, lambda part, box: uniform_(part, Key(key), call=call, box=box), dtype)

    def penalty(self, weight: Tensor, *, weight_decay: float, entropy: float) -> Tensor:
        """What is added to the loss: weight_decay * sum(w^2) / (1 - p) - entropy * fan_in * H(p).

        Args:
            weight: The weight of the layer that the output goes to, (out, in, ...).
            weight_decay: l^2 / N for a prior length scale l and N examples (tau = 1).
            entropy: 2 / N, times the number of elements that are dropped by themselves, here ``weight.shape[1]``.

        Returns:
            A scalar.
        """
        p = self.p
        h = -(p * nn.functional.logsigmoid(self.logit) + (1 - p) * nn.functional.logsigmoid(-self.logit))
        return weight_decay * weight.square().sum() / (1 - p) - entropy * weight.shape[1] * h

    def extra_repr(self) -> str:
        """The arguments, as they are printed."""
        return f"p={float(self.p.detach()):.4g}, temperature={self.temperature}"
