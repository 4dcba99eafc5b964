"""The GPU's kernels on a card: laws first, then each beside torch and beside the ceiling of its memory.

Run from a checkout with ``PYTHONPATH=src python -m benchmarks.gpu [--out gpu.json]``; it takes under five minutes. It
needs torch (2.11 or later) with CUDA or ROCm, Triton and NumPy, no native core and no test packages. Without a card it
prints the rows as not measured.
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

import wellposed as wp

KEY = wp.Key(0).fold("gpu")
SIZES = [2**12, 2**20, 2**24, 2**28]
FLUSH = 2**27  # float32 elements that are written between measurements, so that caches hold nothing of use
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
Work = Callable[[], Any]


@dataclass(frozen=True)
class Row:
    """One kernel at one size: what ours, torch's and the ceiling's work is; what is missing is not measured."""

    name: str
    size: int
    ours: Work
    peer: Work | None
    ceiling: Work | None
    share: float | None = None  # of the ceiling's speed, to be reached
    ratio: float | None = None  # of torch's speed, to be reached


def laws() -> dict[str, bool]:
    """Whether values on the card are those of plain torch on the host, bit for bit."""
    from wellposed.random import draw, reference
    from wellposed.random.backend import kernels_for
    from wellposed.random.box import WHOLE, layout

    kernels: Any = kernels_for(torch.empty(1, device="cuda"))
    seen = {}
    draws: dict[str, Callable[[torch.dtype], draw.Draw]] = {
        "uniform": lambda d: draw.uniform(-1.5, 2.5, d),
        "normal": lambda d: draw.normal(0.1, 0.02, d),
        "truncated": lambda d: draw.truncated_normal(0.0, 1.0, -2.0, 1.5, d),
        "one tail": lambda d: draw.truncated_normal(0.0, 1.0, 3.0, 5.0, d),
    }
    for name, make in draws.items():
        for dtype in draw.FLOATS:
            for count in (7, 2**16 + 3):
                there, here = torch.empty(count, dtype=dtype, device="cuda"), torch.empty(count, dtype=dtype)
                kernels.fill_(there, make(dtype), KEY.seed, 2**40 + 1, WHOLE)
                reference.fill_(here, make(dtype), KEY.seed, 2**40 + 1, WHOLE)
                seen[f"{name} {dtype} {count}"] = torch.equal(there.cpu(), here)
    cut = draw.Cut(2**30, 4 / 3)
    for dtype in draw.FLOATS:
        for shape, dims in (((2**16 + 3,), None), ((64, 1000), (0,)), ((16, 7, 24), (0, 2)), ((50, 30), (0,))):
            x = torch.randn(shape).to(dtype)
            where = WHOLE if dims is None else layout(shape, None, dims)
            wanted = reference.thin(x, cut, KEY.seed, 3, where)
            seen[f"dropout {dtype} {shape} {dims}"] = torch.equal(
                kernels.thin(x.cuda(), cut, KEY.seed, 3, where).cpu(), wanted
            )
    # Every word there is, by the quick quotient and by torch's own: 2^32 of them, in 64 launches.
    for kind, make in list(draws.items())[1:3]:
        equal = True
        for first in range(0, 2**20, 2**18):
            there = torch.empty(2**18, device="cuda")
            kernels.fill_(there, make(torch.float32), KEY.seed, first, WHOLE)
            with wp.random.backend("reference"):
                again = torch.empty_like(there)
                reference.fill_(again, make(torch.float32), KEY.seed, first, WHOLE)
            equal &= torch.equal(there, again)
        seen[f"{kind} beside plain torch on the card, 2^20 words"] = equal
    return seen


def waits() -> dict[str, bool]:
    """Whether each verb leaves the host free: torch raises where it would wait."""
    model = nn.Sequential(nn.Linear(64, 64), wp.Dropout(0.1), wp.DropPath(0.1), nn.Linear(64, 64)).cuda()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    handle = wp.regularize(optimizer, model, wp.L1(1e-4))
    x, rate = torch.randn(32, 64, device="cuda"), torch.tensor(0.1, device="cuda")

    def step() -> None:
        with wp.keyed(0, 1):
            model(x).square().mean().backward()
        optimizer.step()

    verbs: dict[str, Work] = {
        "dropout": lambda: wp.dropout(x, 0.1, key=KEY),
        "dropout, p on the device": lambda: wp.dropout(x, rate, key=KEY),
        "blocks": lambda: wp.DropBlock2d(0.1, 3)(x.view(2, 4, 16, 16)),
        "tokens": lambda: wp.TokenDropout(0.5)(x.view(4, 8, 64)),
        "noise": lambda: wp.GaussianDropout(0.1)(x),
        "fill": lambda: wp.random.normal_(x.clone(), KEY),
        "regularized step": step,
    }
    seen = {}
    for name, verb in verbs.items():
        verb()
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            verb()
            seen[name] = True
        except RuntimeError as error:
            seen[f"{name}: {error}"] = False
        finally:
            torch.cuda.set_sync_debug_mode("default")
    handle.remove()
    return seen


def captured() -> dict[str, bool]:
    """Whether a captured graph draws the next mask at each replay, where the step lies on the device."""
    step, x = torch.zeros((), dtype=torch.int64, device="cuda"), torch.ones(2**12, device="cuda")
    model = nn.Sequential(nn.Identity(), wp.Dropout(0.5)).cuda()
    with wp.keyed(0, step):
        model(x)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph), wp.keyed(0, step):
        y = model(x)
    seen = {}
    for number in (3, 4):
        step.fill_(number)
        graph.replay()
        with wp.keyed(0, number):
            seen[f"replay at step {number}"] = torch.equal(y, model(x))
    return seen


def rows() -> Iterator[Row]:
    """A row a kernel, dtype and size; the numbers are what was reached by prototypes on an H200."""
    for name, dtype in DTYPES.items():
        for size in SIZES:
            for odd in (0, 1):
                x = torch.empty(size + odd, dtype=dtype, device="cuda").normal_()
                y, source = torch.empty_like(x), x.clone().requires_grad_()
                copied = _of(y.copy_, x)
                share = (0.85 if odd else 0.95 if name == "float32" else 0.9) if size >= 2**24 else None
                label = f"dropout {name}{', odd length' * odd}"
                ours, peer = _of(wp.dropout, x, 0.1, key=KEY), _of(functional.dropout, x, 0.1)
                yield Row(label, size, ours, peer, copied, share, 1.4 if size >= 2**24 else None)
                if not odd:
                    made, torchs = wp.dropout(source, 0.1, key=KEY), functional.dropout(source, 0.1)
                    back = _of(torch.autograd.grad, made, source, x, retain_graph=True)
                    peer = _of(torch.autograd.grad, torchs, source, x, retain_graph=True)
                    yield Row(f"{label}, backward", size, back, peer, copied, share, 1.05 if size >= 2**24 else None)
    for size in SIZES:
        x = torch.empty(max(1, size // 4096), 4096, device="cuda").normal_()
        yield Row("rows dropped, p = 0.5", size, _of(wp.dropout, x, 0.5, key=KEY, dims=0), None, _of(x.clone), 1.0)
    for size in SIZES:
        for name, dtype, fills, theirs, share in FILLS:
            t = torch.empty(size, dtype=dtype, device="cuda")
            ceiling = _of(torch.empty(t.nbytes // 4 or 1, device="cuda").zero_)
            known = None if theirs is None else _of(theirs, t)
            yield Row(name, size, _of(fills, t), known, ceiling, share if size == 2**28 else None)
    for count, size in ((1, 2**28), (32, 2**20)):
        yield from _proximal(count, size)


FILLS: list[tuple[str, torch.dtype, Callable[[Tensor], Any], Callable[[Tensor], Any] | None, float | None]] = [
    ("bits", torch.uint32, lambda t: wp.random.bits(t.shape, KEY, device="cuda"), None, 0.95),
    ("uniform float32", torch.float32, lambda t: wp.random.uniform_(t, KEY), lambda t: t.uniform_(), 0.88),
    ("uniform bfloat16", torch.bfloat16, lambda t: wp.random.uniform_(t, KEY), lambda t: t.uniform_(), None),
    ("normal float32", torch.float32, lambda t: wp.random.normal_(t, KEY), lambda t: t.normal_(), None),
    (
        "truncated normal float32",
        torch.float32,
        lambda t: wp.random.truncated_normal_(t, KEY),
        lambda t: nn.init.trunc_normal_(t),
        None,
    ),
    ("Bernoulli bool", torch.bool, lambda t: wp.random.bernoulli_(t, KEY, 0.3), lambda t: t.bernoulli_(0.3), None),
]


def _proximal(count: int, size: int) -> Iterator[Row]:
    from wellposed.penalties.computing.passes import ProxStep, take_steps_
    from wellposed.penalties.computing.root_step import RootStep

    weights = [torch.randn(size, device="cuda") for _ in range(count)]
    seconds, copies = ([torch.rand(size, device="cuda") for _ in range(count)] for _ in range(2))
    plain = [ProxStep(wp.L1(1e-4), w, 1e-3) for w in weights]
    rooted = [ProxStep(wp.L1(1e-4), w, RootStep(1e-3, v, 1.0, 1e-8)) for w, v in zip(weights, seconds, strict=True)]
    ceiling = _of(torch._foreach_copy_, copies, weights)
    yield Row(f"prox of L1, {count} tensors", count * size, _of(take_steps_, plain), None, ceiling, 0.95)
    yield Row(f"prox of L1 by Adam's steps, {count} tensors", count * size, _of(take_steps_, rooted), None, ceiling)


def _of(function: Callable[..., Any], *args: Any, **options: Any) -> Work:
    return lambda: function(*args, **options)


def device_ms(work: Work | None, flush: Tensor) -> float | None:
    """The median time that the device takes, its caches emptied before each run."""
    if work is None:
        return None
    for _ in range(3):
        work()
    events = []
    for _ in range(15):
        flush.zero_()
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        work()
        end.record()
        events.append((start, end))
    torch.cuda.synchronize()
    return float(statistics.median(start.elapsed_time(end) for start, end in events))


def host_us(work: Work | None) -> float | None:
    """The median time that the host takes to launch, the device's left out."""
    if work is None:
        return None
    seen = []
    for _ in range(20):
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(20):
            work()
        seen.append((time.perf_counter() - start) / 20 * 1e6)
    torch.cuda.synchronize()
    return statistics.median(seen)


