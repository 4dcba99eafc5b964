"""Dropout as modules: thin shells over the one primitive."""

import torch
from torch import Tensor

from wellposed.dropouts.functional import check_input, check_probability
from wellposed.dropouts.operator import part_of_batch, thin_any
from wellposed.dropouts.streams import Stochastic
from wellposed.dropouts.thinning import is_plain, mask_of, thin_plain


class Dropout(Stochastic):
    """Set elements to zero with probability p while training and scale the others by 1 / (1 - p); else the identity.

    Each call draws a new mask, named by one int64 number from torch's default CPU generator, so ``torch.manual_seed``
    governs it and activation checkpointing repeats it; inside ``wellposed.keyed`` nothing global is read. Nothing is
    stored for the backward pass but the mask's name.

    Args:
        p: The probability that an element is dropped, in [0, 1].

    Shape:
        Any, and the output is like the input: float32, float64, bfloat16 or float16.

    Raises:
        WellposedError: If p is not in [0, 1], when the module is made or called.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> layer = Dropout(0.5)
        >>> layer(torch.ones(8)).unique()
        tensor([0., 2.])
        >>> layer.eval()(torch.ones(8)).unique()
        tensor([1.])

    Source: Srivastava et al. (2014).
    """

    p: float

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        check_probability("Dropout", p)
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """Drop elements of ``x``; outside training, return ``x`` itself."""
        p = self.p
        check_probability("Dropout", p)
        if not self.training or p == 0.0:
            return x
        check_input("Dropout", x)
        if is_plain(x):
            key, call, row = self.next_name()
            return thin_plain(x, mask_of(p, key, call, None, part_of_batch(x, row) if row else None))
        return thin_any(x, self.next_words(x), torch.tensor(p, dtype=torch.float64, device="cpu"))

    def extra_repr(self) -> str:
        """The arguments, as they are printed."""
        return f"p={self.p}"
