"""``wp.keyed`` and threads: a block is its thread's alone, and no other thread draws beside it in silence."""

import _thread
import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import wellposed as wp
from dropout_cases import gradient

X = torch.ones(64)


def keyed(model: nn.Module, step: int = 0) -> Tensor:
    with wp.keyed(0, step):
        y: Tensor = model(X)
        return y


def test_a_thread_that_was_started_in_a_block_needs_one() -> None:
    drop, state = wp.Dropout(0.5), torch.get_rng_state()
    with wp.keyed(0), ThreadPoolExecutor(1) as threads, pytest.raises(wp.WellposedError, match="in each thread"):
        threads.submit(drop, X).result()
    assert torch.equal(state, torch.get_rng_state())


def test_a_thread_needs_a_block_for_a_module_of_an_open_one() -> None:
    drop, other = wp.Dropout(0.5), wp.Dropout(0.5)
    with ThreadPoolExecutor(1) as threads:
        threads.submit(drop, X).result()
        with wp.keyed(0):
            drop(X)
            threads.submit(other, X).result()
            with pytest.raises(wp.WellposedError, match="in each thread"):
                threads.submit(drop, X).result()
        threads.submit(drop, X).result()


def test_each_thread_has_its_block_or_is_handed_one() -> None:
    drop = wp.Dropout(0.5)
    with wp.keyed(0, 9), ThreadPoolExecutor(2) as threads:
        drop(X)
        got = list(threads.map(lambda step: keyed(drop, step), range(4)))
    assert torch.equal(torch.stack(got), torch.stack([keyed(drop, step) for step in range(4)]))
    with wp.keyed(0), ThreadPoolExecutor(1) as threads:
        handed = threads.submit(contextvars.copy_context().run, drop, X).result()
        with pytest.raises(wp.WellposedError, match="by two threads"):
            drop(X)
    assert torch.equal(handed, keyed(drop))


def test_a_thread_does_not_repeat_its_masks_by_another_threads_block() -> None:
    drop, x = wp.Dropout(0.5), torch.ones(64, requires_grad=True)
    with ThreadPoolExecutor(1) as threads:
        y = threads.submit(checkpoint, lambda x: drop(x.sin().exp()) * x, x, use_reentrant=False).result()
        with wp.keyed(0):
            drop(X)
            with pytest.raises(wp.WellposedError, match="in each thread"):
                threads.submit(y.sum().backward).result()


def as_autograd_starts(work: Callable[[], Any]) -> list[Exception]:
    """Run in a thread that Python's ``threading`` does not know."""
    problems: list[Exception] = []
    done = _thread.allocate_lock()
    done.acquire()

    def run() -> None:
        try:
            work()
        except Exception as problem:
            problems.append(problem)
        finally:
            done.release()

    _thread.start_new_thread(run, ())
    done.acquire()
    return problems


def test_a_thread_of_autograds_is_in_the_one_open_block() -> None:
    drop, x = wp.Dropout(0.5), torch.ones(64, requires_grad=True)
    entered, leave = threading.Event(), threading.Event()

    def elsewhere() -> None:
        with wp.keyed(1):
            entered.set()
            leave.wait()

    with wp.keyed(0):
        y = checkpoint(lambda x: drop(x.sin().exp()) * x, x, use_reentrant=False)
        loss = y.sum()
        thread = threading.Thread(target=elsewhere)
        thread.start()
        entered.wait()
        problems = as_autograd_starts(lambda: loss.backward(retain_graph=True))
        leave.set()
        thread.join()
        assert "several threads" in str(problems[0])
        x.grad = None
        assert not as_autograd_starts(loss.backward)
    assert torch.equal(gradient(x) != 0, y != 0)
