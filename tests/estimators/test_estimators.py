"""The estimators keep scikit-learn's contract, and the library's: what comes out is a function of what is given."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

import wellposed as wp
from wellposed.sklearn import WellposedClassifier, WellposedRegressor

KINDS: list[Any] = [WellposedClassifier, WellposedRegressor]
# Mini-batches are drawn by rows: a row of weight 2 is not two rows in one of them, and a row of weight 0 takes a place.
EXPECTED = {
    "check_sample_weight_equivalence_on_dense_data": "a row's weight multiplies its loss; batches are drawn by rows",
}


def data(kind: Any) -> tuple[Any, Any]:
    x, y = load_iris(return_X_y=True) if kind is WellposedClassifier else load_diabetes(return_X_y=True)
    return x[::2], y[::2]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
def test_the_contract_of_scikit_learn(kind: Any) -> None:
    failed = [
        (found["check_name"], found["status"])
        for found in check_estimator(
            kind((32,), max_epochs=100), expected_failed_checks=EXPECTED, on_fail=None, on_skip=None
        )
        if found["status"] not in ("passed", "skipped", "xfail")
    ]
    assert failed == []


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_it_learns_as_well_as_another_network() -> None:
    x, y = load_breast_cancer(return_X_y=True)
    ours = cross_val_score(WellposedClassifier(max_epochs=60), x, y, cv=3).mean()
    other = MLPClassifier((128, 128), early_stopping=True, random_state=0)
    theirs = cross_val_score(make_pipeline(StandardScaler(), other), x, y, cv=3).mean()
    assert ours > theirs - 0.01
    x, y = load_diabetes(return_X_y=True)
    ours = cross_val_score(WellposedRegressor(max_epochs=60), x, y, cv=3).mean()
    theirs = cross_val_score(
        make_pipeline(StandardScaler(), MLPRegressor(hidden_layer_sizes=(128, 128), max_iter=60, random_state=0)),
        x,
        y,
        cv=3,
    ).mean()
    assert ours > theirs


def test_without_hidden_layers_it_is_ridge_regression() -> None:
    """The optimum of mean squared error and a squared penalty, found by proximal steps."""
    x, y = load_diabetes(return_X_y=True)
    scaled, target = StandardScaler().fit_transform(x), (y - y.mean()) / y.std()
    strength = 0.05
    model = WellposedRegressor(
        (), penalty=wp.L2(strength), learning_rate=0.02, batch_size=442, max_epochs=3000, early_stopping=False
    ).fit(x, y)
    exact = Ridge(alpha=strength * len(y)).fit(scaled, target)
    np.testing.assert_allclose(model.coefs_[0][:, 0], exact.coef_, atol=2e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_what_comes_out_is_a_function_of_what_is_given(kind: Any) -> None:
    x, y = data(kind)
    options: dict[str, Any] = {"hidden": (16,), "dropout": 0.2, "penalty": wp.L1(1e-3), "max_epochs": 5}
    one, other, another = (kind(**options, random_state=seed).fit(x, y) for seed in (0, 0, 1))
    assert np.array_equal(one.coefs_[0], other.coefs_[0])
    assert not np.array_equal(one.coefs_[0], another.coefs_[0])
    before = torch.get_rng_state()
    kind(**options).fit(x, y)
    assert torch.equal(before, torch.get_rng_state())


def roundtrip(model: Any, tmp_path: Any) -> list[Any]:
    joblib.dump(model, tmp_path / "model.joblib")
    return [pickle.loads(pickle.dumps(model)), copy.deepcopy(model), joblib.load(tmp_path / "model.joblib")]


@pytest.mark.parametrize("kind", KINDS)
def test_copies_go_on_as_if_they_had_not_been_made(kind: Any, tmp_path: Any) -> None:
    x, y = data(kind)
    more: dict[str, Any] = {"classes": np.unique(y)} if kind is WellposedClassifier else {}
    model = kind((16,), dropout=0.2, penalty=wp.L1(1e-3))
    for _ in range(3):
        model.partial_fit(x, y, **more)
    copies = roundtrip(model, tmp_path)
    model.partial_fit(x, y)
    for twin in copies:
        twin.partial_fit(x, y)
        assert all(map(np.array_equal, model.coefs_, twin.coefs_))
        assert np.array_equal(model.predict(x), twin.predict(x))


def test_partial_fits_are_the_epochs_of_a_fit() -> None:
    x, y = data(WellposedClassifier)
    whole = WellposedClassifier((16,), dropout=0.2, max_epochs=4, early_stopping=False).fit(x, y)
    parts = WellposedClassifier((16,), dropout=0.2)
    warm = WellposedClassifier((16,), dropout=0.2, max_epochs=2, early_stopping=False, warm_start=True)
    for _ in range(4):
        parts.partial_fit(x, y, classes=np.unique(y))
    warm.fit(x, y).fit(x, y)
    assert np.array_equal(whole.coefs_[0], parts.coefs_[0])
    assert np.array_equal(whole.coefs_[0], warm.coefs_[0])
    assert whole.n_epochs_ == parts.n_epochs_ == warm.n_epochs_ == 4


def test_rows_that_count_nothing_teach_nothing() -> None:
    x, y = load_iris(return_X_y=True)
    wrong = np.where(np.arange(len(y)) % 2 == 0, (y + 1) % 3, y)
    weight = (wrong == y).astype(float)
    model, plain = (
        WellposedClassifier((64,), learning_rate=0.01, max_epochs=100).fit(x, wrong, sample_weight=given)
        for given in (weight, None)
    )
    assert (model.predict(x) == y).mean() > 0.8
    assert (plain.predict(x) == y).mean() < 0.6


def test_sparse_weights_and_features() -> None:
    x, y = load_breast_cancer(return_X_y=True)
    noise = np.random.default_rng(0).normal(size=(len(x), 20))
    model = WellposedClassifier((32,), penalty={"0.weight": wp.GroupLasso(0.05, "columns")}, max_epochs=60).fit(
        np.hstack([x, noise]), y
    )
    used = model.features_used_
    assert used[:30].any()
    assert used[30:].mean() < 0.2 < used[:30].mean()
    assert model.sparsity_[0] == pytest.approx(1 - used.mean(), abs=0.05)


def test_standard_deviations_are_those_of_thinned_networks() -> None:
    x, y = load_diabetes(return_X_y=True)
    model = WellposedRegressor((64,), dropout=0.3, max_epochs=40, samples=200).fit(x, y)
    mean, std = model.predict(x, return_std=True)
    assert np.corrcoef(mean, model.predict(x))[0, 1] > 0.99
    assert (std > 0).all()
    assert std.mean() < y.std()
    again, _ = model.predict(x[:7], return_std=True)
    np.testing.assert_allclose(again, mean[:7], rtol=1e-4)
    x, y = load_iris(return_X_y=True)
    classifier = WellposedClassifier((32,), dropout=0.3, max_epochs=40).fit(x, y)
    mean, std = classifier.predict_proba(x, return_std=True)
    np.testing.assert_allclose(mean.sum(axis=1), 1)
    assert std[50:].max() > std[:50].max()  # the two species that are hard to tell


def test_classes_of_any_type_and_frames_with_names() -> None:
    x, y = load_iris(return_X_y=True)
    names = np.array(["setosa", "versicolor", "virginica"])[y]
    frame = pd.DataFrame(x, columns=["a", "b", "c", "d"])
    model = WellposedClassifier((64,), max_epochs=100).fit(frame, names)
    assert model.feature_names_in_.tolist() == ["a", "b", "c", "d"]
    assert set(model.predict(frame)) <= set(names)
    assert model.score(frame, names) > 0.9
    assert WellposedClassifier((16,), max_epochs=5).fit(x, y > 0).predict(x).dtype == bool
    with pytest.raises(ValueError, match="feature names"):
        model.predict(frame.rename(columns={"a": "z"}))


def test_several_targets_and_a_constant_one() -> None:
    x, y = load_diabetes(return_X_y=True)
    both = np.stack([y, 2 * y + 1, np.full(len(y), 7.0)], axis=1)
    predicted = WellposedRegressor((32,), max_epochs=40).fit(x, both).predict(x)
    assert predicted.shape == both.shape
    assert np.array_equal(predicted[:, 2], both[:, 2])
    assert np.corrcoef(predicted[:, 1], y)[0, 1] > 0.7


def test_grids_over_penalties() -> None:
    x, y = data(WellposedClassifier)
    grid = {"penalty": [None, wp.L1(1e-3), wp.L1(1.0)], "scheme": ["auto", wp.init.He()]}
    search = GridSearchCV(WellposedClassifier((16,), max_epochs=20), grid, cv=2).fit(x, y)
    assert search.best_params_["penalty"] != wp.L1(1.0)
    assert clone(search.best_estimator_).get_params()["penalty"] == search.best_params_["penalty"]


WIDE: Any = "wide"
REFUSED: list[tuple[Callable[[Any, Any], Any], type[Exception], str]] = [
    (lambda x, y: WellposedClassifier(WIDE).fit(x, y), wp.WellposedError, "width of each hidden layer"),
    (lambda x, y: WellposedClassifier((0,)).fit(x, y), wp.WellposedError, "hidden"),
    (lambda x, y: WellposedClassifier(activation="rlu").fit(x, y), wp.WellposedError, "one of relu, tanh"),
    (lambda x, y: WellposedClassifier(dropout=1.0).fit(x, y), wp.WellposedError, r"\[0, 1\)"),
    (lambda x, y: WellposedClassifier(max_epochs=0).fit(x, y), wp.WellposedError, "max_epochs"),
    (lambda x, y: WellposedClassifier(validation_fraction=1).fit(x, y), wp.WellposedError, "between 0 and 1"),
    (lambda x, y: WellposedClassifier(scheme="hee").fit(x, y), wp.WellposedError, "scheme"),
    (lambda x, y: WellposedClassifier().fit(sparse.csr_matrix(x), y), TypeError, "[Ss]parse"),
    (lambda x, y: WellposedClassifier().partial_fit(x, y), wp.WellposedError, "classes="),
    (lambda x, y: WellposedClassifier().fit(x, y, sample_weight=-np.ones(len(y))), wp.WellposedError, "negative"),
    (
        lambda x, y: WellposedClassifier(max_epochs=1).fit(x, y).predict_proba(x, return_std=True),
        wp.WellposedError,
        "dropout=0",
    ),
    (
        lambda x, y: WellposedClassifier().partial_fit(x, y, classes=[0, 1, 2]).partial_fit(x, y + 1),
        wp.WellposedError,
        r"\[3\]; expected the classes \[0, 1, 2\]",
    ),
]


@pytest.mark.parametrize(("act", "error", "message"), REFUSED)
def test_what_cannot_be_is_refused(act: Callable[[Any, Any], Any], error: Any, message: str) -> None:
    x, y = load_iris(return_X_y=True)
    with pytest.raises(error, match=message):
        act(x, y)


def test_too_few_rows_to_hold_any_out_is_said() -> None:
    x, y = np.arange(8.0).reshape(4, 2), np.array([0, 0, 1, 2])
    with pytest.warns(UserWarning, match="too few to hold out"):
        model = WellposedClassifier((4,), max_epochs=3).fit(x, y)
    assert model.n_epochs_ == 3
