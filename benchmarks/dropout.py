"""Dropout, forward and with its backward pass: ours, the peer's, and one multiplication.

Run with ``python -m benchmarks.dropout``: element dropout and every variant that torch, timm or torchvision has beside
the installed library's own, then what each stores for the backward pass, then a small transformer's training step.
"""

import itertools
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

import wellposed as wp
from benchmarks.peers import peer
from benchmarks.runner import SMALL, Row, arguments, measure, table

SIZES = [2**n for n in (0, 3, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26)]
PROMISED_AT, PROMISED = 2**24, 10.0
LARGE = 2**20  # elements: from here on element dropout is timed at a further p, on which the peer's time depends
STEP_PROMISED = 1.05  # a step with dropout over the same step without
KEY = wp.Key(0)
DEFAULT, USUAL = 0.5, 0.1  # the default of both libraries, which the promise is for, and what transformers use
PARTS = ("elements", "variants", "memory", "step")

Map = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Case:
    """A dropout of ours, its peer, the shape that both are given, and their probability."""

    name: str
    ours: Map
    peer: Map
    shape: Map = lambda x: x
    p: float = USUAL


def images(x: Tensor) -> Tensor:
    """A batch of up to 16 samples, each of channels of up to 64 elements."""
    samples = min(16, x.numel())
    side = 8 if x.numel() >= 64 * samples else 1
    return x.view(samples, -1, side, side)


def volumes(x: Tensor) -> Tensor:
    """A batch of up to 16 samples, each of channels of up to 512 elements."""
    samples = min(16, x.numel())
    side = 8 if x.numel() >= 512 * samples else 1
    return x.view(samples, -1, side, side, side)


