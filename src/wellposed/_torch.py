"""Private names of torch that we lean on, each with its reason; no other file uses any."""

import ctypes
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.compiler import is_compiling
from torch.overrides import has_torch_function_unary

PLAIN_TYPES = (Tensor, torch.nn.Parameter)  # types whose values lie at their address, unlike those of most subclasses

transforms_are_active = torch._C._are_functorch_transforms_active  # those of ``torch.func``: grad, vmap, ...
_dispatch_modes = torch._C._len_torch_dispatch_stack
_tracer = torch._C._get_tracing_state  # of ``torch.jit.trace``; ``torch.jit.is_tracing`` takes five times as long
# What ``torch.autograd.grad(..., is_grads_batched=True)`` hands to backward passes: an old kind of batch without memory.
_is_batched = torch._C._functorch.is_legacy_batchedtensor


def is_ordinary(x: Tensor) -> bool:
    """Whether nothing but autograd watches what happens to a tensor, so that a kernel may work on its memory.

    Compilers, tracers, function transforms, modes and subclasses do, and have to be shown an operator instead. Torch
    has no public name for the transforms and the dispatch modes that are active: without these, ``torch.func.grad`` or
    a ``FakeTensorMode`` would not see what was done.
    """
    return (
        type(x) in PLAIN_TYPES
        and not is_compiling()
        and not transforms_are_active()
        and _dispatch_modes() == 0
        and not has_torch_function_unary(x)  # by a function mode, since no such type has it
        and _tracer() is None
        and not _is_batched(x)
    )


def is_recorded(x: Tensor) -> bool:
    """Whether autograd, in reverse or forward mode, is to know what is done to an ordinary tensor.

    It is asked since applying a function of autograd costs as much as dropping a few thousand elements. That a forward
    mode is open has no public name.
    """
    return (x.requires_grad and torch.is_grad_enabled()) or forward_ad._current_level >= 0


def materialized(tangent: Tensor) -> Tensor:
    """A tangent as a tensor with memory: forward-mode autograd hands out zeros that have none, with no public name."""
    return tangent.clone() if tangent._is_zerotensor() else tangent


def apply_of(function: type[torch.autograd.Function]) -> Callable[..., Tensor]:
    """A function of autograd's ``apply`` for ordinary tensors, without its look for function transforms.

    ``is_ordinary`` has looked already, and to look again takes longer than to drop a thousand elements.
    """
    apply: Callable[..., Tensor] = super(torch.autograd.Function, function).apply  # type: ignore[misc]
    return apply


def parallel_for() -> int:
    """The address of ``torch_parallel_for``, by which native code runs on torch's own threads; 0 if there is none.

    It is in torch's stable C interface (torch/csrc/stable/c/shim.h), but no Python name leads to it: without it, work
    is done by one thread.
    """
    for library in (Path(torch.__file__).parent / "lib").glob("*torch_cpu.*"):
        try:
            function = ctypes.CDLL(str(library)).torch_parallel_for
        except (OSError, AttributeError):
            continue
        return ctypes.cast(function, ctypes.c_void_p).value or 0
    return 0
