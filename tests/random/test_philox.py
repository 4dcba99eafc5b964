"""The generator itself, against the known answers that Random123 publishes."""

from pathlib import Path

import pytest
import torch

import wellposed as wp
from wellposed.random import reference
from wellposed.random.box import layout_of
from wellposed.random.draw import CODES, Kind
from wellposed.random.native import core

VECTORS = [
    [int(word, 16) for word in line.split()]
    for line in (Path(__file__).parents[1] / "data" / "philox4x32-10.txt").read_text().splitlines()
    if line and not line.startswith("#")
]


def reference_words(counter: list[int], key: list[int]) -> list[int]:
    words = reference.philox([torch.tensor([word]) for word in counter], (key[0], key[1]))
    return [int(word) for word in words]


def kernel_words(counter: list[int], key: list[int]) -> list[int]:
    """By the core, which counts in words: a block's number has at most 61 bits there."""
    block, call = (high << 32 | low for low, high in (counter[:2], counter[2:]))
    out = torch.full((4,), 0xDEADBEEF, dtype=torch.uint32)
    numbers = (out.data_ptr(), CODES[torch.uint32], 4, layout_of(4 * block).packed, key[0] | key[1] << 32, call)
    core.fill(*numbers, Kind.BITS, b"")
    return out.tolist()


def test_there_are_known_answers() -> None:
    assert len(VECTORS) == 3
    assert all(any(row[6:]) for row in VECTORS)


@pytest.mark.parametrize("row", VECTORS, ids=[f"{row[0]:08x}" for row in VECTORS])
def test_known_answers(row: list[int]) -> None:
    assert reference_words(row[:4], row[4:6]) == row[6:]
    low, high, *call = row[:4]
    counter = [low, high & 0x1FFF_FFFF, *call]
    assert kernel_words(counter, row[4:6]) == reference_words(counter, row[4:6])


def test_the_core_has_the_first_known_answer() -> None:
    assert kernel_words(VECTORS[0][:4], VECTORS[0][4:6]) == VECTORS[0][6:]


@pytest.mark.parametrize("name", ["reference", "cpu"])
def test_public_bits_take_key_call_and_index(name: str) -> None:
    """Element i of call c is word i mod 4 of the block with counter (i div 4, c)."""
    key, call = wp.Key(0x0123_4567_89AB_CDEF), 0xFEDC_BA98_7654_3210
    with wp.random.backend(name):
        got = wp.random.bits(11, key, call=call).to(torch.int64).tolist()
    assert key.words == (0x89AB_CDEF, 0x0123_4567)
    want = [reference_words([i // 4, 0, call & 0xFFFFFFFF, call >> 32], list(key.words))[i % 4] for i in range(11)]
    assert got == want


@pytest.mark.parametrize("name", ["reference", "cpu"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("offset", [(2**19 + 5, 2**40 + 12345), (2**20 - 2, 2**42 - 5)], ids=["far out", "the end"])
def test_indices_beyond_32_bits(name: str, dtype: torch.dtype, offset: tuple[int, int]) -> None:
    """A block far out in a huge tensor takes the words of its global indices, up to the last of 2^62 elements."""
    shape = (2**20, 2**42)
    with wp.random.backend(name):
        tensor = torch.full((2, 5), torch.nan, dtype=dtype)
        wp.random.uniform_(tensor, wp.Key(7), box=wp.Box(shape, offset))
    for row in range(2):
        for column in range(5):
            index = (offset[0] + row) * shape[1] + offset[1] + column
            first = index if dtype == torch.float32 else 2 * index
            words = [
                reference_words([w // 4 & 0xFFFFFFFF, w // 4 >> 32, 0, 0], [7, 0])[w % 4] for w in (first, first + 1)
            ]
            if dtype == torch.float32:
                want = (words[0] >> 8) * 2.0**-24
            else:
                want = ((words[0] | words[1] << 32) >> 11) * 2.0**-53
            assert tensor[row, column].item() == want
