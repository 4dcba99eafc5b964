"""Gains: by how much a weight must be scaled for an activation function to keep the size of a signal."""

import copy
import functools
import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from wellposed.errors import WellposedError

Moment = Literal["forward", "backward", "compromise"]

_REACH = 38  # the density of N(0, 1) leaves the range of float64 just beyond
_NODES = 16
_TOLERANCE = 1e-13  # of a panel's integral, relative to the whole
_ROUGH = 1e-7  # of the whole, accepted when rounding inside the callable lets no panel settle
_NARROWEST = 1e-13  # of a panel: a jump is then known to rounding
_MOST_PANELS = 20_000


def gain(fn: Callable[[Tensor], Tensor], *, moment: Moment = "forward", std: float = 1.0) -> float:
    """The gain of an activation function: the factor that keeps the second moment of a signal through it.

    With z ~ N(0, std^2),

    - forward: 1 / sqrt(E[fn(z)^2]), which keeps the second moment of the signal from layer to layer;
    - backward: 1 / sqrt(E[fn'(z)^2]), which keeps that of the gradient;
    - compromise: sqrt(2 / (E[fn(z)^2] + E[fn'(z)^2])), the harmonic mean of the two variances, which is how Glorot &
      Bengio reconcile the same two wishes.

    The expectations are integrals over panels, by Gauss-Legendre quadrature in float64; a panel on which one rule and
    the same rule on its two halves disagree is halved, so that kinks and jumps are found wherever they are.

    Args:
        fn: Any elementwise function of a tensor, or a module. Of a module a copy is used, in float64 and evaluation
            mode.
        moment: Which moment to keep.
        std: The standard deviation of what the function takes.

    Returns:
        The gain: of no unit, accurate to about 1e-10.

    Raises:
        WellposedError: If ``fn`` is not an elementwise deterministic function of a float64 tensor, or the moment is
            zero, infinite or not a number.

    Example:
        >>> round(gain(torch.relu) ** 2, 9), round(gain(torch.nn.functional.gelu), 6)
        (2.0, 1.53353)

    Source: forward, He et al. (2015); compromise, Glorot & Bengio (2010), equation 12.
    """
    if moment not in ("forward", "backward", "compromise"):
        raise WellposedError(f"gain was given moment={moment!r}; expected 'forward', 'backward' or 'compromise'")
    if not 0 < std < math.inf:
        raise WellposedError(f"gain was given std={std!r}; expected a positive finite number")
    if not callable(fn):
        raise WellposedError(
            f"gain was given {fn!r} of type {type(fn).__name__}; expected a callable on tensors, such as torch.relu or "
            "torch.nn.GELU()"
        )
    if isinstance(fn, torch.nn.Module):
        fn = copy.deepcopy(fn).to("cpu", torch.float64).eval()
    name = _name(fn)
    needed = ("forward", "backward") if moment == "compromise" else (moment,)
    with torch.inference_mode(False), torch.device("cpu"):
        _check_elementwise(fn, name)
        mean_square = sum(
            _expected_square(_VALUES[which](fn, std), f"E[{_SYMBOL[which]}(z)^2]", name) for which in needed
        )
    return math.sqrt(len(needed) / mean_square)


def _forward(fn: Callable[[Tensor], Tensor], std: float) -> Callable[[Tensor], Tensor]:
    def values(z: Tensor) -> Tensor:
        with torch.no_grad():
            return fn(z * std).to(torch.float64)

    return values


def _backward(fn: Callable[[Tensor], Tensor], std: float) -> Callable[[Tensor], Tensor]:
    def slopes(z: Tensor) -> Tensor:
        with torch.enable_grad():
            leaf = (z * std).requires_grad_()
            out = fn(leaf.clone())
            if not out.requires_grad:
                return torch.zeros_like(z)
            (slope,) = torch.autograd.grad(out.sum(), leaf, materialize_grads=True)
        return slope

    return slopes


_VALUES = {"forward": _forward, "backward": _backward}
_SYMBOL = {"forward": "fn", "backward": "fn'"}


