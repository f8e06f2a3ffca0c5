"""One file of features: plain HDF5, every returned byte is checked, and half-written never looks whole.

The layout, and why:

* The first 4096 bytes (HDF5's user block) hold our header: two lines, JSON and its sha256. HDF5 ignores them.
* ``features``, ``checksums``, ``labels`` and ``about`` are contiguous blocks at offsets that the header names, so that
  any row is one read. HDF5 lays the file out, in memory, and whoever has HDF5 can open it; we never read through it:
  a file made by someone else could make it open other files, wait for a pipe, or unpack kilobytes into gigabytes.
* Each row carries a crc32 seeded with the fingerprint and its row number: a torn, flipped, stale or misplaced row does
  not match. While the file grows, the checksums *are* the record of what is finished; nothing depends on the order in
  which the disk received the writes.
* All other bytes (labels, ids, HDF5's own structure) are digested in the header.
* A file under construction is called ``*.part``. It gets its header's mark ``complete``, is synced, and renamed, in
  this order. Where nobody else can be writing it, its name is known and it can be carried on; else its name is its own.
"""

import hashlib
import json
import math
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from frozenkit._files import disk_errors, open_regular, read_exactly, sync_folder, unique_part, write_all
from frozenkit.errors import CacheError
from frozenkit.features import FeatureSet

# Of the file, not of the numbers in it (that is `fingerprint.FORMAT`). Raise it whenever the layout changes.
LAYOUT = 3
_HEADER_BYTES = 4096
# Storage name -> (torch dtype, NumPy dtype on disk). NumPy has no bfloat16, so its 16 bits are stored as they are.
STORAGE: dict[str, tuple[torch.dtype, np.dtype[Any]]] = {
    "float32": (torch.float32, np.dtype("<f4")),
    "float16": (torch.float16, np.dtype("<f2")),
    "bfloat16": (torch.bfloat16, np.dtype("<u2")),
}
_LABELS = ("|b1", "|i1", "|u1", "<i2", "<u2", "<i4", "<u4", "<i8", "<u8", "<f2", "<f4", "<f8")  # of NumPy


@dataclass(frozen=True)
class Header:
    """What must be known before a single byte is believed."""

    format: int
    fingerprint: str
    storage: str
    shape: tuple[int, ...]
    batch_size: int
    features_at: int
    checksums_at: int
    labels_at: int
    labels_type: str
    labels_shape: tuple[int, ...]
    about_at: int
    about_bytes: int
    size: int
    digest: str
    complete: bool

    @property
    def row_bytes(self) -> int:
        """Bytes of one row of features."""
        return math.prod(self.shape[1:]) * STORAGE[self.storage][1].itemsize

    @property
    def blocks(self) -> dict[str, tuple[int, int]]:
        """Name to (where it starts, how many bytes it has)."""
        return {
            "features": (self.features_at, self.shape[0] * self.row_bytes),
            "checksums": (self.checksums_at, 4 * self.shape[0]),
            "labels": (self.labels_at, math.prod(self.labels_shape) * np.dtype(self.labels_type).itemsize),
            "about": (self.about_at, self.about_bytes),
        }

    def to_bytes(self) -> bytes:
        """The user block: JSON, newline, its sha256, newline, zeros."""
        text = json.dumps(self.__dict__, sort_keys=True).encode()
        block = text + b"\n" + hashlib.sha256(text).hexdigest().encode() + b"\n"
        if len(block) > _HEADER_BYTES:
            raise CacheError(f"a header must fit into {_HEADER_BYTES} bytes, got {len(block)}.")
        return block.ljust(_HEADER_BYTES, b"\0")

    @classmethod
    def from_bytes(cls, block: bytes, path: Path) -> "Header":
        """Reads a user block.

        Raises:
            CacheError: If it is damaged, of another version, or names what the file cannot hold.
        """
        text, _, rest = block.partition(b"\n")
        if rest[:64] != hashlib.sha256(text).hexdigest().encode():
            raise CacheError(f"{path} is damaged or not a feature file: its header does not match its digest.")
        try:
            values = json.loads(text)
            if values["format"] != LAYOUT:
                raise CacheError(
                    f"{path} was written in format {values['format']}, this version reads {LAYOUT}. "
                    "Extract it again, and save it again if you had saved it."
                )
            if values["labels_type"] not in _LABELS:
                raise ValueError(values["labels_type"])
            shapes = {name: tuple(values[name]) for name in ("shape", "labels_shape")}
            header = cls(**{**values, **shapes})
            _checksum(header.fingerprint, 0, b"")  # half a surrogate has no bytes
            numbers = [*header.shape, *header.labels_shape, *(n for pair in header.blocks.values() for n in pair)]
            fits = (
                len(header.shape) in (2, 3)
                and header.labels_shape[:1] == header.shape[:1]
                and len(header.labels_shape) <= 32  # of NumPy's arrays
                and isinstance(header.fingerprint, str)
                and all(type(number) is int and number >= 0 for number in [header.batch_size, header.size, *numbers])
                and all(at + length <= header.size for at, length in header.blocks.values())
            )
        except (LookupError, TypeError, ValueError, RecursionError) as error:
            raise CacheError(f"{path} is not a feature file: its header is none of ours ({error!r}).") from error
        if not fits:
            raise CacheError(f"{path} is not a feature file: its header names what the file cannot hold.")
        return header


