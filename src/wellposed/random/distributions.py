"""Random numbers of each distribution, as functions of a key: arguments are checked here, and a backend draws."""

import inspect
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from wellposed._torch import PLAIN_TYPES
from wellposed.arguments import integer, real
from wellposed.errors import WellposedError
from wellposed.random import draw as draws
from wellposed.random.backend import backend_for
from wellposed.random.box import WHOLE, Box, layout
from wellposed.random.draw import Draw
from wellposed.random.key import Key
from wellposed.random.shards import local_blocks

_Shape = int | Sequence[int]
_Device = torch.device | str | int | None


def bits(shape: _Shape, key: Key, *, call: int = 0, device: _Device = None) -> Tensor:
    """Draw the 32-bit words of a stream: element i is word i mod 4 of Philox4x32-10 block i div 4.

    Args:
        shape: The shape of the result.
        key: The stream.
        call: Which draw of the stream, in [0, 2^64).
        device: Where the result lies; torch's default device when ``None``.

    Returns:
        A tensor of dtype ``torch.uint32``.

    Raises:
        WellposedError: If the key or the call is not one.

    Example:
        >>> [hex(word) for word in bits(4, Key(0)).tolist()]
        ['0x6627e8d5', '0xe169c58d', '0xbc57ac4c', '0x9b00dbd8']

    Source: Philox4x32-10 (Salmon et al., 2011).
    """
    return _fill_(_empty(shape, torch.uint32, device), draws.bits, (), key, call, None)


def permutation(n: int, key: Key, *, call: int = 0) -> Tensor:
    """A keyed permutation of 0 .. n - 1: the order that sorts the key's words, ties by index.

    Args:
        n: How many there are.
        key: Names the permutation.
        call: Lets one key serve many permutations.

    Returns:
        int64 (n,).

    Example:
        >>> permutation(5, Key(0)).sort().values
        tensor([0, 1, 2, 3, 4])
    """
    wording = bits((n,), key, call=call).to(torch.int64)
    return torch.sort(wording, stable=True).indices


def uniform(
    shape: _Shape,
    key: Key,
    low: float = 0.0,
    high: float = 1.0,
    *,
    call: int = 0,
    dtype: torch.dtype | None = None,
    device: _Device = None,
) -> Tensor:
    """Draw from the uniform distribution on [low, high): low + (high - low) * u, with u of 24 bits (53 for float64).

    Args:
        shape: The shape of the result.
        key: The stream.
        low: The least value.
        high: The upper end, which no value equals, in any dtype. Where ``low == high``, every value is ``low``.
        call: Which draw of the stream, in [0, 2^64).
        dtype: float32, float64, bfloat16 or float16; torch's default dtype when ``None``.
        device: Where the result lies; torch's default device when ``None``.

    Returns:
        A tensor of the given shape.

    Raises:
        WellposedError: If ``low > high``, an end is not finite, or no number of the dtype lies in between.

    Example:
        >>> uniform(3, Key(0), -1.0, 1.0)
        tensor([-0.2019,  0.7610,  0.4714])

    Source: the top bits of Philox4x32-10 words (Salmon et al., 2011).
    """
    return uniform_(_empty(shape, dtype, device), key, low, high, call=call)


def uniform_(
    tensor: Tensor, key: Key, low: float = 0.0, high: float = 1.0, *, call: int = 0, box: Box | None = None
) -> Tensor:
    """Fill ``tensor`` in place as ``uniform`` would, as the block of a larger tensor where ``box`` is given.

    Args:
        tensor: The tensor to fill, strided in any way. Autograd does not see the change.
        key: The stream.
        low: The least value.
        high: The upper end, which no value equals.
        call: Which draw of the stream, in [0, 2^64).
        box: The whole that ``tensor`` is a part of, and where it lies in it. A DTensor brings its own.

    Returns:
        ``tensor``.

    Raises:
        WellposedError: As ``uniform``, or if the tensor does not fit into the box. The tensor is then unchanged.

    Example:
        >>> torch.equal(uniform_(torch.empty(2, 2), Key(0)), uniform((2, 2), Key(0)))
        True

    Source: the top bits of Philox4x32-10 words (Salmon et al., 2011).
    """
    return _fill_(tensor, draws.uniform, (low, high), key, call, box)


