"""One file of features: plain HDF5, every returned byte is checked, and half-written never looks whole.

The layout, and why:

* The first 4096 bytes (HDF5's user block) hold our header: two lines, JSON and its sha256. HDF5 ignores them.
* ``features`` and ``checksums`` are contiguous blocks at offsets that the header names, so that any row is one read.
* Each row carries a crc32 seeded with the fingerprint and its row number: a torn, flipped, stale or misplaced row does
  not match. While the file grows, the checksums *are* the record of what is finished; nothing depends on the order in
  which the disk received the writes.
* All other bytes (labels, ids, HDF5's own structure) are digested in the header, which is compared before HDF5 sees
  the file: damage there can make the HDF5 library itself run in circles.
* A file under construction is called ``*.part``. It gets its header's mark ``complete``, is synced, and renamed, in
  this order.
"""

import hashlib
import json
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from frozenkit.errors import CacheError
from frozenkit.features import FeatureSet
from frozenkit.fingerprint import FORMAT

_HEADER_BYTES = 4096
# Storage name -> (torch dtype, NumPy dtype on disk). NumPy has no bfloat16, so its 16 bits are stored as they are.
STORAGE: dict[str, tuple[torch.dtype, np.dtype[Any]]] = {
    "float32": (torch.float32, np.dtype("<f4")),
    "float16": (torch.float16, np.dtype("<f2")),
    "bfloat16": (torch.bfloat16, np.dtype("<u2")),
}


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
    size: int
    digest: str
    complete: bool

    @property
    def row_bytes(self) -> int:
        """Bytes of one row of features."""
        return int(np.prod(self.shape[1:])) * STORAGE[self.storage][1].itemsize

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
            CacheError: If it is damaged, or of another version.
        """
        text, _, rest = block.partition(b"\n")
        if rest[:64] != hashlib.sha256(text).hexdigest().encode():
            raise CacheError(f"{path} is damaged or not a feature file: its header does not match its digest.")
        values = json.loads(text)
        if values.get("format") != FORMAT:
            raise CacheError(
                f"{path} was written in format {values.get('format')}, this version reads {FORMAT}. Extract again."
            )
        return cls(**{**values, "shape": tuple(values["shape"])})


class FeatureFile:
    """A complete feature file, open for reading; rows are verified each time they are read.

    Args:
        path: The file.

    Raises:
        CacheError: If anything but a row is damaged (rows are checked when read).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor, self.header = _open_checked(path, os.O_RDONLY)
        if not self.header.complete:
            self.close()
            raise CacheError(f"{path} is unfinished.")
        checksums = self._read(self.header.checksums_at, 4 * self.header.shape[0])
        self._checksums = np.frombuffer(checksums, "<u4").tolist()

    def about(self) -> tuple[Tensor, dict[str, Any]]:
        """Labels, and a dictionary with classes, ids, layer and ingredients."""
        import h5py

        with h5py.File(self.path, "r") as file:
            return torch.from_numpy(file["labels"][()]), json.loads(file["about"][()].tobytes())

    def rows(self, indices: np.ndarray) -> Tensor:
        """Those rows, in that order, in the storage type.

        Raises:
            CacheError: If one of them is damaged.
        """
        header, width = self.header, self.header.row_bytes
        out = bytearray(len(indices) * width)
        for slot, start, stop in _runs(indices):
            data = self._read(header.features_at + start * width, (stop - start) * width)
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

    def _read(self, offset: int, count: int) -> memoryview:
        data = bytearray(count)
        view, got = memoryview(data), 0
        while got < count:  # a single read returns at most 2 GiB
            step = os.preadv(self._descriptor, [view[got:]], offset + got)
            if step == 0:
                raise CacheError(f"{self.path} is damaged: it ends before row data at byte {offset + got}.")
            got += step
        return view


