"""The callback on Hugging Face's Trainer, against the loop by hand."""

import shutil
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import wellposed as wp
from integration_tools import batches, by_hand, data, in_groups, network, same
from peers import peer

transformers = peer("transformers")
peer("accelerate")

from wellposed.dropouts.naming.nesting import open_scopes, own_scope  # noqa: E402
from wellposed.integrations import transformers as of_transformers  # noqa: E402
from wellposed.integrations import verbs  # noqa: E402
from wellposed.integrations.transformers import FILE, TransformersCallback  # noqa: E402

PENALTY = wp.L1(0.02)


class Network(nn.Module):
    """The network as the Trainer wants it: a loss of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.net = network()

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Any:
        found = self.net(x)
        return found if labels is None else (nn.functional.cross_entropy(found, labels), found)


class ByHand(nn.Module):
    """The same for the loop by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.net = network()

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.net(x)
        return found


class InOrder(transformers.Trainer):  # type: ignore[misc, name-defined]
    """Without shuffling, as a subclass of a user's may be."""

    def _get_train_sampler(self, *given: Any) -> Any:
        return torch.utils.data.SequentialSampler(self.train_dataset)


def trainer(folder: Path, model: Any = None, callbacks: Any = None, **options: Any) -> Any:
    x, y = data()
    rows = [{"x": a, "labels": b} for a, b in zip(x, y, strict=True)]
    arguments = {
        "per_device_train_batch_size": 8,
        "num_train_epochs": 2,
        "learning_rate": 0.05,
        "lr_scheduler_type": "constant",
        "optim": "adamw_torch",
        "max_grad_norm": 0.0,
        "logging_steps": 4,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
        "seed": 1,
    }
    settings = transformers.TrainingArguments(str(folder), **{**arguments, **options})
    return InOrder(model or Network(), settings, train_dataset=rows, callbacks=callbacks)


def callback(**options: Any) -> Any:
    return TransformersCallback(**{"scheme": "auto", "penalty": PENALTY, "seed": 5, **options})


@pytest.mark.parametrize("accumulate", [1, 2, 4])
def test_training_is_the_loop_by_hand(tmp_path: Path, accumulate: int) -> None:
    run = trainer(tmp_path, gradient_accumulation_steps=accumulate)
    ours = callback().attach(run)
    run.train()
    groups = 2 * in_groups(batches(), accumulate)
    handle = by_hand(other := ByHand(), groups, penalty=PENALTY, divisor=accumulate)
    assert same(run.model, other)
    assert ours.handles[0].step == handle.step
    assert ours.handles[0].sparsity() == handle.sparsity() > 0


def test_each_verb_can_be_left_out(tmp_path: Path) -> None:
    run = trainer(tmp_path)
    assert callback(scheme=None, penalty=None).attach(run).handles == ()
    run.train()
    by_hand(other := ByHand(), 2 * in_groups(batches(), 1), scheme=None)
    assert same(run.model, other)
    assert all("wellposed/penalty" not in row for row in run.state.log_history)


@pytest.mark.parametrize("penalty", [PENALTY, wp.Towards(wp.L2(0.5))], ids=["l1", "towards"])
@pytest.mark.parametrize("resume", [True, "path"])
def test_a_run_that_is_stopped_and_resumed_ends_at_the_same_weights(
    tmp_path: Path, penalty: Any, resume: bool | str
) -> None:
    options = {"gradient_accumulation_steps": 4, "save_strategy": "steps", "save_steps": 2, "max_steps": 6}
    whole = trainer(tmp_path / "whole", **options)
    one = callback(penalty=penalty).attach(whole)
    whole.train()
    shutil.copytree(tmp_path / "whole" / "checkpoint-2", tmp_path / "stopped" / "checkpoint-2")
    resumed = trainer(tmp_path / "stopped", **options)
    other = callback(penalty=penalty).attach(resumed)
    resumed.train(resume_from_checkpoint=resume if resume is True else str(tmp_path / "stopped" / "checkpoint-2"))
    assert same(whole.model, resumed.model)
    assert other.handles[0].step == one.handles[0].step == 6
    assert other.handles[0].value() == one.handles[0].value()