def normal(
    shape: _Shape,
    key: Key,
    mean: float = 0.0,
    std: float = 1.0,
    *,
    call: int = 0,
    dtype: torch.dtype | None = None,
    device: _Device = None,
) -> Tensor:
    """Draw from the normal distribution: mean + std * Phi^-1(u), one uniform u of 32 bits a value (64 for float64).

    The inverse is good to 5e-7 relative in float32 (1e-15 in float64) and reaches 6.3 standard deviations (9.1).

    Args:
        shape: The shape of the result.
        key: The stream.
        mean: The mean.
        std: The standard deviation, at least 0.
        call: Which draw of the stream, in [0, 2^64).
        dtype: float32, float64, bfloat16 or float16; torch's default dtype when ``None``.
        device: Where the result lies; torch's default device when ``None``.

    Returns:
        A tensor of the given shape.

    Raises:
        WellposedError: If the mean or the standard deviation is not finite, or the latter is negative.

    Example:
        >>> normal(3, Key(0))
        tensor([-0.2558,  1.1776,  0.6302])

    Source: the inverse distribution function; for float64 algorithm AS 241 (Wichura, 1988).
    """
    return normal_(_empty(shape, dtype, device), key, mean, std, call=call)


def normal_(
    tensor: Tensor, key: Key, mean: float = 0.0, std: float = 1.0, *, call: int = 0, box: Box | None = None
) -> Tensor:
    """Fill ``tensor`` in place as ``normal`` would, as the block of a larger tensor where ``box`` is given.

    Args:
        tensor: The tensor to fill, strided in any way. Autograd does not see the change.
        key: The stream.
        mean: The mean.
        std: The standard deviation, at least 0.
        call: Which draw of the stream, in [0, 2^64).
        box: The whole that ``tensor`` is a part of, and where it lies in it. A DTensor brings its own.

    Returns:
        ``tensor``.

    Raises:
        WellposedError: As ``normal``, or if the tensor does not fit into the box. The tensor is then unchanged.

    Example:
        >>> torch.equal(normal_(torch.empty(2, 2), Key(0)), normal((2, 2), Key(0)))
        True

    Source: the inverse distribution function; for float64 algorithm AS 241 (Wichura, 1988).
    """
    return _fill_(tensor, draws.normal, (mean, std), key, call, box)


def truncated_normal(
    shape: _Shape,
    key: Key,
    mean: float = 0.0,
    std: float = 1.0,
    a: float = -2.0,
    b: float = 2.0,
    *,
    call: int = 0,
    dtype: torch.dtype | None = None,
    device: _Device = None,
) -> Tensor:
    """Draw from the normal distribution truncated to [a, b], by inversion of its distribution function, not rejection.

    The uniform is mapped into [Phi(alpha), Phi(beta)] first. An interval that lies wholly on one side of the mean is
    counted from its near end, so that far tails keep all their digits.

    Args:
        shape: The shape of the result.
        key: The stream.
        mean: The mean before truncation.
        std: The standard deviation before truncation, at least 0.
        a: The lower cut-off, an absolute value as in ``torch.nn.init.trunc_normal_``; may be -inf.
        b: The upper cut-off, likewise; may be inf.
        call: Which draw of the stream, in [0, 2^64).
        dtype: float32, float64, bfloat16 or float16; torch's default dtype when ``None``.
        device: Where the result lies; torch's default device when ``None``.

    Returns:
        A tensor of the given shape with every value in [a, b].

    Raises:
        WellposedError: If a >= b, ``std`` is negative, or the interval holds no number of the dtype.

    Example:
        >>> truncated_normal(3, Key(0), a=10.0, b=float("inf"))
        tensor([10.0503, 10.2083, 10.1309])

    Source: Mills' ratio for the far tails (Mills, 1926).
    """
    return truncated_normal_(_empty(shape, dtype, device), key, mean, std, a, b, call=call)


def truncated_normal_(
    tensor: Tensor,
    key: Key,
    mean: float = 0.0,
    std: float = 1.0,
    a: float = -2.0,
    b: float = 2.0,
    *,
    call: int = 0,
    box: Box | None = None,
) -> Tensor:
    """Fill ``tensor`` in place as ``truncated_normal`` would, as the block of a larger tensor where ``box`` is given.

    Args:
        tensor: The tensor to fill, strided in any way. Autograd does not see the change.
        key: The stream.
        mean: The mean before truncation.
        std: The standard deviation before truncation, at least 0.
        a: The lower cut-off, an absolute value; may be -inf.
        b: The upper cut-off, likewise; may be inf.
        call: Which draw of the stream, in [0, 2^64).
        box: The whole that ``tensor`` is a part of, and where it lies in it. A DTensor brings its own.

    Returns:
        ``tensor``.

    Raises:
        WellposedError: As ``truncated_normal``, or if the tensor does not fit into the box. The tensor is then
            unchanged.

    Example:
        >>> truncated_normal_(torch.empty(1000), Key(0), std=5.0).abs().max() <= 2
        tensor(True)

    Source: Mills' ratio for the far tails (Mills, 1926).
    """
    return _fill_(tensor, draws.truncated_normal, (mean, std, a, b), key, call, box)


