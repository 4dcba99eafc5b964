"""Elastic nets in one pass over CPU memory, by the native core."""

from array import array
from itertools import accumulate, pairwise
from struct import Struct

from wellposed.penalties.computing.jobs import Job, Seen
from wellposed.random.native import core

_PIECE = 1 << 18  # elements that are summed by themselves, as PIECE in native/kernels.h says: for any threads the same
_ROW = Struct("5q5d")


def run(kind: int, jobs: list[Job]) -> list[Seen]:
    """Do jobs of one kind in one hand-over to the threads."""
    before = [0, *accumulate(-(-job.changed.numel() // _PIECE) for job in jobs)]
    results = array("d", bytes(16 * before[-1]))
    core.elastic(kind, b"".join(map(_row, jobs, before)), before[-1], results.buffer_info()[0])
    return [Seen(sum(results[2 * a : 2 * b : 2]), any(results[2 * a + 1 : 2 * b : 2])) for a, b in pairwise(before)]


def _row(job: Job, before: int) -> bytes:
    """The job as the core reads it, with so many pieces before it."""
    numbers = (*map(float, job.numbers), *[0.0] * (5 - len(job.numbers)))
    is_double = job.changed.element_size() == 8
    return _ROW.pack(before, job.changed.numel(), job.changed.data_ptr(), job.read.data_ptr(), is_double, *numbers)
