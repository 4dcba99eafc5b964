"""Weights that a module computes from other parameters: by a parametrization, weight norm or spectral norm."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from wellposed import random
from wellposed._torch import OrthogonalParametrization, SpectralNormParametrization, forward_hooks
from wellposed.random.key import Key

_POWER_ITERATIONS = 15  # as many as torch takes when it sets spectral norm up


@dataclass(frozen=True)
class Computed:
    """A weight that is computed from other parameters of its module.

    Attributes:
        under: The names, in the module, of the parameters that it is computed from.
        read: Gives the weight.
        write: Changes those parameters so that the weight is the tensor given, as far as the parametrization allows.
        settle: Brings up to date what was estimated from the weight, from a key.
        linear: Whether the weight that is read is the one that was written.
        orthogonal: Whether the parametrization allows orthogonal weights alone.
        writable: Whether every parametrization can be undone.
    """

    under: tuple[str, ...]
    read: Callable[[], Tensor]
    write: Callable[[Tensor], None]
    settle: Callable[[Key], None] = lambda key: None
    linear: bool = True
    orthogonal: bool = False
    writable: bool = True


def computed_in(module: nn.Module) -> Iterator[tuple[str, Computed]]:
    """The weights of a module that are computed, each under its name in the module."""
    if parametrize.is_parametrized(module):
        lists = module.parametrizations
        assert isinstance(lists, nn.ModuleDict)
        for name, parametrizations in lists.items():
            assert isinstance(parametrizations, parametrize.ParametrizationList)
            yield name, _parametrized(module, name, parametrizations)
    for hook in forward_hooks(module)[0].values():
        if isinstance(hook, WeightNorm):
            yield hook.name, _weight_norm(module, hook)
        elif isinstance(hook, SpectralNorm):
            yield hook.name, _spectral_norm(module, hook)


def _parametrized(module: nn.Module, name: str, parametrizations: parametrize.ParametrizationList) -> Computed:
    under = tuple(f"parametrizations.{name}.{p}" for p, _ in parametrizations.named_parameters(recurse=False))
    writable = all(hasattr(p, "right_inverse") for p in parametrizations)
    orthogonal = any(isinstance(p, OrthogonalParametrization) for p in parametrizations)
    norms = [p for p in parametrizations if isinstance(p, SpectralNormParametrization)]

    def write(weight: Tensor) -> None:
        setattr(module, name, weight)

    def settle(key: Key) -> None:
        for norm in norms:
            if estimates := list(norm.buffers()):  # of a vector there are none
                u, v = estimates
                matrix = parametrizations.original.movedim(norm.dim, 0).flatten(1)
                _estimate(matrix, u, v, norm.eps, key)

    return Computed(under, lambda: getattr(module, name), write, settle, not norms, orthogonal, writable)


def _weight_norm(module: nn.Module, hook: WeightNorm) -> Computed:
    def write(weight: Tensor) -> None:
        getattr(module, f"{hook.name}_v").copy_(weight)
        getattr(module, f"{hook.name}_g").copy_(torch.norm_except_dim(weight, 2, hook.dim))
        setattr(module, hook.name, hook.compute_weight(module))

    return Computed((f"{hook.name}_v", f"{hook.name}_g"), lambda: hook.compute_weight(module), write)


def _spectral_norm(module: nn.Module, hook: SpectralNorm) -> Computed:
    original = f"{hook.name}_orig"

    def write(weight: Tensor) -> None:
        getattr(module, original).copy_(weight)

    def settle(key: Key) -> None:
        matrix = hook.reshape_weight_to_matrix(getattr(module, original))
        u, v = getattr(module, f"{hook.name}_u"), getattr(module, f"{hook.name}_v")
        _estimate(matrix, u, v, hook.eps, key)
        setattr(module, hook.name, hook.compute_weight(module, do_power_iteration=False))

    return Computed((original,), lambda: getattr(module, original), write, settle, False)


def _estimate(matrix: Tensor, u: Tensor, v: Tensor, eps: float, key: Key) -> None:
    """Bring the estimates of a matrix's first singular vectors up to date, from a start that the key gives."""
    if u.is_meta or v.is_meta:
        return
    random.normal_(u, key)
    for _ in range(_POWER_ITERATIONS):
        v.copy_(nn.functional.normalize(matrix.T @ u, dim=0, eps=eps))
        u.copy_(nn.functional.normalize(matrix @ v, dim=0, eps=eps))
