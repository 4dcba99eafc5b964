"""Dropout of tensors that only say that they are on CUDA: nothing leaves the device, and nothing is waited for.

A fake tensor has no values, so whatever would read one on the host raises.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import pytest
import torch
from torch import Tensor
from torch._inductor.utils import is_cudagraph_unsafe_fx_node
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call

import wellposed as wp
from dropout_module_cases import CASES, Case, filled

# Torch asks for CUDA itself before a fake tensor is asked where a slice is taken or torch's fused cells are called;
# a test's own indices lie on the CPU; and layers are left out by their value, which is drawn on the CPU.
NOT_FAKED = {"TokenDropout", "DropConnect of a cell", "Zoneout", "EmbeddingDropout", "LayerDrop"}


def on_the_device(*shape: int) -> Tensor:
    return torch.empty(shape, dtype=torch.float64, device="cuda")


def test_what_waits_is_refused() -> None:
    for read in (Tensor.item, Tensor.nonzero, Tensor.numpy):
        with FakeTensorMode(), pytest.raises(RuntimeError):
            read(on_the_device(3).sum())


@pytest.mark.parametrize("case", [case for case in CASES if case.name not in NOT_FAKED], ids=str)
@torch.no_grad()  # recording asks for CUDA itself too
def test_modules_stay_on_the_device_and_wait_for_nothing(case: Case) -> None:
    module, host = filled(case.make(0.4)), torch.ones(case.shape, dtype=torch.float64)
    with FakeTensorMode(allow_non_fake_inputs=True):
        parameters = {name: on_the_device(*parameter.shape) for name, parameter in module.named_parameters()}
        y = functional_call(module, parameters, (on_the_device(*case.shape),))
    assert y.is_cuda
    assert y.shape == module(host).shape


def test_the_primitive_stays_on_the_device() -> None:
    rates = torch.tensor([0.1, 0.5], dtype=torch.float64)
    with FakeTensorMode(allow_non_fake_inputs=True):
        for p in (0.4, rates[0], rates):
            for dims in (None, (0,), (1,)):
                y = wp.dropout(on_the_device(2, 5), p, key=wp.Key(0), dims=dims)
                assert y.is_cuda
                assert y.shape == (2, 5)


OPERATORS = sorted(
    {
        schema.name.partition("::")[2]
        for schema in torch._C._jit_get_all_schemas()
        if schema.name.startswith("wellposed::")
    }
)


def test_all_operators_are_known() -> None:
    assert OPERATORS == ["dropout", "noise", "stream"]


@pytest.mark.parametrize("name", OPERATORS)
def test_compilers_leave_operators_that_the_host_takes_part_in_out_of_cuda_graphs(name: str) -> None:
    graph = torch.fx.Graph()
    assert is_cudagraph_unsafe_fx_node(graph.call_function(getattr(torch.ops.wellposed, name).default))
    assert not is_cudagraph_unsafe_fx_node(graph.call_function(torch.ops.aten.sin.default))


@pytest.mark.parametrize("block", [nullcontext, lambda: wp.keyed(0)], ids=["default", "keyed"])
def test_a_cuda_graph_that_is_captured_by_hand_is_refused(
    block: Callable[[], AbstractContextManager[None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    x = torch.ones(3, dtype=torch.float64, device="meta")
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    for capturing in (True, False):
        monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda capturing=capturing: capturing)
        refused = pytest.raises(wp.WellposedError, match="captured in a CUDA graph") if capturing else nullcontext()
        with block(), refused:
            wp.Dropout(0.5)(x)
