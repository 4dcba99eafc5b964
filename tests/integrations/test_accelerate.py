"""The loop of Accelerate, against the loop by hand."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.multiprocessing.spawn import spawn

import wellposed as wp
from integration_tools import batches, by_hand, data, in_groups, network, same
from peers import peer

accelerate = peer("accelerate")

from accelerate.state import AcceleratorState, GradientState, PartialState  # noqa: E402
from accelerate.tracking import GeneralTracker  # noqa: E402

from wellposed.dropouts.naming.nesting import open_scopes  # noqa: E402
from wellposed.integrations.accelerate import AccelerateLoop  # noqa: E402

PENALTY = wp.L1(0.02)


@pytest.fixture(autouse=True)
def _one_accelerator_at_a_time() -> Iterator[None]:
    """Accelerators share their state: each test has one of its own."""
    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()
    yield
    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()


class Told(GeneralTracker):  # type: ignore[misc]
    """A tracker that remembers."""

    name, requires_logging_directory, tracker = "told", False, None

    def __init__(self) -> None:
        super().__init__()
        self.values: list[tuple[int, dict[str, float]]] = []

    def store_init_configuration(self, values: Any) -> None:
        """Nothing to store."""

    def log(self, values: Any, step: Any = None, **kwargs: Any) -> None:
        self.values.append((step, dict(values)))


class Run:
    """A training of the network, by epochs."""

    def __init__(self, accumulate: int, tracker: Any = None, **options: Any) -> None:
        for state in (AcceleratorState, GradientState, PartialState):
            state._reset_state()
        self.accelerator = accelerate.Accelerator(
            gradient_accumulation_steps=accumulate, cpu=True, log_with=tracker and [tracker]
        )
        if tracker is not None:
            self.accelerator.init_trackers("run")
        model = network()
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.05, weight_decay=0.0)
        loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*data()), batch_size=8)
        self.model, self.optimizer, self.loader = self.accelerator.prepare(model, optimizer, loader)
        given = {"scheme": "auto", "penalty": PENALTY, "seed": 5, **options}
        self.loop = AccelerateLoop(self.accelerator, self.model, self.optimizer, **given)

    def train(self, epochs: int = 1) -> "Run":
        for _ in range(epochs):
            for x, y in self.loader:
                with self.loop.accumulate():
                    self.accelerator.backward(nn.functional.cross_entropy(self.model(x), y))
                    self.optimizer.step()
                    self.optimizer.zero_grad()
        return self


@pytest.mark.parametrize("accumulate", [1, 2, 5])
def test_a_loop_is_the_loop_by_hand(accumulate: int) -> None:
    run = Run(accumulate).train(2)
    groups = 2 * in_groups(batches(), accumulate)
    handle = by_hand(other := network(), groups, penalty=PENALTY, divisor=accumulate)
    assert same(run.model, other)
    assert run.loop.step == run.loop.handles[0].step == handle.step == len(groups)
    assert run.loop.handles[0].sparsity() == handle.sparsity() > 0


def test_each_verb_can_be_left_out() -> None:
    run = Run(1, scheme=None, penalty=None).train()
    by_hand(other := network(), in_groups(batches(), 1), scheme=None)
    assert same(run.model, other)
    assert run.loop.handles == ()


@pytest.mark.parametrize("penalty", [PENALTY, wp.Towards(wp.L2(0.5))], ids=["l1", "towards"])
def test_a_run_that_is_stopped_and_resumed_ends_at_the_same_weights(tmp_path: Path, penalty: Any) -> None:
    whole = Run(5, penalty=penalty).train(4)
    Run(5, penalty=penalty).train(2).accelerator.save_state(str(tmp_path))
    resumed = Run(5, penalty=penalty)
    resumed.accelerator.load_state(str(tmp_path))
    resumed.train(2)
    assert same(whole.model, resumed.model)
    assert resumed.loop.step == resumed.loop.handles[0].step == 12
    assert resumed.loop.handles[0].value() == whole.loop.handles[0].value()


def test_trackers_are_told() -> None:
    run = Run(2, tracker := Told(), log_every=3).train(2)
    assert [step for step, _ in tracker.values] == [3, 6, 9, 12]
    last = tracker.values[-1][1]
    assert last["wellposed/sparsity"] == run.loop.handles[0].sparsity() > 0
    assert last["wellposed/penalty"] == run.loop.handles[0].value()
    assert last["wellposed/nan_steps"] == 0.0


def test_a_step_that_fails_leaves_no_block_open() -> None:
    run = Run(1)
    with pytest.raises(ZeroDivisionError), run.loop.accumulate():
        raise ZeroDivisionError
    assert open_scopes == []
    assert run.loop.step == 0


def test_each_process_has_its_rows_of_the_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    """What two processes drop of four rows each is what one drops of all eight."""
    x = torch.ones(8, 8)
    found = []
    for rank, rows in ((None, x), (0, x[:4]), (1, x[4:])):
        run = Run(1, penalty=None)
        if rank is not None:
            monkeypatch.setattr(accelerate.Accelerator, "num_processes", 2)
            monkeypatch.setattr(accelerate.Accelerator, "process_index", rank)
            with pytest.raises(wp.WellposedError, match=r"accumulate\(batch\)"), run.loop.accumulate():
                pass
        with run.loop.accumulate({"labels": None, "x": [rows]}):
            found.append(run.model(rows).detach())
    assert torch.allclose(torch.cat(found[1:]), found[0], rtol=0, atol=1e-6)
    assert not torch.allclose(found[1], found[2])


def _train_as(rank: int, port: int, folder: str) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank), "LOCAL_RANK": str(rank)}
    os.environ |= {"WORLD_SIZE": "2", "ACCELERATE_USE_CPU": "true"}
    torch.set_num_threads(1)
    run = Run(1)
    assert run.accelerator.num_processes == 2
    for batch in run.loader:
        with run.loop.accumulate(batch):
            run.accelerator.backward(nn.functional.cross_entropy(run.model(batch[0]), batch[1]))
            run.optimizer.step()
            run.optimizer.zero_grad()
    torch.save(run.accelerator.unwrap_model(run.model).state_dict(), f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch was built without distributed")
def test_two_processes_train_as_one_with_the_whole_batches(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    spawn(_train_as, (port, str(tmp_path)), nprocs=2)
    by_hand(other := network(), in_groups(batches(16), 1), penalty=PENALTY)
    for rank in range(2):
        for name, weight in torch.load(tmp_path / f"{rank}.pt").items():
            assert torch.allclose(weight, other.state_dict()[name], rtol=1e-4, atol=1e-5), (rank, name)
