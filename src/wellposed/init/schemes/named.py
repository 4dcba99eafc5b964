"""The schemes that have a name, as data."""

import math

from torch import nn

from wellposed.errors import WellposedError
from wellposed.init.initializers.entrywise import Normal, Uniform, Zeros
from wellposed.init.initializers.initializer import Initializer
from wellposed.init.initializers.orthogonal import Orthogonal
from wellposed.init.initializers.variance_scaling import Glorot, He, LeCun
from wellposed.init.schemes import depth, unit_variance
from wellposed.init.schemes.scheme import Choice, Scheme, Site, token
from wellposed.models.roles import CONVOLUTIONS


def _orthogonal(site: Site) -> Choice:
    gain = site.following.gain * site.following.scores
    return Choice(Orthogonal(gain), gain, site.following.note)


def _chapter(site: Site) -> Choice:
    if site.following.text.lower().startswith("relu"):
        return Choice(He(bound="chapter"), note="a rectifier follows")
    return Choice(Glorot(bound="chapter"))


def _torch(site: Site) -> Initializer:
    """The distributions of ``reset_parameters``, with the fans that torch takes."""
    module, name = site.module, site.attribute
    if isinstance(module, nn.MultiheadAttention):
        if name in ("bias_k", "bias_v"):
            return Glorot(distribution="normal").at((site.whole[2], site.whole[2]))
        return Zeros() if site.part.kind == "bias" else Glorot().at(site.whole)
    if type(module).__name__ == "NonDynamicallyQuantizableLinear" and site.part.kind == "bias":
        return Zeros()
    if isinstance(module, nn.RNNBase | nn.RNNCellBase):
        return _within(module.hidden_size)
    if isinstance(module, nn.Bilinear):
        return _within(module.in1_features)
    if isinstance(module, (nn.Linear, *CONVOLUTIONS)):
        weight = module.weight
        return _within(weight[0].numel() if weight.ndim > 1 and weight.shape[0] else 1)
    if site.part.kind in ("bias", "forget"):
        return Zeros()
    return _within(site.fans[0])


def _within(fan: float) -> Initializer:
    bound = 1 / math.sqrt(fan) if fan else 0.0
    return Uniform(-bound, bound)


SCHEMES: dict[str, Scheme] = {
    scheme.name: scheme
    for scheme in (
        Scheme("auto", "this package: the gain of what follows over sqrt(fan_in); residual branches scaled"),
        Scheme("glorot", "Glorot & Bengio (2010)", {"weight": Glorot()}),
        Scheme("he", "He et al. (2015)", {"weight": He(distribution="normal")}),
        Scheme("lecun", "LeCun et al. (1998); Klambauer et al. (2017)", {"weight": LeCun(distribution="normal")}),
        Scheme(
            "chapter",
            "the notebook chapter: He's bound sqrt(2 / fan_in) before rectifiers, Glorot's sqrt(1 / fan_in) elsewhere",
            {"weight": _chapter, "recurrent": _chapter},
        ),
        Scheme(
            "torch",
            "the distributions of PyTorch's reset_parameters",
            {
                "weight": _torch,
                "recurrent": _torch,
                "bias": lambda site: _torch(site),
                "forget": _torch,
                "token": lambda site: _torch(site) if isinstance(site.module, nn.MultiheadAttention) else token(site),
                "embedding": Normal(0.0, 1.0),
            },
        ),
        Scheme("orthogonal", "Saxe et al. (2014)", {"weight": _orthogonal}),
        Scheme(
            "gpt2",
            "Radford et al. (2019)",
            {
                "weight": depth.gpt2,
                "recurrent": depth.gpt2,
                "embedding": depth.gpt2,
                "token": Normal(0.0, 0.02),
            },
            ("branches",),
        ),
        Scheme("deepnorm", "Wang et al. (2022)", {"weight": depth.deepnorm}, ("branches",), depth.deepnorm_note),
        Scheme(
            "t_fixup",
            "Huang et al. (2020)",
            {"weight": depth.t_fixup, "embedding": depth.t_fixup_embedding},
            ("branches",),
        ),
        Scheme(
            "fixup", "Zhang et al. (2019)", {"weight": depth.fixup, "embedding": depth.closed_embedding}, ("branches",)
        ),
        Scheme(
            "rezero",
            "Bachlechner et al. (2021); without gates, the last scale of a branch as in Goyal et al. (2017)",
            {
                "gate": Zeros(),
                "weight": depth.rezero,
                "scale": depth.rezero_scale,
                "embedding": depth.closed_embedding,
            },
            ("branches",),
        ),
        Scheme(
            "zero",
            "Zhao et al. (2022)",
            {"weight": depth.zero, "recurrent": depth.zero, "embedding": depth.closed_embedding},
        ),
        Scheme("lsuv", "Mishkin & Matas (2016)", {"weight": Orthogonal()}, ("example",), fit=unit_variance.fit),
    )
}


# Other names that schemes go by, in lower case and without what separates words.
_ALIASES = {
    "xavier": "glorot",
    "kaiming": "he",
    "msra": "he",
    "saxe": "orthogonal",
    "pytorch": "torch",
    "default": "auto",
    "zerinit": "zero",
}


def scheme_of(scheme: "str | Scheme") -> Scheme:
    """The scheme of a name, in any case, by any of its names, words set apart by any sign.

    Raises:
        WellposedError: If there is none.

    Example:
        >>> scheme_of("Xavier").name, scheme_of("T-Fixup").name, scheme_of("GPT-2").name
        ('glorot', 't_fixup', 'gpt2')
    """
    if isinstance(scheme, Scheme):
        return scheme
    plain = "".join(letter for letter in scheme.lower() if letter.isalnum()) if isinstance(scheme, str) else ""
    if plain == "mup":
        raise WellposedError(
            f"the scheme {scheme!r} compares a model with a narrower one; give it: scheme=wp.init.mup(base)"
        )
    named = {name.replace("_", ""): found for name, found in SCHEMES.items()}
    found = named.get(_ALIASES.get(plain, plain))
    if found is None:
        raise WellposedError(
            f"there is no scheme {scheme!r}; expected one of {', '.join(map(repr, SCHEMES))}, or a Scheme"
        )
    return found
