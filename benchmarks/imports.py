"""What ``import wellposed`` costs over ``import torch``, and the first use of each verb, in fresh processes.

Run with ``python -m benchmarks.imports``.
"""

import statistics
import subprocess
import sys

RUNS = 9
PREPARE = """
import time, torch
import wellposed as wp
model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
model(torch.ones(2, 8)).sum().backward()
optimizer.step()  # torch's own first steps take time too, which is not ours
x = torch.ones(64, requires_grad=True)
(x * 1).sum().backward()
"""
# What is done, what comes before it untimed, and what is promised, in seconds.
CASES = {
    "import wellposed": ("import wellposed", "import time, torch", 60e-3),
    "and every public name": (
        "import wellposed; [getattr(wellposed, name) for name in dir(wellposed)]",
        "import time, torch",
        None,
    ),
    "a fill": ("wp.random.normal(64, wp.Key(0))", PREPARE, 20e-3),
    "a dropout, there and back": ("wp.Dropout(0.1)(x).sum().backward()", PREPARE, 20e-3),
    "an initialized model": ("wp.initialize(model, seed=0)", PREPARE, 20e-3),
    "a regularized step": ("wp.regularize(optimizer, model, wp.L1(1e-3)); optimizer.step()", PREPARE, 20e-3),
}


def main() -> None:
    """Print the medians of several runs."""
    print(f"Milliseconds in a new process, medians of {RUNS} runs\n\n| first use | ms | at most |\n| --- | --: | --: |")
    for name, (work, before, promised) in CASES.items():
        code = f"{before}\nstart = time.perf_counter()\n{work}\nprint(time.perf_counter() - start)"
        seen = [float(subprocess.check_output([sys.executable, "-c", code])) for _ in range(RUNS)]
        print(f"| {name} | {1e3 * statistics.median(seen):.1f} | {1e3 * promised if promised else ''} |", flush=True)


if __name__ == "__main__":
    main()