def peak_mib(work: Work) -> float:
    """What is allocated at most beyond what was there."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    work()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def measured(row: Row, flush: Tensor) -> dict[str, Any]:
    """Everything that is seen of a row."""
    ours, peer, ceiling = (device_ms(work, flush) for work in (row.ours, row.peer, row.ceiling))
    assert ours is not None
    result: dict[str, Any] = {
        "name": row.name,
        "size": row.size,
        "share to reach": row.share,
        "ratio to reach": row.ratio,
    }
    result |= {"ours_ms": ours, "torch_ms": peer, "ceiling_ms": ceiling, "peak_mib": peak_mib(row.ours)}
    result |= {"share": ceiling / ours if ceiling else None, "ratio": peer / ours if peer else None}
    if row.size <= 2**12 or "tensors" in row.name:
        result |= {"host_us": host_us(row.ours), "torch_host_us": host_us(row.peer)}
    return result


def printed(row: dict[str, Any]) -> str:
    """A row of the table."""
    cells = [f"{row['name']:42s}", f"2^{(row['size']).bit_length() - 1:<3d}"]
    cells += [f"{name} {row[name]:.3f}" for name in ("ours_ms", "torch_ms", "ceiling_ms") if row.get(name) is not None]
    cells += [f"share {row['share']:.2f}"] if row.get("share") else []
    cells += [f"ratio {row['ratio']:.2f}"] if row.get("ratio") else []
    cells += [f"host {row['host_us']:.1f} us"] if row.get("host_us") else []
    return "  ".join(cells)


def main() -> None:
    """Laws, then measurements."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("gpu.json"))
    out = parser.parse_args().out
    if not torch.cuda.is_available():
        print("There is no card here: not measured.")
        return
    about = {
        "card": torch.cuda.get_device_name(),
        "date": time.strftime("%Y-%m-%d"),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    print(about)
    checks: dict[str, dict[str, bool]] = {"laws": laws(), "waits": waits(), "captured": captured()}
    for name, seen in checks.items():
        failed = [what for what, holds in seen.items() if not holds]
        print(
            f"{name}: {len(seen) - len(failed)} of {len(seen)} hold{''.join(chr(10) + '  not: ' + f for f in failed)}"
        )
    flush, table = torch.empty(FLUSH, device="cuda"), []
    for row in rows():
        table.append(measured(row, flush))
        print(printed(table[-1]), flush=True)
        out.write_text(json.dumps({"about": about, "checks": checks, "rows": table}, indent=1))


if __name__ == "__main__":
    main()
