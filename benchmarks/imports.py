"""What ``import wellposed`` costs over ``import torch``, alone and with every public name used, in fresh processes.

Run with ``python -m benchmarks.imports``.
"""

import statistics
import subprocess
import sys

PROMISED = 60e-3  # seconds
RUNS = 9
CODE = "import torch, time; t = time.perf_counter(); import wellposed{}; print(time.perf_counter() - t)"
CASES = {"import wellposed": "", "and every public name": "; [getattr(wellposed, name) for name in dir(wellposed)]"}


def main() -> None:
    """Print the medians of several runs."""
    for name, more in CASES.items():
        seen = [float(subprocess.check_output([sys.executable, "-c", CODE.format(more)])) for _ in range(RUNS)]
        print(f"{name}: {1e3 * statistics.median(seen):.1f} ms after torch (median of {RUNS} runs)")
    print(f"promised for the import: {1e3 * PROMISED:.0f} ms")


if __name__ == "__main__":
    main()
