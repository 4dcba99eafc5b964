"""The callback in Lightning's Trainer, against the loop by hand."""

import copy
import pickle
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import wellposed as wp
from integration_tools import batches, by_hand, data, in_groups, network, same
from peers import peer

lightning = peer("lightning")

from lightning.pytorch.loggers import CSVLogger  # noqa: E402

from wellposed.dropouts.naming.nesting import open_scopes, own_scope  # noqa: E402
from wellposed.integrations.lightning import LightningCallback  # noqa: E402

PENALTY = wp.L1(0.02)
QUIET = {"accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False, "logger": False}


@pytest.fixture(autouse=True)
def _lightnings_own_warnings() -> Any:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        warnings.filterwarnings("ignore", message=".*(num_workers|does not have many workers|isinstance.treespec)")
        yield


class Network(lightning.LightningModule):  # type: ignore[misc, name-defined]
    """The network; nothing of wellposed's is in it but a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.net = network()

    def training_step(self, batch: Any, index: int) -> Any:
        return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW(self.parameters(), lr=0.05, weight_decay=0.0)


def loader() -> Any:
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*data()), batch_size=8)


def fit(callback: Any, model: Any, ckpt_path: Any = None, **options: Any) -> Any:
    trainer = lightning.Trainer(callbacks=[callback], **{**QUIET, "enable_checkpointing": False, **options})
    trainer.fit(model, loader(), ckpt_path=ckpt_path, weights_only=True)
    return trainer


def callback(**options: Any) -> Any:
    return LightningCallback(**{"scheme": "auto", "penalty": PENALTY, "seed": 5, **options})


@pytest.mark.parametrize("accumulate", [1, 2, 5])
def test_a_fit_is_the_loop_by_hand(accumulate: int) -> None:
    model, ours, other = Network(), callback(), Network()
    fit(ours, model, max_epochs=2, accumulate_grad_batches=accumulate)
    # The module starts as a whole, and its net is what is called in a step.
    wp.initialize(other, seed=5)
    handle = by_hand(other.net, 2 * in_groups(batches(), accumulate), penalty=PENALTY, scheme=None, divisor=accumulate)
    assert same(model, other)
    assert ours.handles[0].step == handle.step
    assert ours.handles[0].sparsity() == handle.sparsity() > 0


def test_each_verb_can_be_left_out() -> None:
    model, other = Network(), Network()
    ours = callback(scheme=None, penalty=None)
    fit(ours, model, max_epochs=1)
    by_hand(other.net, in_groups(batches(), 1), scheme=None)
    assert same(model, other)
    assert ours.handles == ()
    with torch.random.fork_rng():
        torch.manual_seed(1)
        fit(callback(keyed=False), one := Network(), max_epochs=1)
    with torch.random.fork_rng():
        torch.manual_seed(2)
        fit(callback(keyed=False), two := Network(), max_epochs=1)
    assert not same(one, two)


@pytest.mark.parametrize("penalty", [PENALTY, wp.Towards(wp.L2(0.5))])
def test_a_run_that_is_stopped_and_resumed_ends_at_the_same_weights(tmp_path: Path, penalty: Any) -> None:
    whole = callback(penalty=penalty)
    fit(whole, model := Network(), max_epochs=4, accumulate_grad_batches=5)
    half = fit(callback(penalty=penalty), Network(), max_epochs=2, accumulate_grad_batches=5)
    half.save_checkpoint(tmp_path / "half.ckpt")
    resumed = callback(penalty=penalty)
    fit(resumed, other := Network(), tmp_path / "half.ckpt", max_epochs=4, accumulate_grad_batches=5)
    assert same(model, other)
    assert resumed.handles[0].step == whole.handles[0].step == 12
    assert resumed.handles[0].value() == whole.handles[0].value()


def test_what_is_logged_is_what_the_handles_say(tmp_path: Path) -> None:
    ours = callback()
    trainer = fit(ours, Network(), max_epochs=2, logger=CSVLogger(tmp_path), log_every_n_steps=4)
    rows = [line.split(",") for line in Path(trainer.logger.log_dir, "metrics.csv").read_text().split()]
    told = [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]
    assert [int(row["step"]) for row in told] == [3, 7, 11, 15, 19, 23]
    assert float(told[-1]["wellposed/sparsity"]) == pytest.approx(ours.handles[0].sparsity())
    assert float(told[-1]["wellposed/penalty"]) == pytest.approx(ours.handles[0].value(), rel=1e-5)
    assert {float(row["wellposed/nan_steps"]) for row in told} == {0.0}
    assert trainer.callback_metrics["wellposed/sparsity"] > 0


class Pair(Network):
    """Two optimizers, stepped by hand."""

    automatic_optimization = False

    def training_step(self, batch: Any, index: int) -> None:
        loss = super().training_step(batch, index)
        self.manual_backward(loss)
        for optimizer in self.optimizers():
            optimizer.step()
            optimizer.zero_grad()

    def configure_optimizers(self) -> Any:
        return [torch.optim.SGD(self.net[:3].parameters(), 0.1), torch.optim.Adam(self.net[3:].parameters(), 0.01)]


def test_each_optimizer_gets_the_penalty_for_what_it_holds() -> None:
    ours = callback()
    fit(ours, Pair(), max_epochs=1)
    held = [[row.name for row in handle.plan if row.penalty is not None] for handle in ours.handles]
    assert held == [["net.0.weight"], ["net.3.weight", "net.5.weight"]]
    assert [handle.step for handle in ours.handles] == [12, 12]


def test_each_process_has_its_rows_of_the_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    class Rows(Network):
        seen: set[Any] = set()  # noqa: RUF012

        def training_step(self, batch: Any, index: int) -> Any:
            scope = own_scope()
            self.seen.add(None if scope is None else scope.row)
            return super().training_step(batch, index)

    replicas = {"num_replicas": 4, "rank": 3}
    single = lightning.pytorch.strategies.SingleDeviceStrategy
    monkeypatch.setattr(single, "distributed_sampler_kwargs", replicas, raising=False)
    fit(callback(), Rows(), max_epochs=1)
    assert Rows.seen == {24}


def test_a_scheme_that_needs_an_example_is_given_it() -> None:
    model, other = Network(), Network()
    model.forward = model.net.forward
    other.forward = other.net.forward
    fit(callback(scheme="lsuv", example=data()[0]), model, max_epochs=0)
    wp.initialize(other, "lsuv", seed=5, example=data()[0])
    assert same(model, other)


def test_a_step_that_fails_leaves_no_block_open() -> None:
    class Failing(Network):
        def training_step(self, batch: Any, index: int) -> Any:
            if index == 3:
                raise RuntimeError("out of memory")
            return super().training_step(batch, index)

    with pytest.raises(RuntimeError, match="out of memory"):
        fit(callback(), Failing(), max_epochs=1)
    assert open_scopes == []


def test_a_callback_starts_a_model_once_and_each_model() -> None:
    ours, model = callback(), Network()
    fit(ours, model, max_epochs=1)
    trained = copy.deepcopy(model)
    fit(ours, model, max_epochs=0)
    assert same(model, trained)
    fit(ours, other := Network(), max_epochs=0)
    fresh = Network()
    wp.initialize(fresh, seed=5)
    assert same(other, fresh)


def test_a_callback_is_copied_and_pickled() -> None:
    ours = callback()
    fit(ours, Network(), max_epochs=0)
    again = pickle.loads(pickle.dumps(callback()))
    assert (again.penalty, again.scheme, again.seed) == (ours.penalty, ours.scheme, ours.seed)
