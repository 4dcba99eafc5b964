import threading
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_sequence

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


def _all(example):
    return [example["cache"].keys] if isinstance(example, dict) and "cache" in example else tensors_in(example)


@pytest.mark.parametrize("example", EXAMPLES.values(), ids=EXAMPLES)
def test_a_copy_is_equal_and_may_be_changed(example):
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


def test_gradients_flow_to_the_input():
    x = torch.ones(3, requires_grad=True)
    with torch.no_grad():
        (other,) = copied((x,))
    other.mul_(2).sum().backward()
    assert x.grad.tolist() == [2.0, 2.0, 2.0]


def test_a_tensor_that_is_given_twice_is_one_in_the_copy():
    x = torch.ones(3)
    one, other = copied((x, x))
    assert one is other
    assert one is not x


def test_what_cannot_be_copied_is_refused():
    with pytest.raises(WellposedError, match=r"the input cannot be copied.*keep out of it what copy.deepcopy refuses"):
        copied({"lock": threading.Lock()})
