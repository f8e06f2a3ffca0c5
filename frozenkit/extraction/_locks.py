"""One writer at a time: an advisory lock on a file, which ends with the process that holds it."""

import errno
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from frozenkit._files import disk_errors
from frozenkit.errors import FrozenkitWarning

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL)  # what flock says there


@contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[Literal["alone", "busy", "no locks"]]:
    """An advisory lock that the operating system drops when its owner dies; its file goes when the lock is given back.

    Args:
        path: The lock file.
        wait: Until whoever holds it has gone.

    Yields:
        ``"alone"``, ``"busy"`` (only without `wait`), or ``"no locks"`` where the file system has none; the last is a
        warning, too, unless `wait` is off.

    Raises:
        CacheError: If the lock file cannot be written.
    """
    from filelock import FileLock, Timeout  # it takes a while, and only writers need it

    held: list[int] = []

    def sign(descriptor: int) -> None:
        held.append(descriptor)
        with suppress(OSError):  # a full disk; the number is only for the reader
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, str(os.getpid()).encode(), 0)

    lock = FileLock(path, thread_local=False, fallback_to_soft=False, on_acquired=sign)
    state: Literal["alone", "busy", "no locks"] = "alone"
    with disk_errors(path):
        try:
            lock.acquire(timeout=2 if wait else 0)
        except Timeout:
            state = "alone" if wait else "busy"
            if wait:
                _warn(f"waiting for process {_holder(path)}, which extracts the same features")
                lock.acquire()
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            state = "no locks"
            if wait:
                _warn(
                    f"{path.parent} is on a file system without locks ({error.strerror}): an interrupted extraction "
                    "begins again, and two processes may do the same work. The result is right all the same."
                )
    try:
        yield state
    finally:
        with suppress(OSError):  # someone may have removed the file: another's, in its place, stays
            if state == "no locks" or (lock.is_locked and os.path.samestat(os.fstat(held[0]), path.stat())):
                path.unlink()
        lock.release()


def _holder(path: Path) -> str:
    try:
        return path.read_text()[:20] or "?"
    except (OSError, ValueError):
        return "?"


def _warn(text: str) -> None:
    warnings.warn(text, FrozenkitWarning, stacklevel=6)
