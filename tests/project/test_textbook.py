"""The chapter's names do what the chapter says, and its backpropagation is autograd's."""

import math
import re
import shutil
import subprocess
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from sklearn.datasets import load_diabetes, load_digits
from torch import Tensor

import wellposed as wp
from wellposed.random import Key, bernoulli, normal, uniform
from wellposed.textbook import (
    ACTIVATIONS,
    DenseInitializer,
    DenseLayer,
    GlorotInitializer,
    HeInitializer,
    L1Regularizer,
    L2Regularizer,
    Network,
    RandomInitializer,
    Regularizer,
    diabetes,
    digits,
    draw_network,
    dropout,
    tikz_network,
)

BOUNDS: list[tuple[DenseInitializer, Callable[[int], float]]] = [
    (RandomInitializer, lambda n: 0.1),
    (GlorotInitializer, lambda n: math.sqrt(1 / n)),
    (HeInitializer, lambda n: math.sqrt(2 / n)),
]


@pytest.mark.parametrize(("initializer", "bound"), BOUNDS)
@pytest.mark.parametrize("n", [1, 50, 300])
def test_initializers_are_uniform_within_the_chapters_bound(
    initializer: DenseInitializer, bound: Callable[[int], float], n: int
) -> None:
    w = initializer(n, 200_000 // n, key=Key(5), dtype=torch.float64)
    assert w.shape == (n, 200_000 // n)
    assert w.abs().max() <= bound(n)
    assert w.abs().max() > 0.999 * bound(n)
    # Four standard errors of a uniform's mean and mean square.
    assert abs(float(w.mean())) < 4 * bound(n) / math.sqrt(3 * w.numel())
    assert float(w.square().mean()) == pytest.approx(bound(n) ** 2 / 3, rel=4 * math.sqrt(0.8 / w.numel()))
    assert not w.equal(initializer(n, 200_000 // n, key=Key(6), dtype=torch.float64))


# What the chapter computes from numbers u, uniform on [0, 1), with n inputs.
CHAPTER: list[tuple[DenseInitializer, Callable[[Tensor, int], Tensor]]] = [
    (RandomInitializer, lambda u, n: (u * 2 - 1) / 10),
    (GlorotInitializer, lambda u, n: u * torch.sqrt(torch.Tensor([1 / n])) * 2 - torch.sqrt(torch.Tensor([1 / n]))),
    (HeInitializer, lambda u, n: u * torch.sqrt(torch.Tensor([2 / n])) * 2 - torch.sqrt(torch.Tensor([2 / n]))),
]


@pytest.mark.parametrize(("initializer", "formula"), CHAPTER)
@pytest.mark.parametrize(("n", "units"), [(1, 1), (3, 5), (7, 300), (784, 100)])
@pytest.mark.parametrize("default", [torch.float32, torch.float64])
def test_without_a_key_the_numbers_are_the_chapters(
    initializer: DenseInitializer, formula: Callable[[Tensor, int], Tensor], n: int, units: int, default: torch.dtype
) -> None:
    state, before = torch.get_rng_state(), torch.get_default_dtype()
    try:
        torch.set_default_dtype(default)
        torch.manual_seed(4)
        wanted = [formula(torch.rand((n, units)), n) for _ in range(2)]
        torch.manual_seed(4)
        found = [initializer(n, units) for _ in range(2)]
    finally:
        torch.set_default_dtype(before)
        torch.set_rng_state(state)
    assert all(map(torch.equal, found, wanted))
    assert not found[0].equal(found[1])


@pytest.mark.parametrize(("initializer", "bound"), BOUNDS)
def test_with_a_key_the_numbers_are_the_streams(initializer: DenseInitializer, bound: Callable[[int], float]) -> None:
    state = torch.get_rng_state()
    for n in (1, 3, 50):
        assert initializer(n, 7, key=Key(5)).equal(uniform((n, 7), Key(5), -bound(n), bound(n)))
        assert initializer(n, 7, key=Key(5), dtype=torch.bfloat16).dtype == torch.bfloat16
    assert torch.get_rng_state().equal(state)


def test_regularizers_return_the_chapters_pairs() -> None:
    w = torch.tensor([[-2.0, 0.0], [3.0, -0.5]])
    value, gradient = L1Regularizer(w)
    assert float(value) == 5.5
    assert gradient.tolist() == [[-1.0, 1.0], [1.0, -1.0]]
    value, gradient = L2Regularizer(w)
    assert float(value) == 13.25
    assert gradient.tolist() == [[-4.0, 0.0], [6.0, -1.0]]


def test_dropout_drops_where_the_stream_says_and_keeps_the_mean() -> None:
    a = torch.ones(100_000, dtype=torch.float64)
    kept = dropout(a, 0.3, Key(2))
    assert set(kept.tolist()) == {0.0, 1 / 0.7}
    assert torch.equal(kept == 0, bernoulli(a.shape, Key(2), 0.3))
    assert float(kept.mean()) == pytest.approx(1, abs=4 * math.sqrt(0.3 / 0.7 / 100_000))
    assert dropout(a, 0.0, Key(2)).equal(a)
    assert (dropout(a, 1.0, Key(2)) == 0).all()
    assert not dropout(a, 0.3, Key(2), call=1).equal(kept)


def by_autograd(network: Network, x: Tensor, y: Tensor, f: Callable[[Tensor], Tensor], lam: float, p: float) -> Tensor:
    """The cost in PyTorch's own functions, with the same masks."""
    power: dict[Regularizer, int] = {L1Regularizer: 1, L2Regularizer: 2}
    cost = torch.zeros((), dtype=x.dtype)
    for i, layer in enumerate(network.layers):
        x = F.linear(x, layer.w.T, layer.b)
        if i < len(network.layers) - 1:
            x = f(x)
            kept = ~bernoulli(tuple(x.shape), network.key.fold("dropout", i), p, call=network.step)
            x = x * kept / (1 - p)
        if network.regularizer is not None:
            cost = (
                cost + lam * torch.linalg.vector_norm(layer.w, power[network.regularizer]) ** power[network.regularizer]
            )
    return cost + (F.mse_loss(x, y) if y.is_floating_point() else F.cross_entropy(x, y))


FUNCTIONS = {"identity": lambda z: z, "relu": F.relu, "sigmoid": torch.sigmoid, "tanh": torch.tanh}


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("loss", ["squared error", "cross entropy"])
@pytest.mark.parametrize("regularizer", [None, L1Regularizer, L2Regularizer])
@pytest.mark.parametrize("p", [0.0, 0.4])
@pytest.mark.parametrize("initializer", [RandomInitializer, GlorotInitializer, HeInitializer])
def test_gradients_by_hand_are_autograds(
    activation: str, loss: str, regularizer: Regularizer | None, p: float, initializer: DenseInitializer
) -> None:
    network = Network(
        [4, 7, 6, 3],
        activation=activation,
        initializer=initializer,
        regularizer=regularizer,
        lam=0.03,
        p=p,
        loss=loss,
        key=Key(9),
        dtype=torch.float64,
    )
    network.step = 5
    x = normal((8, 4), Key(10), dtype=torch.float64)
    y = normal((8, 3), Key(11), dtype=torch.float64) if loss == "squared error" else torch.arange(8) % 3
    by_hand = network.gradients(x, y)
    leaves = [t.requires_grad_() for layer in network.layers for t in (layer.w, layer.b)]
    cost = by_autograd(network, x, y, FUNCTIONS[activation], 0.03, p)
    wanted = torch.autograd.grad(cost, leaves)
    assert abs(float((by_hand.cost - cost).detach())) <= 1e-12
    for found, want in zip([t for pair in zip(by_hand.dw, by_hand.db, strict=True) for t in pair], wanted, strict=True):
        assert found.shape == want.shape
        assert (found - want).abs().max() <= 1e-12
        if p == 0:
            assert want.abs().max() > 0


def test_a_step_is_the_chapters_update() -> None:
    network = Network([4, 5, 2], regularizer=L2Regularizer, lam=0.1, p=0.5, key=Key(1), dtype=torch.float64)
    x, y = normal((6, 4), Key(2), dtype=torch.float64), normal((6, 2), Key(3), dtype=torch.float64)
    plain = Network([4, 5, 2], p=0.5, key=Key(1), dtype=torch.float64)
    loss = plain.gradients(x, y)
    before = [(layer.w, layer.b) for layer in network.layers]
    network.train_step(x, y, alpha=0.3)
    for (w, b), layer, dw, db in zip(before, network.layers, loss.dw, loss.db, strict=True):
        torch.testing.assert_close(layer.w, w - 0.3 * (dw + 0.1 * 2 * w))
        torch.testing.assert_close(layer.b, b - 0.3 * db)
    assert network.step == 1
    assert not torch.equal(network.gradients(x, y).dw[1], plain.gradients(x, y).dw[1])


def test_layers_have_their_own_weights_and_biases_start_at_zero() -> None:
    network = Network([6, 6, 6], key=Key(2))
    assert not network.layers[0].w.equal(network.layers[1].w)
    assert all((layer.b == 0).all() for layer in network.layers)
    assert Network([6, 6, 6], key=Key(2)).layers[1].w.equal(network.layers[1].w)


def test_a_network_without_a_key_is_governed_by_torchs_seed() -> None:
    def made(seed: int) -> tuple[Tensor, Tensor]:
        torch.manual_seed(seed)
        network = Network([6, 6, 6], p=0.5)
        return network.layers[0].w, network.gradients(x, x).dw[1]

    state, x = torch.get_rng_state(), torch.ones(3, 6)
    same, again, other = made(1), made(1), made(2)
    torch.manual_seed(1)
    assert same[0].equal(GlorotInitializer(6, 6))
    torch.set_rng_state(state)
    assert all(map(torch.equal, same, again))
    assert not any(map(torch.equal, same, other))


def test_the_data_are_those_that_scikit_learn_has() -> None:
    pixels, labels = load_digits(return_X_y=True)
    table, progression = load_diabetes(return_X_y=True, scaled=False)
    assert digits().x.equal(torch.from_numpy(pixels / 16).float())
    assert digits().y.equal(torch.from_numpy(labels))
    assert diabetes().x.equal(torch.from_numpy(table))
    assert diabetes().y.equal(torch.from_numpy(progression))
    assert list(diabetes().names) == load_diabetes().feature_names


MASKS = [None, torch.tensor([1.0, 0.0, 1.0, 1.0, 0.0]), torch.tensor([False, True, True]), None]


def test_a_drawn_network_is_the_thinned_one() -> None:
    figure, axes = plt.subplots()
    draw_network(axes, [3, 5, 3, 2], MASKS)
    assert (len(axes.patches), len(axes.lines)) == (13, 3 * 3 + 3 * 2 + 2 * 2)
    plt.close(figure)
    source = tikz_network([3, 5, 3, 2], MASKS)
    assert source.count(r"\draw") == 3 * 3 + 3 * 2 + 2 * 2
    assert re.findall(r"left out\] \((\S+)\)", source) == ["u-1-1", "u-1-4", "u-2-0"]
    assert tikz_network([3, 4]).count(r"\draw") == 12


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="LaTeX is not installed")
def test_the_tikz_source_compiles(tmp_path: Path) -> None:
    (tmp_path / "thinned.tex").write_text(tikz_network([3, 5, 3, 2], MASKS))
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "thinned.tex"]
    log = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert log.returncode == 0, log.stdout
    assert (tmp_path / "thinned.pdf").stat().st_size > 1000


def test_it_learns_the_digits() -> None:
    pixels, labels = load_digits(return_X_y=True)
    x, y = torch.from_numpy(pixels / 16).float(), torch.from_numpy(labels)
    train, test = slice(0, 1400), slice(1400, None)
    network = Network([64, 64, 10], regularizer=L2Regularizer, lam=1e-4, p=0.2, loss="cross entropy", key=Key(4))
    costs = [network.train_step(x[train], y[train], alpha=0.5) for _ in range(100)]
    assert costs[-1] < 0.45 * costs[0]
    assert (network.predict(x[test]).argmax(1) == y[test]).float().mean() > 0.8
    assert all(a != b for a, b in pairwise(costs))


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        (lambda: RandomInitializer(0, 2), "inputdim was given 0"),
        (lambda: HeInitializer(2, -1), "units was given -1"),
        (lambda: tikz_network([3, 2], [None]), "expected for each layer None"),
        (lambda: tikz_network([3, 2], [None, torch.ones(3)]), r"masks of shapes \[None, \(3,\)\]"),
        (lambda: dropout(torch.ones(2), 1.1, Key(0)), "p was given 1.1"),
        (lambda: dropout(torch.ones(2), float("nan"), Key(0)), "p was given nan"),
        (lambda: Network([3]), "sizes"),
        (lambda: Network([3, 2], lam=-1), "lam=-1"),
        (lambda: Network([3, 2], p=2), "p was given 2"),
        (lambda: Network([3, 2], loss="hinge"), "'squared error', 'cross entropy'"),
        (lambda: Network([3, 2, 2], activation="gelu"), "'relu'"),
        (lambda: DenseLayer(torch.ones(2, 3), torch.ones(2)), r"\(2, 3\)"),
        (lambda: Network([3, 2]).predict(torch.ones(4, 2)), r"expected \(rows, 3\)"),
        (lambda: Network([3, 2]).train_step(torch.ones(4, 3), torch.ones(4, 2), alpha=0), "alpha=0"),
        (lambda: Network([3, 2]).gradients(torch.ones(4, 3), torch.ones(4)), "targets"),
        (lambda: Network([3, 2], loss="cross entropy").gradients(torch.ones(4, 3), torch.ones(4)), "targets"),
        (lambda: Network([3, 2], loss="cross entropy").gradients(torch.ones(2, 3), torch.tensor([0, 2])), "targets"),
    ],
)
def test_what_makes_no_sense_is_refused(wrong: Callable[[], object], match: str) -> None:
    with pytest.raises(wp.WellposedError, match=match):
        wrong()
