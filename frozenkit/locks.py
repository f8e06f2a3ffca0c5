"""One writer at a time: an advisory lock on a file, which ends with the process that holds it."""

import os
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from frozenkit.errors import CacheError, FrozenkitWarning


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """An advisory lock that the operating system drops when its owner dies."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+")
    except OSError as error:
        raise CacheError(
            f"cannot write into {path.parent}: {error.strerror}. Choose another folder with $FROZENKIT_HOME."
        ) from error
    with file:
        started, told = time.monotonic(), False
        while not _try_lock(file):
            if not told and time.monotonic() - started > 2:
                file.seek(0)
                warnings.warn(
                    f"waiting for process {file.read().strip() or '?'}, which extracts the same features",
                    FrozenkitWarning,
                    stacklevel=5,
                )
                told = True
            time.sleep(0.05)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield  # closing the file releases the lock


def _try_lock(file: Any) -> bool:
    try:
        if os.name == "nt":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if os.name == "nt":
            return False
        warnings.warn(
            f"{Path(file.name).parent} is on a file system without locks ({error.strerror}): two processes may extract "
            "the same features at the same time. The result is right, only the work is done twice.",
            FrozenkitWarning,
            stacklevel=6,
        )
    return True
