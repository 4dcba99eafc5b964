"""One way to time everything: ours, the peer and the memory floor in turn, medians and ratios.

Machines are noisy and drift, so the contestants of a row take turns and only ratios are worth quoting.
"""

import argparse
import collections
import ctypes
import math
import random
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch

Work = Callable[[], object]
# A sample goes on for so many calls, within bounds in seconds: the first find others' memory in the caches, and say
# little of a program that does the work again and again.
_CALLS, _SHORTEST, _LONGEST = 32, 5e-3, 25e-3
_FEWEST, _MOST = 5, 41  # rounds
_SURE = 3.29  # standard errors: what chance exceeds in one of a thousand rows
_TIE = 0.02  # the part of a promise by which a ratio on either side of it is a tie
_MOST_BUDGETS = 20
SMALL = 2**12  # elements, below which a call's own time may be seen


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
        spare: Seconds a call that ours may take more for all that: what a call costs an interpreter.
    """

    name: str
    size: int
    ours: Work
    peer: Work | None = None
    floor: Work | None = None
    at_least: float = 0.0
    spare: float = 0.0


@dataclass(frozen=True)
class Timing:
    """What the rounds of a row showed.

    Attributes:
        ours, peer, floor: Median seconds, NaN where there is no such contestant.
        gain: The median over rounds of the peer's time, with what is spared, over ours, NaN without a peer.
        low, high: Between which that median lies but once in a thousand rows, by the order of the rounds' ratios alone.
    """

    ours: float
    peer: float
    floor: float
    gain: float
    low: float
    high: float

    def verdict(self, promised: float) -> str:
        """Whether the gain is at least what was promised: "kept", "missed", or neither, "tied" or "undecided" yet."""
        if self.low >= promised:
            return "kept"
        if self.high < promised:
            return "missed"
        return "tied" if self.high - self.low <= 2 * _TIE * promised else "undecided"


def measure(row: Row, budget: float = 1.0) -> Timing:
    """Time a row for about ``budget`` seconds, and until it is decided whether its promise is kept.

    Contestants take turns in random order, as often within a sample, and a round's ratio is of what ran side by side:
    so drift and what one leaves in the caches for the next are nobody's gain. While a promise is neither kept nor
    missed beyond chance, rounds go on until the ratio is known to one part in fifty, which is a tie, or for 20 budgets.
    """
    contestants = {name: work for name in ("ours", "peer", "floor") if (work := getattr(row, name)) is not None}
    count = max(map(_repeats, contestants.values()))
    samples: dict[str, list[float]] = {name: [] for name in contestants}
    order, shuffle = list(contestants), random.Random(0).shuffle
    begin, look_after, look_at = time.perf_counter(), budget, _MOST
    while True:
        shuffle(order)
        for name in order:
            samples[name].append(_time(contestants[name], count))
        rounds, seconds = len(samples["ours"]), time.perf_counter() - begin
        if rounds >= _FEWEST and (seconds >= look_after or rounds >= look_at):
            timing = _timing(samples, row.spare)
            is_decided = row.peer is None or timing.verdict(row.at_least) != "undecided"
            if is_decided or seconds >= _MOST_BUDGETS * budget:
                return timing
            look_after, look_at = 2 * seconds, 2 * rounds  # who looks at every round sees chance decide


def _timing(samples: dict[str, list[float]], spare: float) -> Timing:
    ours, peer, floor = (statistics.median(samples.get(name, [math.nan])) for name in ("ours", "peer", "floor"))
    if "peer" not in samples:
        return Timing(ours, peer, floor, math.nan, math.nan, math.nan)
    ratios = sorted((theirs + spare) / own for theirs, own in zip(samples["peer"], samples["ours"], strict=True))
    # As many lie below the median as heads in so many tosses of a coin, give or take standard errors.
    outside = max(0, math.floor(len(ratios) / 2 - _SURE * math.sqrt(len(ratios)) / 2))
    return Timing(ours, peer, floor, statistics.median(ratios), ratios[outside], ratios[-1 - outside])


def table(title: str, rows: Iterable[Row], budget: float = 1.0) -> None:
    """Time every row and print a Markdown table, and how many promises were kept."""
    print(f"\n## {title} ({torch.get_num_threads()} threads, torch {torch.__version__})\n")
    print("| work | elements | ours | peer / ours | ours / floor | promised |\n| --- | --: | --: | --: | --: | --: |")
    verdicts: collections.Counter[str] = collections.Counter()
    for row in rows:
        timing = measure(row, budget)
        gain, promise = f"{timing.gain:.2f}", ""
        if row.at_least:
            verdict = timing.verdict(row.at_least)
            verdicts[verdict] += 1
            gain += f" ({timing.low:.2f} to {timing.high:.2f})"
            promise = (
                f"{row.at_least:g}x"
                + (f" + {1e6 * row.spare:g} us" if row.spare else "")
                + ("" if verdict == "kept" else f" ({verdict})")
            )
        floor = f"{timing.ours / timing.floor:.2f}"
        line = f"| {row.name} | {row.size} | {_seconds(timing.ours)} | {gain} | {floor} | {promise} |"
        print(line.replace("nan", ""), flush=True)
    if verdicts:
        print("\nPromises: " + ", ".join(f"{count} {verdict}" for verdict, count in verdicts.most_common()))


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
    while seconds * count < _SHORTEST:
        count *= 2
        seconds = _time(work, count)
    return max(1, round(min(max(_CALLS * seconds, _SHORTEST), _LONGEST) / seconds))


def _seconds(seconds: float) -> str:
    unit, scale = next(((u, s) for u, s in (("s", 1.0), ("ms", 1e3), ("us", 1e6)) if seconds * s >= 1), ("ns", 1e9))
    return f"{seconds * scale:.3g} {unit}"