def tokens(x: Tensor) -> Tensor:
    """A batch of up to 16 sequences of tokens of up to 64 elements."""
    samples = min(16, x.numel())
    return x.view(samples, -1, min(64, x.numel() // samples))


def elements(p: float) -> list[Case]:
    """Element dropout."""
    return [
        Case("dropout", lambda x: wp.dropout(x, p, key=KEY), lambda x: nn.functional.dropout(x, p), p=p),
        Case("Dropout", wp.Dropout(p), nn.Dropout(p), p=p),
    ]


def variants() -> list[Case]:
    """Every other dropout that torch, timm or torchvision has."""
    p = USUAL
    timm, ops = peer("timm.layers"), peer("torchvision.ops")
    coupled, single = wp.DropBlock2d(p, 7, couple_channels=True), wp.DropBlock2d(p, 7)
    return [
        Case("Dropout1d", wp.Dropout1d(p), nn.Dropout1d(p), lambda x: images(x).flatten(2)),
        Case("Dropout2d", wp.Dropout2d(p), nn.Dropout2d(p), images),
        Case("Dropout3d", wp.Dropout3d(p), nn.Dropout3d(p), volumes),
        Case("AlphaDropout", wp.AlphaDropout(p), nn.AlphaDropout(p)),
        Case("FeatureAlphaDropout", wp.FeatureAlphaDropout(p), nn.FeatureAlphaDropout(p), images),
        Case("DropPath, timm", wp.DropPath(p), timm.DropPath(p), images),
        Case("DropPath, torchvision", wp.DropPath(p), ops.StochasticDepth(p, "row"), images),
        Case("DropPath of the batch, torchvision", wp.DropPath(p, "batch"), ops.StochasticDepth(p, "batch"), images),
        Case("DropBlock2d of all channels, timm", coupled, timm.DropBlock2d(p, 7), images),
        Case("DropBlock2d, timm", single, timm.DropBlock2d(p, 7, couple_channels=False), images),
        Case("DropBlock2d, torchvision", single, ops.DropBlock2d(p, 7), images),
        Case("DropBlock3d, torchvision", wp.DropBlock3d(p, 3), ops.DropBlock3d(p, 3), volumes),
        Case("TokenDropout, timm", wp.TokenDropout(p, prefix=1), timm.PatchDropout(p, 1, ordered=True), tokens),
    ]


def floor(x: Tensor) -> Tensor:
    """What reads and writes the same memory."""
    return x * 1.25


def forward(drop: Map, x: Tensor) -> Tensor:
    """The output alone, for an input that needs no gradient."""
    return drop(x)


def recorded(drop: Map, x: Tensor) -> Tensor:
    """The output, recorded for a backward pass."""
    return drop(x.requires_grad_())


def forward_and_backward(drop: Map, x: Tensor) -> Tensor:
    """The output and the input's gradient."""
    y = drop(x.requires_grad_())
    (gradient,) = torch.autograd.grad(y, x, ones(y))
    return gradient


def ones(y: Tensor) -> Tensor:
    """A gradient of an output, made once a shape: what made it anew would be timed too."""
    if y.shape not in _ONES or _ONES[y.shape].dtype != y.dtype:
        _ONES.clear()
        _ONES[y.shape] = torch.ones_like(y)
    return _ONES[y.shape]


_ONES: dict[torch.Size, Tensor] = {}


def rows(cases: list[Case], largest: int, promised: float = 1.0, smallest: int = 1) -> Iterator[Row]:
    """A row a case, pass, dtype and size; ``promised`` holds at one size, and everywhere that we are not slower."""
    for case in cases:
        for work in (forward, recorded, forward_and_backward):
            for dtype in (torch.float32, torch.bfloat16):
                for size in SIZES:
                    if smallest <= size <= 2**largest:
                        x = case.shape(torch.ones(size, dtype=dtype))
                        # All read the same memory: one place can be a third faster than another.
                        timed = [partial(work, drop, x.detach()) for drop in (case.ours, case.peer, floor)]
                        fastest = size == PROMISED_AT and dtype == torch.float32
                        words = f"{case.name}, p = {case.p}, {work.__name__.replace('_', ' ')}, {_name(dtype)}"
                        spare = (2e-6 if work is forward_and_backward else 1e-6) if size < SMALL else 0.0
                        yield Row(words, size, timed[0], timed[1], timed[2], promised if fastest else 1.0, spare)


def saved(drop: Map, x: Tensor) -> float:
    """Bytes an element that one call stores for the backward pass."""
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        y = drop(x.requires_grad_())
    del y
    return sum(kept.values()) / x.numel()


def memory(cases: list[Case], size: int) -> None:
    """Print what ours and the peers store."""
    print("\n## Stored for the backward pass, bytes an element\n")
    print("| work | ours | peer |\n| --- | --: | --: |")
    for case in cases:
        for dtype in (torch.float32, torch.bfloat16):
            x = case.shape(torch.ones(size, dtype=dtype))
            ours, peers = (saved(drop, x.clone()) for drop in (case.ours, case.peer))
            print(f"| {case.name} {_name(dtype)} | {ours:.3g} | {peers:.3g} |")


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def transformer(p: float) -> nn.Module:
    """A small transformer."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(256, 4, 1024, p, activation="gelu", batch_first=True)
    return nn.Sequential(nn.Embedding(1000, 256), nn.TransformerEncoder(layer, 4), nn.Linear(256, 1000))


def training_step(model: nn.Module) -> Callable[[], None]:
    """One step of AdamW on 8 sequences of 128 words."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    words = torch.arange(8 * 128).view(8, 128) % 1000

    def step() -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(words).flatten(0, 1), words.flatten()).backward()
        optimizer.step()

    return step


def steps(budget: float) -> None:
    """Print a training step with our dropout and with torch's, each beside the same step with none."""
    models = wp.convert_dropout(transformer(USUAL)), transformer(USUAL), transformer(0.0)
    ours, peers, none = map(training_step, models)
    timings = [measure(Row("", 1, ours, peers, none), budget) for _ in range(5)]
    print(f"\n## A training step of a small transformer with dropout, p = {USUAL}, over the same without\n")
    ratio = statistics.median(timing.ours / timing.floor for timing in timings)
    print(f"ours: {ratio:.3f}, promised {STEP_PROMISED}" + ("" if ratio <= STEP_PROMISED else " (missed)"))
    print(f"torch: {statistics.median(timing.peer / timing.floor for timing in timings):.3f}")


if __name__ == "__main__":
    options = arguments(__doc__, PARTS)
    if "elements" in options.parts:
        timed = (rows(elements(DEFAULT), options.largest, PROMISED), rows(elements(USUAL), options.largest, 1.0, LARGE))
        table("Element dropout", itertools.chain(*timed), options.budget)
    if "variants" in options.parts:
        table("Variants", rows(variants(), options.largest), options.budget)
    if "memory" in options.parts:
        memory(elements(DEFAULT) + variants(), 2 ** min(options.largest, 20))
    if "step" in options.parts:
        steps(10 * options.budget)
