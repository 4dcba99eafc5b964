"""Starting models and matrices: ours, torch's own initializers, and the least that memory and arithmetic allow.

Run with ``python -m benchmarks.initialization``.
"""

import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
from torch import nn

import wellposed as wp
from benchmarks.runner import Row, arguments, measure, table

STD = 0.02
LAYERS = 22  # of a Llama-shaped model with 1.1 billion parameters
KEY = wp.Key(0)


class Layer(nn.Module):
    """The parameters of one layer."""

    def __init__(self, width: int = 2048, inner: int = 5632, keys: int = 256) -> None:
        super().__init__()
        self.norm, self.second_norm = nn.RMSNorm(width), nn.RMSNorm(width)
        self.q, self.o = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)
        self.k, self.v = nn.Linear(width, keys, bias=False), nn.Linear(width, keys, bias=False)
        self.gate, self.up = nn.Linear(width, inner, bias=False), nn.Linear(width, inner, bias=False)
        self.down = nn.Linear(inner, width, bias=False)


def llama(layers: int) -> nn.Module:
    """A Llama-shaped model in bfloat16 on the meta device."""
    with torch.device("meta"):
        model = nn.ModuleDict(
            {
                "embed": nn.Embedding(32000, 2048),
                "layers": nn.ModuleList(Layer() for _ in range(layers)),
                "norm": nn.RMSNorm(2048),
                "head": nn.Linear(2048, 32000, bias=False),
            }
        )
    return model.to(torch.bfloat16)


def ours(layers: int, cut: float) -> nn.Module:
    """Plan, apply and audit."""
    model = llama(layers)
    rules = {"*": wp.init.TruncatedNormal(0.0, STD, -cut, cut), "*norm.weight": wp.init.Ones()}
    wp.init.initialize(model, rules=rules, device="cpu")
    return model


def peer(layers: int, cut: float) -> nn.Module:
    """What torch offers for it."""
    model = llama(layers).to_empty(device="cpu")
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.trunc_normal_(parameter, std=STD, a=-cut, b=cut)
        else:
            nn.init.ones_(parameter)
    return model


def floor(layers: int) -> nn.Module:
    """Memory, touched once."""
    model = llama(layers).to_empty(device="cpu")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(STD)
    return model


def models(layers: int) -> Iterator[Row]:
    """A model from the meta device to its values: cut far out, and cut at two sigma, where torch redraws."""
    size = sum(p.numel() for p in llama(layers).parameters())
    for name, cut, promised in (("cut at 100 sigma", 2.0, 4.0), ("cut at 2 sigma", 2 * STD, 30.0)):
        title = f"Llama-shaped, bfloat16, meta to truncated normal, {name}"
        yield Row(title, size, partial(ours, layers, cut), partial(peer, layers, cut), partial(floor, layers), promised)


def matrices() -> Iterator[Row]:
    """Orthogonal matrices; the floor is one matrix product of the size."""
    for n in (256, 1024, 2048):
        w, x = torch.empty(n, n), torch.ones(n, n)
        orthogonal = partial(wp.init.Orthogonal().fill_, w, KEY)
        yield Row(
            f"orthogonal {n} x {n}", n * n, orthogonal, partial(nn.init.orthogonal_, w), partial(torch.mm, x, x), 1
        )


def off_orthogonal(fill: Callable[[torch.Tensor], object], n: int = 2048) -> float:
    """||Q'Q - I||, in float64."""
    w = torch.empty(n, n)
    fill(w)
    q = w.double()
    return float((q.T @ q - torch.eye(n, dtype=torch.float64)).norm())


def planning() -> Row:
    """A plan for 400 layers; under a second is promised."""
    layers: list[nn.Module] = []
    for _ in range(400):
        layers += [nn.Linear(64, 64), nn.GELU()]
    model = nn.Sequential(*layers)
    return Row("plan of 400 layers", 400, partial(wp.plan_initialize, model))


def peak(layers: int) -> None:
    """Print how much more resident memory filling a model needs than its parameters take, in a process of its own."""
    wp.init.initialize(nn.Linear(64, 64))  # loads the kernels
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
    before = _memory("VmRSS")
    model = ours(layers, 2.0)
    taken = sum(p.numel() * p.element_size() for p in model.parameters())
    ratio = (_memory("VmHWM") - before) / taken
    print(f"peak resident memory over the parameters' own bytes ({taken / 2**30:.2f} GiB): {ratio:.3f}")


def _memory(field: str) -> int:
    """A figure of this process's memory, in bytes."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field)]
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    if sys.argv[1:2] == ["peak"]:
        peak(int(sys.argv[2]))
        sys.exit()
    options = arguments(__doc__)
    depth = LAYERS if options.largest >= 26 else 1
    table("Matrices", matrices(), options.budget)
    gram = (off_orthogonal(partial(wp.init.Orthogonal().fill_, key=KEY)), off_orthogonal(nn.init.orthogonal_))
    print(f"\n||Q'Q - I|| of 2048 x 2048: ours {gram[0]:.3g}, torch's {gram[1]:.3g}")
    print(f"planning a 400-layer model: {measure(planning(), options.budget).ours:.3f} s")
    subprocess.run([sys.executable, "-m", "benchmarks.initialization", "peak", str(depth)], check=True)
    table("Models", models(depth), options.budget)
