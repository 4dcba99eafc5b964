"""Penalties go by a layer's units, however the layer stores them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import wellposed as wp
from wellposed.init import Axes
from wellposed.penalties import (
    GroupLasso,
    GroupMCP,
    Heads,
    NuclearNorm,
    Penalty,
    SoftOrthogonality,
    SparseGroupLasso,
    SpectralNorm,
    Towards,
    constraints,
)
from wellposed.random import Key, normal


@dataclass(frozen=True)
class Layer:
    """A layer, one of its weights, and the plain weights (out, in, ...) that stored by themselves would do the same."""

    make: Callable[[], nn.Module]
    name: str
    plain: Callable[[Tensor], list[Tensor]]


def turned(w: Tensor) -> list[Tensor]:
    return [w.transpose(0, 1)]


def groups_of_a_transposed_convolution(w: Tensor) -> list[Tensor]:
    return [group.transpose(0, 1) for group in w.chunk(2)]


def conv1d(outputs: int, inputs: int) -> nn.Module:
    utils = pytest.importorskip("transformers.pytorch_utils", reason="its Conv1D is a transposed linear layer")
    layer: nn.Module = utils.Conv1D(outputs, inputs)
    return layer


def gpt2_attention() -> nn.Module:
    gpt2 = pytest.importorskip("transformers.models.gpt2.modeling_gpt2", reason="it packs transposed projections")
    layer: nn.Module = gpt2.GPT2Attention(gpt2.GPT2Config(n_embd=6, n_head=2))
    return layer


class Experts(nn.Module):
    """Stacked transposed experts."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Parameter(torch.zeros(3, 4, 5))


@wp.init.role(Experts)
def experts(module: Experts) -> Any:
    return {"up": wp.init.Part("weight", Axes(out=2, in_=1, batch=0))}


LAYERS = {
    "linear": Layer(lambda: nn.Linear(4, 6), "weight", lambda w: [w]),
    "convolution": Layer(lambda: nn.Conv2d(4, 6, 2), "weight", lambda w: [w]),
    "transposed convolution": Layer(lambda: nn.ConvTranspose2d(4, 6, 2, stride=2), "weight", turned),
    "grouped convolution": Layer(lambda: nn.Conv1d(4, 6, 3, groups=2), "weight", lambda w: list(w.chunk(2))),
    "transposed and grouped": Layer(
        lambda: nn.ConvTranspose1d(4, 6, 3, groups=2), "weight", groups_of_a_transposed_convolution
    ),
    "bilinear": Layer(lambda: nn.Bilinear(3, 2, 4), "weight", lambda w: [w.flatten(1)]),
    "transposed linear": Layer(lambda: conv1d(6, 4), "weight", turned),
    "experts": Layer(Experts, "up", lambda w: [expert.T for expert in w]),
    "packed": Layer(lambda: nn.MultiheadAttention(6, 2), "in_proj_weight", lambda w: list(w.chunk(3))),
    "packed and transposed": Layer(gpt2_attention, "c_attn.weight", lambda w: [x.T for x in w.chunk(3, dim=1)]),
    "gates": Layer(lambda: nn.LSTM(3, 2), "weight_hh_l0", lambda w: list(w.chunk(4))),
    "under spectral norm": Layer(lambda: nn.utils.spectral_norm(nn.ConvTranspose2d(4, 6, 2)), "weight_orig", turned),
}
PENALTIES: dict[str, Penalty] = {
    **{f"group lasso, {groups}": GroupLasso(0.4, groups=groups) for groups in ("rows", "channels", "kernels")},
    "root size": GroupLasso(0.2, groups="columns", root_size=True),
    "sparse group lasso": SparseGroupLasso(0.1, 0.4, groups="filters"),
    "group mcp": GroupMCP(0.4, groups="columns"),
    "nuclear": NuclearNorm(0.4),
    "soft orthogonality": SoftOrthogonality(0.1),
    "max norm": constraints.MaxNorm(0.9),
    "max norm of columns": constraints.MaxNorm(0.9, groups="columns"),
    "unit norm": constraints.UnitNorm(),
    "stiefel": constraints.Stiefel(),
    "scaled": 0.5 * (NuclearNorm(0.2) + wp.L2(0.1)),
    "towards": Towards(NuclearNorm(0.2)),
}


def put_on(layer: nn.Module, name: str, penalty: Penalty, lr: float) -> tuple[torch.optim.Optimizer, Penalty]:
    """An optimizer that takes steps of nothing but the penalty on one weight, and the penalty as the plan has it."""
    for parameter in layer.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer = torch.optim.SGD(layer.parameters(), lr=lr)
    mode: Any = "proximal" if penalty.traits.prox else "gradient"
    handle = wp.regularize(optimizer, layer, {name: penalty}, where=name, mode=mode)
    row = next(row for row in handle.plan if row.name == name)
    assert row.penalty is not None
    return optimizer, row.penalty


def drawn(layer: nn.Module, name: str) -> tuple[nn.Module, nn.Parameter]:
    layer = layer.double()
    weight = layer.get_parameter(name)
    with torch.no_grad():
        weight.copy_(normal(tuple(weight.shape), Key(3), std=0.8, dtype=torch.float64))
    return layer, weight


