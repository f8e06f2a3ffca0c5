"""One file of features: safetensors, every returned byte is checked, and half-written never looks whole.

The layout, and why:

* Whoever reads safetensors can open it: ``features``, ``labels``, ``checksums`` and ``about`` (JSON) are its tensors.
  We read it by offset, any row with one read, and never map it: a mapped file that is cut short ends the process.
* The first 4096 bytes are safetensors' header. All of it follows from a few values in its metadata: it is composed anew
  from them and must come out the same, so that no byte of it can differ, and no table can point elsewhere.
* Each row carries a crc32 seeded with the fingerprint and its row number: a torn, flipped, stale or misplaced row does
  not match. While the file grows, the checksums *are* the record of what is finished; nothing depends on the order in
  which the disk received the writes.
* All other bytes (labels, ids, the header) are digested in the header.
* A file under construction is called ``*.part``; it is synced, and then renamed. Where nobody else can be writing it,
  its name is known and it can be carried on; else its name is its own.
"""

import hashlib
import json
import math
import os
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from frozenkit._files import disk_errors, open_regular, read_exactly, read_into, sync_folder, unique_part, write_all
from frozenkit.errors import CacheError
from frozenkit.features import FeatureSet

# Of the file, not of the numbers in it (that is `fingerprint.FORMAT`). Raise it whenever the layout changes.
LAYOUT = 4
_HEADER_BYTES = 4096
STORAGE = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
# What safetensors calls the types that we store.
_TYPES = {
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "int64": "I64",
    "int32": "I32",
    "uint8": "U8",
    "bool": "BOOL",
}


class OutdatedError(CacheError):
    """A file of frozenkit 0.1: nothing is wrong with it, but it is not read."""


@dataclass(frozen=True)
class Header:
    """What must be known before a single byte is believed."""

    fingerprint: str
    storage: str
    shape: tuple[int, ...]
    batch_size: int
    labels_type: str  # "int64", "float32" or "bool"; empty: there are no labels
    labels_shape: tuple[int, ...]
    about_bytes: int
    digest: str = ""
    layout: int = LAYOUT

    @property
    def row_bytes(self) -> int:
        """Bytes of one row of features."""
        return math.prod(self.shape[1:]) * STORAGE[self.storage].itemsize

    @property
    def blocks(self) -> dict[str, tuple[int, int]]:
        """Name to (where it starts, how many bytes it has)."""
        return {name: (start, length) for name, _, _, start, length in self._tensors()}

    @property
    def size(self) -> int:
        """Bytes of the whole file."""
        return sum(self._tensors()[-1][-2:])

    def _tensors(self) -> list[tuple[str, str, tuple[int, ...], int, int]]:
        """(name, type, shape, start, length), the widest numbers first, so that all are aligned."""
        tensors = [("features", self.storage, self.shape), ("checksums", "int32", self.shape[:1])]
        if self.labels_type:
            tensors.append(("labels", self.labels_type, self.labels_shape))
        placed, at = [], _HEADER_BYTES
        for name, kind, shape in sorted(tensors, key=lambda tensor: -getattr(torch, tensor[1]).itemsize):
            length = math.prod(shape) * getattr(torch, kind).itemsize
            placed.append((name, kind, shape, at, length))
            at += length
        return [*placed, ("about", "uint8", (self.about_bytes,), at, self.about_bytes)]

    def to_bytes(self) -> bytes:
        """Safetensors' header: the length of the rest, JSON, blanks."""
        content: dict[str, Any] = {"__metadata__": {"frozenkit": json.dumps(asdict(self))}}
        for name, kind, shape, start, length in self._tensors():
            offsets = [start - _HEADER_BYTES, start - _HEADER_BYTES + length]
            content[name] = {"dtype": _TYPES[kind], "shape": shape, "data_offsets": offsets}
        text = json.dumps(content).encode()
        if len(text) > _HEADER_BYTES - 8:
            raise CacheError(f"a header must fit into {_HEADER_BYTES - 8} bytes, got {len(text)}.")
        return (_HEADER_BYTES - 8).to_bytes(8, "little") + text.ljust(_HEADER_BYTES - 8)

    @classmethod
    def from_bytes(cls, block: bytes, path: Path) -> "Header":
        """Reads a header.

        Raises:
            OutdatedError: If frozenkit 0.1 wrote it.
            CacheError: If it is damaged, of another version, or names what no file of ours holds.
        """
        if block.startswith(_H5_OF_0_1) or block[8:].startswith(_SAFETENSORS_OF_0_1):
            raise OutdatedError(
                f"{path} was written by frozenkit 0.1, which this version does not read. Extract its features again."
            )
        try:
            values = json.loads(json.loads(block[8:])["__metadata__"]["frozenkit"])
            if values["layout"] != LAYOUT:
                raise CacheError(
                    f"{path} was written in layout {values['layout']}, this version reads {LAYOUT}. Extract it again, "
                    "or read it with the version that wrote it."
                )
            shapes = {name: tuple(values[name]) for name in ("shape", "labels_shape")}
            header = cls(**{**values, **shapes})
            numbers = [header.batch_size, header.about_bytes, *header.shape, *header.labels_shape]
            header.fingerprint.encode()  # half a surrogate has no bytes
            sound = (
                len(header.shape) in (2, 3)
                and header.storage in STORAGE
                and (header.labels_type, len(header.labels_shape)) in _LABELS
                and header.labels_shape[:1] in ((), header.shape[:1])
                and all(type(number) is int and number >= 0 for number in numbers)
                and header.to_bytes() == block
            )
        except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise CacheError(
                f"{path} is damaged or not a feature file: its header is none of ours ({error!r:.200}). "
                "Extract it again."
            ) from error
        if not sound:
            raise CacheError(f"{path} is damaged or not a feature file: its header contradicts itself.")
        return header


