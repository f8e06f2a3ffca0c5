"""Plain files: read as they are or refused, written as a whole or not at all; and sealed ones, for what is kept."""

import errno
import hashlib
import json
import os
import secrets
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from frozenkit.errors import CacheError, InputError

# The first metadata of a sealed file; a quote inside of a text of ours would be escaped twice as often.
_SEAL = b'{"__metadata__":{"frozenkit":"{\\"sha256\\": \\"'
_NO_SEAL = b"0" * 64


def open_regular(path: Path, mode: int = os.O_RDONLY) -> int:
    """A descriptor of a plain file.

    Raises:
        CacheError: If there is none, or it is a folder, a pipe or a device; none of which is waited for.
    """
    try:
        descriptor = os.open(path, mode | os.O_NONBLOCK)
    except FileNotFoundError:
        raise CacheError(f"{path} does not exist.") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise CacheError(f"cannot read {path}: {reason}. Mend its permissions, or choose another file.") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise CacheError(f"{path} is a folder, a pipe or a device, and must be a plain file.")
    return descriptor


def read_exactly(descriptor: int, path: Path, offset: int, count: int) -> memoryview:
    """`count` bytes from `offset` on.

    Raises:
        CacheError: If they cannot be read, are not there, or do not fit into memory.
    """
    try:
        view = memoryview(bytearray(count))
    except (MemoryError, OverflowError) as error:
        raise CacheError(f"cannot read {path}: {count} bytes of it do not fit into memory.") from error
    read_into(view, descriptor, path, offset)
    return view


def read_into(view: memoryview, descriptor: int, path: Path, offset: int) -> None:
    """Fills `view` with the bytes from `offset` on; raises `CacheError` if they cannot be read or are not there."""
    done = 0
    try:
        while done < len(view):  # a single read returns at most 2 GiB
            step = os.preadv(descriptor, [view[done:]], offset + done)
            if step == 0:
                raise CacheError(f"{path} is damaged: it ends at byte {offset + done}, before its data does.")
            done += step
    except OSError as error:
        raise CacheError(f"cannot read {path}: {error.strerror}. Try again, or extract it again.") from error


def write_all(descriptor: int, data: Any, offset: int) -> None:
    """All of `data` from `offset` on, however many calls that takes; raises `OSError`."""
    view, done = memoryview(data), 0
    while done < len(view):
        done += os.pwrite(descriptor, view[done:], offset + done)


def unique_part(path: Path) -> Path:
    """A name beside `path` that no other process uses."""
    return path.with_name(f"{path.stem[:64]}.{os.getpid()}-{secrets.token_hex(4)}.part")


@contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """Another file, empty, that takes the place of `path` as a whole when it is on the disk; or goes.

    Raises:
        OSError: If the disk is full or the folder refuses; as a `CacheError` inside of `disk_errors`.
    """
    part = unique_part(path)
    part.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
    os.close(descriptor)
    try:
        yield part
        descriptor = os.open(part, os.O_RDWR)
        try:
            if stat.S_IMODE(os.fstat(descriptor).st_mode) != mode:  # safetensors makes a file of its own, for one user
                os.fchmod(descriptor, mode)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
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
def disk_errors(path: Path) -> Iterator[None]:
    """Turns what the system says about a write into a `CacheError`."""
    if "\0" in str(path):
        raise CacheError(f"cannot write {str(path)!r}: a file's name holds no NUL. Choose another name.")
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error).splitlines()[0]
        advice = "Choose another folder (of the cache: with $FROZENKIT_HOME)."
        if error.errno in (errno.EMFILE, errno.ENFILE):
            advice = "Ask for fewer layers at a time, or raise the limit (ulimit -n)."
        elif error.errno in (None, errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            advice = f"Free some space. {advice}"
        raise CacheError(f"cannot write {path}: {reason}. {advice}") from error


def with_suffix(path: str | Path, suffix: str) -> Path:
    """The path, if it ends in this suffix.

    Raises:
        InputError: If not, or if it is no path.
    """
    if as_path(path).suffix != suffix:
        raise InputError(f"`path` must be a path that ends in {suffix}, got {Path(path).name!r}.")
    return Path(path)


def as_path(path: str | Path) -> Path:
    """The path; raises an `InputError` if it is none."""
    if not isinstance(path, str | Path):
        raise InputError(f"`path` must be the path of a file, as text or a Path, got {type(path).__name__}.")
    return Path(path)


def write_sealed(path: Path, kind: str, version: int, about: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """Writes tensors, and JSON about them, to one safetensors file with a sha256 over all of its other bytes.

    Args:
        path: The file; one that is there is replaced once the new one is on the disk.
        kind: What is in it, such as ``"probe"``.
        version: Of what `about` says.
        about: JSON values.
        tensors: By name; of any device.

    Returns:
        The sha256, which stands in the file.

    Raises:
        CacheError: If the file cannot be written; what was there is still there.
    """
    from safetensors.torch import save_file

    own = {name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}
    said = json.dumps({"sha256": _NO_SEAL.decode(), "kind": kind, "version": version, "about": dict(about)})
    with disk_errors(path), written_aside(path) as part:
        try:
            save_file(own, part, {"frozenkit": said})
        except SafetensorError as error:  # what the system said
            raise OSError(str(error)) from error
        with part.open("r+b") as file:
            start = 8 + len(_SEAL)
            if file.read(start)[8:] != _SEAL or file.read(64) != _NO_SEAL:
                raise AssertionError("safetensors writes its header in another way than we know")
            file.seek(0)
            seal = hashlib.file_digest(file, "sha256").hexdigest()
            file.seek(start)
            file.write(seal.encode())
    return seal


def read_sealed(path: Path, kind: str, version: int) -> tuple[dict[str, Any], dict[str, Tensor], str]:
    """What `write_sealed` wrote: (about, tensors, sha256), not a bit of which is believed before all are verified.

    Raises:
        CacheError: If the file is not there, damaged, of another kind or version, or was written by something else.
    """
    from safetensors import torch as safetensors

    with os.fdopen(open_regular(path), "rb") as file:
        try:
            content = bytearray(file.read())
        except (OSError, MemoryError) as error:
            raise CacheError(f"cannot read {path}: {getattr(error, 'strerror', None) or 'memory is short'}.") from error
    start = 8 + len(_SEAL)
    seal = bytes(content[start : start + 64])
    if content[8:start] != _SEAL:
        raise CacheError(f"{path} is damaged, or no {kind} that frozenkit wrote. Save it again.")
    content[start : start + 64] = _NO_SEAL
    if hashlib.sha256(content).hexdigest().encode() != seal:
        raise CacheError(f"{path} is damaged: its content does not match its sha256. Save it again, or copy it again.")
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    said = json.loads(header["__metadata__"]["frozenkit"])
    if said["kind"] != kind:
        raise CacheError(f"{path} holds a {said['kind']}, and must hold a {kind}.")
    if said["version"] != version:
        raise CacheError(
            f"{path} was written in version {said['version']} of a {kind} file, this frozenkit reads {version}. "
            "Save it again with this one, or load it with the other."
        )
    return said["about"], safetensors.load(bytes(content)), seal.decode()
