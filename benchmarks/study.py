"""The study on five larger tables, made at a fixed seed: its time beside a plain PyTorch loop's, memory, the verdict.

Run with ``python -m benchmarks.study [--out study.json]``; it takes about a quarter of an hour on two cores. A run's
time is that of one network of each regime, without penalty or dropout, on rows that are ready for it; the plain loop
has the same network, optimizer, batches and updates, looks at the same validation rows as often, and ends by scoring
the same rows. The promise is on ours / plain: at most 1.2. Memory and the verdict are those of a whole study with few
seeds of a CSV file, in a process of its own.
"""

import argparse
import csv
import json
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

import wellposed as wp
from benchmarks.runner import Row, measure
from wellposed.study import Settings
from wellposed.study.design import design
from wellposed.study.table.loading import load
from wellposed.study.training.dataset import Dataset
from wellposed.study.training.splits import Split, split
from wellposed.study.training.train import CHECKS, ROWS_WATCHED, TrainingRun, execute

AT_MOST = 1.2  # ours / plain
Numbers = NDArray[Any]


def signal(x: Numbers) -> Numbers:
    """What a target follows from: a line, a bend and a product."""
    told: Numbers = x[:, 0] + np.abs(x[:, 1]) + x[:, 2] * x[:, 3]
    return told


def many_rows(draw: np.random.Generator) -> tuple[Numbers, Numbers]:
    """200,000 rows."""
    x = draw.normal(size=(200_000, 20))
    return x, signal(x) + draw.normal(size=len(x))


def many_columns(draw: np.random.Generator) -> tuple[Numbers, Numbers]:
    """2,000 columns, of which fifty say something."""
    x = draw.normal(size=(2_000, 2_000))
    return x, np.where(x[:, :50].sum(1) + 3 * draw.normal(size=len(x)) > 0, "yes", "no")


def many_classes(draw: np.random.Generator) -> tuple[Numbers, Numbers]:
    """20 classes, each around a center."""
    kind = draw.integers(20, size=10_000)
    return draw.normal(size=(20, 20))[kind] + 1.5 * draw.normal(size=(len(kind), 20)), kind


def uneven(draw: np.random.Generator) -> tuple[Numbers, Numbers]:
    """97.5 : 2.5."""
    x = draw.normal(size=(20_000, 20))
    score = signal(x) + draw.normal(size=len(x))
    return x, np.where(score > np.quantile(score, 0.975), "rare", "common")


def heavy_tails(draw: np.random.Generator) -> tuple[Numbers, Numbers]:
    """A target whose noise is Student's t with two degrees of freedom, of infinite variance."""
    x = draw.normal(size=(10_000, 20))
    return x, signal(x) + draw.standard_t(2, size=len(x))


TABLES: dict[str, Callable[[np.random.Generator], tuple[Numbers, Numbers]]] = {
    "200,000 rows": many_rows,
    "2,000 columns": many_columns,
    "20 classes": many_classes,
    "97.5 : 2.5": uneven,
    "heavy tails": heavy_tails,
}


