"""Files that are there whole or not at all, and that one process at a time writes."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path


def is_finished(path: Path) -> bool:
    """Whether a file is there, and so is whole; what was left of an attempt at it is removed then."""
    if not path.exists():
        return False
    _draft_of(path).unlink(missing_ok=True)
    return True


@contextmanager
def claimed(path: Path) -> Iterator[FileIO | None]:
    """A new file that takes its name when the block ends well, and is removed when it does not.

    Its draft lies in the same folder, and a lock of the kernel's is on it. Where the process is killed the lock is gone
    with it, and whoever comes next writes the same draft from its start.

    Args:
        path: The name that it takes.

    Yields:
        The file, without a buffer; ``None`` where it is finished already or another process is writing it.

    Raises:
        OSError: If it cannot be written.
    """
    draft = _draft_of(path)
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT, 0o666), "wb", buffering=0) as file:
        if not _is_ours(file, draft, path):
            yield None
            return
        try:
            file.truncate(0)
            yield file
            os.fsync(file.fileno())
            draft.rename(path)  # under the lock, which goes with the file
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
    _keep_name(path.parent)


def _draft_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.part")


def _is_ours(file: FileIO, draft: Path, path: Path) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    # Whoever had the lock before may have given the file its name since it was opened here.
    try:
        same = os.path.samestat(os.fstat(file.fileno()), draft.stat())
    except FileNotFoundError:
        same = False
    return same and not is_finished(path)


def _keep_name(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