class FeatureFile:
    """A complete feature file, open for reading; rows are verified each time they are read.

    Args:
        path: The file.
        unfinished: Whether a file that is still being written will do.

    Raises:
        CacheError: If anything but a row is damaged (rows are checked when read).
    """

    def __init__(self, path: Path, *, unfinished: bool = False) -> None:
        self.path = path
        self._descriptor, self.header = _open_checked(path, os.O_RDONLY)
        try:
            if not (self.header.complete or unfinished):
                raise CacheError(f"{path} is unfinished.")
            self._checksums = np.frombuffer(self._block("checksums"), "<u4").tolist()
        except BaseException:
            self.close()
            raise

    def about(self) -> tuple[Tensor, dict[str, Any]]:
        """Labels, and a dictionary with classes, ids, layer and ingredients."""
        labels = np.frombuffer(self._block("labels"), self.header.labels_type).reshape(self.header.labels_shape)
        try:
            about = json.loads(self._block("about").tobytes())
        except (ValueError, RecursionError) as error:
            raise CacheError(f"{self.path} is not a feature file: what it says about itself is no JSON.") from error
        return torch.from_numpy(labels), about

    def rows(self, indices: np.ndarray) -> Tensor:
        """Those rows, in that order, in the storage type.

        Raises:
            CacheError: If one of them is damaged.
        """
        header, width = self.header, self.header.row_bytes
        out = bytearray(len(indices) * width)
        for slot, start, stop in _runs(indices):
            data = read_exactly(self._descriptor, self.path, header.features_at + start * width, (stop - start) * width)
            for i in range(stop - start):
                if (
                    _checksum(header.fingerprint, start + i, data[i * width : (i + 1) * width])
                    != self._checksums[start + i]
                ):
                    raise CacheError(
                        f"{self.path} is damaged: row {start + i} does not match its checksum. "
                        "Remove the entry (frozenkit cache verify --remove) and extract again."
                    )
            out[slot * width : slot * width + len(data)] = data
        return _to_tensor(out, header.storage, (len(indices), *header.shape[1:]))

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
        about = {"classes": like.classes, "ids": like.ids, "layer": like.layer, "ingredients": json.loads(ingredients)}
        labels = like.labels.detach().cpu().numpy()
        structure, at = _layout(like.fingerprint, storage, shape, labels, json.dumps(about).encode())
        header = Header(
            format=LAYOUT,
            fingerprint=like.fingerprint,
            storage=storage,
            shape=shape,
            batch_size=batch_size,
            labels_type=labels.dtype.str,
            labels_shape=labels.shape,
            about_bytes=len(json.dumps(about).encode()),
            size=0,
            digest="",
            complete=False,
            **at,
        )
        ends = [start + length for start, length in header.blocks.values()]
        header = replace(header, size=max(structure.end, _HEADER_BYTES, *ends))
        part = _part_path(path) if alone else unique_part(path)
        with disk_errors(path):
            part.parent.mkdir(parents=True, exist_ok=True)
            if alone:
                part.unlink(missing_ok=True)  # of other batches, or damaged
            descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
            try:
                _allocate(descriptor, header.size)
                for offset, data in structure:
                    write_all(descriptor, data, offset)
                header = replace(header, digest=_static_digest(descriptor, header, part))
                write_all(descriptor, header.to_bytes(), 0)
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
        header, width = self.header, self.header.row_bytes
        checksums = np.frombuffer(read_exactly(self._descriptor, self._part, *header.blocks["checksums"]), "<u4")
        finished = checksums != 0
        for row in np.flatnonzero(finished):
            data = read_exactly(self._descriptor, self._part, header.features_at + int(row) * width, width)
            finished[row] = _checksum(header.fingerprint, int(row), data) == checksums[row]
        return finished

    def write(self, start: int, features: Tensor) -> None:
        """Stores rows from `start` on.

        Raises:
            CacheError: If the disk is full, or a value does not fit the storage type.
        """
        header, width = self.header, self.header.row_bytes
        data = memoryview(_to_bytes(features, header.storage))
        sums = [
            _checksum(header.fingerprint, start + i, data[i * width : (i + 1) * width]) for i in range(len(features))
        ]
        with disk_errors(self.path):
            write_all(self._descriptor, data, header.features_at + start * width)
            write_all(self._descriptor, np.asarray(sums, "<u4").tobytes(), header.checksums_at + 4 * start)

    def finish(self) -> None:
        """Marks the file complete and gives it its name; from here on it is visible to readers."""
        with disk_errors(self.path):
            os.fsync(self._descriptor)  # the rows are on the disk before the mark is
            self.header = replace(self.header, complete=True)
            write_all(self._descriptor, self.header.to_bytes(), 0)
            os.fsync(self._descriptor)
            try:
                self._part.replace(self.path)
            except FileNotFoundError:  # a network file system may report a repeated request, not the one that worked
                if not os.path.samestat(os.fstat(self._descriptor), self.path.stat()):
                    raise
            sync_folder(self.path.parent)

    def close(self) -> None:
        """Gives the file descriptor back; what was written stays, if it can be carried on."""
        os.close(self._descriptor)
        if self._part != _part_path(self.path):
            self._part.unlink(missing_ok=True)


