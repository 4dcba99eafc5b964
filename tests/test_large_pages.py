"""Large pages are advice: they are asked for where it pays, and change no value."""

from pathlib import Path

import pytest
import torch

from wellposed.random.memory import on_large_pages

SMAPS = Path("/proc/self/smaps")


def flags(address: int) -> list[str]:
    """The flags of the mapping that an address lies in."""
    found = False
    for line in SMAPS.read_text().splitlines():
        head = line.split(maxsplit=1)[0]
        if "-" in head:
            first, last = (int(end, 16) for end in head.split("-"))
            found = first <= address < last
        elif found and head == "VmFlags:":
            return line.split()[1:]
    raise AssertionError("no mapping holds the address")


@pytest.mark.skipif(
    not (SMAPS.exists() and Path("/sys/kernel/mm/transparent_hugepage/enabled").exists()),
    reason="the system has no large pages to ask for",
)
def test_they_are_asked_for_under_large_tensors_alone() -> None:
    large, small = torch.empty(2**24), torch.empty(2**10)
    middle = large.data_ptr() + large.nbytes // 2
    assert "hg" not in flags(middle)
    assert on_large_pages(large) is large
    assert "hg" in flags(middle)
    assert on_large_pages(small) is small
    assert "hg" not in flags(small.data_ptr())


def test_no_value_changes() -> None:
    x = torch.arange(2**21, dtype=torch.float32)
    assert torch.equal(on_large_pages(x), torch.arange(2**21, dtype=torch.float32))


def test_what_has_no_memory_of_its_own_is_left_alone() -> None:
    assert on_large_pages(torch.empty(2**40, device="meta")).is_meta
