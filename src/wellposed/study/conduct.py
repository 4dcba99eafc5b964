"""A whole study: train every run, estimate the scores, and write the findings and the report."""

import json
import math
import os
import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from wellposed.configuration.dictionaries import from_dict
from wellposed.errors import WellposedError
from wellposed.study import experiments
from wellposed.study.design import Design, Settings, design
from wellposed.study.experiments import Run
from wellposed.study.needs import need
from wellposed.study.recommendation import arguments, recommend
from wellposed.study.report import report
from wellposed.study.results.findings import findings
from wellposed.study.results.summary import Summary, summarise
from wellposed.study.results.verdict import verdict
from wellposed.study.table.loading import load
from wellposed.study.training import run_files
from wellposed.study.training.baselines import BaselineRun
from wellposed.study.training.cluster import Cluster
from wellposed.study.training.dataset import Dataset
from wellposed.study.training.measures import few_rows, measure_of
from wellposed.study.training.run_files import RunFiles
from wellposed.study.training.splits import MOST_SCORED
from wellposed.study.training.train import Figures
from wellposed.study.training.workers import Listener, Pool, SilentListener

_MOST_JOBS = 8  # by default: each is a process that imports torch


@dataclass(frozen=True, eq=False)
class Study:
    """The results of a study.

    Attributes:
        results: What ``results.json`` holds.
        folder: Where ``results.json``, ``report.html``, ``recommended.py``, ``network.safetensors`` and the finished
            runs are.
    """

    results: Summary
    folder: Path

    @property
    def report(self) -> Path:
        """The report."""
        return self.folder / "report.html"

    @property
    def verdict(self) -> list[str]:
        """What helped, what made no clear difference and what hurt, one text each."""
        return [line["text"] for line in self.results["verdict"]["lines"]]

    @property
    def recommended(self) -> Path:
        """The code that trains the recommended network, and predicts with the one that is kept beside it."""
        return self.folder / "recommended.py"

    @property
    def arguments(self) -> dict[str, Any]:
        """What is recommended as arguments of ``WellposedClassifier`` and ``WellposedRegressor``."""
        plain = self.results["recommended"]["arguments"]
        return {name: from_dict(value) if isinstance(value, dict) else value for name, value in plain.items()}

    @property
    def findings(self) -> list[str]:
        """The findings, one text each."""
        return [finding["text"] for finding in self.results["findings"]]


def study(
    data: Any = "digits",
    target: Any = None,
    *,
    task: str | None = None,
    drop: Sequence[str] = (),
    keep: Sequence[str] = (),
    sep: str | None = None,
    decimal: str | None = None,
    encoding: str | None = None,
    date_order: str | None = None,
    settings: Settings | None = None,
    jobs: int | None = None,
    scheduler: str | None = None,
    out: str | Path | None = None,
    listener: Listener | None = None,
    command: Sequence[str] | None = None,
) -> Study:
    """Study what initialization, regularization and dropout do on a dataset.

    Every run is a pure function of its configuration and the data, so the figures do not depend on ``jobs`` or on
    interruptions: finished runs are kept in ``out`` and are not run again.

    Args:
        data: ``"digits"``; a path to a CSV or Parquet file, or ``"-"`` for standard input; a frame of pandas, polars or
            pyarrow; or arrays ``(X, y)``, X of shape (rows, columns).
        target: The column to learn; needed for a file and for a frame. Or y, where ``data`` is X.
        task: ``"classification"`` or ``"regression"``, where the target's values do not tell.
        drop: Columns to leave out.
        keep: Columns to learn from though they look like identifiers.
        sep: What stands between the columns of a text; told from it unless given.
        decimal: ``"."`` or ``","``, where it cannot be told what stands before the decimals.
        encoding: That of a text, where it is not UTF-8.
        date_order: ``"day-first"`` or ``"month-first"``, where that cannot be told.
        settings: The networks, their training, and the grid of p; what is not set is made from the data.
        jobs: How many processes train at a time; ``None`` is one a core, at most eight. More than one needs the usual
            ``if __name__ == "__main__":`` around a script that calls this.
        scheduler: The address of a Dask scheduler, as ``"tcp://host:8786"``, on whose workers the runs are trained
            instead; it needs the package ``distributed``, and the same versions of all on each worker.
        out: The folder for the report, the figures and the finished runs; ``None`` is one by the table's name in
            ``wellposed-study``.
        listener: Called back as runs start and finish.
        command: The command line to write down; ``None`` is this process's.

    Returns:
        The study.

    Raises:
        WellposedError: If an argument, the data or the folder cannot be used, or a package is missing; nothing has been
            trained then.
    """
    if jobs is not None and scheduler is not None:
        raise WellposedError(
            f"--jobs was given {jobs} beside --scheduler, whose workers are as many as it has; leave out one of them"
        )
    settings, jobs = settings or Settings(), _checked_jobs(jobs)
    check(settings)
    for module in ("matplotlib", "jinja2", "safetensors.torch", "sklearn"):
        need(module)
    dataset = load(
        data,
        target,
        task=task,
        drop=drop,
        keep=keep,
        sep=sep,
        decimal=decimal,
        encoding=encoding,
        date_order=date_order,
    )
    _check_size(settings, dataset)
    planned = design(settings, dataset)
    folder = Path("wellposed-study", _plain(Path(dataset.name).name)) if out is None else Path(out)
    finished = RunFiles(folder / "runs", dataset.digest)
    pool = Pool(jobs, dataset, finished) if scheduler is None else Cluster(scheduler, dataset, finished)
    with pool:
        done = _run(planned, finished, pool, listener or SilentListener())
    results = _results(planned, dataset, done, command or sys.argv)
    case = experiments.together(planned, done)[results["recommended"]["name"]]
    network, code = recommend(case.run, dataset)
    results["recommended"] |= {"code": code, "arguments": arguments(case.run, dataset)}
    found = Study(results, folder)
    _write(folder / "network.safetensors", network)
    _write(found.recommended, code)
    _write(folder / "results.json", json.dumps(results, indent=1, allow_nan=False) + "\n")
    _write(found.report, report(results))
    return found


