"""Globs on the names of parameters and modules, and which of several counts."""

from collections.abc import Iterable
from fnmatch import fnmatchcase


def matches(name: str, glob: str) -> bool:
    """Whether a glob matches a name, or the name with a dot before it.

    So ``*.weight`` matches every weight, also one that lies in the model itself.

    Args:
        name: A dotted name, as ``named_parameters`` has it.
        glob: A pattern of ``fnmatch``: ``*`` is any text, dots among it, ``?`` one character, ``[...]`` one of several.

    Example:
        >>> matches("head.weight", "*.weight"), matches("weight", "*.weight"), matches("head.weight", "head")
        (True, True, False)
    """
    return fnmatchcase(name, glob) or fnmatchcase(f".{name}", glob)


def last_match(names: Iterable[str], globs: Iterable[str]) -> str | None:
    """The last of several globs that matches one of the names: of rules in a mapping, the one that counts.

    Args:
        names: The names of one thing, such as the paths of a tied weight.
        globs: The globs, in the order in which they were given.

    Returns:
        The glob, or ``None`` if none matches.

    Example:
        >>> last_match(["head.weight"], ["*", "head.*", "body.*"])
        'head.*'
    """
    several = list(names)
    return next((glob for glob in reversed(list(globs)) if any(matches(name, glob) for name in several)), None)
