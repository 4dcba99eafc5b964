"""Launches of Triton kernels, each compiled once for a device, for dtypes and alignments of tensors, and constants."""

import functools
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
import triton
from torch import Tensor

IS_INTERPRETED = bool(triton.knobs.runtime.interpret)  # by Triton's interpreter, which needs no device


@functools.cache
def target() -> str:
    """What kernels are compiled for: "cuda", "hip", "xpu", ..., or "interpreter"."""
    return "interpreter" if IS_INTERPRETED else str(triton.runtime.driver.active.get_current_target().backend)


class Launcher:
    """A Triton kernel with the versions of it that are compiled already.

    Triton finds a version by all arguments, at each launch anew, which takes the host longer than a small tensor takes
    the device. A kernel whose numbers are not specialised needs less to be told by.

    Args:
        kernel: The kernel. It takes tensors, then numbers that it is not specialised on, then constants.
        warps: The warps of a program.
    """

    def __init__(self, kernel: Any, warps: int = 4) -> None:
        self._kernel, self._warps = kernel, warps
        self._compiled: dict[tuple[Any, ...], Any] = {}

    def __call__(
        self,
        programs: int | tuple[int, int],
        tensors: tuple[Tensor, ...],
        numbers: tuple[int, ...],
        constants: tuple[Any, ...],
    ) -> None:
        """Launch so many programs on the device of the first tensor, on torch's current stream."""
        grid = (programs, 1, 1) if isinstance(programs, int) else (*programs, 1)
        if 0 in grid:
            return
        if IS_INTERPRETED:
            with np.errstate(all="ignore"):  # of which a device would not warn either
                self._kernel[grid](*tensors, *numbers, *constants)
            return
        device = tensors[0].device.index
        elsewhere = torch.accelerator.current_device_index() != device
        with torch.accelerator.device_index(device) if elsewhere else nullcontext():
            key = (device, constants, *[(t.dtype, t.data_ptr() % 16 == 0) for t in tensors])
            compiled = self._compiled.get(key)
            if compiled is None:
                # No fused multiply-add: each operation rounds, as it does on every other device.
                compiled = self._kernel.warmup(
                    *tensors, *numbers, *constants, grid=grid, num_warps=self._warps, enable_fp_fusion=False
                )
                self._compiled[key] = compiled
            compiled[grid](*tensors, *numbers, *constants)
