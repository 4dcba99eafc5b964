"""What the tests of penalties on optimizers share: a small network, and the diabetes data with its optima."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_diabetes
from sklearn.linear_model import ElasticNet as SklearnElasticNet
from sklearn.linear_model import Lasso, Ridge
from torch import Tensor, nn

from wellposed.penalties import L1, L2, ElasticNet, Penalty, regularize
from wellposed.random import Key, normal_


def filled(model: nn.Module) -> nn.Module:
    """The model with keyed weights, so that no global generator matters."""
    for name, parameter in model.named_parameters():
        normal_(parameter, Key(1).fold(name), std=0.5)
    return model


def network() -> nn.Sequential:
    model = nn.Sequential(nn.Linear(4, 5), nn.LayerNorm(5), nn.Tanh(), nn.Linear(5, 2))
    filled(model)
    return model


def linear(model: nn.Sequential, index: int) -> nn.Linear:
    layer = model[index]
    assert isinstance(layer, nn.Linear)
    return layer


def step(model: nn.Module, optimizer: torch.optim.Optimizer, scale: float = 1.0) -> None:
    optimizer.zero_grad()
    x = torch.linspace(-1, 1, 24, dtype=next(model.parameters()).dtype).view(6, 4)
    torch.autograd.backward(scale * model(x).square().mean())
    optimizer.step()


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


SCALED = load_diabetes(return_X_y=True)
X: np.ndarray = (SCALED[0] - SCALED[0].mean(0)) / SCALED[0].std(0)
Y: np.ndarray = SCALED[1] - SCALED[1].mean()
N = len(Y)

# scikit-learn's Lasso and ElasticNet minimise ||y - Xw||^2 / (2n) + alpha * (...); its Ridge has no 1 / (2n).
PEERS: dict[str, tuple[Penalty, Any]] = {
    "lasso": (L1(2.0), Lasso(alpha=2.0, tol=1e-14, max_iter=100_000)),
    "lasso-strong": (L1(20.0), Lasso(alpha=20.0, tol=1e-14, max_iter=100_000)),
    "elastic-net": (
        ElasticNet(1.5, 0.25),
        SklearnElasticNet(alpha=2.0, l1_ratio=0.75, tol=1e-14, max_iter=100_000),
    ),
    "ridge": (L2(0.05), Ridge(alpha=0.05 * 2 * N)),
}


def fit(
    penalty: Penalty,
    make: Callable[[list[nn.Parameter]], torch.optim.Optimizer],
    steps: int,
    decay: float = 1.0,
) -> Tensor:
    """The weights of a linear model trained on all the data at once, without a bias, in float64."""
    x, y = torch.from_numpy(X), torch.from_numpy(Y)
    torch.set_num_threads(1)  # the problem is too small to share
    gram, moment = x.T @ x / N, x.T @ y / N
    w = nn.Parameter(torch.zeros(10, dtype=torch.float64))
    optimizer = make([w])
    regularize(optimizer, [("w", w)], penalty, where="all")
    for _ in range(steps):
        w.grad = gram @ w.detach() - moment
        optimizer.step()
        for group in optimizer.param_groups:
            group["lr"] *= decay
    return w.detach()