_LABELS = {("", 0), ("int64", 1), ("float32", 1), ("float32", 2), ("bool", 2)}  # (type, axes)

# How frozenkit 0.1 began its files: HDF5 behind a block of JSON, in two layouts; and plain safetensors, 8 bytes in.
_H5_OF_0_1 = (b'{"batch_size": ', b'{"about_at": ')
_SAFETENSORS_OF_0_1 = b'{"__metadata__":{"about":'


class FeatureFile:
    """A feature file, open for reading; rows are verified each time they are read.

    Args:
        path: The file.

    Raises:
        CacheError: If anything but a row is damaged (rows are checked when read).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor, self.header = _open_checked(path, os.O_RDONLY)
        try:
            self._checksums = np.frombuffer(self._block("checksums"), "<u4").tolist()
            self._begin = self.header.blocks["features"][0]
        except BaseException:
            self.close()
            raise

    def about(self) -> tuple[Tensor | None, dict[str, Any]]:
        """Labels, and a dictionary with classes, ids, layer and ingredients."""
        header, labels = self.header, None
        if header.labels_type:
            data = np.frombuffer(self._block("labels"), header.labels_type)
            labels = torch.from_numpy(data.reshape(header.labels_shape))
        try:
            about = json.loads(self._block("about").tobytes())
        except (ValueError, RecursionError) as error:
            raise CacheError(f"{self.path} is not a feature file: what it says about itself is no JSON.") from error
        return labels, about

    def rows(self, indices: np.ndarray) -> Tensor:
        """Those rows, in that order, in the storage type.

        Raises:
            CacheError: If one of them is damaged.
        """
        header, width = self.header, self.header.row_bytes
        out = torch.empty(len(indices), *header.shape[1:], dtype=STORAGE[header.storage])
        view = _bytes_of(out)
        for slot, start, stop in _runs(indices):
            data = view[slot * width : (slot + stop - start) * width]
            read_into(data, self._descriptor, self.path, self._begin + start * width)
            for row, checksum in enumerate(_checksums(header, start, data)):
                if checksum != self._checksums[start + row]:
                    raise CacheError(
                        f"{self.path} is damaged: row {start + row} does not match its checksum. "
                        "Remove the entry (frozenkit cache verify --remove) and extract again; of a shared cache, "
                        "extract it once without lazy=True, which stores a sound one of your own."
                    )
        return out

    def close(self) -> None:
        """Gives the file descriptor back."""
        os.close(self._descriptor)

    def _block(self, name: str) -> memoryview:
        return read_exactly(self._descriptor, self.path, *self.header.blocks[name])


class PartFile:
    """A feature file that is being written; survives a kill at any moment.

    Args:
        path: Its final path.
        header: Of the open file.
        descriptor: Of the open file.
        part: What it is called until it is finished.
    """

    def __init__(self, path: Path, header: Header, descriptor: int, part: Path) -> None:
        self.path, self.header, self._descriptor, self._part = path, header, descriptor, part

    @classmethod
    def create(
        cls,
        path: Path,
        like: FeatureSet,
        shape: tuple[int, ...],
        storage: str,
        batch_size: int,
        ingredients: str,
        *,
        alone: bool = True,
    ) -> "PartFile":
        """Lays out the whole file at once, so that a disk that is too small says so before any work is done.

        Args:
            path: Final path.
            like: Carries labels, classes, ids, layer and fingerprint; its features are not looked at.
            shape: (n, d) or (n, t, d).
            storage: ``"float32"``, ``"float16"`` or ``"bfloat16"``.
            batch_size: Batch boundaries are part of an unfinished file, so that a resumed run keeps them.
            ingredients: The fingerprint's, as JSON.
            alone: Nobody else writes to ``path`` with ``.part`` at the end, which can then be carried on. If not, the
                unfinished file has a name of its own, and goes when it is closed.

        Raises:
            CacheError: If the disk is full or the folder refuses.
        """
        named = {"classes": like.classes, "ids": like.ids, "layer": like.layer, "ingredients": json.loads(ingredients)}
        about = json.dumps(named).encode()
        labels = torch.empty(0) if like.labels is None else like.labels.detach().cpu()
        kind = "" if like.labels is None else str(labels.dtype).removeprefix("torch.")
        axes = () if like.labels is None else tuple(labels.shape)
        header = Header(like.fingerprint, storage, shape, batch_size, kind, axes, len(about))
        header = replace(header, digest=_digest(header, _bytes_of(labels), about))
        block, part = header.to_bytes(), _part_path(path) if alone else unique_part(path)
        with disk_errors(path):
            part.parent.mkdir(parents=True, exist_ok=True)
            if alone:
                part.unlink(missing_ok=True)  # of other batches, or damaged
            descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
            try:
                allocate = getattr(os, "posix_fallocate", lambda file, _, size: os.truncate(file, size))  # macOS: none
                allocate(descriptor, 0, header.size)
                for name, data in (("about", about), ("labels", _bytes_of(labels))):
                    if name in header.blocks:
                        write_all(descriptor, data, header.blocks[name][0])
                write_all(descriptor, block, 0)
            except BaseException:
                os.close(descriptor)
                part.unlink()
                raise
        return cls(path, header, descriptor, part)

    @classmethod
    def resume(cls, path: Path, fingerprint: str) -> "PartFile | None":
        """The unfinished file for this path, or None if there is none that can be carried on."""
        part = _part_path(path)
        try:
            descriptor, header = _open_checked(part, os.O_RDWR)
        except CacheError:
            return None
        if header.fingerprint != fingerprint:
            os.close(descriptor)
            return None
        return cls(path, header, descriptor, part)

    def finished_rows(self) -> np.ndarray:
        """(n,) bool: rows whose bytes match their checksum."""
        header, data = self.header, memoryview(bytearray(self.header.row_bytes))
        checksums = np.frombuffer(read_exactly(self._descriptor, self._part, *header.blocks["checksums"]), "<u4")
        finished, begin = checksums != 0, header.blocks["features"][0]
        for row in np.flatnonzero(finished):
            read_into(data, self._descriptor, self._part, begin + int(row) * len(data))
            finished[row] = _checksums(header, int(row), data) == [checksums[row]]
        return finished

    def write(self, start: int, features: Tensor) -> None:
        """Stores rows from `start` on, rounded to the storage type.

        Raises:
            CacheError: If the disk is full.
        """
        header, data = self.header, _bytes_of(features.to(STORAGE[self.header.storage]))
        sums = np.array(_checksums(header, start, data), "<u4").tobytes()
        with disk_errors(self.path):
            write_all(self._descriptor, data, header.blocks["features"][0] + start * header.row_bytes)
            write_all(self._descriptor, sums, header.blocks["checksums"][0] + 4 * start)

    def finish(self) -> None:
        """Gives the file its name, once it is on the disk, and closes it; from here on it is visible to readers."""
        with disk_errors(self.path):
            os.fsync(self._descriptor)
            try:
                self._part.replace(self.path)
            except FileNotFoundError:  # a network file system may report a repeated request, not the one that worked
                if not os.path.samestat(os.fstat(self._descriptor), self.path.stat()):
                    raise
            sync_folder(self.path.parent)
        self.close()

    def close(self) -> None:
        """Gives the file descriptor back; what was written stays, if it can be carried on."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        if self._part != _part_path(self.path):
            self._part.unlink(missing_ok=True)


