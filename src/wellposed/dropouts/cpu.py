"""Blocks, floors and tokens in one pass over CPU memory, beside the torch formulas of the modules that they serve."""

from torch import Tensor

from wellposed.dropouts import kernels
from wellposed.random.draw import CODES
from wellposed.random.kernels import shares
from wellposed.random.kernels.plain import NO_MEMORY, STATE
from wellposed.random.kernels.results import LARGE, result_like

_SORTING = 32  # elements that could be thinned while one token is put in order, roughly


def clear_blocks(x: Tensor, words: tuple[float, ...]) -> Tensor:
    """A contiguous ``x`` without blocks, and the rest scaled; see ``kernels._clear_painted``.

    Args:
        x: A contiguous tensor with elements.
        words: The key's two, the call, the threshold, which is below 2^32, and what else the kernel takes.
    """
    result = result_like(x)
    before = (x.data_ptr(), result.data_ptr(), CODES[x.dtype], 0, 0, 0)
    if shares.split(kernels.clear_painted, x.numel(), before, words)[STATE] == NO_MEMORY:
        raise MemoryError(
            "there is no memory for the map of the blocks that dropout clears, a byte an element of a map"
        )
    return result


def move_tokens(
    x: Tensor, back: bool, prefix: int, count: int, kept: int, start: int, key: tuple[int, int], call: int
) -> Tensor:
    """Of each row of ``x`` the first ``prefix`` tokens and ``kept`` of the other ``count``; or the transpose of that.

    Args:
        x: A contiguous tensor (rows, tokens, ...).
        back: Whether tokens are put back to where they were taken from, and 0 where none was.
        prefix: How many tokens at the start are always kept.
        count: How many others a whole row has.
        kept: How many of those are kept.
        start: The word of the first of those.
        key: The stream.
        call: Its call number, signed.
    """
    rows, tokens, *rest = x.shape
    result = x.new_empty((rows, prefix + (count if back else kept), *rest))
    if not x.numel() or not result.numel():
        return result.zero_()
    if result.nbytes >= LARGE:
        result = result_like(result)
    elements = x.numel() // (rows * tokens)
    numbers = (prefix, count, kept, start, *key, call)
    work = (prefix + count) * elements + _SORTING * count
    before = (x.data_ptr(), result.data_ptr(), back, elements * x.element_size())
    shares.split(kernels.move_tokens, rows, before, numbers, work)
    return result
