"""Copies of images, sorted into one folder per class: nothing is moved, and nothing that is there is written over."""

import hashlib
import os
import shutil
import unicodedata
from collections.abc import Sequence
from itertools import count
from pathlib import Path

from frozenkit.errors import InputError
from frozenkit.images.dataset import shown

_RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{i}" for port in ("com", "lpt") for i in range(10))}
_LONGEST = 120  # characters; as UTF-8 below the 255 bytes that file systems take, but for names of emoji alone


def folder_names(classes: Sequence[str]) -> list[str]:
    """A folder name for each class name, which may come from anywhere: one plain, visible part of a path.

    Slashes, control characters and what Windows does not take become ``_``, dots and blanks at the ends go. Names
    that would share a folder, also where capitals count for nothing, get a number.

    Example:
        >>> folder_names(["cat", "../../etc", "a/b", "Cat", "", "con"])
        ['cat', '_.._etc', 'a_b', 'Cat (2)', '_', 'con_']
    """
    taken: set[str] = set()
    names = []
    for name in classes:
        plain = "".join("_" if c in '/\\<>:"|?*' or unicodedata.category(c)[0] == "C" else c for c in name)
        plain = plain.strip(". ")[:_LONGEST].encode("utf-8")[:240].decode("utf-8", "ignore").rstrip(". ") or "_"
        if plain.split(".")[0].casefold() in _RESERVED:
            plain += "_"
        free = next(n for i in count(1) if (n := plain if i == 1 else f"{plain} ({i})").casefold() not in taken)
        taken.add(free.casefold())
        names.append(free)
    return names


def check_sort_folder(folder: Path, sources: Sequence[Path]) -> None:
    """Refuses a folder that is a file, or lies in one of the folders that are sorted, which would grow by it.

    Raises:
        InputError: If it is.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"`--sort` must be a folder, or a name that is free, got {shown(folder)}.")
    for source in sources:
        if source.is_dir() and folder.resolve().is_relative_to(source.resolve()):
            raise InputError(f"`--sort` must lie outside the images, {shown(source)}, got {shown(folder)}.")


def sort_into(folder: Path, files: Sequence[Path], labels: Sequence[int], classes: Sequence[str]) -> tuple[int, int]:
    """Copies each file into the folder of its class.

    A file that is there already, byte by byte, is not copied again; another one of the same name stays, and the copy
    gets a number.

    Args:
        folder: Made where it is missing.
        files: What to copy.
        labels: Index of the class of each.
        classes: Names.

    Returns:
        How many were copied, and how many were there already.

    Raises:
        InputError: If a class's folder is a link or a file, or something cannot be written; what was copied stays.
    """
    names, copied, there = folder_names(classes), 0, 0
    namesakes: dict[tuple[Path, str], _Namesakes] = {}
    for file, label in zip(files, labels, strict=True):
        place = folder / names[label]
        if place.is_symlink() or (place.exists() and not place.is_dir()):
            raise InputError(f"`--sort` must lead to plain folders, but {shown(place)} is a link or a file.")
        try:
            place.mkdir(parents=True, exist_ok=True)
            is_new = namesakes.setdefault((place, file.name), _Namesakes(place, file)).add(file)
        except OSError as error:
            raise InputError(f"`--sort` cannot copy {shown(file)} to {shown(place)}: {error.strerror}.") from error
        copied, there = copied + is_new, there + (not is_new)
    return copied, there


class _Namesakes:
    """The copies of one name in a folder. Each is read once, and only where a file of its size is to be added."""

    def __init__(self, place: Path, file: Path) -> None:
        self.place, self.stem, self.suffix = place, file.stem, file.suffix
        self.number = 1
        self.unread: dict[int, list[Path]] = {}
        self.digests: dict[int, set[bytes]] = {}

    def add(self, file: Path) -> bool:
        """Whether a copy had to be made."""
        while True:
            target = self._free()
            if self._holds(file):
                return False
            try:
                with target.open("xb") as copy:
                    try:
                        with file.open("rb") as original:
                            shutil.copyfileobj(original, copy)
                    except BaseException:
                        target.unlink(missing_ok=True)
                        raise
                return True
            except FileExistsError:  # made by another program just now
                continue

    def _free(self) -> Path:
        """The first free name; takes note of the files of the names before it."""
        while True:
            name = self.stem if self.number == 1 else f"{self.stem} ({self.number})"
            target = self.place / f"{name}{self.suffix}"
            if not os.path.lexists(target):
                return target
            if target.is_file() and not target.is_symlink():
                self.unread.setdefault(target.stat().st_size, []).append(target)
            self.number += 1

    def _holds(self, file: Path) -> bool:
        """Whether one of them is this file, byte by byte."""
        size = file.stat().st_size
        if size not in self.unread:
            return False
        digests = self.digests.setdefault(size, set())
        while self.unread[size]:
            digests.add(_digest(self.unread[size].pop()))
        return _digest(file) in digests


def _digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
