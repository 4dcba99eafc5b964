"""Blocks, floors and tokens in one pass over CPU memory, beside the torch formulas of the modules that they serve."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from wellposed.dropouts import kernels
from wellposed.random.draw import CODES
from wellposed.random.kernels import shares
from wellposed.random.results import result_like

_SORTING = 32  # elements that could be thinned while one token is put in order, roughly


def clear_blocks(
    x: Tensor, blocks: Sequence[int], shared: int, start: int, key: tuple[int, int], call: int, threshold: int
) -> Tensor:
    """``x`` (N, C, ...) without the blocks whose corners' words are below the threshold, and the rest scaled.

    Args:
        x: A contiguous tensor.
        blocks: The sides of a block.
        shared: How many channels in a row bear the same blocks.
        start: The word of the first corner.
        key: The stream.
        call: Its call number, signed.
        threshold: What a word is compared with, below 2^32.
    """
    maps, sides = x.shape[0] * x.shape[1], x.shape[2:]
    size = math.prod(sides)
    painted = torch.zeros(maps // shared * size, dtype=torch.uint8, device="cpu")
    name = (maps // shared, start, *key, call, threshold)
    dropped = kernels.paint_blocks(painted.data_ptr(), *name, *_three(sides), *_three(blocks))
    result = result_like(x)
    before = (x.data_ptr(), result.data_ptr(), painted.data_ptr(), CODES[x.dtype])
    scale = painted.numel() / max(1, painted.numel() - dropped)
    shares.split(kernels.clear_painted, maps, before, (size, shared, scale), size)
    return result


def kept_tokens(rows: int, prefix: int, count: int, kept: int, start: int, key: tuple[int, int], call: int) -> Tensor:
    """Indices, into all tokens of all rows, of each row's first ``prefix`` and of ``kept`` of its other ``count``."""
    chosen = torch.empty(rows * (prefix + kept), dtype=torch.int64, device="cpu")
    rest = (prefix, count, kept, start, *key, call)
    shares.split(kernels.choose_tokens, rows, (chosen.data_ptr(),), rest, max(1, _SORTING * count))
    return chosen


def _three(sides: Sequence[int]) -> tuple[int, ...]:
    return (1,) * (3 - len(sides)) + tuple(sides)
