"""What theory predicts of a network's scales, against what is measured and what is known in closed form."""

import math
from itertools import pairwise

import pytest
import torch
from torch.nn import functional

import wellposed as wp
from wellposed.study.methods import STARTS
from wellposed.study.training.network import DenseNetwork, DropoutMask, measure, predict, second_moment

X = wp.random.normal((256, 200), wp.Key(0))
Y = torch.arange(256) % 10


@pytest.mark.parametrize("scale", [1e-6, 0.3, 1.0, 40.0])
def test_relu_moments_are_known(scale: float) -> None:
    assert second_moment("relu", scale) == pytest.approx(scale**2 / 2, rel=1e-9)
    assert second_moment("relu", scale, derivative=True) == pytest.approx(0.5, rel=1e-9)


def test_tanh_moments_reach_their_limits() -> None:
    assert second_moment("tanh", 1e-5) == pytest.approx(1e-10, rel=1e-6)
    assert second_moment("tanh", 1e4) == pytest.approx(1, rel=1e-3)
    assert second_moment("tanh", 0.0, derivative=True) == 1


@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("name", STARTS)
def test_wide_networks_do_as_predicted(name: str, activation: str) -> None:
    network = DenseNetwork((200, 400, 400, 400, 10), activation).start_(STARTS[name], wp.Key(1))
    measured = measure(network, X, Y, functional.cross_entropy)
    predicted = predict(network, STARTS[name], X, measured.gradient[-1])
    assert measured.signal == pytest.approx(predicted.signal, rel=0.15)
    assert measured.gradient == pytest.approx(predicted.gradient, rel=0.2)


def test_the_chapters_he_keeps_a_third_at_every_relu_layer() -> None:
    network = DenseNetwork((200, *[400] * 5, 10), "relu")
    scale = predict(network, STARTS["he_chapter"], X, 1.0).signal
    assert [(b / a) ** 2 for a, b in pairwise(scale[:5])] == pytest.approx([1 / 3] * 4, rel=1e-9)


def test_measured_gradients_are_those_of_one_example() -> None:
    network = DenseNetwork((200, 20, 10), "tanh").start_(STARTS["lecun"], wp.Key(2))
    logits = network(X).detach()
    gradient = logits.softmax(1) - functional.one_hot(Y, 10)
    wanted = math.sqrt(float(gradient.double().square().mean()))
    assert measure(network, X, Y, functional.cross_entropy).gradient[-1] == pytest.approx(wanted, rel=1e-5)


def test_making_and_starting_a_network_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    network = DenseNetwork((200, 20, 10), "relu").start_(STARTS["torch"], wp.Key(0))
    network(X, DropoutMask(0.5, wp.Key(1), 3))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(parameter.device.type == "cpu" and parameter.isfinite().all() for parameter in network.parameters())


def test_pytorchs_default_is_pytorchs() -> None:
    """Bounds of weights and biases, against torch.nn.Linear itself."""
    ours = DenseNetwork((300, 500), "relu").start_(STARTS["torch"], wp.Key(0))
    theirs = torch.nn.Linear(300, 500)
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        bound = 1 / math.sqrt(300)
        assert float(mine.detach().abs().max()) == pytest.approx(bound, rel=0.02)
        assert float(other.detach().abs().max()) == pytest.approx(bound, rel=0.02)


def test_thinned_networks_average_to_the_whole_where_nothing_bends() -> None:
    network = DenseNetwork((200, 300, 10), "relu").start_(STARTS["he"], wp.Key(5))
    with torch.no_grad():
        thinned = torch.stack([network(X, DropoutMask(0.3, wp.Key(6), call)) for call in range(144)])
        error = (thinned.mean(0) - network(X)) / (thinned.std(0) / 12)
    assert float(error.square().mean()) == pytest.approx(1, abs=0.1)
