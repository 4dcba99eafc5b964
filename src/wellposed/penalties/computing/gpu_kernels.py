"""Elastic nets in one pass over the memory of a GPU: one Triton launch for all tensors."""

import struct
from collections.abc import Iterable
from itertools import groupby

import torch
import triton
from torch import Tensor
from triton import language as tl

from wellposed.arguments import Number
from wellposed.penalties.computing.jobs import ACCUMULATE, PROX_BY_NUMBER, Job, Seen
from wellposed.random.kernels.launching import IS_INTERPRETED, Launcher
from wellposed.random.kernels.numbers import quotient
from wellposed.random.kernels.word_values import root

_TILE = 1024
_ROW = struct.Struct("3q5d")  # a job in the table: the two addresses, the count, the numbers
_PROX_BY_NUMBER, _ACCUMULATE = tl.constexpr(PROX_BY_NUMBER), tl.constexpr(ACCUMULATE)


@triton.jit
def shrunk(x, threshold):
    """X less the nearest number in [-threshold, threshold]: NaN if either is."""
    bounded = tl.where(x <= threshold, x, threshold)
    return x - tl.where(bounded < -threshold, -threshold, bounded)


@triton.jit
def one_tile(
    changed,
    read,
    count,
    n,
    KIND: tl.constexpr,
    SQUARES: tl.constexpr,
    IS_WHOLE: tl.constexpr,
    TILE: tl.constexpr,
):
    """The pass over a tile: for each element 1 where it became NaN, and its part of the penalty's value.

    Args:
        changed: The memory that is changed.
        read: The memory that is read besides.
        count: How many elements there are.
        n: The five numbers of the job.
        KIND: Which pass.
        SQUARES: Whether any job has squares; without them there is one division less.
        IS_WHOLE: Whether the tile is full; without a mask, memory is read and written in wide accesses.
        TILE: Elements of a tile.
    """
    at = tl.arange(0, TILE)
    inside = None if IS_WHOLE else at < count
    x = tl.load(changed + at, mask=inside)
    value = tl.zeros_like(x)
    if KIND == _PROX_BY_NUMBER:
        x = shrunk(x, n[0]) * n[1]
    elif KIND == _ACCUMULATE:
        w = tl.load(read + at, mask=inside)
        x = x + (tl.where(w > 0, n[2], tl.where(w < 0, -n[2], w)) + n[3] * w)
        value = n[0] * tl.abs(w) + n[1] * (w * w)
    else:
        step = quotient(n[0], root(tl.load(read + at, mask=inside)) * n[1] + n[2])
        x = shrunk(x, step * n[3])
        if SQUARES:
            x = quotient(x, 1.0 + step * n[4])
    tl.store(changed + at, x, mask=inside)
    if IS_WHOLE:
        return (x != x).to(tl.int32), value
    else:
        return ((x != x) & inside).to(tl.int32), tl.where(inside, value, 0.0)


@triton.jit
def elastic(
    table,
    bad,
    sums,
    KIND: tl.constexpr,
    EXACT: tl.constexpr,
    SQUARES: tl.constexpr,
    IS_ALIGNED: tl.constexpr,
    TILE: tl.constexpr,
):
    """A pass over all jobs of a table: programs (k, job) do tiles k, k + number of programs, ... of a job.

    Args:
        table: Rows of eight numbers of 8 bytes, see ``_ROW``.
        bad: For each job, what becomes 1 if the pass meets NaN.
        sums: For each job and program the part of the penalty's value.
        KIND: Which pass.
        EXACT: The dtype of the tensors.
        SQUARES: Whether any job has squares; without them there is one division less.
        IS_ALIGNED: Whether all tensors are aligned to 16 bytes.
        TILE: Elements that a program does at a time.
    """
    job, programs = tl.program_id(1), tl.num_programs(0)
    row = table + job * 8
    changed = tl.load(row).to(tl.pointer_type(EXACT))
    read = tl.load(row + 1).to(tl.pointer_type(EXACT))
    count = tl.load(row + 2)
    if IS_ALIGNED:
        changed, read = tl.multiple_of(changed, 16), tl.multiple_of(read, 16)
    n0, n1 = tl.load(row + 3).to(tl.float64, bitcast=True), tl.load(row + 4).to(tl.float64, bitcast=True)
    n2, n3 = tl.load(row + 5).to(tl.float64, bitcast=True), tl.load(row + 6).to(tl.float64, bitcast=True)
    n4 = tl.load(row + 7).to(tl.float64, bitcast=True)
    numbers = (n0.to(EXACT), n1.to(EXACT), n2.to(EXACT), n3.to(EXACT), n4.to(EXACT))
    has_nan = tl.zeros((TILE,), tl.int32)
    total = tl.zeros((TILE,), EXACT)
    first = tl.program_id(0).to(tl.int64) * TILE
    while first < count:
        if first + TILE <= count:
            nan, value = one_tile(changed + first, read + first, TILE, numbers, KIND, SQUARES, True, TILE)
        else:
            nan, value = one_tile(changed + first, read + first, count - first, numbers, KIND, SQUARES, False, TILE)
        has_nan |= nan
        total += value
        first += programs.to(tl.int64) * TILE
    if tl.max(has_nan, 0) > 0:
        tl.store(bad + job, 1)
    if KIND == _ACCUMULATE:
        tl.store(sums + job * programs + tl.program_id(0), tl.sum(total.to(tl.float64), 0))


