"""What does without a network: the commonest class or the mean, and gradient-boosted trees."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wellposed.random.key import Key
from wellposed.study.needs import need
from wellposed.study.training.dataset import Dataset
from wellposed.study.training.measures import R_SQUARED, beside, log_shares, measure_of, objective_of
from wellposed.study.training.splits import MOST_SCORED, Split, split
from wellposed.study.training.train import Figures, finite, one_thread

TREES = {"learning_rate": 0.3, "max_leaf_nodes": 8, "max_iter": 100, "early_stopping": True, "n_iter_no_change": 5}


@dataclass(frozen=True)
class BaselineRun:
    """The models without a network, on the rows of one seed.

    Attributes:
        seed: Names the split.
    """

    seed: int


def execute_baselines(run: BaselineRun, data: Dataset) -> Figures:
    """Score the commonest class or the mean, and scikit-learn's histogram gradient boosting.

    Args:
        run: Which split.
        data: The dataset.

    Returns:
        For ``guess`` and for ``trees`` the score on ``train``, ``validation`` and ``test``, and what stands beside it.
    """
    parts, measure = split(data, Key(run.seed).fold("split")), measure_of(data)
    objective = objective_of(measure, parts.y["train"], parts.outputs)
    with one_thread():
        outputs = {"guess": _guess(parts, measure), "trees": _trees(parts, measure, run.seed)}
        figures: Figures = {
            name: {part: objective.score(out, parts.y[part][: len(out)]) for part, out in by_part.items()}
            | {"beside": beside(measure, by_part["test"], parts.y["test"])}
            for name, by_part in outputs.items()
        }
    told: Figures = finite(figures)
    return told


def _guess(parts: Split, measure: str) -> dict[str, Tensor]:
    """Every class by its share of the training rows, or the training rows' mean, whatever the row."""
    y = parts.y["train"]
    one = torch.zeros(1) if measure == R_SQUARED else log_shares(y, parts.outputs)
    return {part: one.expand(min(len(goal), MOST_SCORED), -1) for part, goal in parts.y.items()}


def _trees(parts: Split, measure: str, seed: int) -> dict[str, Tensor]:
    ensemble, limits = need("sklearn.ensemble"), need("threadpoolctl")
    kind = ensemble.HistGradientBoostingRegressor if measure == R_SQUARED else ensemble.HistGradientBoostingClassifier
    x, y = parts.x["train"].numpy(), parts.y["train"].numpy()
    settings: dict[str, Any] = dict(TREES)
    if measure != R_SQUARED and np.bincount(y)[np.unique(y)].min() < 2:
        settings["early_stopping"] = False  # scikit-learn cannot set aside a row of each class then
    with limits.threadpool_limits(1):
        model = kind(random_state=seed, **settings).fit(x, y)
        scored = {part: features[:MOST_SCORED].numpy() for part, features in parts.x.items()}
        if measure == R_SQUARED:
            return {
                part: torch.from_numpy(np.asarray(model.predict(features)))[:, None]
                for part, features in scored.items()
            }
        outputs = {}
        for part, features in scored.items():
            logs = torch.full((len(features), parts.outputs), math.log(1e-12), dtype=torch.float64)
            shares = np.maximum(model.predict_proba(features), 1e-12)
            logs[:, torch.from_numpy(np.asarray(model.classes_))] = torch.from_numpy(np.log(shares))
            outputs[part] = logs
    return outputs
