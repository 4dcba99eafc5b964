"""One way to time everything: ours, the peer and the memory floor in turn, medians and ratios.

Machines are noisy and drift, so the contestants of a row take turns and only ratios are worth quoting.
"""

import argparse
import ctypes
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch

Work = Callable[[], object]
_SAMPLE = 500e-6  # seconds that one sample takes at least: shorter work is repeated within it
_FEWEST, _MOST = 5, 41


@dataclass(frozen=True)
class Row:
    """One line of a table: the same work done by us, by the peer, and the least that memory allows.

    Attributes:
        name: What is done.
        size: Elements.
        ours: Our way.
        peer: The peer's way, if it has one.
        floor: What merely touches the same memory.
        at_least: The peer's time over ours that is promised, 1 for "not slower"; 0 where nothing is.
    """

    name: str
    size: int
    ours: Work
    peer: Work | None = None
    floor: Work | None = None
    at_least: float = 0.0


def measure(row: Row, budget: float = 1.0) -> tuple[float, float, float]:
    """Median seconds of ours, the peer and the floor (NaN where there is none), about ``budget`` seconds in all."""
    contestants = [work for work in (row.ours, row.peer, row.floor) if work is not None]
    repeats = [_repeats(work) for work in contestants]
    samples: list[list[float]] = [[] for _ in contestants]
    end = time.perf_counter() + budget
    while len(samples[0]) < _FEWEST or (time.perf_counter() < end and len(samples[0]) < _MOST):
        for work, count, seen in zip(contestants, repeats, samples, strict=True):
            seen.append(_time(work, count))
    medians = iter([statistics.median(seen) for seen in samples])
    ours, peer, floor = (next(medians) if work else float("nan") for work in (row.ours, row.peer, row.floor))
    return ours, peer, floor


def table(title: str, rows: Iterable[Row], budget: float = 1.0) -> None:
    """Time every row and print a Markdown table; a promise that was not kept is marked."""
    print(f"\n## {title} ({torch.get_num_threads()} threads, torch {torch.__version__})\n")
    print("| work | elements | ours | peer / ours | ours / floor | promised |\n| --- | --: | --: | --: | --: | --: |")
    for row in rows:
        ours, peer, floor = measure(row, budget)
        kept = "" if not row.at_least else f"{row.at_least:g}x" + ("" if peer / ours >= row.at_least else " (missed)")
        line = f"| {row.name} | {row.size} | {_seconds(ours)} | {peer / ours:.2f} | {ours / floor:.2f} | {kept} |"
        print(line.replace("nan", ""), flush=True)


def arguments(description: str | None, parts: Sequence[str] = ()) -> argparse.Namespace:
    """The options that every benchmark takes; one that has parts can run some of them."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads for everybody")
    parser.add_argument("--largest", type=int, default=26, help="largest size, as a power of two")
    parser.add_argument("--budget", type=float, default=1.0, help="seconds a row")
    parser.add_argument("--keep-memory", action="store_true", help="let malloc keep what is freed, as jemalloc would")
    if parts:
        parser.add_argument("--parts", nargs="+", choices=parts, default=parts, help="what to run")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.keep_memory:
        _keep_memory()
    return options


def _keep_memory() -> None:
    """Have glibc serve large requests from memory that it keeps: else the first touch of a result costs more than it.

    Glibc maps requests above 32 MiB afresh each time, and gives their pages back as soon as they are freed.
    """
    libc = ctypes.CDLL(None)
    map_at_most, trim_above = -4, -1  # M_MMAP_MAX, M_TRIM_THRESHOLD
    if not (libc.mallopt(map_at_most, 0) and libc.mallopt(trim_above, -1)):
        raise SystemExit("this allocator cannot be told to keep memory; leave out --keep-memory")


def _time(work: Work, count: int) -> float:
    start = time.perf_counter()
    for _ in range(count):
        work()
    return (time.perf_counter() - start) / count


def _repeats(work: Work) -> int:
    """How often to do the work in a sample, asked once it is warm: the first time may compile, with caches cold."""
    work()
    count, seconds = 1, _time(work, 1)
    while seconds * count < _SAMPLE:
        count *= 2
        seconds = _time(work, count)
    return max(1, round(_SAMPLE / seconds))


def _seconds(seconds: float) -> str:
    unit, scale = next(((u, s) for u, s in (("s", 1.0), ("ms", 1e3), ("us", 1e6)) if seconds * s >= 1), ("ns", 1e9))
    return f"{seconds * scale:.3g} {unit}"
