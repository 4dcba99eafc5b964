"""Whether a smaller model still gives the outputs of the one that it came from, on an example."""

from typing import Any

import torch
from torch import Tensor, nn

from wellposed.errors import WellposedError
from wellposed.models.copying import copied
from wellposed.models.example import Arguments, tensors_in, with_tensors
from wellposed.models.example import copied as copied_input


class Comparison:
    """A model's outputs on an example, to hold another model's against, and how many dimensions each module's have.

    They are computed in float64, so that 1e-6 of their scale is far from rounding. A model that takes only its own
    dtype, or a device without float64, gets what its own rounding allows.
    """

    def __init__(self, model: nn.Module, inputs: Arguments) -> None:
        self.inputs, self.ranks = inputs, dict[str, int]()
        self.double = not any(tensor.device.type == "mps" for tensor in (*model.parameters(), *tensors_in(inputs)))
        try:
            self.wanted = self._outputs(model, self.ranks)
        except Exception:
            self.double = False
            try:
                self.wanted = self._outputs(model, self.ranks)
            except Exception as error:
                raise WellposedError(f"the model does not take the example: {error}") from error
        own = [p.dtype for p in model.parameters() if p.is_floating_point() or p.is_complex()]
        rounding = max((torch.finfo(dtype).eps for dtype in own), default=0.0)
        self.tolerance = max(1e-6, (8 if self.double else 64) * rounding)

    def difference(self, other: nn.Module) -> str:
        """How another model's outputs differ, or nothing."""
        try:
            found = self._outputs(other, {})
        except Exception as error:  # whatever a broken model may raise
            return f"fails ({error})"
        if [tensor.shape for tensor in found] != [tensor.shape for tensor in self.wanted]:
            return "gives outputs of other shapes"
        for a, b in zip(self.wanted, found, strict=True):
            scale = float(a[a.isfinite()].abs().max()) if a.isfinite().any() else 0.0
            if not torch.allclose(a, b, rtol=0.0, atol=self.tolerance * scale, equal_nan=True):
                return f"gives other outputs (by {float((a - b).abs().max()):.2g}, where they reach {scale:.2g})"
        return ""

    @torch.no_grad()
    def _outputs(self, model: nn.Module, ranks: dict[str, int]) -> list[Tensor]:
        trial = copied(model).eval()
        for name, module in trial.named_modules():
            module.register_forward_hook(_Rank(name, ranks))
        packing = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)  # it puts zeros where the input is padding
        try:
            inputs = copied_input(self.inputs)
            args, kwargs = with_tensors(inputs, _doubled) if self.double else inputs
            given = (trial.double() if self.double else trial)(*args, **kwargs)
        finally:
            torch.backends.mha.set_fastpath_enabled(packing)
        return [tensor.to(torch.promote_types(tensor.dtype, torch.float32)) for tensor in tensors_in(given)]


class _Rank:
    """A hook that writes down how many dimensions a module's output has."""

    only_watches = True

    def __init__(self, name: str, ranks: dict[str, int]) -> None:
        self.name, self.ranks = name, ranks

    def __call__(self, module: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            self.ranks[self.name] = output.ndim


def _doubled(tensor: Tensor) -> Tensor:
    return tensor.double() if tensor.is_floating_point() else tensor
