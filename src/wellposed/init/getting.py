"""Initializers by the names that they go by: here, in torch, in Keras and in JAX."""

from collections.abc import Mapping
from typing import Any

from wellposed.configuration.dictionaries import built
from wellposed.configuration.kinds import own_type, public, unknown
from wellposed.errors import WellposedError
from wellposed.init.initializers.entrywise import Normal, Ones, TruncatedNormal, Uniform, Zeros
from wellposed.init.initializers.identity import Identity
from wellposed.init.initializers.initializer import Initializer
from wellposed.init.initializers.variance_scaling import Glorot, He, LeCun

# Keras' and JAX's normal distributions of a scaled variance are cut at two standard deviations, torch's are not.
_CUT, _PLAIN, _EVEN = ({"distribution": name} for name in ("truncated_normal", "normal", "uniform"))
NAMES: dict[str, tuple[type[Initializer], dict[str, Any]]] = {
    "xavier": (Glorot, {}),
    "kaiming": (He, {}),
    # torch.nn.init
    "uniform": (Uniform, {"low": 0.0, "high": 1.0}),
    "trunc_normal": (TruncatedNormal, {}),
    "eye": (Identity, {}),
    "xavier_uniform": (Glorot, _EVEN),
    "xavier_normal": (Glorot, _PLAIN),
    "kaiming_uniform": (He, _EVEN),
    "kaiming_normal": (He, _PLAIN),
    # Keras, and JAX where it has the name
    "zero": (Zeros, {}),
    "one": (Ones, {}),
    "random_uniform": (Uniform, {"low": -0.05, "high": 0.05}),
    "random_normal": (Normal, {"std": 0.05}),
    "glorot_uniform": (Glorot, _EVEN),
    "glorot_normal": (Glorot, _CUT),
    "he_uniform": (He, _EVEN),
    "he_normal": (He, _CUT),
    "lecun_uniform": (LeCun, _EVEN),
    "lecun_normal": (LeCun, _CUT),
}


def get(spec: str | Mapping[str, Any] | Initializer, **fields: Any) -> Initializer:
    """The initializer of a name.

    Args:
        spec: The name of one of the initializers here, or torch's, Keras' or JAX's name, in any case and with or
            without what separates its words; a dictionary with that name under ``"type"`` and fields beside it; or an
            initializer, which is returned. ``"kaiming_normal"`` and ``"xavier_normal"`` are torch's, whose tails are
            whole; ``"he_normal"``, ``"glorot_normal"`` and ``"lecun_normal"`` are Keras' and JAX's, which are cut at
            two standard deviations.
        fields: Fields of the initializer, instead of those that the name stands for.

    Returns:
        The initializer.

    Raises:
        WellposedError: If there is none of that name, or it has no such field.

    Example:
        >>> get("kaiming_normal")
        He(scale=2.0, mode='fan_in', distribution='normal', bound='paper')
        >>> get("trunc_normal_", std=0.02), get({"type": "constant", "value": 0.5})
        (TruncatedNormal(mean=0.0, std=0.02, a=-2.0, b=2.0), Constant(value=0.5))

    Source: the names of torch.nn.init, keras.initializers and jax.nn.initializers.
    """
    if isinstance(spec, Initializer) and not fields:
        return spec
    name = spec.get("type") if isinstance(spec, Mapping) else spec
    if not isinstance(name, str):
        raise WellposedError(
            f"get was given {spec!r}{f' and the fields {fields!r}' if fields else ''}; expected an initializer's name, "
            "such as 'kaiming_normal', or a dictionary with one under 'type'"
        )
    own = {key: value for key, value in spec.items() if key != "type"} if isinstance(spec, Mapping) else {}
    kind, meant = _found(name)
    return built(kind, {**meant, **own, **fields})  # type: ignore[no-any-return]


def _found(name: str) -> tuple[type[Initializer], dict[str, Any]]:
    ours = {kind: each for kind, each in public().items() if issubclass(each, Initializer)}
    named: dict[str, tuple[type[Initializer], dict[str, Any]]] = {_plain(kind): (ours[kind], {}) for kind in ours}
    named |= {_plain(key): row for key, row in NAMES.items()}
    if _plain(name) in named:
        return named[_plain(name)]
    own = own_type(name, Initializer)
    if own is None:
        raise WellposedError(unknown("initializer", name, [*NAMES, *ours]))
    return own, {}


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())
