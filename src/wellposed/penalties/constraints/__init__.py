"""Constraints as penalties: 0 inside a set and infinite outside, so that the prox is the projection onto the set."""

from wellposed.lazy import names_of as _names_of

__all__, __getattr__ = _names_of(__name__, __file__)


def __dir__() -> list[str]:
    return sorted(__all__)
