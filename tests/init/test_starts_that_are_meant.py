"""What is frozen or computed stays, adapters start closed, and what a start loses is said."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import wellposed as wp
from peers import peer


class Features(nn.Module):
    """Random Fourier features, which are frozen, under a layer that is learnt."""

    def __init__(self) -> None:
        super().__init__()
        self.frequencies = nn.Parameter(30 * torch.randn(16, 2), requires_grad=False)
        self.out = nn.Linear(32, 3)

    def forward(self, x: Tensor) -> Tensor:
        angles = x @ self.frequencies.T
        out: Tensor = self.out(torch.cat([angles.sin(), angles.cos()], -1))
        return out


def test_frozen_parameters_are_left_unless_a_rule_names_them() -> None:
    model = Features()
    before = model.frequencies.clone()
    plan = wp.initialize(model, example=torch.ones(4, 2))
    assert torch.equal(model.frequencies, before)
    assert (plan["frequencies"].initializer, plan["frequencies"].note) == (None, "frozen, left as it is")
    wp.initialize(model, rules={"frequencies": wp.init.Normal(0.0, 27.0)})
    assert not torch.equal(model.frequencies, before)
    assert not model.frequencies.requires_grad


@pytest.mark.parametrize("scheme", ["auto", "he", "orthogonal", "zero", "torch"])
def test_no_scheme_writes_through_a_frozen_parameter(scheme: str) -> None:
    """Memory that other tensors share stays; a weight that is computed from a frozen one is left in whole."""
    table = torch.randn(6, 4)
    scaled = nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))
    lists: Any = scaled.parametrizations
    lists["weight"].original0.requires_grad_(False)
    free = nn.Linear(4, 4)
    before, weight, other = table.clone(), scaled.weight.clone(), free.weight.clone()
    wp.initialize(nn.ModuleList([nn.Embedding.from_pretrained(table), scaled, free]), scheme)
    assert torch.equal(table, before)
    assert torch.equal(scaled.weight, weight)
    assert not torch.equal(free.weight, other)


def test_frozen_parameters_from_the_meta_device_are_named() -> None:
    with torch.device("meta"):
        model = Features()
    plan = wp.initialize(model, device="cpu")
    assert plan.buffers == ("frequencies",)
    assert model.frequencies.is_meta
    assert not model.out.weight.is_meta
    plan = wp.initialize(model, rules={"frequencies": wp.init.Normal(0.0, 27.0)}, device="cpu")
    assert plan.buffers == ()
    assert not model.frequencies.is_meta


BEFORE: list[tuple[Any, str, str]] = [
    (lambda m: m.bias.fill_(-4.595), "bias", "was -4.595 everywhere"),
    (lambda m: m.weight.zero_(), "weight", "was 0 everywhere"),
    (lambda m: m.weight.copy_(torch.eye(6)), "weight", "was an identity"),
    (lambda m: m.bias.copy_(torch.tensor([1.0, 0, 0, 0, 1, 0])), "bias", "was an identity"),
    (lambda m: m.bias.zero_(), "bias", ""),
    (lambda m: None, "weight", ""),
    (lambda m: None, "bias", ""),
]


@pytest.mark.parametrize(("change", "name", "remark"), BEFORE)
def test_the_plan_says_what_a_start_was_that_may_have_been_meant(change: Any, name: str, remark: str) -> None:
    layer = nn.Linear(6, 6)
    with torch.no_grad():
        change(layer)
    model = nn.Sequential(layer, nn.Tanh())
    note = wp.plan_initialize(model)[f"0.{name}"].note
    assert ("was " in note) == bool(remark)
    assert remark in note


def test_detection_heads_keep_their_prior() -> None:
    detection = peer("torchvision.models.detection")
    for head in (
        detection.retinanet.RetinaNetClassificationHead(8, 9, 5),
        detection.fcos.FCOSClassificationHead(32, 1, 5),
    ):
        before = head.cls_logits.bias.clone()
        wp.initialize(head)
        torch.testing.assert_close(head.cls_logits.bias, before)
        assert float(head.cls_logits.bias[0].detach()) == pytest.approx(-math.log(99), abs=1e-6)


ADAPTERS: dict[str, dict[str, Any]] = {
    "LoraConfig": {"target_modules": ["embed", "up"], "r": 2},
    "AdaLoraConfig": {"target_modules": ["up"], "total_step": 9},
    "IA3Config": {"target_modules": ["up"], "feedforward_modules": []},
    "LoHaConfig": {"target_modules": ["up"], "r": 2},
    "VeraConfig": {"target_modules": ["up"], "r": 2},
    "OFTConfig": {"target_modules": ["up"], "oft_block_size": 2, "r": 0},
    "BOFTConfig": {"target_modules": ["up"], "boft_block_size": 2},
}


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.up, self.head = nn.Embedding(9, 4), nn.Linear(4, 8), nn.Linear(8, 3)

    def forward(self, ids: Tensor) -> Tensor:
        out: Tensor = self.head(torch.relu(self.up(self.embed(ids))))
        return out


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ADAPTERS)
def test_an_adapter_starts_as_one_that_changes_nothing(name: str) -> None:
    peft = pytest.importorskip("peft", reason="peft is not installed")
    ids, base = torch.arange(9), Small()
    before = base(ids)
    model = peft.get_peft_model(base, getattr(peft, name)(**ADAPTERS[name])).eval()
    state = {name: p.clone() for name, p in model.named_parameters() if not p.requires_grad}
    trainable = {name: p.clone() for name, p in model.named_parameters() if p.requires_grad}
    plan = wp.initialize(model)
    torch.testing.assert_close(model(ids), before)
    parameters = dict(model.named_parameters())
    assert all(torch.equal(parameters[name], value) for name, value in state.items())
    drawn = [name for name in trainable if plan[name].role == "weight"]
    assert not any(torch.equal(parameters[name], trainable[name]) for name in drawn)
    assert plan["base_model.model.head.weight"].note == "frozen, left as it is"