class PartFile:
    """A feature file that is being written; survives a kill at any moment.

    Args:
        path: Its final path; until finished, it is called like that with ``.part`` at the end.
        header: Of the open file.
        descriptor: Of the open file.
    """

    def __init__(self, path: Path, header: Header, descriptor: int) -> None:
        self.path, self.header, self._descriptor = path, header, descriptor

    @classmethod
    def create(
        cls, path: Path, like: FeatureSet, shape: tuple[int, ...], storage: str, batch_size: int, ingredients: str
    ) -> "PartFile":
        """Lays out the whole file at once, so that a disk that is too small says so before any work is done.

        Args:
            path: Final path.
            like: Carries labels, classes, ids, layer and fingerprint; its features are not looked at.
            shape: (n, d) or (n, t, d).
            storage: ``"float32"``, ``"float16"`` or ``"bfloat16"``.
            batch_size: Batch boundaries are part of an unfinished file, so that a resumed run keeps them.
            ingredients: The fingerprint's, as JSON.
        """
        import h5py

        part = _part_path(path)
        about = {"classes": like.classes, "ids": like.ids, "layer": like.layer, "ingredients": json.loads(ingredients)}
        with _disk_errors(part):
            part.parent.mkdir(parents=True, exist_ok=True)
            with h5py.File(part, "w", userblock_size=_HEADER_BYTES, libver="latest") as file:
                file.attrs["fingerprint"] = like.fingerprint
                file.attrs["storage"] = storage
                file.create_dataset("labels", data=like.labels.cpu().numpy(), track_times=False)
                file.create_dataset(
                    "about", data=np.frombuffer(json.dumps(about).encode(), np.uint8), track_times=False
                )
                features_at = _reserve(file, "features", shape, STORAGE[storage][1])
                checksums_at = _reserve(file, "checksums", shape[:1], np.dtype("<u4"))
            descriptor = os.open(part, os.O_RDWR)
            try:
                row_bytes = int(np.prod(shape[1:])) * STORAGE[storage][1].itemsize
                end = max(features_at + shape[0] * row_bytes, checksums_at + 4 * shape[0], os.fstat(descriptor).st_size)
                _allocate(descriptor, end)
                header = Header(
                    FORMAT, like.fingerprint, storage, shape, batch_size, features_at, checksums_at, end, "", False
                )
                header = _replace(header, digest=_static_digest(descriptor, header))
                _write(descriptor, header.to_bytes(), 0)
            except BaseException:
                os.close(descriptor)
                part.unlink()
                raise
        return cls(path, header, descriptor)

    @classmethod
    def resume(cls, path: Path, fingerprint: str) -> "PartFile | None":
        """The unfinished file for this path, or None if there is none that can be carried on."""
        try:
            descriptor, header = _open_checked(_part_path(path), os.O_RDWR)
        except (CacheError, FileNotFoundError):
            return None
        if header.fingerprint != fingerprint:
            os.close(descriptor)
            return None
        return cls(path, header, descriptor)

    def finished_rows(self) -> np.ndarray:
        """(n,) bool: rows whose bytes match their checksum."""
        header, width = self.header, self.header.row_bytes
        checksums = np.frombuffer(os.pread(self._descriptor, 4 * header.shape[0], header.checksums_at), "<u4")
        finished = checksums != 0
        for row in np.flatnonzero(finished):
            data = os.pread(self._descriptor, width, header.features_at + int(row) * width)
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
        with _disk_errors(self.path):
            _write(self._descriptor, data, header.features_at + start * width)
            _write(self._descriptor, np.asarray(sums, "<u4").tobytes(), header.checksums_at + 4 * start)

    def finish(self) -> None:
        """Marks the file complete and gives it its name; from here on it is visible to readers."""
        with _disk_errors(self.path):
            os.fsync(self._descriptor)  # the rows are on the disk before the mark is
            self.header = _replace(self.header, complete=True)
            _write(self._descriptor, self.header.to_bytes(), 0)
            os.fsync(self._descriptor)
            _part_path(self.path).replace(self.path)
            _sync_folder(self.path.parent)

    def close(self) -> None:
        """Gives the file descriptor back; what was written stays."""
        os.close(self._descriptor)


def round_through(features: Tensor, storage: str) -> Tensor:
    """Float32 values after a trip through the storage type, so that cold and warm calls agree.

    Raises:
        CacheError: If a finite value overflows it (float16 ends at 65504).
    """
    stored = features.to(STORAGE[storage][0])
    if not torch.isfinite(stored).all() and torch.isfinite(features).all():
        raise CacheError(
            f"features must fit {storage}, whose largest value is {torch.finfo(stored.dtype).max:g}, but reach "
            f"{features.abs().max():g}. Use storage='bfloat16' or 'float32'."
        )
    return stored.float()


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


def _reserve(file: Any, name: str, shape: tuple[int, ...], dtype: np.dtype) -> int:
    """Creates a contiguous dataset without writing it; returns where it starts in the file."""
    import h5py

    plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plan.set_layout(h5py.h5d.CONTIGUOUS)
    plan.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    plan.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    plan.set_obj_track_times(False)
    kind = h5py.h5t.py_create(dtype)
    dataset = h5py.h5d.create(file.id, name.encode(), kind, h5py.h5s.create_simple(shape), plan)
    return int(dataset.get_offset())


def _allocate(descriptor: int, size: int) -> None:
    """Claims the disk space now, where the file system can."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
    else:
        os.truncate(descriptor, size)


def _open_checked(path: Path, mode: int) -> tuple[int, Header]:
    """Opens a file and believes its header only if all bytes beside rows and checksums match their digest."""
    descriptor = os.open(path, mode)
    try:
        header = Header.from_bytes(os.pread(descriptor, _HEADER_BYTES, 0), path)
        if os.fstat(descriptor).st_size != header.size:
            raise CacheError(f"{path} is damaged: {os.fstat(descriptor).st_size} bytes instead of {header.size}.")
        if _static_digest(descriptor, header) != header.digest:
            raise CacheError(f"{path} is damaged: labels, ids or structure do not match their digest.")
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor, header


def _static_digest(descriptor: int, header: Header) -> str:
    """sha256 of all bytes but the header, the rows and the checksums."""
    blocks = sorted(
        [
            (header.features_at, header.features_at + header.shape[0] * header.row_bytes),
            (header.checksums_at, header.checksums_at + 4 * header.shape[0]),
            (header.size, header.size),
        ]
    )
    total, position = hashlib.sha256(), _HEADER_BYTES
    for start, stop in blocks:
        while position < start:
            data = os.pread(descriptor, min(start - position, 1 << 24), position)
            if not data:
                break
            total.update(data)
            position += len(data)
        position = max(position, stop)
    return total.hexdigest()


def _write(descriptor: int, data: Any, offset: int) -> None:
    view, done = memoryview(data), 0
    while done < len(view):
        done += os.pwrite(descriptor, view[done:], offset + done)


def _part_path(path: Path) -> Path:
    return path.with_suffix(".part")


def _replace(header: Header, **changes: Any) -> Header:
    return Header(**{**header.__dict__, **changes})


def _sync_folder(folder: Path) -> None:
    """Makes a rename durable, where folders can be synced."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError:
        pass  # some network file systems refuse; the rename itself has happened
    finally:
        os.close(descriptor)


@contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error).splitlines()[0]
        raise CacheError(
            f"cannot write {path}: {reason}. Free some space, or choose another folder with $FROZENKIT_HOME."
        ) from error
