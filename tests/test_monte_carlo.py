"""``wp.monte_carlo``: dropout samples, nothing else moves."""

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import wellposed as wp


def network(p: float = 0.5) -> nn.Sequential:
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU(), wp.Dropout(p), nn.Linear(16, 3), nn.Dropout(p)
        )


X = wp.random.normal((5, 4), wp.Key(0))


def test_samples_are_the_thinned_networks_of_their_steps() -> None:
    model = network().eval()
    result = wp.monte_carlo(model, X, samples=7, seed=3)
    assert result.samples.shape == (7, 5, 3)
    twin = wp.convert_dropout(network()).eval()
    for index in (3, 5):
        twin[index].train()
    for sample in range(7):
        with wp.keyed(3, sample), torch.no_grad():
            assert torch.allclose(result.samples[sample], twin(X), atol=1e-6)
    assert torch.equal(result.mean, result.samples.mean(dim=0))
    assert torch.equal(result.variance, result.samples.var(dim=0))
    assert torch.allclose(result.weight_scaled, model(X))
    assert (result.samples[0] != result.samples[1]).any()


def test_nothing_of_the_model_or_of_torch_is_touched() -> None:
    model = network().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modules = list(model.modules())
    state = torch.get_rng_state()
    wp.monte_carlo(model, X, samples=3)
    assert torch.equal(state, torch.get_rng_state())
    assert modules == list(model.modules())
    assert all(module.training for module in modules)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_how_many_run_at_once_does_not_matter() -> None:
    model = network()
    whole = wp.monte_carlo(model, X, samples=10).samples
    for at_once in (1, 3, 10):
        assert torch.allclose(wp.monte_carlo(model, X, samples=10, at_once=at_once).samples, whole, atol=1e-6)
    assert torch.equal(wp.monte_carlo(model, X, samples=4, at_once=10).samples, whole[:4])


class Several(nn.Module):
    """Outputs of every kind, and keyword arguments."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.drop = kind, wp.LockedDropout(0.5)

    def forward(self, x: Tensor, *, scale: float = 1.0) -> Any:
        y = self.drop(x) * scale
        return (y, y.sum()) if self.kind == "tuple" else {"y": y, "count": 3, "total": y.sum()}


@pytest.mark.parametrize("kind", ["tuple", "dict"])
def test_outputs_may_be_tuples_and_dicts(kind: str) -> None:
    x = torch.ones(7, 2, 8)
    result = wp.monte_carlo(Several(kind), x, samples=6, scale=2.0)
    values, total = result.samples if kind == "tuple" else (result.samples["y"], result.samples["total"])
    assert values.shape == (6, 7, 2, 8)
    assert torch.equal(values.sum(dim=(1, 2, 3)), total)
    assert float(values.std(dim=1).max()) == 0  # one mask over time in each sample
    assert (values[0] != values[1]).any()
    mean = result.mean[0] if kind == "tuple" else result.mean["y"]
    assert torch.equal(mean, values.mean(dim=0))
    if kind == "dict":
        assert result.samples["count"] == 3


def test_what_cannot_be_vectorised_is_run_one_by_one() -> None:
    model = wp.LayerDrop([nn.Linear(4, 4) for _ in range(4)], 0.5)
    samples = wp.monte_carlo(model, X, samples=12).samples
    assert len({tuple(s.flatten().tolist()) for s in samples}) > 3


def test_entropies() -> None:
    """Two samples that are each certain and disagree know nothing together, and all of it is about the network."""
    samples = torch.tensor([[[50.0, 0.0], [50.0, 0.0]], [[0.0, 50.0], [50.0, 0.0]]])
    result = wp.dropouts.Samples(samples, samples[0])
    assert torch.allclose(result.predictive_entropy, torch.tensor([math.log(2), 0.0]), atol=1e-6)
    assert torch.allclose(result.mutual_information, torch.tensor([math.log(2), 0.0]), atol=1e-6)
    assert torch.allclose(result.probabilities, torch.tensor([[0.5, 0.5], [1.0, 0.0]]), atol=1e-6)


def test_models_without_dropout_are_refused() -> None:
    for model in (nn.Linear(4, 4), network(p=0.0)):
        with pytest.raises(wp.WellposedError, match="without a dropout module"):
            wp.monte_carlo(model, X)
    with pytest.raises(wp.WellposedError, match="samples=0"):
        wp.monte_carlo(network(), X, samples=0)
    with pytest.raises(wp.WellposedError, match=r"expected an nn\.Module"):
        wp.monte_carlo(lambda x: x, X)  # type: ignore[arg-type]


def test_the_mean_of_many_samples_is_the_expectation_over_all_masks() -> None:
    """Against all 2^6 masks of a small layer; within 5 standard errors."""
    weight = wp.random.normal((2, 6), wp.Key(1))
    linear = nn.Linear(6, 2, bias=False)
    linear.weight.data.copy_(weight)
    model = nn.Sequential(wp.Dropout(0.5), linear, nn.Tanh())
    x = wp.random.normal(6, wp.Key(2))
    masks = torch.tensor(list(itertools.product((0.0, 2.0), repeat=6)))
    exact = torch.tanh((masks * x) @ weight.T)
    result = wp.monte_carlo(model, x, samples=4000)
    error = exact.std(dim=0) / math.sqrt(4000)
    assert bool(((result.mean - exact.mean(dim=0)).abs() < 5 * error).all())


def test_weight_scaling_is_the_geometric_mean_ensemble_of_a_softmax_of_a_linear_layer() -> None:
    """Exactly, over all masks of the inputs, in float64 (Goodfellow et al., 2016, section 7.12)."""
    p, n = 0.3, 8
    weight = wp.random.normal((3, n), wp.Key(1), dtype=torch.float64)
    bias = wp.random.normal(3, wp.Key(2), dtype=torch.float64)
    x = wp.random.normal(n, wp.Key(3), dtype=torch.float64)
    linear = nn.Linear(n, 3).double()
    linear.weight.data.copy_(weight)
    linear.bias.data.copy_(bias)
    model = nn.Sequential(wp.Dropout(p), linear)
    scaled = wp.monte_carlo(model, x, samples=1).weight_scaled.softmax(dim=0)
    kept = torch.tensor(list(itertools.product((0.0, 1.0), repeat=n)), dtype=torch.float64)
    chance = (p ** (1 - kept) * (1 - p) ** kept).prod(dim=1)
    logs = ((kept * x / (1 - p)) @ weight.T + bias).log_softmax(dim=1)
    geometric = (chance @ logs).softmax(dim=0)
    assert torch.allclose(scaled, geometric, rtol=1e-12)
