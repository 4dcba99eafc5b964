"""Initializers by name, or from plain values as files have them."""

import dataclasses
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from wellposed.errors import WellposedError
from wellposed.init.initializers.entrywise import Constant, Normal, Ones, Random, TruncatedNormal, Uniform, Zeros
from wellposed.init.initializers.fourier import STFT
from wellposed.init.initializers.hadamard import Hadamard
from wellposed.init.initializers.identity import Dirac, Identity
from wellposed.init.initializers.initializer import Initializer
from wellposed.init.initializers.orthogonal import DeltaOrthogonal, Orthogonal
from wellposed.init.initializers.sparse import Sparse
from wellposed.init.initializers.state_space import DecayRates, StepSizes
from wellposed.init.initializers.variance_scaling import Glorot, He, LeCun, VarianceScaling

_CLASSES: dict[str, type[Initializer]] = {
    kind.__name__: kind
    for kind in (
        *(Constant, Normal, Ones, Random, TruncatedNormal, Uniform, Zeros, VarianceScaling, Glorot, He, LeCun),
        *(Orthogonal, DeltaOrthogonal, Identity, Dirac, Sparse, Hadamard, STFT, DecayRates, StepSizes),
    )
}
# Other names, in lower case and without what separates words, and the fields that they stand for.
_NORMAL, _CUT = {"distribution": "normal"}, {"distribution": "truncated_normal"}
_ALIASES: dict[str, tuple[str, dict[str, Any]]] = {
    "xavier": ("Glorot", {}),
    "kaiming": ("He", {}),
    "eye": ("Identity", {}),
    # torch.nn.init
    "truncnormal": ("TruncatedNormal", {}),
    "xavieruniform": ("Glorot", {}),
    "xaviernormal": ("Glorot", _NORMAL),
    "kaiminguniform": ("He", {}),
    "kaimingnormal": ("He", _NORMAL),
    # Keras and JAX, whose normal ones are truncated
    "glorotuniform": ("Glorot", {}),
    "glorotnormal": ("Glorot", _CUT),
    "heuniform": ("He", {}),
    "henormal": ("He", _CUT),
    "lecununiform": ("LeCun", {}),
    "lecunnormal": ("LeCun", _CUT),
}


def get(spec: Initializer | str | Mapping[str, Any]) -> Initializer:
    """The initializer that a name or a mapping of plain values stands for, as a configuration file has them.

    Args:
        spec: The name of a class, in any case, or the one that torch.nn.init, Keras or JAX has for it, which stands for
            its defaults; or a mapping with that name under ``"type"`` and fields beside it. An initializer is given
            back as it is.

    Returns:
        The initializer.

    Raises:
        WellposedError: If there is none of the name, or its fields are others.

    Example:
        >>> get("kaiming_normal"), get({"type": "VarianceScaling", "scale": 2.0, "mode": "fan_out"}).scale
        (He(scale=2.0, mode='fan_in', distribution='normal', bound='paper'), 2.0)
    """
    if isinstance(spec, Initializer):
        return spec
    fields = {"type": spec} if isinstance(spec, str) else spec
    if not isinstance(fields, Mapping) or not isinstance(fields.get("type"), str):
        raise WellposedError(
            f"an initializer was given as {spec!r}; expected its name, as 'Orthogonal', or its name and fields, as "
            "{'type': 'Normal', 'std': 0.02}"
        )
    kind, implied = _named(fields["type"])
    given = implied | {name: value for name, value in fields.items() if name != "type"}
    takes = [field for field in dataclasses.fields(kind) if field.init]  # type: ignore[arg-type]
    missing = [f.name for f in takes if f.default is dataclasses.MISSING and f.name not in given]
    if missing or given.keys() - {field.name for field in takes}:
        names = ", ".join(field.name for field in takes) or "none"
        raise WellposedError(
            f"{kind.__name__} was given the fields {', '.join(map(str, given)) or 'none'}; expected of these: {names}"
            + (f", and {', '.join(missing)} in any case" if missing else "")
        )
    try:
        return kind(**given)
    except TypeError as error:  # text where a number is compared
        raise WellposedError(f"{kind.__name__} was given {given}; expected numbers ({error})") from None


def _named(name: str) -> tuple[type[Initializer], dict[str, Any]]:
    plain = "".join(letter for letter in name.lower() if letter.isalnum())
    known: dict[str, tuple[str, dict[str, Any]]] = {kind.lower(): (kind, {}) for kind in _CLASSES} | _ALIASES
    if plain not in known:
        close = get_close_matches(plain, known, 3, 0.5)
        hint = ", ".join(known[match][0] for match in close) or ", ".join(_CLASSES)
        raise WellposedError(f"there is no initializer {name!r}; expected one such as {hint}")
    kind, implied = known[plain]
    return _CLASSES[kind], dict(implied)
