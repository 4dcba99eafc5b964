"""Functions that are made when they are first called, since what they need takes long to import."""

import functools
import threading
from collections.abc import Callable
from typing import Any

_lock = threading.RLock()


def late(make: Callable[..., Callable[..., Any] | None]) -> Callable[..., Any]:
    """Stand in for what ``make`` makes of the first call's arguments; it takes this one's place in the module then.

    So later calls cost nothing more. Where ``make`` gives ``None``, so does the call, and the next one asks again.

    Example:
        >>> @late
        ... def square_root(x):
        ...     import math
        ...     return math.sqrt
        >>> square_root(4.0)
        2.0
        >>> square_root
        <built-in function sqrt>
    """
    module, name = make.__globals__, make.__name__

    @functools.wraps(make)
    def first(*arguments: Any) -> Any:
        with _lock:
            if module[name] is first:
                made = make(*arguments)
                if made is None:
                    return None
                module[name] = made
        return module[name](*arguments)

    return first
