"""Elastic nets give the same bits by the GPU's kernel, one launch for a list of tensors, as by the CPU's."""

import pytest
import torch
from torch import Tensor

import wellposed as wp
from gpu_tools import DEVICE, same_bits
from wellposed.arguments import Number
from wellposed.penalties import Penalty
from wellposed.penalties.computing.passes import ProxStep, Push, add_gradients_, take_steps_
from wellposed.penalties.computing.root_step import RootStep

PENALTIES = {"l1": wp.L1(0.3), "l2": wp.L2(0.2), "elastic-net": wp.ElasticNet(0.3, 0.2)}
SIZES = (1, 17, 5000)


def passed(
    penalty: Penalty, dtype: torch.dtype, device: str, backend: str, *, numbers_there: bool = False
) -> tuple[list[Tensor], list[bool], list[float]]:
    """The weights and gradients after each pass, where NaN was met, and the penalty's values."""

    def number(value: float) -> Number:
        return torch.tensor(value, dtype=torch.float64, device=device) if numbers_there else value

    weights = [wp.random.normal(size, wp.Key(size), dtype=dtype).to(device) for size in SIZES]
    seconds = [wp.random.normal(size, wp.Key(size), call=1, dtype=dtype).square().to(device) for size in SIZES]
    weights[1][3] = torch.nan
    with wp.random.backend(backend):
        bad = take_steps_([ProxStep(penalty, w, number(0.7)) for w in weights])
        steps = [RootStep(number(0.05), second, number(1.3), 1e-8) for second in seconds]
        bad += take_steps_([ProxStep(penalty, w, step) for w, step in zip(weights, steps, strict=True)])
        gradients = [w.clone() for w in weights]
        pushes = [Push(penalty, w, g, number(0.5)) for w, g in zip(weights, gradients, strict=True)]
        added = add_gradients_(pushes)
    return (
        weights + gradients,
        [bool(flag) for flag in bad + [a.bad for a in added]],
        [float(a.value) for a in added if a.value is not None],
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("penalty", PENALTIES.values(), ids=PENALTIES)
@pytest.mark.parametrize("numbers_there", [False, True], ids=["numbers of the host", "numbers on the device"])
def test_passes_give_the_bits_of_the_cpu(penalty: Penalty, dtype: torch.dtype, numbers_there: bool) -> None:
    tensors, bad, values = passed(penalty, dtype, DEVICE, "gpu", numbers_there=numbers_there)
    wanted, wanted_bad, wanted_values = passed(penalty, dtype, "cpu", "cpu")
    assert all(map(same_bits, tensors, wanted))
    assert bad == wanted_bad
    assert bad == [False, True, False] * 3
    torch.testing.assert_close(torch.tensor(values), torch.tensor(wanted_values), rtol=1e-6, atol=0, equal_nan=True)