def check(settings: Settings) -> None:
    """Refuse settings that no study can have.

    Raises:
        WellposedError: If a number is out of range; the message names the option.
    """
    for name, widths in {"--hidden": settings.hidden, "deep": settings.deep}.items():
        if not widths or min(widths) < 1:
            raise WellposedError(
                f"{name} was given {_widths(widths)!r}; expected the width of each hidden layer, as in 256,256"
            )
    for name, value in {"--seeds": settings.seeds, "--steps": settings.steps, "rows": settings.rows}.items():
        if value is not None and value < 1:
            raise WellposedError(f"{name} was given {value}; expected at least 1")
    if not settings.rates or min(settings.rates) <= 0 or max(settings.rates) >= 1:
        raise WellposedError(f"rates was given {settings.rates}; expected probabilities between 0 and 1")
    if not settings.rate > 0:
        raise WellposedError(f"rate was given {settings.rate}; expected a positive number")


def _plain(name: str) -> str:
    """A name in letters that every file system takes."""
    stem = re.sub(r"(\.(csv|tsv|txt|parquet|pq|gz))+$", "", name, flags=re.IGNORECASE)
    return re.sub(r"[^\w.-]+", "-", stem).strip(".-") or "table"


def _check_size(settings: Settings, data: Dataset) -> None:
    """Refuse a network that is sure to be too large for this machine, before anything is trained."""
    for name, hidden in {"--hidden": settings.hidden, "deep": settings.deep}.items():
        widths = (len(data.features), *hidden, len(data.classes) or 1)
        weights = sum(fan_in * fan_out for fan_in, fan_out in pairwise(widths))
        signals = min(MOST_SCORED, data.rows) * sum(hidden)
        memory = _memory()
        if 4 * (5 * weights + signals) > memory:  # bytes; a weight comes with its gradient, two moments and a copy
            raise WellposedError(
                f"{name} was given {_widths(hidden)!r}; such a network does not fit in memory: its weights, their "
                f"gradients and its signals take more than the {memory / 1e9:.0f} GB of this machine; give smaller "
                "widths"
            )


def _memory() -> float:
    """The physical memory of this machine in bytes; infinite where the system does not say."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else math.inf


def _widths(widths: Sequence[int]) -> str:
    return ",".join(map(str, widths))


def _checked_jobs(jobs: int | None) -> int:
    if jobs is None:
        return min(
            _MOST_JOBS, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        )
    if jobs < 1:
        raise WellposedError(f"--jobs was given {jobs}; expected at least 1")
    return jobs


def _run(planned: Design, finished: RunFiles, pool: Pool | Cluster, listener: Listener) -> dict[Run, Figures]:
    done: dict[Run, Figures] = {}
    labels: dict[Run, str] = {run: f"{_baselines(run)}, seed {run.seed}" for run in experiments.baselines(planned)}
    for wave in experiments.WAVES:
        for case in [case for stage in wave for case in stage(planned, done)]:
            labels |= {run: f"{case.experiment}: {case.label}, seed {run.seed}" for run in case.runs}
        missing = []
        # Seed by seed, since runs of one seed share the rows that a worker has prepared.
        for run, label in sorted(labels.items(), key=lambda labelled: labelled[0].seed):
            if run not in done and (kept := finished.load(run)) is not None:
                done[run] = kept
            elif run not in done:
                missing.append((label, run))
        last = wave is experiments.WAVES[-1]
        listener.planned(len(done) + len(missing) if last else experiments.size(planned), len(done))
        pool.work(missing, listener)
        for _, run in missing:
            done[run] = _kept(finished, run)
    return done


def _baselines(run: BaselineRun) -> str:
    return "baselines" if run.rows is None else f"baselines on {run.rows} rows"


def _kept(finished: RunFiles, run: Run) -> Figures:
    figures = finished.load(run)
    if figures is None:
        raise WellposedError(
            f"{finished.path(run)} was finished and is gone; leave the folder alone while a study runs"
        )
    return figures


def _results(planned: Design, data: Dataset, done: dict[Run, Figures], command: Sequence[str]) -> Summary:
    results: dict[str, Any] = {
        "schema": run_files.SCHEMA,
        "command": shlex.join(command),
        "versions": run_files.versions(),
        "seeds": list(range(planned.seeds)),
        "design": asdict(planned) | {"regimes": planned.regimes},
        "data": {
            "name": data.name,
            "digest": data.digest,
            "rows": data.rows,
            "features": len(data.features),
            "target": data.target,
            "task": data.task,
            "measure": measure_of(data),
            "classes": list(data.classes),
            "counts": np.bincount(data.y, minlength=len(data.classes)).tolist() if data.classes else [],
            "notes": [*data.notes, *few_rows(data)],
        },
    }
    results |= summarise(planned, done)
    results["verdict"] = verdict(results)
    return results | {"findings": findings(results)}


def _write(path: Path, content: str | bytes) -> None:
    draft = path.with_suffix(path.suffix + ".part")
    try:
        draft.write_bytes(content.encode() if isinstance(content, str) else content)
        draft.replace(path)
    except OSError as error:
        raise WellposedError(f"{str(path)!r} cannot be written: {error.strerror}; finished runs are kept") from error
