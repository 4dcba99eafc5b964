"""A device that is not there: tensors that say they are on CUDA, compute on the CPU, and refuse to be waited for.

Inside ``Accelerator()`` new tensors can be made on CUDA. What would make the host wait for a real one raises
:class:`WaitError`; what a real one could not compute, because a tensor lies elsewhere, :class:`ElsewhereError`.
"""

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_flatten, tree_map

aten = torch.ops.aten

# Each has a result whose values or shape the host needs to see; CUDA's decompositions report convergence to it.
WAITING = {
    aten._local_scalar_dense,
    aten.is_nonzero,
    aten.equal,
    aten.nonzero,
    aten.masked_select,
    aten.unique_dim,
    aten._unique2,
    aten.bincount,
    aten.repeat_interleave,
    aten._linalg_svd,
    aten._linalg_eigh,
    aten._linalg_solve_ex,
}
COPYING = {aten._to_copy, aten.copy_, aten.copy, aten._copy_from}


class WaitError(AssertionError):
    """The host would have waited for the device."""


class ElsewhereError(AssertionError):
    """A tensor of the host was given to the device, or the other way round."""


class There(Tensor):
    """A tensor that says it is on CUDA."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> "There":
        made: There = torch.Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=torch.device("cpu"),
            dispatch_device=True,  # what it says is asked of __torch_dispatch__
        )
        made.held = held.detach()
        return made

    def __repr__(self, *_: Any, **__: Any) -> str:  # type: ignore[override]
        return f"There({self.held!r})"

    # These would ask for the device's guard before anything is dispatched, and there is none.
    def copy_(self, source: Tensor, non_blocking: bool = False) -> Tensor:
        copied: Tensor = aten.copy_.default(self, source, non_blocking)
        return copied

    def contiguous(self, memory_format: torch.memory_format = torch.contiguous_format) -> Tensor:
        return self.clone(memory_format=memory_format)

    def item(self) -> Any:
        return aten._local_scalar_dense.default(self)

    def __float__(self) -> float:
        return float(self.item())

    def __invert__(self) -> Tensor:
        inverse: Tensor = aten.bitwise_not.default(self)
        return inverse

    def __int__(self) -> int:
        return int(self.item())

    def __getitem__(self, index: Any) -> Tensor:
        for part in index if isinstance(index, tuple) else (index,):
            if isinstance(part, Tensor) and part.dtype == torch.bool:
                raise WaitError("a choice by a mask")
            if isinstance(part, Tensor) and not isinstance(part, There):
                raise ElsewhereError("an index")
        return There(self.held[tree_map(_plain, index)])

    @classmethod
    def __torch_dispatch__(cls, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        if operation is torch.ops.prim.device.default:
            return torch.device("cuda", 0)
        return Accelerator.compute(operation, args, kwargs or {}, patient=True)


class Accelerator(TorchDispatchMode):
    """Lets nothing wait, unless it is patient, and writes down what ran on the device."""

    def __init__(self, *, patient: bool = False) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._mode_key = torch._C._TorchDispatchModeKey.FAKE  # keeps torch from starting CUDA
        self.patient = patient
        self.ran: list[str] = []

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if operation is torch.ops.prim.device.default:
            return torch.device("cuda", 0)
        found = self.compute(operation, args, kwargs or {}, patient=self.patient)
        if any(isinstance(t, There) for t in tree_flatten((args, kwargs or {}, found))[0]):
            self.ran.append(str(operation))
        return found

    @staticmethod
    def compute(operation: Any, args: Any, kwargs: Any, *, patient: bool) -> Any:
        name, device = operation.overloadpacket, kwargs.get("device")
        given = [t for t in tree_flatten((args, kwargs))[0] if isinstance(t, Tensor)]
        # A copy lands where it is told to, or where its first argument lies.
        told = any(isinstance(t, There) for t in (given[:1] if name in COPYING else given))
        lands = told if device is None else torch.device(device).type == "cuda"
        away = [t for t in given if isinstance(t, There) != lands]
        if not patient and ((name in COPYING and away) or (name in WAITING and lands)):
            raise WaitError(str(operation))
        if lands and device is None and name not in COPYING and any(t.ndim for t in away):
            raise ElsewhereError(str(operation))
        if not lands and not away:
            return operation(*args, **kwargs)
        plain_args, plain_kwargs = tree_map(_plain, (args, {k: v for k, v in kwargs.items() if k != "device"}))
        if "device" in kwargs:
            plain_kwargs["device"] = torch.device("cpu")
        found = operation(*plain_args, **plain_kwargs)
        if not lands:
            return found
        made = tree_map(lambda t: There(t) if isinstance(t, Tensor) else t, found)
        return return_and_correct_aliasing(operation, args, kwargs, made) if operation._schema.returns else made


def _plain(value: Any) -> Any:
    return value.held if isinstance(value, There) else value


def there(tensor: Tensor) -> Tensor:
    """A copy of a tensor of the host on the device."""
    return There(tensor.detach().clone())


def here(tensor: Tensor) -> Tensor:
    """A copy of a tensor on the device for the host to look at."""
    assert isinstance(tensor, There), f"a tensor of the host: {tensor}"
    return tensor.held.clone()
