"""What all tests share."""

import os
from collections.abc import Iterator

import hypothesis
import pytest
import torch

hypothesis.settings.register_profile("fixed", derandomize=True, deadline=None)
hypothesis.settings.load_profile("fixed")
os.environ.setdefault("MPLBACKEND", "Agg")
if not torch.cuda.is_available():  # Triton's kernels are run by its interpreter, which is chosen when it is imported
    os.environ.setdefault("TRITON_INTERPRET", "1")
if "PYTEST_XDIST_WORKER" in os.environ:  # as many workers as cores: more threads would only get in each other's way
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _torch_state_is_left_alone() -> Iterator[None]:
    """No test may leave another thread count, and no call may advance torch's generator unless a test says so."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
