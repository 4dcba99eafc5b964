"""Penalties over lists of parameters: ours, the usual way in torch, and what merely moves the same memory.

Run with ``python -m benchmarks.penalties``. The promises are on ours / floor: at most 1.5 for the L1 penalty and its
gradient, 1.3 for the proximal step after SGD and 1.5 after Adam. The steps are timed with the hooks that bring them to
the optimizer.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import wellposed as wp
from benchmarks.runner import Row as Timed
from benchmarks.runner import arguments, measure
from wellposed.penalties.computing.passes import Push, add_gradients_

L1 = wp.L1(1e-4)


def even(count: int = 32, size: int = 1_000_000) -> list[tuple[int, ...]]:
    """32 M parameters in 32 tensors."""
    return [(size,)] * count


def gpt2() -> list[tuple[int, ...]]:
    """The 124 M weights and biases of the small GPT-2."""
    block: list[tuple[int, ...]] = [(768,), (768,), (2304, 768), (2304,), (768, 768), (768,), (768,), (768,)]
    block += [(3072, 768), (3072,), (768, 3072), (768,)]
    return [(50257, 768), (1024, 768), *block * 12, (768,), (768,)]


LISTS = {"32 M in 32": even(), "GPT-2 124 M": gpt2()}


@dataclass(frozen=True)
class Case:
    """One line: what is done, to which floor it is held, and the bytes that a parameter moves at the least.

    Args:
        name: What is done.
        ours: Our way.
        peer: The usual way in torch.
        floor: What merely moves the same memory.
        bytes: Read and written for each float32 parameter.
        at_most: The promised ours / floor.
        peer_at_least: The promised peer / ours, 0 for none.
    """

    name: str
    ours: Callable[[], object]
    peer: Callable[[], object]
    floor: Callable[[], object]
    bytes: int
    at_most: float
    peer_at_least: float = 0.0


def cases(shapes: list[tuple[int, ...]]) -> Iterator[Case]:
    """The table, over one list of parameters."""
    key = wp.Key(0)
    weights: list[Tensor] = [
        torch.nn.Parameter(wp.random.normal(s, key.fold("w", i), std=0.02)) for i, s in enumerate(shapes)
    ]
    gradients = [wp.random.normal(s, key.fold("g", i), std=0.02) for i, s in enumerate(shapes)]
    for w, g in zip(weights, gradients, strict=True):
        w.grad = g

    sgd, adam = torch.optim.SGD(weights, lr=1e-2), torch.optim.Adam(weights, lr=1e-3)
    adam.step()
    seconds = [adam.state[w]["exp_avg_sq"] for w in weights]

    def ours_gradient() -> float:
        added = add_gradients_([Push(L1, w, g, 1.0) for w, g in zip(weights, gradients, strict=True)])
        return float(sum(one.value or 0.0 for one in added))

    def autograd() -> None:
        total = sum((L1.lam * w.abs().sum() for w in weights), start=torch.zeros(()))
        torch.autograd.backward(total)

    def soft_threshold() -> None:
        for w in weights:
            w.copy_(torch.nn.functional.softshrink(w, 1e-6))

    def soft_threshold_adam() -> None:
        for w, v in zip(weights, seconds, strict=True):
            t = 1e-6 / (v.sqrt() + 1e-8)
            w.copy_(w.sign() * (w.abs() - t).clamp(min=0))

    def add() -> None:
        torch._foreach_add_(gradients, weights)

    def multiply() -> None:
        torch._foreach_mul_(weights, 1.0)

    def add_seconds() -> None:
        torch._foreach_add_(weights, seconds, alpha=1e-9)

    plain = torch.no_grad()
    yield Case("L1 and its gradient", ours_gradient, autograd, plain(add), 12, at_most=1.5, peer_at_least=4)
    work = added_to_a_step(sgd, weights, "proximal")
    yield Case("proximal L1 after SGD", work, plain(soft_threshold), plain(multiply), 8, at_most=1.3)
    work = added_to_a_step(adam, weights, "proximal")
    yield Case("proximal L1 after Adam", work, plain(soft_threshold_adam), plain(add_seconds), 12, at_most=1.5)


def added_to_a_step(optimizer: torch.optim.Optimizer, weights: list[Tensor], mode: Any) -> Callable[[], None]:
    """All that ``wp.regularize`` adds to a step of the optimizer."""
    wp.regularize(optimizer, [(str(i), w) for i, w in enumerate(weights)], L1, where="all", mode=mode)
    hooks = [*optimizer._optimizer_step_pre_hooks.values(), *optimizer._optimizer_step_post_hooks.values()]

    def work() -> None:
        for hook in hooks:
            hook(optimizer, (optimizer,), {})

    return work


def numbers(shapes: list[tuple[int, ...]]) -> int:
    """How many parameters a list has."""
    return sum(Tensor.numel(torch.empty(s, device="meta")) for s in shapes)


def main() -> None:
    """Print a table for each list."""
    options = arguments(__doc__)
    for title, shapes in LISTS.items():
        count = numbers(shapes)
        print(f"\n## Penalties, {title} ({options.threads} threads, torch {torch.__version__})\n")
        print("| work | bytes a parameter | GB/s | ours / floor | promised | peer / ours | promised |")
        print("| --- | --: | --: | --: | --: | --: | --: |")
        for case in cases(shapes):
            timed = Timed(case.name, count, case.ours, case.peer, case.floor)
            timing = measure(timed, 5 * options.budget)
            cost, speed = timing.ours / timing.floor, case.bytes * count / timing.ours / 1e9
            promise = f"{case.peer_at_least:g}" if case.peer_at_least else ""
            missed = " (missed)" if cost > case.at_most or timing.gain < case.peer_at_least else ""
            print(
                f"| {case.name} | {case.bytes} | {speed:.1f} | {cost:.2f} | {case.at_most:g}{missed} "
                f"| {timing.gain:.1f} | {promise} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
