"""What does without a network: the commonest class or the mean, and gradient-boosted trees."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wellposed.random.key import Key
from wellposed.study.needs import need
from wellposed.study.training.dataset import Dataset
from wellposed.study.training.measures import R_SQUARED, beside, log_shares, measure_of, objective_of
from wellposed.study.training.splits import split
from wellposed.study.training.train import Figures, finite, one_thread

TREES = {"learning_rate": 0.3, "max_leaf_nodes": 8, "max_iter": 100, "early_stopping": True, "n_iter_no_change": 5}


@dataclass(frozen=True)
class BaselineRun:
    """The models without a network, on the rows of one seed.

    Attributes:
        seed: Names the split.
        rows: How many of the training rows they see; ``None`` is all.
    """

    seed: int
    rows: int | None = None


def execute_baselines(run: BaselineRun, data: Dataset) -> Figures:
    """Score the commonest class or the mean, and scikit-learn's histogram gradient boosting.

    Args:
        run: Which split, and how much of it.
        data: The dataset.

    Returns:
        For ``guess`` and for ``trees`` the score on ``train``, ``validation`` and ``test``, and what stands beside it.
    """
    parts, measure = split(data, Key(run.seed).fold("split")), measure_of(data)
    x, y = parts.some(run.rows)
    scored = parts.scored(run.rows)
    objective = objective_of(measure, y, parts.outputs)
    with one_thread():
        # Every class by its share of the training rows, or the training rows' mean, whatever the row.
        guess = y.mean()[None] if measure == R_SQUARED else log_shares(y, parts.outputs)
        predict = _trees(x, y, parts.outputs, measure, run.seed)
        models: dict[str, Callable[[Tensor], Tensor]] = {"guess": lambda x: guess.expand(len(x), -1), "trees": predict}
        figures: Figures = {}
        for name, model in models.items():
            outputs = {part: model(features) for part, (features, _) in scored.items()}
            figures[name] = {part: objective.score(outputs[part], goal) for part, (_, goal) in scored.items()}
            figures[name]["beside"] = beside(measure, outputs["test"], scored["test"][1])
    told: Figures = finite(figures)
    return told


def _trees(x: Tensor, y: Tensor, classes: int, measure: str, seed: int) -> Callable[[Tensor], Tensor]:
    """Fitted trees, as a function from features to outputs: logarithms of probabilities where there are classes."""
    ensemble, limits = need("sklearn.ensemble"), need("threadpoolctl")
    kind = ensemble.HistGradientBoostingRegressor if measure == R_SQUARED else ensemble.HistGradientBoostingClassifier
    settings: dict[str, Any] = dict(TREES)
    if measure != R_SQUARED and np.bincount(y)[np.unique(y)].min() < 2:
        settings["early_stopping"] = False  # scikit-learn cannot set aside a row of each class then
    with limits.threadpool_limits(1):
        model = kind(random_state=seed, **settings).fit(x.numpy(), y.numpy())

    def outputs(features: Tensor) -> Tensor:
        with limits.threadpool_limits(1):
            if measure == R_SQUARED:
                return torch.from_numpy(np.asarray(model.predict(features.numpy())))[:, None]
            logs = torch.full((len(features), classes), math.log(1e-12), dtype=torch.float64)
            shares = np.maximum(model.predict_proba(features.numpy()), 1e-12)
            logs[:, torch.from_numpy(np.asarray(model.classes_))] = torch.from_numpy(np.log(shares))
            return logs

    return outputs
