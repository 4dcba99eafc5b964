"""The callback in skorch's nets, against the loop by hand."""

import copy
import pickle
import warnings
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from torch import nn

import wellposed as wp
from integration_tools import batches, by_hand, data, in_groups, network, same
from peers import peer

skorch = peer("skorch")

from wellposed.dropouts.naming.nesting import open_scopes  # noqa: E402
from wellposed.integrations.skorch import SkorchCallback  # noqa: E402
from wellposed.integrations.verbs import Verbs  # noqa: E402

PENALTY = wp.L1(0.02)
X, Y = (tensor.numpy() for tensor in data())


def callback(**options: Any) -> Any:
    return SkorchCallback(**{"scheme": "auto", "penalty": PENALTY, "seed": 5, **options})


def net(given: Any = None, **options: Any) -> Any:
    arguments = {
        "criterion": nn.CrossEntropyLoss,
        "optimizer": torch.optim.AdamW,
        "optimizer__weight_decay": 0.0,
        "lr": 0.05,
        "batch_size": 8,
        "max_epochs": 2,
        "train_split": None,
        "verbose": 0,
        "callbacks": [("wellposed", given or callback())],
    }
    return skorch.NeuralNetClassifier(network, **{**arguments, **options})


def of(found: Any) -> Any:
    return dict(found.callbacks_)["wellposed"]


def test_a_fit_is_the_loop_by_hand() -> None:
    found = net().fit(X, Y)
    handle = by_hand(other := network(), 2 * in_groups(batches(), 1), penalty=PENALTY)
    assert same(found.module_, other)
    assert of(found).handles_[0].step == of(found).step_ == handle.step
    assert of(found).handles_[0].sparsity() == handle.sparsity() > 0


def test_validation_draws_no_masks_and_a_second_fit_is_the_first() -> None:
    found = net(train_split=skorch.dataset.ValidSplit(4)).fit(X, Y)
    first = copy.deepcopy(found.module_)
    assert same(found.fit(X, Y).module_, first)
    assert found.predict(X).tolist() == found.predict(X).tolist()


def test_each_verb_can_be_left_out() -> None:
    found = net(callback(scheme=None, penalty=None)).fit(X, Y)
    by_hand(other := network(), 2 * in_groups(batches(), 1), scheme=None)
    assert same(found.module_, other)
    assert of(found).handles_ == ()


@pytest.mark.parametrize("penalty", [PENALTY, wp.Towards(wp.L2(0.5))], ids=["l1", "towards"])
@pytest.mark.parametrize("between", ["nothing", "a pickle", "a copy"])
def test_partial_fit_goes_on(penalty: Any, between: str) -> None:
    whole = net(callback(penalty=penalty), max_epochs=4).fit(X, Y)
    half = net(callback(penalty=penalty)).fit(X, Y)
    if between == "a pickle":
        half = pickle.loads(pickle.dumps(half))
    if between == "a copy":
        half = copy.deepcopy(half)
    half.partial_fit(X, Y)
    assert same(whole.module_, half.module_)
    assert of(half).handles_[0].step == of(half).step_ == 48
    assert of(half).handles_[0].value() == of(whole).handles_[0].value()
    assert len(half.optimizer_._optimizer_step_post_hooks) == 1  # one penalty, and not another


def test_what_was_saved_by_files_goes_on(tmp_path: Path) -> None:
    names = {f"f_{part}": str(tmp_path / part) for part in ("params", "optimizer", "history")}
    whole = net(max_epochs=4).fit(X, Y)
    net().fit(X, Y).save_params(**names)
    other = net().initialize()
    other.load_params(**names)
    other.partial_fit(X, Y)
    assert same(whole.module_, other.module_)
    assert of(other).handles_[0].step == 48


def test_a_module_that_is_made_anew_is_started_anew() -> None:
    found = net().fit(X, Y)
    found.set_params(module__hidden=12)
    found.partial_fit(X, Y, epochs=0)
    fresh = network(12)
    wp.initialize(fresh, seed=5)
    assert same(found.module_, fresh)
    assert of(found).handles_[0].parameters[0] is found.module_[0].weight


def test_clones_have_the_parameters_and_nothing_else() -> None:
    found = net().fit(X, Y)
    other = clone(found)
    assert clone(callback()).get_params() == callback().get_params()
    assert set(callback().get_params()) == {field.name for field in fields(Verbs)}
    assert same(other.fit(X, Y).module_, found.module_)


def test_a_grid_over_penalties(tmp_path: Path) -> None:
    grid = {"callbacks__wellposed__penalty": [wp.L1(1e-3), wp.L1(10.0), wp.GroupLasso(1e-3)]}
    search = GridSearchCV(net(), grid, cv=2).fit(X, Y)
    assert search.best_params_["callbacks__wellposed__penalty"] in (wp.L1(1e-3), wp.GroupLasso(1e-3))
    assert of(search.best_estimator_).penalty == search.best_params_["callbacks__wellposed__penalty"]
    assert np.ptp(search.cv_results_["mean_test_score"]) > 0.1


def test_the_history_has_what_the_handles_say() -> None:
    found = net().fit(X, Y)
    assert found.history[-1]["wellposed/sparsity"] == of(found).handles_[0].sparsity() > 0
    assert found.history[-1]["wellposed/penalty"] == of(found).handles_[0].value()
    assert found.history[:, "wellposed/nan_steps"] == [0.0, 0.0]


def test_a_step_that_fails_leaves_no_block_open() -> None:
    found = net().initialize()
    found.module_[3].register_forward_pre_hook(lambda *given: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        found.partial_fit(X, Y)
    assert open_scopes == []


def test_a_net_that_is_pickled_in_training_goes_on(tmp_path: Path) -> None:
    """As skorch's own checkpoints are: the hooks that name masks then do nothing in the copy."""
    half = net(callbacks=[("wellposed", callback()), ("keep", Keep())]).fit(X, Y)
    kept = pickle.loads(dict(half.callbacks_)["keep"].kept_[0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kept.partial_fit(X, Y, epochs=1)
    assert same(kept.module_, half.module_)


class Keep(skorch.callbacks.Callback):  # type: ignore[misc, name-defined]
    """Pickles the net after each epoch."""

    def initialize(self) -> Any:
        self.kept_: list[bytes] = []
        return self

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        self.kept_.append(pickle.dumps(net))
