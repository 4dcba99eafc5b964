"""The scripts of the documents run on one process and on two, and print the same."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch.distributed as dist

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted((ROOT / "docs" / "recipes" / "scripts").glob("*.py"))
NEEDS = {"with_lightning": "lightning", "with_trainer": "transformers", "accelerated": "accelerate"}
# In an environment of tests torchvision may have to be told first what it lacks beside a CPU build of torch.
RUN = (
    "import runpy, sys; from peers import prepare_torchvision; prepare_torchvision(); "
    "runpy.run_path(sys.argv[1], run_name='__main__')"
)
FIRST, LOSS, ZEROS = "7b74ffabd64a", 0.81587, 0.0074  # of one process; the network is the same in all scripts


def run(script: Path, processes: int, folder: Path) -> str:
    paths = os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests" / "support"), os.environ.get("PYTHONPATH", "")])
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    done = subprocess.run(
        [*torchrun, "--no-python", sys.executable, "-c", RUN, str(script)],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return next(line for line in done.stdout.splitlines() if line.startswith("start "))


@pytest.mark.slow
@pytest.mark.skipif(not dist.is_available(), reason="torch was built without distributed")
@pytest.mark.parametrize("script", SCRIPTS, ids=[script.stem for script in SCRIPTS])
def test_the_same_on_two_processes(script: Path, tmp_path: Path) -> None:
    if (library := NEEDS.get(script.stem)) and find_spec(library) is None:
        pytest.skip(f"needs {library}")
    for processes in (1, 2) if script is SCRIPTS[0] else (2,):  # what each prints alone is the same
        words = run(script, processes, tmp_path).replace(",", "").split()
        first, loss, zeros = words[1], float(words[3]), float(words[5])
        assert first == FIRST, processes
        assert (loss, zeros) == pytest.approx((LOSS, ZEROS), abs=2e-5), processes
