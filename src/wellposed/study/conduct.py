"""A whole study: train every run, estimate the scores, and write the findings and the report."""

import json
import math
import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from wellposed.errors import WellposedError
from wellposed.study import experiments
from wellposed.study.experiments import Settings
from wellposed.study.needs import need
from wellposed.study.report import report
from wellposed.study.results.findings import findings
from wellposed.study.results.summary import Summary, summarise
from wellposed.study.table.loading import load
from wellposed.study.training import run_files
from wellposed.study.training.dataset import Dataset
from wellposed.study.training.run_files import RunFiles
from wellposed.study.training.splits import PARTS
from wellposed.study.training.train import Figures, TrainingRun
from wellposed.study.training.workers import Listener, Pool, SilentListener

_MOST_JOBS = 8  # by default: each is a process that imports torch


@dataclass(frozen=True, eq=False)
class Study:
    """The results of a study.

    Attributes:
        results: What ``results.json`` holds.
        folder: Where ``results.json``, ``report.html`` and the finished runs are.
    """

    results: Summary
    folder: Path

    @property
    def report(self) -> Path:
        """The report."""
        return self.folder / "report.html"

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
    out: str | Path = "wellposed-study",
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
        settings: The network, its training, and the grids of lambda and p.
        jobs: How many processes train at a time; ``None`` is one a core, at most eight. More than one needs the usual
            ``if __name__ == "__main__":`` around a script that calls this.
        out: The folder for the report, the figures and the finished runs.
        listener: Called back as runs start and finish.
        command: The command line to write down; ``None`` is this process's.

    Returns:
        The study.

    Raises:
        WellposedError: If an argument, the data or the folder cannot be used, or a package is missing; nothing has been
            trained then.
    """
    settings, jobs = settings or Settings(), _checked_jobs(jobs)
    check(settings)
    for module in ("matplotlib", "jinja2"):
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
    folder = Path(out)
    finished = RunFiles(folder / "runs", dataset.digest)
    done = _run(settings, dataset, finished, jobs, listener or SilentListener())
    results = _results(settings, dataset, done, command or sys.argv)
    _write(folder / "results.json", json.dumps(results, indent=1, allow_nan=False) + "\n")
    _write(folder / "report.html", report(results))
    return Study(results, folder)


def check(settings: Settings) -> None:
    """Refuse settings that no study can have.

    Raises:
        WellposedError: If a number is out of range; the message names the option.
    """
    if not settings.hidden or min(settings.hidden) < 1:
        raise WellposedError(
            f"--hidden was given {_widths(settings)!r}; expected the width of each hidden layer, as in 256,256"
        )
    for name, value in {"--seeds": settings.seeds, "--steps": settings.steps}.items():
        if value < 1:
            raise WellposedError(f"{name} was given {value}; expected at least 1")
    if not settings.strengths or min(settings.strengths) <= 0:
        raise WellposedError(f"strengths was given {settings.strengths}; expected positive numbers")
    if not settings.rates or min(settings.rates) <= 0 or max(settings.rates) >= 1:
        raise WellposedError(f"rates was given {settings.rates}; expected probabilities between 0 and 1")
    for name, size in {"rate": settings.rate, "clip": settings.clip}.items():
        if not size > 0:
            raise WellposedError(f"{name} was given {size}; expected a positive number")


def _check_size(settings: Settings, data: Dataset) -> None:
    """Refuse a network that is sure to be too large for this machine, before anything is trained."""
    widths = (len(data.features), *settings.hidden, len(data.classes) or 1)
    weights = sum(fan_in * fan_out for fan_in, fan_out in pairwise(widths))
    signals = round(PARTS["train"] * data.rows) * sum(settings.hidden)
    memory = _memory()
    if 4 * (2 * weights + signals) > memory:  # bytes; a weight comes with its gradient
        raise WellposedError(
            f"--hidden was given {_widths(settings)!r}; such a network does not fit in memory: its weights, their "
            f"gradients and its signals take more than the {memory / 1e9:.0f} GB of this machine; give smaller widths"
        )


def _memory() -> float:
    """The physical memory of this machine in bytes; infinite where the system does not say."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else math.inf


def _widths(settings: Settings) -> str:
    return ",".join(map(str, settings.hidden))


def _checked_jobs(jobs: int | None) -> int:
    if jobs is None:
        return min(
            _MOST_JOBS, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        )
    if jobs < 1:
        raise WellposedError(f"--jobs was given {jobs}; expected at least 1")
    return jobs


def _run(
    settings: Settings, data: Dataset, finished: RunFiles, jobs: int, listener: Listener
) -> dict[TrainingRun, Figures]:
    done: dict[TrainingRun, Figures] = {}
    with Pool(jobs, data, finished) as pool:
        for wave in experiments.WAVES:
            cases = [case for stage in wave for case in stage(settings, done)]
            labels = {run: f"{case.experiment}: {case.label}, seed {run.seed}" for case in cases for run in case.runs}
            missing = []
            for run, label in labels.items():
                if run not in done and (kept := finished.load(run)) is not None:
                    done[run] = kept
                elif run not in done:
                    missing.append((label, run))
            listener.planned(experiments.size(settings), len(done))
            pool.work(missing, listener)
            for _, run in missing:
                done[run] = _kept(finished, run)
    return done


def _kept(finished: RunFiles, run: TrainingRun) -> Figures:
    figures = finished.load(run)
    if figures is None:
        raise WellposedError(
            f"{finished.path(run)} was finished and is gone; leave the folder alone while a study runs"
        )
    return figures


def _results(settings: Settings, data: Dataset, done: dict[TrainingRun, Figures], command: Sequence[str]) -> Summary:
    results: dict[str, Any] = {
        "schema": run_files.SCHEMA,
        "command": shlex.join(command),
        "versions": run_files.versions(),
        "seeds": list(range(settings.seeds)),
        "settings": asdict(settings) | {"batch": settings.run().batch},
        "data": {
            "name": data.name,
            "digest": data.digest,
            "rows": data.rows,
            "features": len(data.features),
            "target": data.target,
            "task": data.task,
            "classes": list(data.classes),
            "notes": list(data.notes),
        },
        "experiments": summarise(settings, done),
    }
    return results | {"findings": findings(results)}


def _write(path: Path, text: str) -> None:
    draft = path.with_suffix(path.suffix + ".part")
    try:
        draft.write_text(text, encoding="utf-8")
        draft.replace(path)
    except OSError as error:
        raise WellposedError(f"{str(path)!r} cannot be written: {error.strerror}; finished runs are kept") from error