def _checksums(header: Header, start: int, data: memoryview) -> list[int]:
    """One crc32 per row from `start` on; never 0, which means "not written yet"."""
    width = header.row_bytes
    count = len(data) // width if width else 0
    seeds = (zlib.crc32(f"{header.fingerprint}:{start + i}".encode()) for i in range(count))
    return [zlib.crc32(data[i * width : (i + 1) * width], seed) or 1 for i, seed in enumerate(seeds)]


def _bytes_of(tensor: Tensor) -> memoryview:
    """A tensor's own memory, where it is contiguous."""
    return tensor.contiguous().flatten().view(torch.uint8).numpy().data


def _runs(indices: np.ndarray) -> Iterator[tuple[int, int, int]]:
    """(place in the result, first row, one past the last) of each stretch of consecutive rows, 4096 at most."""
    if not len(indices):
        return
    breaks = np.flatnonzero(np.diff(indices) != 1) + 1
    for begin, end in zip([0, *breaks.tolist()], [*breaks.tolist(), len(indices)], strict=True):
        for at in range(begin, end, 4096):
            stop = min(at + 4096, end)
            yield at, int(indices[at]), int(indices[stop - 1]) + 1


def _open_checked(path: Path, mode: int) -> tuple[int, Header]:
    """Opens a file and believes its header only if all bytes beside rows and checksums match their digest."""
    descriptor = open_regular(path, mode)
    try:
        size = os.fstat(descriptor).st_size
        header = Header.from_bytes(bytes(read_exactly(descriptor, path, 0, min(size, _HEADER_BYTES))), path)
        if size != header.size:
            raise CacheError(f"{path} is damaged: {size} bytes instead of {header.size}.")
        labels, about = (
            read_exactly(descriptor, path, *header.blocks.get(name, (0, 0))) for name in ("labels", "about")
        )
        if _digest(header, labels, about) != header.digest:
            raise CacheError(f"{path} is damaged: labels, ids or header do not match their digest.")
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor, header


def _digest(header: Header, labels: Any, about: Any) -> str:
    """sha256 of all bytes but the rows and their checksums."""
    total = hashlib.sha256(replace(header, digest="").to_bytes())
    total.update(labels)
    total.update(about)
    return total.hexdigest()


def _part_path(path: Path) -> Path:
    return path.with_suffix(".part")
