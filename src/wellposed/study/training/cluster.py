"""Training runs on the workers of a Dask cluster; each is written to disk here as it comes back."""

import threading
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Self

from wellposed.errors import WellposedError
from wellposed.study.needs import need
from wellposed.study.training.dataset import Dataset
from wellposed.study.training.run_files import RunFiles, computing
from wellposed.study.training.train import Figures
from wellposed.study.training.workers import Listener, Run, figures_of

_SECONDS = 10  # to reach the scheduler


class Cluster:
    """The workers of a Dask cluster, in place of processes of this machine.

    A run whose worker is lost is run again by another one.

    Args:
        address: The scheduler's, as ``"tcp://host:8786"``.
        data: The dataset.
        files: Where finished runs are kept, on this machine.

    Raises:
        WellposedError: On entering, if the scheduler is not reached, has no workers, or has one on which other versions
            are installed, whose figures may differ.
    """

    def __init__(self, address: str, data: Dataset, files: RunFiles) -> None:
        self.address, self.data, self.files = address, data, files

    def __enter__(self) -> Self:
        distributed = need("distributed")
        try:
            self._client = distributed.Client(self.address, timeout=_SECONDS, set_as_default=False)
        except (OSError, ValueError, TypeError) as error:
            raise WellposedError(
                f"--scheduler was given {self.address!r}, where no Dask scheduler answers ({error}); expected the "
                "address that `dask scheduler` prints, as tcp://host:8786"
            ) from error
        try:
            self._check_workers()
            self._data = self._client.scatter(self.data, broadcast=True)
        except BaseException:
            self._client.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._client.close()

    def work(self, runs: Iterable[tuple[str, Run]], listener: Listener) -> None:
        """Finish some runs, in any order.

        Args:
            runs: Labels and configurations.
            listener: Called back as each starts and finishes.

        Raises:
            WellposedError: If a run was lost with its worker again and again.
            RuntimeError: If a run fails, which is a fault of wellposed's.
        """
        distributed = need("distributed")
        sent = {self._client.submit(_alone, run, self._data, pure=False): (label, run) for label, run in runs}
        for future in distributed.as_completed(sent, loop=self._client.loop):
            label, run = sent[future]
            listener.started(label)
            try:
                figures = future.result()
            except distributed.KilledWorker as error:
                raise WellposedError(
                    f"{label} was lost with its worker again and again, perhaps for lack of memory; finished runs are "
                    "kept: give the same command again, with workers that have more of it"
                ) from error
            except Exception as error:
                raise RuntimeError(f"{run} failed") from error
            self.files.save(run, figures)
            listener.finished(label)

    def _check_workers(self) -> None:
        try:
            found: dict[str, Any] = self._client.run(computing)
        except ImportError as error:
            raise WellposedError(
                f"a worker of the cluster at {self.address} lacks {error.name}; install wellposed and what the study "
                "needs on each, in the same versions as here"
            ) from error
        if not found:
            raise WellposedError(
                f"the cluster at {self.address} has no workers; start some: dask worker {self.address}"
            )
        here = computing()
        for worker, there in found.items():
            if there != here:
                others = [name for name in here if there.get(name) != here[name]]
                raise WellposedError(
                    f"the worker {worker} has {', '.join(f'{name} {there.get(name)}' for name in others)} where this "
                    f"machine has {', '.join(f'{name} {here[name]}' for name in others)}; install the same versions on "
                    "all, since the last digits of the figures depend on them"
                )


_one_at_a_time = threading.Lock()


def _alone(run: Run, data: Dataset) -> Figures:
    """The figures of a run; of several threads of a worker one runs, since a process has one number of threads."""
    with _one_at_a_time:
        return figures_of(run, data)
