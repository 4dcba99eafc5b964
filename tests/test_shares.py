"""Shares cover what there is to do once, whoever takes them, and begin with a thread's own part."""

import ctypes

import pytest

from wellposed.random.kernels.shares import MOST_PARTS, THREAD, block_of, lengths, take

CASES = [(0, 2, 1), (1, 1, 1), (65536, 2, 1), (2**20 + 3, 2, 1), (10**6, 3, 1), (2**45 + 1, 7, 1), (77, 4, 10**5)]
CASES += [(16, 2, 2**16), (2**24, MOST_PARTS, 1), (2**24 + 1, 100, 1)]


@pytest.mark.parametrize(("count", "threads", "size"), CASES)
@pytest.mark.parametrize("number", [0, 1, 6, 99])
def test_shares_cover_all_once_from_the_own_part_on(count: int, threads: int, size: int, number: int) -> None:
    part, share = lengths(count, threads, size)
    block = block_of(count, part, share, threads=threads)
    thread = ctypes.CFUNCTYPE(ctypes.c_int32)(lambda: number)
    block[THREAD] = ctypes.cast(thread, ctypes.c_void_p).value or 0
    taken = []
    while (next_share := take(block.buffer_info()[0]))[0] < next_share[1]:
        taken.append(next_share)
    if count > 0:
        parts = -(-count // part)
        assert parts <= min(threads, MOST_PARTS)
        assert taken[0][1] == min((number % parts + 1) * part, count)  # the end of its part
    assert all(first % -(-64 // size) == 0 for first, _ in taken)
    taken.sort()
    assert [0, *(last for _, last in taken)] == [*(first for first, _ in taken), count]