@pytest.mark.parametrize("penalty", PENALTIES.values(), ids=PENALTIES)
@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
def test_a_penalty_is_the_sum_of_what_it_is_of_the_plain_weights(layer: Layer, penalty: Penalty) -> None:
    model, weight = drawn(layer.make(), layer.name)
    before = weight.detach().clone()
    optimizer, there = put_on(model, layer.name, penalty, lr=0.3)
    each = penalty
    if isinstance(penalty, Towards):
        there, each = there.bind(before), penalty.penalty
        with torch.no_grad():
            weight.add_(before)  # so that what is pulled is the same as without a reference
    optimizer.step()
    for found, w in zip(layer.plain(weight.detach()), layer.plain(before), strict=True):
        wanted = each.prox(w, 0.3) if penalty.traits.prox else w - 0.3 * each.grad(w)
        torch.testing.assert_close(found, wanted + (w if isinstance(penalty, Towards) else 0))
    moved = weight.detach().clone()
    if not isinstance(penalty, Towards):
        torch.testing.assert_close(there.value(moved), sum(each.value(w) for w in layer.plain(moved)))


@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
def test_the_spectral_norm_is_that_of_the_layers_matrix(layer: Layer) -> None:
    model, weight = drawn(layer.make(), layer.name)
    before = weight.detach().clone()
    optimizer, there = put_on(model, layer.name, SpectralNorm(0.5), lr=0.3)
    matrices = [w.flatten(1) for w in layer.plain(before)]
    if getattr(model, "groups", 1) > 1:  # they are one matrix, of which they are the diagonal
        matrices = [torch.block_diag(*matrices)]
    wanted = sum(torch.linalg.matrix_norm(m, 2) for m in matrices)
    torch.testing.assert_close(there.value(before), 0.5 * wanted)
    leaf = before.clone().requires_grad_()
    there.value(leaf).backward()
    assert leaf.grad is not None
    torch.testing.assert_close(there.grad(before), leaf.grad)
    optimizer.step()
    after = [w.flatten(1) for w in layer.plain(weight.detach())]
    after = [torch.block_diag(*after)] if getattr(model, "groups", 1) > 1 else after
    for found, m in zip(after, matrices, strict=True):
        torch.testing.assert_close(found, SpectralNorm(0.5).prox(m, 0.3))


def test_a_dead_filter_of_a_transposed_convolution_is_an_output_channel() -> None:
    layer = nn.ConvTranspose2d(3, 4, 2)
    with torch.no_grad():
        layer.weight[:, 2] *= 1e-6
    optimizer, _ = put_on(layer, "weight", GroupLasso(0.05, "filters"), lr=0.1)
    optimizer.step()
    assert [bool((layer.weight[:, i] == 0).all()) for i in range(4)] == [False, False, True, False]


@pytest.mark.parametrize(("name", "dim"), [("packed", 0), ("packed and transposed", 1)])
def test_heads_are_found_in_packed_projections(name: str, dim: int) -> None:
    model, weight = drawn(LAYERS[name].make(), LAYERS[name].name)
    _, there = put_on(model, LAYERS[name].name, GroupLasso(1.0, groups=Heads(2)), lr=0.1)
    stacked = weight.detach().movedim(dim, 0).unflatten(0, (3, 2, 3))
    torch.testing.assert_close(there.value(weight), sum(stacked[:, head].norm() for head in range(2)))


def test_what_is_said_of_the_tensor_is_kept() -> None:
    layer, weight = drawn(nn.ConvTranspose1d(4, 6, 3, groups=2), "weight")
    labels = torch.arange(weight.numel()).view(weight.shape) % 5
    for groups in ("all", (0, 2), labels):
        _, there = put_on(layer, "weight", GroupLasso(0.3, groups=groups), lr=0.1)
        assert there == GroupLasso(0.3, groups=groups)
    _, there = put_on(layer, "weight", NuclearNorm(0.3, axes=Axes(out=0, in_=1)), lr=0.1)
    assert there == NuclearNorm(0.3, axes=Axes(out=0, in_=1))
    _, there = put_on(nn.Conv2d(4, 6, 2, stride=3), "weight", NuclearNorm(0.3), lr=0.1)
    assert there == NuclearNorm(0.3)
    embedding = nn.Embedding(5, 3)
    _, there = put_on(embedding, "weight", GroupLasso(0.3), lr=0.1)
    assert there == GroupLasso(0.3)


def test_strengths_of_groups_of_a_packed_weight_are_refused_where_they_fit_no_block() -> None:
    attention = nn.MultiheadAttention(6, 2)
    optimizer = torch.optim.SGD(attention.parameters(), lr=0.1)
    penalty = GroupLasso(torch.ones(1, 18), groups="columns")
    with pytest.raises(wp.WellposedError, match=r"cannot be computed on 'in_proj_weight'.*\(1, 6\)"):
        wp.regularize(optimizer, attention, {"in_proj_weight": penalty}, where="in_proj_weight")
