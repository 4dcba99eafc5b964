"""Training runs over worker processes; each is written to disk as it finishes."""

import multiprocessing
import os
import signal
import threading
import traceback
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Protocol

from wellposed.errors import WellposedError
from wellposed.study.training.baselines import BaselineRun, execute_baselines
from wellposed.study.training.dataset import Dataset
from wellposed.study.training.run_files import RunFiles
from wellposed.study.training.train import Figures, TrainingRun, execute

Run = TrainingRun | BaselineRun


class Listener(Protocol):
    """Callbacks of a study, for a progress bar."""

    def planned(self, total: int, kept: int) -> None:
        """There are ``total`` runs in all so far, of which ``kept`` need not be run again."""

    def started(self, label: str) -> None:
        """A run is being worked on."""

    def finished(self, label: str) -> None:
        """A run is done and kept."""


class SilentListener:
    """A listener that does nothing."""

    def planned(self, total: int, kept: int) -> None:
        """Nothing."""

    def started(self, label: str) -> None:
        """Nothing."""

    def finished(self, label: str) -> None:
        """Nothing."""


@dataclass
class _Worker:
    process: SpawnProcess
    connection: Connection
    label: str = ""


class Pool:
    """Worker processes that train networks; with one job, this process alone.

    Args:
        jobs: How many runs train at a time.
        data: The dataset.
        files: Where finished runs are kept.
    """

    def __init__(self, jobs: int, data: Dataset, files: RunFiles) -> None:
        self.jobs, self.data, self.files = jobs, data, files
        self.workers: list[_Worker] = []

    def __enter__(self) -> "Pool":
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self.workers:
            worker.connection.close()
            worker.process.terminate()
        for worker in self.workers:
            worker.process.join()

    def work(self, runs: Iterable[tuple[str, Run]], listener: Listener) -> None:
        """Finish some runs, in any order.

        Args:
            runs: Labels and configurations.
            listener: Called back as each starts and finishes.

        Raises:
            WellposedError: If a worker process is killed.
            RuntimeError: If a run fails, which is a fault of wellposed's.
        """
        waiting = deque(runs)
        if self.jobs == 1:
            for label, run in waiting:
                listener.started(label)
                self.files.save(run, figures_of(run, self.data))
                listener.finished(label)
            return
        self._hire(min(self.jobs, len(waiting)) - len(self.workers))
        busy = {worker.connection: worker for worker in self.workers[: len(waiting)]}
        for worker in busy.values():
            self._hand_over(worker, waiting, listener)
        while busy:
            for connection in wait(list(busy)):
                worker = busy[connection]  # type: ignore[index]
                with _ends_told(worker):
                    fault: Exception | None = worker.connection.recv()
                if fault is not None:
                    raise fault
                listener.finished(worker.label)
                if waiting:
                    self._hand_over(worker, waiting, listener)
                else:
                    del busy[worker.connection]

    def _hire(self, more: int) -> None:
        present = len(self.workers)
        # Ctrl-C is raised in the main thread alone: it cannot leave a process half started in another one.
        with ThreadPoolExecutor(1) as starter:
            starter.submit(self._start, more).result()
        # All have started before the first is sent anything that has to wait for its imports.
        for worker in self.workers[present:]:
            with _ends_told(worker):
                worker.connection.send((self.data, self.files))

    def _start(self, more: int) -> None:
        """Start processes; they inherit this thread's mask, and leave Ctrl-C to be answered by the parent."""
        if hasattr(signal, "pthread_sigmask"):
            resource_tracker.ensure_running()  # or the first start does it, and lifts the mask
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        context = multiprocessing.get_context("spawn")
        for _ in range(more):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs,), daemon=True)
            process.start()
            theirs.close()
            self.workers.append(_Worker(process, ours))

    def _hand_over(self, worker: _Worker, waiting: "deque[tuple[str, Run]]", listener: Listener) -> None:
        worker.label, run = waiting.popleft()
        with _ends_told(worker):
            worker.connection.send(run)
        listener.started(worker.label)


def figures_of(run: Run, data: Dataset) -> Figures:
    """The figures of a run of either kind."""
    return execute(run, data) if isinstance(run, TrainingRun) else execute_baselines(run, data)


def _serve(connection: Connection) -> None:
    """Work until the other end of the line is closed, and no longer than the parent lives, however that ended."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with suppress(EOFError, OSError):
        data, files = connection.recv()
        while True:
            connection.send(_fault(connection.recv(), data, files))


def _end_with_parent() -> None:
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
        os._exit(1)  # in the middle of a run: what is finished has been kept


def _fault(run: Run, data: Dataset, files: RunFiles) -> Exception | None:
    """What kept a run from being finished, if anything did."""
    try:
        files.save(run, figures_of(run, data))
    except WellposedError as error:
        return error
    except Exception:
        return RuntimeError(f"{run} failed\n{traceback.format_exc()}")
    return None


@contextmanager
def _ends_told(worker: _Worker) -> Iterator[None]:
    try:
        yield
    except (EOFError, OSError):
        worker.process.join()
        raise WellposedError(
            f"a worker process was ended from outside (exit code {worker.process.exitcode}), perhaps for lack of "
            "memory; finished runs are kept: give the same command again, with a smaller --jobs"
        ) from None