def _check_elementwise(fn: Callable[[Tensor], Tensor], name: str) -> None:
    z = torch.linspace(-3.0, 3.0, 50, dtype=torch.float64)
    wanted = "expected an elementwise deterministic function of a float64 tensor"
    try:
        with torch.no_grad():
            whole, part = fn(z.clone()), fn(z[:21].clone())
    except Exception as error:
        raise WellposedError(f"gain was given {name}, which fails on a float64 tensor ({error}); {wanted}") from error
    if not (isinstance(whole, Tensor) and isinstance(part, Tensor)) or whole.shape != z.shape or part.shape != (21,):
        raise WellposedError(
            f"gain was given {name}, which returns something of another shape than its input; {wanted}"
        )
    if not torch.allclose(whole[:21], part, rtol=1e-6, atol=1e-12, equal_nan=True):
        raise WellposedError(
            f"gain was given {name}, whose value at an element depends on the other elements or on chance; {wanted}"
        )


class _Panels(NamedTuple):
    low: Tensor
    high: Tensor

    def halves(self) -> "_Panels":
        middle = (self.low + self.high) / 2
        return _Panels(torch.stack([self.low, middle], 1).flatten(), torch.stack([middle, self.high], 1).flatten())

    def where(self, mask: Tensor) -> "_Panels":
        return _Panels(self.low[mask], self.high[mask])


def _expected_square(values: Callable[[Tensor], Tensor], moment: str, name: str) -> float:
    """E[values(z)^2] for z ~ N(0, 1)."""
    edges = torch.arange(-_REACH, _REACH + 1, dtype=torch.float64, device="cpu")
    panels = _Panels(edges[:-1], edges[1:])
    coarse = _integrate(values, panels, name)
    total = float(coarse.sum())
    done, used, unsettled = 0.0, len(coarse), 0.0
    while len(coarse):
        panels = panels.halves()
        fine = _integrate(values, panels, name)
        pairs = fine.view(-1, 2).sum(1)
        total = done + float(pairs.sum())
        used += len(fine)
        rough = (pairs - coarse).abs() > _TOLERANCE * total
        narrow = (panels.high - panels.low).view(-1, 2).sum(1) <= _NARROWEST
        if used > _MOST_PANELS:
            narrow = torch.ones_like(narrow)
        unsettled += float(((pairs - coarse).abs() * (rough & narrow)).sum())
        done += float(pairs[~rough | narrow].sum())
        again = (rough & ~narrow).repeat_interleave(2)
        panels, coarse = panels.where(again), fine[again]
    tails = torch.tensor([-_REACH, _REACH - 1], dtype=torch.float64, device="cpu")
    tail = float(_integrate(values, _Panels(tails, tails + 1), name).sum())
    if not done < math.inf or tail > 1e-9 * done:
        raise WellposedError(
            f"{moment} of {name} is infinite, or too far out to tell; no gain keeps a signal through it: bound it"
        )
    if done < 1e-300:
        raise WellposedError(f"{moment} of {name} is zero; no gain keeps a signal through it: give another function")
    if unsettled > _ROUGH * done:
        raise WellposedError(
            f"{moment} of {name} does not settle to {_ROUGH:g}: it is singular or varies too fast to integrate"
        )
    return done


def _integrate(values: Callable[[Tensor], Tensor], panels: _Panels, name: str) -> Tensor:
    """The integral of values(z)^2 times the normal density over each panel, by one rule."""
    nodes, weights = _rule()
    half = (panels.high - panels.low) / 2
    z = (panels.low + half)[:, None] + half[:, None] * nodes
    y = values(z.flatten()).view_as(z)
    # The root of the density goes in before the square, so that fast-growing functions do not overflow on the way.
    integrand = (y * torch.exp(-z.square() / 4)).square()
    if not bool(torch.isfinite(integrand).all()):
        at = float(z[~torch.isfinite(integrand)][0])
        raise WellposedError(
            f"the second moment of {name} is infinite or not a number: it has no finite value at z = {at:.6g}; give a "
            "function that is finite on the real line and grows slowly"
        )
    return half * (integrand @ weights) / math.sqrt(2 * math.pi)


@functools.cache
def _rule() -> tuple[Tensor, Tensor]:
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    return torch.from_numpy(nodes), torch.from_numpy(weights)


def _name(fn: Callable[[Tensor], Tensor]) -> str:
    return getattr(fn, "__name__", None) or repr(fn)
