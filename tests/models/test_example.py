"""An input of a model: copied before a model runs on it, so that it is never changed."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_sequence

import wellposed as wp
from wellposed.errors import WellposedError
from wellposed.models.example import copied, tensors_in


@dataclass
class Cache:
    keys: Tensor


PARAMETER = nn.Parameter(torch.randn(3))
EXAMPLES = {
    "tensor": torch.randn(2, 3),
    "whole numbers": torch.arange(3),
    "arguments": ((torch.randn(2), [torch.randn(2)]), {"mask": torch.ones(2, dtype=torch.bool), "scale": 2.0}),
    "packed sequence": pack_sequence([torch.randn(3, 2), torch.randn(1, 2)]),
    "object": {"cache": Cache(torch.randn(2, 3))},
    "parameter": PARAMETER,
    "with a history": PARAMETER * 2,
    "expanded": torch.randn(1).expand(3),
    "sparse": torch.eye(3).to_sparse(),
}


def _all(example: Any) -> list[Tensor]:
    return [example["cache"].keys] if isinstance(example, dict) and "cache" in example else tensors_in(example)


@pytest.mark.parametrize("example", EXAMPLES.values(), ids=EXAMPLES)
def test_a_copy_is_equal_and_may_be_changed(example: Any) -> None:
    before = [t.detach().clone() for t in _all(example)]
    with torch.no_grad():
        other = copied(example)
        assert type(other) is type(example) or isinstance(example, nn.Parameter)
        for one, same in zip(_all(other), before, strict=True):
            assert torch.equal(one.to_dense(), same.to_dense())
            one.zero_()
    for one, same, changed in zip(_all(example), before, _all(other), strict=True):
        assert torch.equal(one.to_dense(), same.to_dense())
        assert changed.requires_grad == one.requires_grad


def test_gradients_flow_to_the_input() -> None:
    x = torch.ones(3, requires_grad=True)
    with torch.no_grad():
        (other,) = copied((x,))
    other.mul_(2).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [2.0, 2.0, 2.0]


def test_a_tensor_that_is_given_twice_is_one_in_the_copy() -> None:
    x = torch.ones(3)
    one, other = copied((x, x))
    assert one is other
    assert one is not x


def test_what_cannot_be_copied_is_refused() -> None:
    with pytest.raises(WellposedError, match=r"the input cannot be copied.*keep out of it what copy.deepcopy refuses"):
        copied({"lock": threading.Lock()})


class Overwriting(nn.Module):
    """Writes into what it is given, in each of the ways that a model may be followed or run."""

    def __init__(self, asks: Callable[[Tensor], bool]) -> None:
        super().__init__()
        self.asks, self.act = asks, nn.SiLU(inplace=True)
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))

    def forward(self, x: Tensor, rest: list[Tensor]) -> Tensor:
        if self.asks(x):
            raise ValueError
        x.sub_(0.5).div_(3.0)
        rest[0].zero_()
        out: Tensor = self.layers(self.act(x))
        return out


VERBS: dict[str, Callable[[nn.Module, Any], Any]] = {
    "plan_initialize": lambda model, example: wp.plan_initialize(model, example=example),
    "initialize": lambda model, example: wp.initialize(model, example=example),
    "lsuv": lambda model, example: wp.initialize(model, "lsuv", example=example),
    "audit": lambda model, example: wp.init.audit(wp.initialize(model), model, example=example),
    "plan_compact": lambda model, example: wp.plan_compact(model, example=example),
    "lint_dropout": lambda model, example: wp.lint_dropout(model, example),
    "plan_convert_dropout": lambda model, example: wp.plan_convert_dropout(model, example=example),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("asks", [lambda x: False, lambda x: float(x.sum()) > 1e9], ids=["traced", "run"])
@pytest.mark.parametrize("verb", VERBS)
def test_an_input_is_never_changed(verb: str, asks: Callable[[Tensor], bool], dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    example = (torch.randn(64, 4, dtype=dtype), [torch.ones(3, dtype=dtype)])
    before = [t.clone() for t in tensors_in(example)]
    VERBS[verb](Overwriting(asks).to(dtype), example)
    assert all(map(torch.equal, tensors_in(example), before))


def test_lsuv_gives_unit_variance_where_the_model_writes_into_its_input() -> None:
    model = Overwriting(lambda x: False)
    x, rest = wp.random.normal((256, 4), wp.Key(1)), [torch.ones(1)]
    wp.initialize(model, "lsuv", example=(x, rest))
    with torch.no_grad():
        first = model.layers[0](nn.functional.silu((x - 0.5) / 3))
    assert float(first.var()) == pytest.approx(1, abs=0.03)
