"""Rules of schemes for deep residual models: what residual branches start as, given how many there are."""

import dataclasses
import math
from collections.abc import Sequence

from wellposed.errors import WellposedError
from wellposed.init.initializers.entrywise import Constant, Normal, Zeros
from wellposed.init.initializers.hadamard import Hadamard
from wellposed.init.initializers.variance_scaling import Glorot, He
from wellposed.init.schemes.scheme import Choice, Site, auto, embedding, start
from wellposed.models.globs import matches
from wellposed.models.tracing.signals import Branch

_QUERIES = ("*q_proj*", "*k_proj*", "*.query*", "*.key*", "*.q.*", "*.k.*", "*q_lin*", "*k_lin*")
_DECODERS = ("*decoder*", "*multihead_attn*", "*encoder_attn*", "*crossattention*", "*EncDecAttention*")


def gpt2(site: Site) -> Choice:
    """Normal of 0.02; the last weight of each of n residual branches divided by sqrt(n)."""
    if site.last:
        return Choice(Normal(0.0, 0.02 / math.sqrt(len(site.branches))), note=_ends(site))
    return Choice(Normal(0.0, 0.02))


def deepnorm(site: Site) -> Choice:
    """Glorot's, with everything in a residual branch but queries and keys times beta."""
    if not _in_branch(site) or _asks(site):
        return Choice(Glorot(distribution="normal"))
    encoders, decoders = _layers(site.branches)
    if not decoders:
        beta = (8 * encoders) ** -0.25
    elif _is_one_of(site.name, _DECODERS):
        beta = (12 * decoders) ** -0.25
    else:
        beta = 0.87 * (encoders**4 * decoders) ** (-1 / 16)
    return Choice(Glorot(beta**2, distribution="normal"), beta, "in a residual branch: times beta")


def deepnorm_note(branches: Sequence[Branch]) -> str:
    """The factors by which the model has to multiply its residual stream for DeepNorm to hold."""
    encoders, decoders = _layers(branches)
    if not decoders:
        alphas = f"{(2 * encoders) ** 0.25:.4g}"
    else:
        alphas = (
            f"{0.81 * (encoders**4 * decoders) ** (1 / 16):.4g} (encoder) and {(3 * decoders) ** 0.25:.4g} (decoder)"
        )
    return f"deepnorm holds if the model multiplies its residual stream by {alphas} at each sum and normalises the sum"


def t_fixup(site: Site) -> Choice:
    """Glorot's, with everything in a residual branch but queries and keys scaled down with depth."""
    if not _in_branch(site) or _asks(site):
        return Choice(Glorot())
    encoders, decoders = _layers(site.branches)
    factor = (9 * decoders) ** -0.25 if decoders and _is_one_of(site.name, _DECODERS) else 0.67 * encoders**-0.25
    return Choice(Glorot(factor**2), factor, "in a residual branch: scaled down with depth")


def t_fixup_embedding(site: Site) -> Choice:
    """Normal of dim^-1/2, scaled down with depth."""
    encoders, decoders = _layers(site.branches)
    factor = (9 * (decoders or encoders)) ** -0.25
    return Choice(Normal(0.0, site.shape[-1] ** -0.5 * factor), factor)


def fixup(site: Site) -> Choice:
    """He's; branches of m weights scaled by n^(-1 / (2m - 2)), their last weight and the output zero."""
    if site.output:
        return Choice(Zeros(), 0.0, "makes the output")
    if site.branch is None:
        return Choice(He(distribution="normal"), math.sqrt(2))
    if site.last:
        return Choice(Zeros(), 0.0, _ends(site))
    factor = len(site.branches) ** (-1 / (2 * len(site.branch.weights) - 2))
    return Choice(He(2 * factor**2, distribution="normal"), math.sqrt(2) * factor, "in a residual branch")


def rezero(site: Site) -> Choice:
    """As auto, for branches that end in a gate or a scale, which is zero."""
    if site.last and site.branch is not None and not site.branch.gates and not site.branch.norms:
        raise WellposedError(
            f"rezero closes each residual branch by a gate or a normalisation's scale, but {site.name} ends one that "
            "has neither; multiply the branch by a learnt number, or use 'fixup'"
        )
    return auto(site)


def rezero_scale(site: Site) -> Choice:
    """The scale at the end of a branch that has no gate multiplies by zero, all others by one."""
    if site.last and site.branch is not None and not site.branch.gates:
        return Choice(Constant(-1.0) if site.part.start == 0 else Zeros(), 0.0, _ends(site))
    return Choice(start(site))


def closed_embedding(site: Site) -> Choice:
    """As auto, where rows make up the residual stream, for branches add nothing to it at first."""
    return embedding(dataclasses.replace(site, enlarged=True))


def zero(site: Site) -> Choice:
    """Identity or Hadamard; the last weight of each residual branch zero."""
    if site.last:
        return Choice(Zeros(), 0.0, _ends(site))
    return Choice(Hadamard())


def _ends(site: Site) -> str:
    return f"ends one of {len(site.branches)} residual branches"


def _layers(branches: Sequence[Branch]) -> tuple[float, float]:
    """How many encoder layers, of two branches, and decoder layers, of three, there are."""
    decoding = sum(any(_is_one_of(name, _DECODERS) for name in branch.last) for branch in branches)
    if decoding == len(branches):  # a decoder by itself has no cross-attention
        return decoding / 2, 0
    return (len(branches) - decoding) / 2, decoding / 3


def _is_one_of(name: str, globs: Sequence[str]) -> bool:
    return any(matches(name, glob) for glob in globs)


def _asks(site: Site) -> bool:
    """Whether a weight makes attention's queries or keys, whose size does not reach the residual sum."""
    return site.part.block in ("q", "k") or (site.part.block is None and _is_one_of(site.name, _QUERIES))


def _in_branch(site: Site) -> bool:
    return site.branch is not None or site.part.block == "v"
