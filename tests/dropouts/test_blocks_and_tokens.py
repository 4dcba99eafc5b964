"""Blocks and tokens by kernels and by torch's operators: equal to the last bit, there and back, at odd sizes too."""

import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, nn

import wellposed as wp

Make = Callable[[], nn.Module]
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
CASES: dict[str, tuple[Make, tuple[int, ...]]] = {
    "blocks of small maps": (lambda: wp.DropBlock2d(0.2, 3), (4, 6, 9, 11)),
    "blocks of many small maps": (lambda: wp.DropBlock2d(0.1, 7), (16, 70, 8, 8)),
    "blocks of all channels": (lambda: wp.DropBlock2d(0.5, 3, couple_channels=True), (16, 70, 9, 8)),
    "blocks of large maps": (lambda: wp.DropBlock2d(0.1, 5, couple_channels=True), (2, 3, 100, 141)),
    "blocks of volumes": (lambda: wp.DropBlock3d(0.3, 2), (3, 5, 6, 7, 8)),
    "few blocks": (lambda: wp.DropBlock2d(1e-12, 3), (2, 3, 4, 5)),
    "all is dropped": (lambda: wp.DropBlock2d(1.0, 3), (2, 3, 4, 5)),
    "no channels": (lambda: wp.DropBlock2d(0.5, 3), (2, 0, 4, 5)),
    "empty maps": (lambda: wp.DropBlock3d(0.5, 3, couple_channels=True), (2, 3, 4, 0, 5)),
    "few tokens": (lambda: wp.TokenDropout(0.4), (16, 3, 5)),
    "many tokens": (lambda: wp.TokenDropout(0.5, prefix=1), (70, 1001, 3)),
    "tokens of one element": (lambda: wp.TokenDropout(0.9, prefix=2), (300, 35)),
    "one token": (lambda: wp.TokenDropout(0.5), (3, 1, 2)),
    "nothing but the prefix": (lambda: wp.TokenDropout(0.5, prefix=4), (3, 4, 2)),
    "no rows": (lambda: wp.TokenDropout(0.5), (0, 4, 2)),
}


def there_and_back(module: nn.Module, x: Tensor, row: int | None) -> list[Tensor]:
    """The output and a gradient, keyed at a row or by torch's generator."""
    x = x.detach().requires_grad_()
    if row is None:
        torch.manual_seed(3)
        y = module(x)
    else:
        with wp.keyed(3, step=1, row=row):
            y = module(x)
    return [y.detach(), *torch.autograd.grad(y, x, y.detach() * 2)]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("make", "shape"), CASES.values(), ids=CASES)
def test_kernels_and_operators_agree_to_the_last_bit(make: Make, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    module, x = make(), wp.random.normal(shape, wp.Key(1), dtype=dtype)
    for laid in (x, x.mT.contiguous().mT):
        for row in (None, 0, 5):
            fast = there_and_back(module, laid, row)
            with wp.random.backend("reference"):
                slow = there_and_back(module, laid, row)
            assert all(map(torch.equal, fast, slow))


def test_eight_threads_at_once() -> None:
    makes = [make for name, (make, _) in CASES.items() if name in ("blocks of many small maps", "many tokens")]
    inputs = [torch.ones(16, 70, 8, 8), torch.ones(70, 1001, 3)]

    def work(i: int) -> list[Tensor]:
        return there_and_back(makes[i % 2](), inputs[i % 2], i % 3)

    want = [work(i) for i in range(6)]
    with ThreadPoolExecutor(8) as threads:
        for i, seen in enumerate(threads.map(work, range(48))):
            assert all(map(torch.equal, seen, want[i % 6]))


NO_MEMORY = """
import contextlib, resource, torch, wellposed as wp
torch.set_num_threads(2)
drop, x = wp.DropBlock2d(0.5, 3), torch.ones(16, 1024, 32, 32)
with SCOPE:
    drop(x[:8])  # makes what threads need
    limit = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize() + x.nbytes + 2**22
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    try:
        drop(x)
    except RuntimeError as error:
        print("allocate memory" in str(error))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux limits a process's memory so")
@pytest.mark.parametrize("scope", ["wp.keyed(0)", "contextlib.nullcontext()"])
def test_where_memory_runs_out_it_says_so(scope: str) -> None:
    code = NO_MEMORY.replace("SCOPE", scope)
    environment = os.environ | {
        "MALLOC_ARENA_MAX": "1",
        "MALLOC_MMAP_THRESHOLD_": "65536",
    }  # it holds nothing in reserve
    ended = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert (ended.returncode, ended.stdout) == (0, "True\n"), ended.stderr
