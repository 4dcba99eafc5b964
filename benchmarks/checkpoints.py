"""First weights of a large model, written to files, beside a plain sequential write of the same bytes.

Run with ``python -m benchmarks.checkpoints``; it takes ``--size`` of the disk at a time, and leaves nothing.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import torch
from torch import nn

import wellposed as wp
from benchmarks.initialization import Layer

PIECE = 32 * 2**20
WIDTH, VOCABULARY = 4096, 32000
DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}
# What the weights are drawn from: the less arithmetic, the nearer the disk.
RULES = {
    "truncated normal": wp.init.TruncatedNormal(0.0, 0.02, -0.04, 0.04),
    "normal": wp.init.Normal(0.0, 0.02),
    "uniform": wp.init.Uniform(-0.02, 0.02),
    "zeros": wp.init.Zeros(),
}


def llama(size: float, dtype: torch.dtype) -> nn.Module:
    """A Llama-shaped model of about so many bytes."""
    layer = partial(Layer, WIDTH, 11008, 1024)
    with torch.device("meta"):
        bytes_of_one = sum(p.numel() for p in layer().parameters()) * dtype.itemsize
    ends = 2 * WIDTH * VOCABULARY * dtype.itemsize
    return nn.ModuleDict(
        {
            "embed": nn.Embedding(VOCABULARY, WIDTH),
            "layers": nn.ModuleList(layer() for _ in range(max(1, round((size - ends) / bytes_of_one)))),
            "norm": nn.RMSNorm(WIDTH),
            "head": nn.Linear(WIDTH, VOCABULARY, bias=False),
        }
    )


def write(folder: Path, about: float, dtype: str, drawn: str) -> None:
    """Write the files, and print bytes a second, the memory that this process took at most, and processor seconds."""
    wp.init.write_checkpoint(lambda: nn.Linear(8, 8), folder / "first")  # what is loaded once
    shutil.rmtree(folder / "first")
    rules = {"*": RULES[drawn], "*norm.weight": wp.init.Ones()}
    start, busy = time.perf_counter(), time.process_time()
    wp.init.write_checkpoint(partial(llama, about, DTYPES[dtype]), folder, rules=rules, dtype=DTYPES[dtype])
    seconds, busy = time.perf_counter() - start, time.process_time() - busy
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    size = sum(path.stat().st_size for path in folder.iterdir())
    print(size / seconds, int(line.split()[1]) * 1024, busy / size * 1e9)


def plainly(folder: Path, size: int, shard: int = 5 * 10**9) -> float:
    """Bytes a second of writing as many to files of the same size, each brought to the disk at its end."""
    data = memoryview(os.urandom(PIECE))
    start, left = time.perf_counter(), size
    while left:
        here = min(left, shard)
        left -= here
        with open(folder / f"{left}.bin", "wb", buffering=0) as file:
            while here:
                here -= file.write(data[: min(here, PIECE)])
            os.fsync(file.fileno())
    return size / (time.perf_counter() - start)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=float, default=16.0, help="GB")
    parser.add_argument("--dtype", choices=DTYPES, default="bfloat16")
    parser.add_argument("--drawn", nargs="+", choices=RULES, default=["truncated normal", "uniform"])
    parser.add_argument("--folder", type=Path, default=None, help="on the disk that is meant")
    parser.add_argument("--into", type=Path, default=None, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.into is not None:
        write(options.into, options.size * 1e9, options.dtype, options.drawn[0])
        return
    print(f"{options.size:g} GB of {options.dtype}, {torch.get_num_threads()} threads, torch {torch.__version__}\n")
    print("| drawn from | MB/s | a plain write, before and after | ratio to their mean | peak MB | processor s/GB |")
    print("| --- | --: | --: | --: | --: | --: |")
    for drawn in options.drawn:
        plain = []
        for turn in ("before", "ours", "after"):
            with tempfile.TemporaryDirectory(dir=options.folder) as folder:
                if turn != "ours":
                    plain.append(plainly(Path(folder), int(options.size * 1e9)))
                    continue
                command = [sys.executable, "-m", "benchmarks.checkpoints", "--into", folder, "--drawn", drawn]
                command += ["--dtype", options.dtype, "--size", str(options.size)]
                speed, peak, busy = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
        rate = float(speed)
        print(
            f"| {drawn} | {rate / 1e6:.0f} | {plain[0] / 1e6:.0f}, {plain[1] / 1e6:.0f} | "
            f"{2 * rate / sum(plain):.2f} | {int(peak) / 1e6:.0f} | {float(busy):.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
