"""Dropout whose mask is a pure function of a key, a call number and the index of an element."""

from wellposed.lazy import names_of as _names_of

__all__, __getattr__ = _names_of(__name__, __file__)


def __dir__() -> list[str]:
    return sorted(__all__)