def test_a_checkpoint_without_the_callback_serves_where_nothing_is_missing(tmp_path: Path) -> None:
    options = {"save_strategy": "steps", "save_steps": 6, "max_steps": 6}
    trainer(tmp_path, **options).train()
    run = trainer(tmp_path, **{**options, "max_steps": 8})
    ours = callback().attach(run)
    run.train(resume_from_checkpoint=True)
    assert ours.handles[0].step == 8
    assert not (tmp_path / "checkpoint-6" / FILE).exists()
    run = trainer(tmp_path, **{**options, "max_steps": 9})
    callback(penalty=wp.Towards(wp.L2(0.5))).attach(run)
    with pytest.raises(wp.WellposedError, match=r"penalty\.safetensors is not there"):
        run.train(resume_from_checkpoint=str(tmp_path / "checkpoint-6"))


def test_what_is_logged_is_told_to_the_history_and_to_those_who_report(tmp_path: Path) -> None:
    class Reporter(transformers.TrainerCallback):  # type: ignore[misc, name-defined]
        told: list[dict[str, float]] = []  # noqa: RUF012

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            self.told.append(dict(logs))

    run = trainer(tmp_path, callbacks=[Reporter()])
    ours = callback().attach(run)
    run.train()
    losses = [row for row in run.state.log_history if "loss" in row]
    assert [row["step"] for row in losses] == [4, 8, 12, 16, 20, 24]
    for row, told in zip(losses, Reporter.told, strict=False):
        assert row["wellposed/sparsity"] == told["wellposed/sparsity"]
        assert row["wellposed/nan_steps"] == told["wellposed/nan_steps"] == 0.0
    assert losses[-1]["wellposed/sparsity"] == ours.handles[0].sparsity() > 0
    assert losses[-1]["wellposed/penalty"] == ours.handles[0].value()


def test_a_callback_starts_a_model_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[nn.Module] = []
    monkeypatch.setattr(verbs, "initialize", lambda model, *args, **options: started.append(model))
    run = trainer(tmp_path, max_steps=3)
    ours = callback().attach(run)
    run.train()
    first = ours.handles
    run.train()
    assert started == [run.model]
    assert ours.handles is not first


def test_it_says_how_it_is_put_on(tmp_path: Path) -> None:
    with pytest.raises(wp.WellposedError, match=r"attach\(trainer\)"):
        trainer(tmp_path, callbacks=[callback()]).train()
    ours = callback().attach(trainer(tmp_path))
    with pytest.raises(wp.WellposedError, match="on one already"):
        ours.attach(trainer(tmp_path))


@pytest.mark.parametrize(("config", "row"), [(None, 24), (types.SimpleNamespace(non_data_parallel_size=2), 8)])
def test_each_process_has_its_rows_of_the_masks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: Any, row: int
) -> None:
    """The processes of a tensor parallel group, of two here, have the same."""
    rows = set()
    run = trainer(tmp_path)
    step = run.training_step

    def seen(*args: Any, **kwargs: Any) -> Any:
        scope = own_scope()
        rows.add(None if scope is None else scope.row)
        return step(*args, **kwargs)

    run.training_step = seen
    callback().attach(run)
    world = types.SimpleNamespace(parallelism_config=config, process_index=3)
    monkeypatch.setattr(of_transformers, "data_rank", lambda accelerator: verbs.data_rank(world))
    run.train()
    assert rows == {row}


def test_a_step_that_fails_leaves_no_block_open(tmp_path: Path) -> None:
    run = trainer(tmp_path)
    callback().attach(run)
    run.model.net[3].register_forward_pre_hook(lambda *given: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run.train()
    assert open_scopes == []


def test_gradient_checkpointing_repeats_the_masks(tmp_path: Path) -> None:
    class Checkpointed(Network):
        def forward(self, x: Tensor, labels: Any = None) -> Any:
            found = torch.utils.checkpoint.checkpoint(self.net, x, use_reentrant=False)
            return nn.functional.cross_entropy(found, labels), found

    run, other = trainer(tmp_path / "a", Checkpointed()), trainer(tmp_path / "b")
    callback().attach(run)
    callback().attach(other)
    run.train()
    other.train()
    assert same(run.model, other.model)
