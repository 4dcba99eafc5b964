"""Uniform and normal noise from a stream, by the operator ``wellposed::noise``, and Gaussian dropout."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.compiler import is_dynamo_compiling

from wellposed._torch import is_ordinary
from wellposed.dropouts.functional import check_real
from wellposed.dropouts.layers.thinning import Thinning
from wellposed.dropouts.linear import linear
from wellposed.dropouts.masks import part_of_batch, stream_tensor
from wellposed.dropouts.operator import TAGS
from wellposed.dropouts.sharding.blockwise import arrived, blockwise
from wellposed.errors import WellposedError
from wellposed.random.box import Box
from wellposed.random.distributions import normal_, uniform_
from wellposed.random.key import Key
from wellposed.random.shards import is_sharded

_library: Any = torch.library.Library("wellposed", "FRAGMENT")
_library.define("noise(Tensor x, Tensor stream, SymInt[] shape, str kind) -> Tensor", tags=TAGS)
_FILLS = {"normal": normal_, "uniform": uniform_}


def noise(x: Tensor, stream: Tensor, shape: Sequence[int], kind: Literal["normal", "uniform"]) -> Tensor:
    """Draw standard normal numbers, or uniform ones on [0, 1), from a stream.

    Args:
        x: A tensor whose device and dtype the numbers have; float32 for bfloat16 and float16.
        stream: The stream, as ``Stochastic.next_stream_tensor`` gives it.
        shape: The shape of the result, of which dimension 0 counts the rows of a batch.
        kind: The distribution.

    Returns:
        A tensor that needs no gradient.
    """
    numbers: Tensor = torch.ops.wellposed.noise(x.detach(), stream, shape, kind)
    return numbers


def _empty(x: Tensor, shape: Sequence[int]) -> Tensor:
    return x.new_empty(shape, dtype=torch.promote_types(x.dtype, torch.float32))


@torch.library.impl(_library, "noise", "CompositeExplicitAutograd")
def _noise(x: Tensor, stream: Tensor, shape: Sequence[int], kind: str) -> Tensor:
    seed, call, row = (number % 2**64 for number in stream.tolist())
    numbers = _empty(x, shape)
    return _FILLS[kind](numbers, Key(seed), call=call, box=part_of_batch(numbers, row))


@torch.library.register_fake("wellposed::noise", lib=_library)  # type: ignore[untyped-decorator]
def _fake(x: Tensor, stream: Tensor, shape: Sequence[int], kind: str) -> Tensor:
    return _empty(x, shape)


@torch.library.register_vmap("wellposed::noise", lib=_library)  # type: ignore[untyped-decorator]
def _vmap(
    info: Any, in_dims: tuple[int | None, ...], x: Tensor, stream: Tensor, shape: Sequence[int], kind: str
) -> tuple[Tensor, int | None]:
    sample = x if in_dims[0] is None else x.select(in_dims[0], 0)
    if in_dims[1] is None:
        return torch.ops.wellposed.noise(sample, stream, shape, kind), None
    return torch.stack([torch.ops.wellposed.noise(sample, w, shape, kind) for w in stream.unbind(in_dims[1])]), 0


class GaussianDropout(Thinning):
    """Gaussian dropout: multiply elements by normal noise of mean 1 and variance p / (1 - p) while training.

    Args:
        p: The probability of the dropout that has the same variance, in [0, 1).
        inplace: Only ``False`` is possible; taken since torch's modules take it.

    Shape:
        Any, and the output is like the input.

    Raises:
        WellposedError: If p is not in [0, 1), or ``inplace`` is true.

    Example:
        >>> y = GaussianDropout(0.5)(torch.ones(100_000))
        >>> bool((y.mean() - 1).abs() < 0.02), bool((y.std() - 1).abs() < 0.02)
        (True, True)

    Source: Srivastava et al. (2014), section 10.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Multiply ``x`` by noise; outside training, return ``x`` itself."""
        if not self.training:
            return x
        check_real("GaussianDropout", x)
        x = arrived(x)
        std: float | Tensor
        if is_dynamo_compiling():  # a graph must not know p, or each new one would compile it again
            std = (self._rate / (1 - self._rate)).sqrt().to(torch.promote_types(x.dtype, torch.float32))
        elif self.p == 1.0:
            raise WellposedError("GaussianDropout was given p=1, whose noise has no variance; expected p in [0, 1)")
        elif self.p == 0.0:
            return x
        else:
            std = (self.p / (1 - self.p)) ** 0.5
        placed = None
        if is_ordinary(x) or is_sharded(x):
            key, call, row, placed, _ = self.next_stream(x)
            stream = stream_tensor(key, call, row)
        else:
            stream = self.next_stream_tensor(x.detach())
        if placed is not None:
            own = Key(key)

            def multiply_part(x: Tensor, box: Box) -> Tensor:
                numbers = normal_(_empty(x, x.shape), own, call=call, box=box)
                return (x * (1 + std * numbers)).to(x.dtype)

            return blockwise(x, multiply_part, multiply_part, placed)
        like = x.detach().new_empty(())

        def multiply(x: Tensor) -> Tensor:
            product: Tensor = x * (1 + std * noise(like, stream, x.shape, "normal"))
            return product.to(x.dtype)

        return linear(x, multiply, multiply)
