"""The same figures however a study is run: over any number of jobs, interrupted, killed and resumed."""

import importlib.metadata
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from study_tools import SETTINGS, figures, write_table
from wellposed import WellposedError
from wellposed.sklearn import WellposedClassifier
from wellposed.study import Settings, study
from wellposed.study.design import design
from wellposed.study.experiments import initializers
from wellposed.study.methods import PENALTIES, STARTS
from wellposed.study.table.loading import load
from wellposed.study.training.run_files import RunFiles
from wellposed.study.training.train import CHECKS, TrainingRun, execute
from wellposed.study.training.workers import SilentListener

RUN = TrainingRun(seed=3, hidden=(10, 10), p=0.2, penalty="l1_proximal", strength=1e-3, steps=10, tracked=(0, 5))


class Count(SilentListener):
    """Counts what is run, and what was there before."""

    def __init__(self) -> None:
        self.runs: list[str] = []
        self.kept: list[int] = []
        self.total = 0

    def planned(self, total: int, kept: int) -> None:
        self.total = total
        self.kept.append(kept)

    def finished(self, label: str) -> None:
        self.runs.append(label)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_table(tmp_path_factory.mktemp("data") / "table.csv")


@pytest.fixture(scope="module")
def alone(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study by one process, without interruption."""
    out = tmp_path_factory.mktemp("alone")
    count = Count()
    study(table, "kind", settings=SETTINGS, jobs=1, out=out, listener=count)
    assert len(count.runs) == len(set(count.runs)) == count.total == len(list((out / "runs").iterdir()))
    return out


def test_figures_do_not_depend_on_jobs(alone: Path, table: Path, tmp_path: Path) -> None:
    study(table, "kind", settings=SETTINGS, jobs=2, out=tmp_path)
    assert figures(tmp_path) == figures(alone)
    assert {p.name for p in (tmp_path / "runs").iterdir()} == {p.name for p in (alone / "runs").iterdir()}


def test_a_finished_study_runs_nothing_again(alone: Path, table: Path) -> None:
    before, count = figures(alone), Count()
    study(table, "kind", settings=SETTINGS, jobs=1, out=alone, listener=count)
    assert count.runs == []
    assert figures(alone) == before


@pytest.mark.parametrize("change", [{"steps": 13}, {"deep": (12, 12)}, {"rate": 0.2}])
def test_runs_of_another_study_are_not_taken(alone: Path, table: Path, change: dict[str, Any]) -> None:
    data = load(table, "kind")
    store = RunFiles(alone / "runs", data.digest)
    same, other = (
        initializers(design(settings, data), {})[0].run
        for settings in (SETTINGS, Settings(**(vars(SETTINGS) | change)))
    )
    assert store.load(same) is not None
    assert store.load(other) is None
    assert RunFiles(alone / "runs", "other data").load(RUN) is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b'{"figures": {"sco',
        b"\xff\xfe",
        b"[]",
        b"null",
        b'{"figures": {}}',
        b'{"figures": {"score": 1.0}}',
        b'{"digest": "", "figures": {"score": 1.0}}',
    ],
)
def test_a_damaged_file_is_run_again(content: bytes, tmp_path: Path) -> None:
    store = RunFiles(tmp_path, "data")
    store.path(RUN).write_bytes(content)
    assert store.load(RUN) is None
    store.save(RUN, {"score": 1.0})
    assert store.load(RUN) == {"score": 1.0}
    assert [path.suffix for path in tmp_path.iterdir()] == [".json"]
    store.path(RUN).write_text(store.path(RUN).read_text().replace("1.0", "2.0"))
    assert store.load(RUN) is None


def test_results_name_the_versions_of_what_computes_and_what_reads(alone: Path) -> None:
    named = {"wellposed", "torch", "numpy", "scikit-learn", "pyarrow", "python"}
    assert named <= set(figures(alone)["versions"])


def test_a_package_that_only_reads_may_change_while_a_study_rests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = RunFiles(tmp_path, "data").path(RUN)
    real = importlib.metadata.version
    changed: dict[str, str] = {"pyarrow": "0.1"}
    monkeypatch.setattr("wellposed.study.training.run_files.version", lambda name: changed.get(name) or real(name))
    assert RunFiles(tmp_path, "data").path(RUN) == before
    changed["numpy"] = "0.1"
    assert RunFiles(tmp_path, "data").path(RUN) != before


def test_a_run_reads_and_leaves_no_state(table: Path) -> None:
    data, threads = load(table, "kind"), torch.get_num_threads()
    first = execute(RUN, data)
    torch.manual_seed(99)
    state = torch.get_rng_state()
    torch.set_num_threads(2)
    try:
        assert execute(RUN, data) == first
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(torch.get_rng_state(), state)
    assert json.loads(json.dumps(first, allow_nan=False)) == first


def test_training_that_diverges_is_told_as_such(table: Path) -> None:
    found = execute(TrainingRun(seed=0, hidden=(10, 10), rate=1e30, steps=30), load(table, "kind"))
    assert found["score"]["validation"] is None
    assert len(found["curve"]["step"]) < CHECKS
    json.dumps(found, allow_nan=False)


SCRIPT = """
import signal, sys
sys.path.insert(0, {tests!r})
from study_tools import SETTINGS
from wellposed.study import study
from wellposed.cli import _guarded
from dataclasses import replace
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background ignores
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # which nohup has ignored
    sys.exit(_guarded(lambda: study(*{data!r}, settings={settings}, jobs={jobs}, out={out!r}) and 0))
"""


def begin(
    data: tuple[str, ...],
    out: Path,
    jobs: int,
    ready: Callable[[subprocess.Popen[str]], bool],
    settings: str = "SETTINGS",
) -> subprocess.Popen[str]:
    """Start a study in a process group of its own, and wait until it has come far enough."""
    script = out.parent / "go.py"
    script.write_text(
        SCRIPT.format(
            tests=str(Path(__file__).parents[1] / "support"), data=data, out=str(out), jobs=jobs, settings=settings
        )
    )
    process = subprocess.Popen([sys.executable, str(script)], stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        wait_for(lambda: process.poll() is not None or ready(process))
    except AssertionError:
        process.kill()
        process.communicate()
        raise
    assert process.poll() is None, process.stderr.read() if process.stderr else ""
    return process


def wait_for(condition: Callable[[], bool], seconds: float = 150) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def workers(pid: int) -> list[int]:
    """The children that are to train, which leaves out the one that multiprocessing tidies up with."""
    return [child for child in children(pid) if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def computes(pid: int) -> bool:
    """Whether a process has had twelve seconds of a processor, which is more than it takes to import."""
    user = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11])
    return user / os.sysconf("SC_CLK_TCK") > 12


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="styles for processes in /proc")
@pytest.mark.parametrize(("jobs", "how"), [(2, signal.SIGKILL), (2, signal.SIGINT), (1, signal.SIGINT)])
def test_a_stopped_study_goes_on(jobs: int, how: signal.Signals, alone: Path, table: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = begin((str(table), "kind"), out, jobs, lambda _: len(list((out / "runs").glob("*.json"))) >= 4)
    helpers = children(process.pid)
    os.kill(process.pid, how)
    _, told = process.communicate(timeout=30)
    assert process.returncode == (-signal.SIGKILL if how == signal.SIGKILL else 130)
    if how == signal.SIGINT:
        assert told.startswith("wellposed: interrupted")
        assert "Traceback" not in told
    wait_for(lambda: not any(map(runs, helpers)), 20)
    kept = len(list((out / "runs").glob("*.json")))
    count = Count()
    study(table, "kind", settings=SETTINGS, jobs=1, out=out, listener=count)
    assert count.kept[0] > 0
    assert kept + len(count.runs) == count.total
    assert figures(out) == figures(alone)


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="styles for processes in /proc")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("started", [1, 2])
def test_a_study_is_stopped_while_its_workers_still_import(started: int, how: signal.Signals, tmp_path: Path) -> None:
    # The digits are more than a pipe holds: what is sent to a worker that still imports has to wait for it.
    process = begin(("digits",), tmp_path / "out", 2, lambda study: len(workers(study.pid)) >= started)
    time.sleep(0.2)
    helpers = workers(process.pid)
    if how == signal.SIGINT:
        os.killpg(process.pid, how)  # as a terminal does, to the workers too
    else:
        os.kill(process.pid, how)
    _, told = process.communicate(timeout=30)
    assert process.returncode == (130 if how == signal.SIGINT else -how)
    stopped = "wellposed: interrupted; the same command goes on from what is finished\n"
    assert told == (stopped if how == signal.SIGINT else "")
    wait_for(lambda: not any(map(runs, helpers)), 20)


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="styles for processes in /proc")
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGHUP])
def test_workers_end_in_the_middle_of_a_run_where_their_parent_has(
    how: signal.Signals, table: Path, tmp_path: Path
) -> None:
    long = "replace(SETTINGS, steps=10**7)"
    process = begin((str(table), "kind"), tmp_path / "out", 2, lambda study: len(workers(study.pid)) == 2, long)
    helpers = workers(process.pid)
    wait_for(lambda: all(map(computes, helpers)))
    os.kill(process.pid, how)
    try:
        process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == -how
    wait_for(lambda: not any(map(runs, helpers)), 10)


@pytest.mark.slow
def test_a_worker_that_is_killed_is_one_clear_sentence(table: Path, tmp_path: Path) -> None:
    import multiprocessing

    class Kill(SilentListener):
        def finished(self, label: str) -> None:
            for child in multiprocessing.active_children():
                os.kill(child.pid or 0, signal.SIGKILL)

    with pytest.raises(WellposedError, match=r"ended from outside \(exit code -9\).*finished runs are kept"):
        study(table, "kind", settings=SETTINGS, jobs=2, out=tmp_path, listener=Kill())


def test_what_is_recommended_is_taken_by_the_estimators(alone: Path, table: Path) -> None:
    found = study(table, "kind", settings=SETTINGS, jobs=1, out=alone)
    model, row = WellposedClassifier(**found.arguments), found.results["recommended"]
    given = model.get_params()
    assert given["hidden"] == list(SETTINGS.hidden)
    assert given["dropout"] == row["p"]
    assert given["scheme"] == ("torch" if row["start"] == "torch" else STARTS[row["start"]].weight)
    method = PENALTIES[row["penalty"]]
    assert given["penalty"] == (None if method.make is None else method.make(row["strength"]))
    x = np.random.default_rng(0).normal(size=(60, 3))
    model.set_params(max_epochs=100).fit(x, x[:, 0] > 0)
    assert model.score(x, x[:, 0] > 0) > 0.9