def bernoulli(
    shape: _Shape,
    key: Key,
    p: float = 0.5,
    *,
    call: int = 0,
    dtype: torch.dtype = torch.bool,
    device: _Device = None,
) -> Tensor:
    """Draw successes of probability p: an element is one iff its word is below round(p * 2^32).

    So the successes for a smaller p are among those for a larger p at the same key and call. One word of 32 bits
    decides an element whatever the dtype of the result.

    Args:
        shape: The shape of the result.
        key: The stream.
        p: The probability of a success; 0 and 1 are exact.
        call: Which draw of the stream, in [0, 2^64).
        dtype: Any real dtype.
        device: Where the result lies; torch's default device when ``None``.

    Returns:
        A tensor of the given shape, 1 or ``True`` at the successes.

    Raises:
        WellposedError: If p lies outside [0, 1].

    Example:
        >>> bernoulli(4, Key(0), 0.7)
        tensor([ True, False, False,  True])

    Source: comparison of Philox4x32-10 words (Salmon et al., 2011).
    """
    return bernoulli_(_empty(shape, dtype, device), key, p, call=call)


def bernoulli_(tensor: Tensor, key: Key, p: float = 0.5, *, call: int = 0, box: Box | None = None) -> Tensor:
    """Fill ``tensor`` in place as ``bernoulli`` would, as the block of a larger tensor where ``box`` is given.

    Args:
        tensor: The tensor to fill, strided in any way. Autograd does not see the change.
        key: The stream.
        p: The probability of a success; 0 and 1 are exact.
        call: Which draw of the stream, in [0, 2^64).
        box: The whole that ``tensor`` is a part of, and where it lies in it. A DTensor brings its own.

    Returns:
        ``tensor``.

    Raises:
        WellposedError: As ``bernoulli``, or if the tensor does not fit into the box. The tensor is then unchanged.

    Example:
        >>> bernoulli_(torch.empty(4), Key(0), 0.7)
        tensor([1., 0., 0., 1.])

    Source: comparison of Philox4x32-10 words (Salmon et al., 2011).
    """
    return _fill_(tensor, draws.bernoulli, (p,), key, call, box)


def _empty(shape: _Shape, dtype: torch.dtype | None, device: _Device) -> Tensor:
    sizes = (shape,) if isinstance(shape, int) else tuple(shape)
    return torch.empty(sizes, dtype=dtype, device=device)


def _fill_(
    tensor: Tensor, distribution: Callable[..., Draw], numbers: tuple[float, ...], key: Key, call: int, box: Box | None
) -> Tensor:
    """Fill a tensor from a distribution with these parameters, which may be numbers of any type."""
    if not isinstance(tensor, Tensor):
        raise WellposedError(f"a {type(tensor).__name__} was given to be filled; expected a torch.Tensor")
    for number in numbers:
        if type(number) is not float:
            numbers = tuple(map(real, numbers, _names(distribution)))
            break
    draw = distribution(*numbers, tensor.dtype)
    if type(key) is not Key:
        raise WellposedError(
            f"key was given as {key!r} of type {type(key).__name__}; expected a wp.Key, as in wp.Key(0)"
        )
    if type(call) is not int or not 0 <= call < 18446744073709551616:
        call = integer(call, "call", 0, 2**64)
    if box is not None and not isinstance(box, Box):
        raise WellposedError(f"box was given as {box!r}; expected a wp.Box, as in wp.Box((4, 6), (1, 2))")
    blocks = local_blocks(tensor, box) if box is not None or type(tensor) not in PLAIN_TYPES else [(tensor, None)]
    for block, place in blocks:
        where = WHOLE if place is None else layout(block.shape, place)
        if not block.is_meta:
            backend_for(block).fill_(block, draw, key.seed, call, where)
            increment_version(block)
    return tensor


def _names(distribution: Callable[..., Draw]) -> list[str]:
    """The names of a distribution's parameters in error messages."""
    names = inspect.signature(distribution).parameters
    return [f"{distribution.__name__}({name})" for name in names]