def _checksum(fingerprint: str, row: int, data: Any) -> int:
    return zlib.crc32(data, zlib.crc32(f"{fingerprint}:{row}".encode())) or 1  # 0 means "not written yet"


def _to_bytes(features: Tensor, storage: str) -> bytes:
    dtype, on_disk = STORAGE[storage]
    stored = features.to(dtype).contiguous()
    raw = stored.view(torch.uint16) if storage == "bfloat16" else stored
    return raw.numpy().astype(on_disk, copy=False).tobytes()


def _to_tensor(data: bytearray, storage: str, shape: tuple[int, ...]) -> Tensor:
    dtype, on_disk = STORAGE[storage]
    array = np.frombuffer(data, on_disk).reshape(shape)
    return torch.from_numpy(array).view(dtype) if storage == "bfloat16" else torch.from_numpy(array)


def _runs(indices: np.ndarray) -> Iterator[tuple[int, int, int]]:
    """(place in the result, first row, one past the last) of each stretch of consecutive rows, 4096 at most."""
    if not len(indices):
        return
    breaks = np.flatnonzero(np.diff(indices) != 1) + 1
    for begin, end in zip([0, *breaks.tolist()], [*breaks.tolist(), len(indices)], strict=True):
        for at in range(begin, end, 4096):
            stop = min(at + 4096, end)
            yield at, int(indices[at]), int(indices[stop - 1]) + 1


