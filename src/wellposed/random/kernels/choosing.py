"""The Triton kernel of token dropout: which tokens of each row are kept, those of the smallest words, in order."""

import triton
from triton import language as tl


@triton.jit(do_not_specialize=["prefix", "others", "kept"])
def choose(
    words,
    chosen,
    prefix: tl.int64,
    others: tl.int64,
    kept: tl.int64,
    SIZE: tl.constexpr,
    TILE: tl.constexpr,
):
    """Write the numbers of the tokens that are kept, a row a program.

    Args:
        words: The words of the tokens after the prefix, ``others`` a row: the upper 24 bits count, the first of equals
            before the next.
        chosen: int64 numbers of tokens, ``prefix + kept`` a row, that count on from row to row.
        prefix: How many tokens at the start are always kept.
        others: How many others there are.
        kept: How many of those are kept.
        SIZE: A power of 2, at least ``others`` and ``prefix``.
        TILE: How many words each is compared with at a time.
    """
    row = tl.program_id(0).to(tl.int64)
    i = tl.arange(0, SIZE)
    mine = tl.load(words + row * others + i, mask=i < others, other=0) >> 8
    before = tl.zeros((SIZE,), tl.int32)
    for first in range(0, others, TILE):
        j = first + tl.arange(0, TILE)
        theirs = tl.load(words + row * others + j, mask=j < others, other=0) >> 8
        is_less = (theirs[None, :] < mine[:, None]) | ((theirs[None, :] == mine[:, None]) & (j[None, :] < i[:, None]))
        before += tl.sum((is_less & (j < others)[None, :]).to(tl.int32), 1)
    stays = (i < others) & (before < kept)
    place = tl.cumsum(stays.to(tl.int32), 0) - 1
    out = chosen + row * (prefix + kept)
    token = row * (prefix + others) + i
    tl.store(out + i, token, mask=i < prefix)
    tl.store(out + prefix + place, token + prefix, mask=stays)
