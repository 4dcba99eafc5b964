"""Whether this process was forked from one that had imported wellposed: OpenMP's team of threads is not in it then.

Whoever asks that team for work in a child waits for ever. Known from the first import on, since torch may have used it
before any kernel of ours is needed.
"""

import os

is_forked = False


def _after_fork() -> None:
    global is_forked
    is_forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
