"""One writer at a time: an advisory lock on a file, which ends with the process that holds it."""

import os
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from frozenkit.errors import CacheError, FrozenkitWarning

LockState = Literal["alone", "busy", "no locks"]

_OPEN: set[int] = set()  # descriptors of lock files, waiting or held


def _close_inherited() -> None:
    """A lock lasts as long as any process has its descriptor open: a forked child must not outlive its parent's."""
    for descriptor in _OPEN:
        os.close(descriptor)
    _OPEN.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_inherited)


@contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[LockState]:
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
    began, said = time.monotonic(), False
    while True:
        descriptor = _open(path)
        state: LockState = "busy"
        try:
            state = _try_lock(descriptor, path, warn=wait)
            if state == "alone" and not _is_at(descriptor, path):
                continue  # whoever had it removed the file before we got the lock: it guards nothing any more
            if state != "busy" or not wait:
                if state == "alone":
                    with suppress(OSError):  # a full disk; the number is only for the reader
                        os.ftruncate(descriptor, 0)
                        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
                yield state
                return
            if not said and time.monotonic() - began > 2:
                holder = os.pread(descriptor, 20, 0).decode(errors="replace") or "?"
                warnings.warn(
                    f"waiting for process {holder}, which extracts the same features", FrozenkitWarning, stacklevel=5
                )
                said = True
        finally:
            if descriptor in _OPEN:  # not in a child that was forked meanwhile
                if state == "alone" and _is_at(descriptor, path):
                    with suppress(OSError):
                        path.unlink()
                _OPEN.discard(descriptor)
                os.close(descriptor)  # releases the lock
        time.sleep(0.05)


def _open(path: Path) -> int:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise CacheError(
            f"cannot write into {path.parent}: {reason}. Choose another folder with $FROZENKIT_HOME."
        ) from error
    _OPEN.add(descriptor)
    return descriptor


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except OSError:
        return False


def _try_lock(descriptor: int, path: Path, *, warn: bool) -> LockState:
    try:
        if os.name == "nt":
            import msvcrt

            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return "busy"
    except OSError as error:
        if os.name == "nt":
            return "busy"
        if warn:
            warnings.warn(
                f"{path.parent} is on a file system without locks ({error.strerror}): two processes may extract "
                "the same features at the same time. The result is right, only the work is done twice.",
                FrozenkitWarning,
                stacklevel=6,
            )
        return "no locks"
    return "alone"