_elastic = Launcher(elastic)


def run(kind: int, jobs: list[Job]) -> list[Seen]:
    """Do jobs of one kind, in one launch for each device and dtype."""
    seen: dict[int, Seen] = {}
    order = sorted(range(len(jobs)), key=lambda i: (str(jobs[i].changed.device), jobs[i].changed.element_size()))
    for _, group in groupby(order, key=lambda i: (jobs[i].changed.device, jobs[i].changed.dtype)):
        of = list(group)
        seen |= zip(of, _run(kind, [jobs[i] for i in of]), strict=True)
    return [seen[i] for i in range(len(jobs))]


def _run(kind: int, jobs: list[Job]) -> list[Seen]:
    changed = jobs[0].changed
    exact = tl.float64 if changed.dtype == torch.float64 else tl.float32
    tiles = [triton.cdiv(job.changed.numel(), _TILE) for job in jobs]
    # Programs enough for the longest of them, if that leaves no more than half of all without work.
    programs = max(1, min(max(tiles), triton.cdiv(2 * sum(tiles), len(jobs))))
    table = _table(jobs)
    bad = torch.zeros(len(jobs), dtype=torch.int32, device=changed.device)
    sums = torch.empty(len(jobs) if kind == ACCUMULATE else 1, programs, dtype=torch.float64, device=changed.device)
    squares = any(isinstance(job.numbers[-1], Tensor) or job.numbers[-1] != 0 for job in jobs)
    is_aligned = all(t.data_ptr() % 16 == 0 for job in jobs for t in (job.changed, job.read))
    _elastic((programs, len(jobs)), (table, bad, sums), (), (kind, exact, squares, is_aligned, _TILE))
    values: Iterable[Number] = sums.sum(1).unbind() if kind == ACCUMULATE else [0.0] * len(jobs)
    return [Seen(value, flag) for value, flag in zip(values, bad.bool().unbind(), strict=True)]


def _table(jobs: list[Job]) -> Tensor:
    """The rows of the jobs on the device; numbers that lie there are put in without being read."""
    device = jobs[0].changed.device
    rows, given, where = bytearray(), [], []
    for k, job in enumerate(jobs):
        for place, number in enumerate(job.numbers):
            if isinstance(number, Tensor):
                given.append(number)
                where.append(8 * k + 3 + place)
        numbers = [0.0 if isinstance(number, Tensor) else float(number) for number in job.numbers]
        numbers += [0.0] * (5 - len(numbers))
        rows += _ROW.pack(job.changed.data_ptr(), job.read.data_ptr(), job.changed.numel(), *numbers)
    table = _sent(torch.frombuffer(rows, dtype=torch.int64), device)
    if given:
        put = _sent(torch.tensor(where, dtype=torch.int64), device)
        numbers_given = torch.stack([number.detach().reshape(()).double() for number in given])
        table.view(torch.float64).index_copy_(0, put, numbers_given)
    return table


def _sent(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the host on the device, without waiting for it."""
    return tensor.clone() if IS_INTERPRETED else tensor.pin_memory().to(device, non_blocking=True)
