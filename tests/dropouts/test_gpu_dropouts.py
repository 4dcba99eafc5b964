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


@pytest.mark.parametrize(("others", "prefix"), [(1, 0), (70, 0), (9, 3), (130, 200), (5000, 1)])
def test_tokens_of_any_number(others: int, prefix: int) -> None:
    def moved(backend: str, device: str) -> list[Tensor]:
        x = wp.random.normal((3, prefix + others, 2), wp.Key(0)).to(device).requires_grad_()
        with wp.random.backend(backend), wp.keyed(1):
            y = wp.TokenDropout(0.5, prefix=prefix)(x)
        return [y, *torch.autograd.grad(y, x, torch.ones_like(y))]

    assert all(map(same_bits, moved("gpu", DEVICE), moved("reference", "cpu")))


def test_a_step_on_the_device_is_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a captured graph reads it; without a card the tensor of the host stands in for one of the device."""
    model, x = torch.nn.Sequential(torch.nn.Identity(), wp.Dropout(0.5), wp.Dropout1d(0.5)), torch.ones(4, 6, 300)
    model, x = model.to(DEVICE), x.to(DEVICE)
    step = torch.zeros((), dtype=torch.int32, device=DEVICE)

    def masked(step: int | Tensor) -> Tensor:
        with wp.random.backend("gpu"), wp.keyed(3, step, microbatch=2):
            y: Tensor = model(x)
        return y

    wanted = [masked(number) for number in (0, 7)]
    assert not same_bits(*wanted)
    monkeypatch.setattr(Tensor, "is_cpu", property(lambda _: False))
    for number, mask in zip((0, 7), wanted, strict=True):
        step.fill_(number)
        assert same_bits(masked(step), mask)


@pytest.mark.parametrize("step", [torch.zeros(2, dtype=torch.int64), torch.tensor(0.5), torch.tensor(True)])
def test_a_step_that_is_none_is_refused(step: Tensor) -> None:
    with pytest.raises(wp.WellposedError, match="expected an integer, or a scalar"), wp.keyed(0, step):
        pass


def test_a_step_of_the_host_may_be_a_tensor() -> None:
    layer, x = wp.Dropout(0.5), torch.ones(64)
    with wp.keyed(0, torch.tensor(5)):
        y = layer(x)
    with wp.keyed(0, 5):
        assert torch.equal(layer(x), y)
