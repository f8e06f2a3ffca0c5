"""A file that long training goes on from after an interruption."""

import os
from pathlib import Path
from typing import Any

import torch

from frozenkit.errors import CacheError


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
            CacheError: If the file is of another run, or cannot be read.
        """
        if self.path is None or not self.path.exists():
            return None
        try:
            content = torch.load(self.path, map_location="cpu", weights_only=True)
            key = content.pop("key")
        except Exception as error:  # torch raises whatever the damaged bytes suggest
            raise CacheError(f"`checkpoint` {self.path} cannot be read ({error}). Remove it to start anew.") from error
        if key != self.key:
            raise CacheError(
                f"`checkpoint` {self.path} is of other images, another backbone or other settings. "
                "Remove it, or name another file."
            )
        return content

    def write(self, content: dict[str, Any]) -> None:
        """Tensors, numbers, texts and containers of them; on the disk before this returns."""
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self.path.with_name(self.path.name + ".part")
        with part.open("wb") as file:
            torch.save(content | {"key": self.key}, file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(self.path)

    def remove(self) -> None:
        """Done: nothing is left to go on from."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)