class _InMemory:
    """A file for HDF5 to lay out in: only pages that were written exist, the rows' place does not.

    On a disk, HDF5 would answer a full one with a RuntimeError, and sometimes crash when the process ends.
    """

    PAGE = 1 << 16

    def __init__(self) -> None:
        self._pages: dict[int, bytearray] = {}
        self._at = self.end = 0

    def __iter__(self) -> Iterator[tuple[int, memoryview]]:
        for number, page in sorted(self._pages.items()):
            start = number * self.PAGE
            yield start, memoryview(page)[: max(0, self.end - start)]

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset + (0, self._at, self.end)[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        for page, inside, place in self._pieces(len(view)):
            self._pages.setdefault(page, bytearray(self.PAGE))[inside] = view[place]
        self._at += len(view)
        self.end = max(self.end, self._at)
        return len(view)

    def read(self, count: int) -> bytes:
        buffer = bytearray(count)
        self.readinto(buffer)
        return bytes(buffer)

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        for page, inside, place in self._pieces(len(view)):
            view[place] = self._pages.get(page, bytes(self.PAGE))[inside]
        self._at += len(view)
        return len(view)

    def truncate(self, size: int) -> int:
        self.end = size
        return size

    def flush(self) -> None:
        pass

    def _pieces(self, count: int) -> Iterator[tuple[int, slice, slice]]:
        """(page, where in the page, where in the buffer) of the next `count` bytes."""
        done = 0
        while done < count:
            page, start = divmod(self._at + done, self.PAGE)
            step = min(self.PAGE - start, count - done)
            yield page, slice(start, start + step), slice(done, done + step)
            done += step


def _layout(
    fingerprint: str, storage: str, shape: tuple[int, ...], labels: np.ndarray, about: bytes
) -> tuple[_InMemory, dict[str, int]]:
    """The HDF5 structure around the rows, with labels and about; and where the four blocks start."""
    import h5py

    memory = _InMemory()
    with h5py.File(memory, "w", userblock_size=_HEADER_BYTES, libver="latest") as file:
        file.attrs["fingerprint"] = fingerprint
        file.attrs["storage"] = storage
        small = {"labels": labels, "about": np.frombuffer(about, np.uint8)}
        placed = {name: file.create_dataset(name, data=data, track_times=False).id for name, data in small.items()}
        placed["features"] = _reserve(file, "features", shape, STORAGE[storage][1])
        placed["checksums"] = _reserve(file, "checksums", shape[:1], np.dtype("<u4"))
        at = {f"{name}_at": int(dataset.get_offset() or _HEADER_BYTES) for name, dataset in placed.items()}
    return memory, at  # what has no bytes has no place, either: it gets the header's end


def _reserve(file: Any, name: str, shape: tuple[int, ...], dtype: np.dtype) -> Any:
    """Creates a contiguous dataset without writing it."""
    import h5py

    plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plan.set_layout(h5py.h5d.CONTIGUOUS)
    plan.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    plan.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    plan.set_obj_track_times(False)
    kind = h5py.h5t.py_create(dtype)
    return h5py.h5d.create(file.id, name.encode(), kind, h5py.h5s.create_simple(shape), plan)


def _allocate(descriptor: int, size: int) -> None:
    """Claims the disk space now, where the file system can."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
    else:
        os.truncate(descriptor, size)


def _open_checked(path: Path, mode: int) -> tuple[int, Header]:
    """Opens a file and believes its header only if all bytes beside rows and checksums match their digest."""
    descriptor = open_regular(path, mode)
    try:
        size = os.fstat(descriptor).st_size
        header = Header.from_bytes(bytes(read_exactly(descriptor, path, 0, min(size, _HEADER_BYTES))), path)
        if size != header.size:
            raise CacheError(f"{path} is damaged: {size} bytes instead of {header.size}.")
        if _static_digest(descriptor, header, path) != header.digest:
            raise CacheError(f"{path} is damaged: labels, ids or structure do not match their digest.")
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor, header


def _static_digest(descriptor: int, header: Header, path: Path) -> str:
    """sha256 of all bytes but the header, the rows and the checksums."""
    grows = sorted((header.blocks["features"], header.blocks["checksums"], (header.size, 0)))
    total, position = hashlib.sha256(), _HEADER_BYTES
    for start, length in grows:
        while position < start:
            data = read_exactly(descriptor, path, position, min(start - position, 1 << 24))
            total.update(data)
            position += len(data)
        position = max(position, start + length)
    return total.hexdigest()


def _part_path(path: Path) -> Path:
    return path.with_suffix(".part")
