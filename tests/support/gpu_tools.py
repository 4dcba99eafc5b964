"""Where the Triton kernels run: on a GPU if there is one, else by Triton's interpreter on tensors of the host."""

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton", reason="the GPU's kernels are written in Triton, which is not installed")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def same_bits(a: Tensor, b: Tensor) -> bool:
    """Equal bit for bit wherever they lie, but for the bits that tell one NaN from another."""
    a, b = (torch.view_as_real(t) if t.is_complex() else t for t in (a.detach().cpu(), b.detach().cpu()))
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if a.is_floating_point():
        if not torch.equal(a.isnan(), b.isnan()):
            return False
        a, b = a.nan_to_num(), b.nan_to_num()
    integer = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[a.element_size()]
    return torch.equal(a.contiguous().view(integer), b.contiguous().view(integer))
