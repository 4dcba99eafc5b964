"""Elements that share a word come out bit for bit as the definition says, for runs and parts of them of any length."""

import pytest
import torch
from torch import Tensor

import wellposed as wp
from wellposed.random.draw import CODES
from wellposed.random.kernels import engine

KEY, THRESHOLD, SCALE = wp.Key(7), 2**31, 1.7
GUARD = 64  # elements before and after those that are to be written
LENGTHS = (*range(1, 40), 63, 64, 65, 100, 784, 2047, 4096, 4097, 8200)


def bits(x: Tensor) -> Tensor:
    return x.view({2: torch.int16, 4: torch.int32, 8: torch.int64}[x.element_size()])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("length", LENGTHS)
def test_runs_are_scaled_or_zero_and_nothing_else_is_touched(length: int, dtype: torch.dtype) -> None:
    runs = 7
    count = runs * length
    x = wp.random.normal((count,), KEY.fold("x", length), dtype=dtype)
    odd = torch.tensor([torch.nan, torch.inf, -torch.inf, -0.0, torch.finfo(dtype).tiny / 2], dtype=dtype)
    x[: odd.numel()] = odd[:count]
    exact = torch.promote_types(dtype, torch.float32)
    dropped = (wp.random.bits((runs,), KEY).long() & 0xFFFF_FFFF) < THRESHOLD
    assert 0 < dropped.sum() < runs
    kept = (x.to(exact) * torch.tensor(SCALE, dtype=exact)).to(dtype)
    expected = torch.where(dropped.repeat_interleave(length), torch.zeros((), dtype=dtype), kept)
    for first, last in ((0, count), (length // 2, count - length // 3), (0, 1), (count - 1, count)):
        memory = torch.full((GUARD + count + GUARD,), 5.0, dtype=dtype)
        out = memory[GUARD : GUARD + count]
        name = (*KEY.words, 0, THRESHOLD, SCALE)
        engine.thin_groups(x.data_ptr(), out.data_ptr(), CODES[dtype], first, last, length, *name)
        written, wanted = out[first:last], expected[first:last]
        assert torch.equal(written.isnan(), wanted.isnan())
        assert torch.equal(bits(written.nan_to_num()), bits(wanted.nan_to_num()))
        assert (memory[: GUARD + first] == 5).all()
        assert (memory[GUARD + last :] == 5).all()
