"""What an operation writes its result into: nothing that was there before, or the memory of one of its arguments."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from wellposed.models.tracing.operations import ALIASES, IN_PLACE, PARTS, plain_name


def written(name: str, fn: Callable[..., Any] | None, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """What an operation writes its result into.

    Args:
        name: The operation's name.
        fn: The operation, where it is more than a name.
        args: Its arguments.
        kwargs: Its keyword arguments.

    Returns:
        Its ``out``, or its first argument where it works in place; ``None`` where it makes something new.

    Example:
        >>> from torch.nn import functional as F
        >>> [written("relu_", None, ["y"], {}), *(written("relu", F.relu, args, {}) for args in (["y", True], ["y"]))]
        ['y', 'y', None]
    """
    if kwargs.get("out") is not None:
        return kwargs["out"]
    bare = name[2:-2] if name.startswith("__") and name.endswith("__") else name
    in_place = bare in IN_PLACE or (name.endswith("_") and not name.endswith("__")) or _is_asked(fn, args, kwargs)
    return args[0] if args and in_place else None


def _is_asked(fn: Callable[..., Any] | None, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether a function is asked to work in place."""
    if "inplace" in kwargs or not inspect.isfunction(fn):
        return bool(kwargs.get("inplace"))
    try:
        return bool(inspect.signature(fn).bind(*args, **kwargs).arguments.get("inplace"))
    except (TypeError, ValueError):  # not every function says what it takes
        return False


def shares_memory(name: str) -> bool:
    """Whether what an operation gives may lie in the memory of its first argument."""
    return plain_name(name) in ALIASES


def is_part(name: str) -> bool:
    """Whether what an operation gives is a part of its first argument."""
    return plain_name(name) in PARTS