def write(path: Path, x: Numbers, y: Numbers) -> None:
    """A CSV file whose last column is the target."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*(f"x{place}" for place in range(x.shape[1])), "y"])
        writer.writerows([*(f"{value:.5g}" for value in row), goal] for row, goal in zip(x, y, strict=True))


def plain(run: TrainingRun, parts: Split, loss_of: Callable[[Tensor, Tensor], Tensor]) -> list[float]:
    """What people write: AdamW over shuffled batches, the best network on validation kept, and scored at the end."""
    torch.manual_seed(run.seed)
    x, y = parts.some(run.rows)
    x_validation, y_validation = (values["validation"][:ROWS_WATCHED] for values in (parts.x, parts.y))
    hidden: list[nn.Module] = []
    for fan_in, fan_out in pairwise((parts.inputs, *run.hidden)):
        hidden += [nn.Linear(fan_in, fan_out), nn.ReLU()]
    model = nn.Sequential(*hidden, nn.Linear(run.hidden[-1], parts.outputs))
    optimizer = torch.optim.AdamW(model.parameters(), lr=run.rate, weight_decay=0.0, fused=True)
    checks = {round(run.steps * share / CHECKS) for share in range(CHECKS + 1)}
    least, best = float("inf"), model.state_dict()
    order = batches(len(x), run.batch)
    for step in range(run.steps + 1):
        if step in checks:
            with torch.no_grad():
                now = float(loss_of(model(x_validation), y_validation))
            if now < least:
                least, best = now, {name: value.clone() for name, value in model.state_dict().items()}
        if step < run.steps:
            rows = next(order)
            loss = loss_of(model(x[rows]), y[rows])
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
    model.load_state_dict(best)
    with torch.no_grad():
        return [float(loss_of(model(rows), goal)) for rows, goal in parts.scored(run.rows).values()]


def batches(rows: int, size: int) -> Iterator[Tensor]:
    """Shuffled rows, epoch by epoch."""
    while True:
        order = torch.randperm(rows)
        for begin in range(0, max(1, rows - size + 1), size):
            yield order[begin : begin + size]


def timed(name: str, data: Dataset) -> Iterator[dict[str, Any]]:
    """Ours against the plain loop in turn, on one thread, as the study trains; a record a regime."""
    parts, planned = split(data, wp.Key(0).fold("split")), design(Settings(), data)

    def loss_of(outputs: Tensor, goal: Tensor) -> Tensor:
        if data.classes:
            return functional.cross_entropy(outputs, goal)
        return functional.mse_loss(outputs.squeeze(1), goal)

    for regime, run in {"deep": planned.deep, "few rows": planned.few, "all rows": planned.full}.items():
        run = replace(run, start="torch")
        ours, peer = partial(execute, run, data), partial(plain, run, parts, loss_of)
        row = Row(regime, run.steps, ours, peer, at_least=1 / AT_MOST)
        timing = measure(row)
        yield {
            "table": name,
            "regime": regime,
            "updates": run.steps,
            "batch": run.batch,
            "seconds": timing.ours,
            "ratio": 1 / timing.gain,
            "between": [1 / timing.high, 1 / timing.low],
            "promise": timing.verdict(row.at_least),
        }


def studied(path: Path, seeds: int, jobs: int) -> dict[str, Any]:
    """A whole study of a file: its time, the peak memory of its largest process, and what its verdict says."""
    before, start = _peak(), time.perf_counter()
    found = wp.study(path, "y", settings=Settings(seeds=seeds), jobs=jobs, out=path.with_suffix(""))
    seconds = time.perf_counter() - start
    said = [*found.verdict, *found.results["verdict"]["beside"]]
    return {"seconds": seconds, "peak": _peak(), "imports": before, "verdict": said}


def _peak() -> float:
    """The peak memory of this process and of its workers that have ended, the largest, in MB."""
    return max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) / 1e3


def time_runs(paths: dict[str, Path]) -> list[dict[str, Any]]:
    """Print a table of runs."""
    print(f"\n## A training run (1 thread, torch {torch.__version__})\n")
    print("| table | run | updates | batch | seconds | ours / plain | promised |")
    print("| --- | --- | --: | --: | --: | --: | --: |")
    records = []
    for name, path in paths.items():
        for record in timed(name, load(path, "y")):
            records.append(record)
            low, high = record["between"]
            missed = "" if record["promise"] == "kept" else f" ({record['promise']})"
            print(
                f"| {name} | {record['regime']} | {record['updates']} | {record['batch']} | {record['seconds']:.2f} "
                f"| {record['ratio']:.2f} ({low:.2f} to {high:.2f}) | {AT_MOST:g}{missed} |",
                flush=True,
            )
    return records


def run_studies(paths: dict[str, Path], seeds: int, jobs: int) -> dict[str, Any]:
    """Print a table of whole studies, and their verdicts."""
    print(f"\n## A whole study ({seeds} seeds, {jobs} jobs)\n")
    print("| table | file, MB | peak memory, MB | of which imports, MB | seconds |")
    print("| --- | --: | --: | --: | --: |")
    records = {}
    for name, path in paths.items():
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as alone:
            record = alone.submit(studied, path, seeds, jobs).result() | {"file": path.stat().st_size / 1e6}
        records[name] = record
        sizes = " | ".join(f"{record[what]:.0f}" for what in ("file", "peak", "imports", "seconds"))
        print(f"| {name} | {sizes} |", flush=True)
    for name, record in records.items():
        print(f"\n### {name}\n", *record["verdict"], sep="\n")
    return records


def main() -> None:
    """Print what is asked for, and write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", default=["runs", "studies"], choices=["runs", "studies"])
    parser.add_argument("--tables", nargs="+", default=list(TABLES), choices=TABLES)
    parser.add_argument("--seeds", type=int, default=2, help="of a whole study")
    parser.add_argument("--jobs", type=int, default=2, help="processes that a whole study trains in")
    parser.add_argument("--out", type=Path, help="where to write the figures as JSON")
    options = parser.parse_args()
    torch.set_num_threads(1)
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        paths = {name: Path(folder, f"table{place}.csv") for place, name in enumerate(options.tables)}
        for name, path in paths.items():
            write(path, *TABLES[name](np.random.default_rng(0)))
        if "runs" in options.parts:
            figures["runs"] = time_runs(paths)
        if "studies" in options.parts:
            figures["studies"] = run_studies(paths, options.seeds, options.jobs)
    if options.out:
        options.out.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
