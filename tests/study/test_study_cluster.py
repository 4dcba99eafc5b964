"""A study on a Dask cluster has the figures of one machine, also when a worker is killed."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from study_tools import SETTINGS, figures, write_table
from wellposed import WellposedError
from wellposed.study import study
from wellposed.study.training.workers import SilentListener

pytest.importorskip("distributed", reason="the extra 'cluster' is not installed")
pytestmark = pytest.mark.filterwarnings("ignore")  # of Dask's own threads and sockets
QUIET = {"DASK_DISTRIBUTED__WORKER__DAEMON": "False", "OMP_NUM_THREADS": "1"}


def started(log: Path, *command: str, until: str) -> tuple["subprocess.Popen[bytes]", str]:
    """A process, and what its log says when it is ready."""
    module, *options = command
    with log.open("wb") as lines:
        process = subprocess.Popen(
            [sys.executable, "-m", f"distributed.cli.{module}", *options],
            stdout=lines,
            stderr=subprocess.STDOUT,
            env=os.environ | QUIET,
            start_new_session=True,
        )
    while not (found := re.search(until, log.read_text())):
        assert process.poll() is None, log.read_text()
        time.sleep(0.1)
    return process, found[0]


def ended(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    log = tmp_path_factory.mktemp("scheduler") / "log"
    process, address = started(log, "dask_scheduler", "--port", "0", "--no-dashboard", until=r"tcp://[\d.]+:\d+")
    try:
        yield address
    finally:
        ended(process)


def worker(scheduler: str, folder: Path) -> "subprocess.Popen[bytes]":
    folder.mkdir()
    options = ("--no-nanny", "--no-dashboard", "--nthreads", "1", "--local-directory", str(folder))
    return started(folder / "log", "dask_worker", scheduler, *options, until="Registered to")[0]


class KillOne(SilentListener):
    """Kills a worker in the middle of the runs."""

    def __init__(self, victim: "subprocess.Popen[bytes]") -> None:
        self.victim, self.runs = victim, 0

    def finished(self, label: str) -> None:
        self.runs += 1
        if self.runs == 5:
            ended(self.victim)


@pytest.mark.slow
def test_figures_are_those_of_one_machine_though_a_worker_is_killed(scheduler: str, tmp_path: Path) -> None:
    table = write_table(tmp_path / "table.csv")
    study(table, "kind", settings=SETTINGS, jobs=1, out=tmp_path / "alone")
    with pytest.raises(WellposedError, match="no workers"):
        study(table, "kind", settings=SETTINGS, scheduler=scheduler, out=tmp_path / "none")
    workers = [worker(scheduler, tmp_path / name) for name in ("one", "other")]
    try:
        listener = KillOne(workers[0])
        study(table, "kind", settings=SETTINGS, scheduler=scheduler, out=tmp_path / "shared", listener=listener)
        assert listener.runs == len(list((tmp_path / "shared" / "runs").iterdir()))
        assert workers[0].poll() is not None
        assert figures(tmp_path / "shared") == figures(tmp_path / "alone")
    finally:
        for process in workers:
            ended(process)


def test_what_is_no_scheduler_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wellposed.study.training.cluster._SECONDS", 1)
    table = write_table(tmp_path / "table.csv")
    for address in ("tcp://127.0.0.1:9", "nonsense://a"):
        with pytest.raises(WellposedError, match="no Dask scheduler answers"):
            study(table, "kind", settings=SETTINGS, scheduler=address, out=tmp_path)
    with pytest.raises(WellposedError, match="leave out one"):
        study(table, "kind", settings=SETTINGS, scheduler="tcp://127.0.0.1:9", jobs=2, out=tmp_path)


@pytest.mark.slow
def test_a_worker_with_other_versions_is_refused(
    scheduler: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    described = tmp_path / "packages" / "numpy-9.9.dist-info" / "METADATA"
    described.parent.mkdir(parents=True)
    described.write_text("Metadata-Version: 2.1\nName: numpy\nVersion: 9.9\n")
    with monkeypatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "packages"), os.environ.get("PYTHONPATH", "")]))
        process = worker(scheduler, tmp_path / "one")
    try:
        with pytest.raises(WellposedError, match=r"has numpy 9\.9 where this machine has numpy .*; install the same"):
            study(write_table(tmp_path / "t.csv"), "kind", settings=SETTINGS, scheduler=scheduler, out=tmp_path)
    finally:
        ended(process)
