"""The initializer of convolutions that are a short-time Fourier transform."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from wellposed.errors import WellposedError
from wellposed.init.initializers.whole import Whole
from wellposed.models.fans import LINEAR, Axes, matrices
from wellposed.random.key import Key

_WINDOWS = ("hann", "hamming", "blackman", "bartlett", "cosine", "nuttall")


@dataclass(frozen=True)
class STFT(Whole):
    """A convolution over time that is one side of a short-time Fourier transform; no randomness.

    Output f of F takes frequency ``f / N`` with ``N = 2 (F - 1)``: its kernel is ``w(t) cos(2 pi f t / N) / s``, or
    ``-w(t) sin(2 pi f t / N) / s``, with a window w of the kernel's length.

    Args:
        side: ``"real"``, the cosines, or ``"imag"``, the sines.
        window: ``"hann"``, ``"hamming"``, ``"blackman"``, ``"bartlett"``, ``"cosine"``, ``"nuttall"``, or ``None`` for
            none, and then no scaling either.
        scaling: ``"density"``: s is ``sqrt(sum w^2)``; ``"spectrum"``: s is ``sum |w|``; ``None``: s is 1.
        periodic: Whether the window is one period of a function, and not symmetric.

    Raises:
        WellposedError: If a name is not one of these; when it is used, if the weight is no kernel over one dimension of
            at least two outputs.

    Example:
        >>> import wellposed as wp
        >>> wp.init.STFT(window=None)((3, 1, 4), wp.Key(0))[2, 0]
        tensor([ 1., -1.,  1., -1.])

    Source: keras.initializers.STFT, whose values these are.
    """

    keyed: ClassVar[bool] = False
    side: Literal["real", "imag"] = "real"
    window: str | None = "hann"
    scaling: Literal["density", "spectrum"] | None = "density"
    periodic: bool = False

    def __post_init__(self) -> None:
        for name, value, choices in (
            ("side", self.side, ("real", "imag")),
            ("window", self.window, (*_WINDOWS, None)),
            ("scaling", self.scaling, ("density", "spectrum", None)),
        ):
            if value not in choices:
                raise WellposedError(f"{self} was given; expected {name} to be one of {', '.join(map(repr, choices))}")

    def _check(self, shape: tuple[int, ...], axes: Axes) -> None:
        if len(axes.resolve(shape).field) != 1 or matrices(shape, axes).rows < 2:
            raise WellposedError(
                f"{self} was given a weight of shape {shape}; expected a kernel over one dimension with at least two "
                "outputs, such as Conv1d's"
            )

    def _whole(self, shape: tuple[int, ...], axes: Axes, key: Key, like: Tensor) -> Tensor:
        m = matrices(shape, axes)
        kernel = self._kernel(shape, axes).to(like.device, like.dtype)
        return m.weight(kernel.expand(m.stack, -1, m.columns // kernel.shape[3], -1), shape)

    def _kernel(self, shape: Sequence[int], axes: Axes) -> Tensor:
        """For one input, of shape (1, outputs, 1, length)."""
        outputs, length = matrices(shape, axes).rows, shape[axes.resolve(shape).field[0]]
        time = torch.arange(length, dtype=torch.float64, device="cpu")
        turns = torch.arange(outputs, dtype=torch.float64, device="cpu").outer(time) / (2 * (outputs - 1))
        kernel = torch.cos(2 * math.pi * turns) if self.side == "real" else -torch.sin(2 * math.pi * turns)
        if self.window is not None:
            make = getattr(torch.signal.windows, self.window)
            window: Tensor = make(length, sym=not self.periodic, dtype=torch.float64, device="cpu")
            sizes = {"density": window.square().sum().sqrt(), "spectrum": window.abs().sum(), None: window.new_ones(())}
            kernel = kernel * window / sizes[self.scaling]
        return kernel[None, :, None]

    def std_for(self, shape: Sequence[int], axes: Axes = LINEAR) -> float:
        """The standard deviation over all entries."""
        if 0 in shape:
            return 0.0
        self._check(tuple(shape), axes)
        return float(self._kernel(shape, axes).std(correction=0))
