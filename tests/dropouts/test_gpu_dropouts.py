"""Every dropout gives the same bits by the GPU's kernels as by plain torch, forward and backward."""

import pytest
import torch
from torch import Tensor

import wellposed as wp
from dropout_module_cases import CASES, Case, filled
from gpu_tools import DEVICE, same_bits


def ran(case: Case, dtype: torch.dtype, backend: str, device: str) -> list[Tensor]:
    """A module's output and gradient for two steps of training."""
    model = filled(case.make(0.4)).to(device, dtype)
    results = []
    for step in range(2):
        x = wp.random.normal(case.shape, wp.Key(step), dtype=dtype).to(device).requires_grad_()
        with wp.random.backend(backend), wp.keyed(3, step):
            y = model(x)
            results += [y, *torch.autograd.grad(y.sum(), x)]
    return results


@pytest.mark.parametrize("case", [case for case in CASES if not case.is_learned], ids=str)
def test_every_dropout_is_the_reference_bit_for_bit(case: Case) -> None:
    if DEVICE != "cpu" and not case.dims:
        pytest.skip("its matrix products differ from the host's in their last bits")
    for ours, wanted in zip(
        ran(case, torch.float64, "gpu", DEVICE), ran(case, torch.float64, "reference", "cpu"), strict=True
    ):
        assert same_bits(ours, wanted)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("case", [case for case in CASES if case.name.startswith("DropBlock")], ids=str)
def test_blocks_of_every_dtype(case: Case, dtype: torch.dtype) -> None:
    for ours, wanted in zip(ran(case, dtype, "gpu", DEVICE), ran(case, dtype, "reference", "cpu"), strict=True):
        assert same_bits(ours, wanted)


@pytest.mark.parametrize(("others", "prefix"), [(1, 0), (70, 0), (9, 3), (130, 200)])
def test_tokens_of_any_number(others: int, prefix: int) -> None:
    def moved(backend: str, device: str) -> list[Tensor]:
        x = wp.random.normal((3, prefix + others, 2), wp.Key(0)).to(device).requires_grad_()
        with wp.random.backend(backend), wp.keyed(1):
            y = wp.TokenDropout(0.5, prefix=prefix)(x)
        return [y, *torch.autograd.grad(y, x, torch.ones_like(y))]

    assert all(map(same_bits, moved("gpu", DEVICE), moved("reference", "cpu")))
