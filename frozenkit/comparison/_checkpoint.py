"""A file that long training goes on from after an interruption."""

import hashlib
import os
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import torch

from frozenkit._files import disk_errors, open_regular, written_aside
from frozenkit.errors import CacheError

# What torch.save wrote is followed by this and its sha256: torch itself would load most flipped bits as other weights.
_SEAL = b"\nfrozenkit checkpoint, sha256 "


class Checkpoint:
    """A file with the state after the last epoch, replaced as a whole.

    Args:
        path: None keeps nothing.
        key: Digest of all that the state depends on; a file with another key is refused.
    """

    def __init__(self, path: str | Path | None, key: str) -> None:
        self.path, self.key = None if path is None else Path(path), key

    def load(self) -> dict[str, Any] | None:
        """What was written last; None where there is no file.

        Raises:
            CacheError: If the file is of another run, damaged, or cannot be read.
        """
        if self.path is None or not os.path.lexists(self.path):
            return None
        with os.fdopen(open_regular(self.path), "rb") as file:
            try:
                content = _read(file)
                key = content.pop("key")
            except Exception as error:  # torch raises whatever the bytes suggest
                raise CacheError(
                    f"`checkpoint` {self.path} cannot be read ({error}). Remove it to start anew."
                ) from error
        if key != self.key:
            raise CacheError(
                f"`checkpoint` {self.path} is of other images, another backbone or other settings. "
                "Remove it, or name another file."
            )
        return content

    def write(self, content: dict[str, Any]) -> None:
        """Tensors, numbers, texts and containers of them; on the disk before this returns.

        Raises:
            CacheError: If the disk is full or the folder refuses; what was written last is still there.
        """
        if self.path is None:
            return
        with disk_errors(self.path), written_aside(self.path) as part, part.open("w+b") as file:
            try:
                torch.save(content | {"key": self.key}, file)
                file.write(_SEAL + _sha256(file, file.tell()))
            except RuntimeError as error:  # torch's own, after the system's
                raise OSError(str(error.__context__ or error)) from error

    def remove(self) -> None:
        """Done: nothing is left to go on from."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)


def _read(file: BinaryIO) -> dict[str, Any]:
    size = file.seek(0, os.SEEK_END) - len(_SEAL) - 64
    file.seek(max(size, 0))
    seal = file.read()
    if not seal.startswith(_SEAL):
        raise CacheError("it is cut short, or something else")
    if seal != _SEAL + _sha256(file, size):
        raise CacheError("it does not match its sha256")
    with zipfile.ZipFile(file) as archive:
        if sum(member.file_size for member in archive.infolist()) > size:
            raise CacheError("it names more than it holds")
    file.seek(0)
    content: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    return content


def _sha256(file: BinaryIO, size: int) -> bytes:
    """Of the first `size` bytes; the file is where it was afterwards, if it was at their end."""
    total = hashlib.sha256()
    file.seek(0)
    while size > 0 and (data := file.read(min(size, 1 << 24))):
        total.update(data)
        size -= len(data)
    return total.hexdigest().encode()
