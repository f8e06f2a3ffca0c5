"""The store of features: one file per fingerprint, never stale, never half; lazy reading of what exceeds memory."""

import math
import os
import re
import stat
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from frozenkit._arrays import described, row_indices
from frozenkit._files import disk_errors
from frozenkit.errors import CacheError, CacheMissError, DataError, InputError, require
from frozenkit.extraction._file import STORAGE, FeatureFile, PartFile
from frozenkit.extraction._locks import locked
from frozenkit.features import FeatureSet, as_features, is_multilabel
from frozenkit.fingerprint import Fingerprint, Origin

if TYPE_CHECKING:
    import pandas as pd


class CachedFeatures(torch.utils.data.Dataset):
    """A `FeatureSet` that stays on disk: same attributes, but rows are read, and verified, when asked for.

    Indexing gives (feature, label) float32 pairs, and needs labels; it may be shared with DataLoader workers, each of
    which opens the file for itself.

    Args:
        path: A complete feature file.

    Raises:
        CacheError: If the file is damaged.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).absolute()  # workers may start elsewhere
        self._file: FeatureFile | None = None
        self._owner = -1
        self._seen: tuple[Any, ...] | None = None
        header = self._open().header
        labels, about = self._open().about()
        blank = _feature_set(self.path, torch.empty(header.shape[0], 0), labels, about, header.fingerprint)
        self.labels, self.classes, self.ids, self.layer = blank.labels, blank.classes, blank.ids, blank.layer
        self.ingredients: dict[str, Any] = about.get("ingredients", {})
        if not isinstance(self.ingredients, dict):
            raise CacheError(f"{self.path} is not a feature file: its ingredients are {self.ingredients!r}.")
        self.fingerprint = header.fingerprint
        self.origin = Origin.from_ingredients(self.ingredients)
        self.shape = header.shape
        self.storage = header.storage

    @property
    def n_features(self) -> int:
        """d, the width of one feature vector."""
        return self.shape[-1]

    @property
    def is_multilabel(self) -> bool:
        """Whether an image may have any number of the labels: they are (n, k) booleans."""
        return is_multilabel(self)

    @property
    def n_classes(self) -> int:
        """k, the number of classes; 0 for regression."""
        return len(self.classes)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        as_features(self, "features", multilabel=True)  # with labels
        row = range(len(self))[index]
        return self.rows([row])[0], self.labels[row]

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
        """A whole batch in one go: what DataLoader calls."""
        as_features(self, "features", multilabel=True)  # with labels
        return list(zip(self.rows(indices), self.labels[torch.as_tensor(indices)], strict=True))

    def rows(self, indices: Sequence[int] | np.ndarray | Tensor) -> Tensor:
        """Those rows, in that order, by indices or a mask: (m, d) or (m, t, d) float32.

        Raises:
            InputError: If a mask has another length, or an index is no whole number in −n..n−1.
            CacheError: If a row is damaged, or memory does not hold them.
        """
        index = row_indices(indices, len(self)).numpy()
        file = self._open()
        try:
            out = torch.empty(len(index), *self.shape[1:])
            for start in range(0, len(index), block := 1 + 2**20 // max(1, file.header.row_bytes)):
                # A megabyte at a time is read, compared with its checksums and converted while it lies in the cache.
                out[start : start + block] = file.rows(index[start : start + block])
        except (RuntimeError, MemoryError) as error:  # torch has its own
            raise CacheError(
                f"cannot read {self.path}: {len(index)} rows do not fit into memory. Read fewer at a time, as "
                "`batches` does."
            ) from error
        return out

    def batches(self, size: int = 4096) -> Iterator[tuple[Tensor, Tensor]]:
        """All rows in order, as (features, labels) chunks of `size`, at least one; memory stays flat."""
        for start in range(0, max(1, len(self)), size):
            stop = min(start + size, len(self))
            yield self.rows(range(start, stop)), None if self.labels is None else self.labels[start:stop]

    def load(self) -> FeatureSet:
        """Everything, in memory."""
        features = self.rows(np.arange(len(self)))
        about = self.labels, self.classes, self.ids, self.layer, self.fingerprint, self.origin
        return FeatureSet(features, *about)

    def __repr__(self) -> str:
        size = " × ".join(map(str, self.shape[1:]))
        return f"CachedFeatures({len(self)} images × {size} features, {self.storage}, layer={self.layer!r}, on disk)"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_file": None, "_owner": -1}

    def __del__(self) -> None:
        if getattr(self, "_file", None) is not None and self._owner == os.getpid():
            self._file.close()  # type: ignore[union-attr]

    def _open(self) -> FeatureFile:
        if self._file is None or self._owner != os.getpid():  # after a fork: open again
            file = FeatureFile(self.path)
            seen = (file.header.fingerprint, file.header.shape, file.header.digest)
            if seen != (self._seen or seen):  # these are the rows of other labels
                file.close()
                raise CacheError(f"{self.path} holds other features than when it was opened. Open it again.")
            self._file, self._owner, self._seen = file, os.getpid(), seen
        return self._file


class FeatureCache:
    """A folder of feature files, found by fingerprint.

    Args:
        root: The folder; default ``$FROZENKIT_HOME/cache``, or the user's cache folder.
        storage: ``"float32"`` (default), ``"float16"`` (half the size; up to 65504) or ``"bfloat16"`` (half the size,
            full range, three digits). Part of the key.
        shared: A second folder that is only read, for what is not in `root`: a class's, say; default
            ``$FROZENKIT_SHARED_CACHE``.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     FeatureCache(folder)
        FeatureCache(0 entries, 0.0 MB, float32)
    """

    def __init__(
        self, root: str | Path | None = None, *, storage: str = "float32", shared: str | Path | None = None
    ) -> None:
        check_storage(storage)
        self.root = Path(root) if root is not None else default_root()
        self.storage = storage
        shared = shared or os.environ.get("FROZENKIT_SHARED_CACHE")
        self.shared = Path(shared) if shared else None

    def __contains__(self, fingerprint: str) -> bool:
        return _is_file(self._found(fingerprint))

    def path(self, fingerprint: str) -> Path:
        """Where the features of this fingerprint are, or would be."""
        if not _is_digest(fingerprint):
            raise InputError(f"`fingerprint` must be 64 hexadecimal digits, got {fingerprint!r}.")
        return self.root / f"{fingerprint}.safetensors"

    def _found(self, fingerprint: str) -> Path:
        """The own file, else the shared one, else one of version 0.1 (which says so), else where the own would be."""
        own = self.path(fingerprint)
        others = [self.shared / own.name if self.shared else own, own.with_suffix(".h5")]
        return next((path for path in (own, *others) if _is_file(path)), own)

    def open(self, fingerprint: str) -> CachedFeatures:
        """The stored features, left on disk.

        Raises:
            CacheMissError: If there are none.
            CacheError: If they are damaged, of another version, or those of another fingerprint under this name.
        """
        if fingerprint not in self:
            raise CacheMissError(f"nothing is stored under {fingerprint[:12]}… in {self.root}. Extract it first.")
        return _open_entry(self._found(fingerprint))

    def load(self, fingerprint: str) -> FeatureSet:
        """The stored features, in memory; raises like `open`."""
        return self.open(fingerprint).load()

    def entries(self) -> "pd.DataFrame":
        """A pandas table, newest first: what is stored, how large, and from which ingredients."""
        return require("pandas", "course").DataFrame(self.records(), columns=_COLUMNS)

    def records(self) -> list[dict[str, Any]]:
        """The rows of `entries` without pandas; None where a file cannot be read."""
        rows = []
        for path, status in self._files():
            row: dict[str, Any] = dict.fromkeys(_COLUMNS) | {"fingerprint": path.stem}
            try:
                file = _open_entry(path)
                row |= {key: file.ingredients.get(key) for key in _INGREDIENTS}
                row |= {"layer": file.layer, "rows": len(file), "width": file.n_features, "storage": file.storage}
                written = datetime.fromtimestamp(status.st_mtime, UTC).replace(tzinfo=None)
                row |= {"MB": round(status.st_size / 1e6, 2), "written": written, "state": "ok"}
            except CacheError as error:
                row["state"] = str(error)
            rows.append(row)
        return rows

    def state(self) -> set[tuple[str, int, int]]:
        """What tells whether anything was written between two calls: name, inode and time of each own entry."""
        return {(path.name, status.st_ino, status.st_mtime_ns) for path, status in self._files()}

    def verify(self) -> dict[str, str]:
        """Reads every byte that would ever be returned: fingerprint to ``"ok"`` or to what is wrong.

        What frozenkit 0.1 wrote is never returned; `outdated` names it.
        """
        states = {path: _state_of(path) for path, _ in self._files(".safetensors")}
        return {path.stem: state for path, state in states.items() if state == "ok" or _is_file(path)}

    def outdated(self) -> list[Path]:
        """The files of frozenkit 0.1, newest first, which this version does not read."""
        return [path for path, _ in self._files(".h5")]

    def remove_outdated(self) -> int:
        """Forgets what `outdated` names, and nothing else.

        Returns:
            How many files went.

        Raises:
            CacheError: If the folder refuses.
        """
        paths = self.outdated()
        for path in paths:
            with disk_errors(path):
                path.unlink(missing_ok=True)
        return len(paths)

    def _verify_entry(self, fingerprint: str) -> str:
        """``"ok"``, or what is wrong with the entry that `open` finds."""
        return _state_of(self._found(fingerprint))

    def remove(self, fingerprint: str) -> None:
        """Forgets one entry, with its unfinished part, unless a process is writing that just now.

        On a file system without locks nobody can tell: there, a part goes when it was not written to for a day.

        Raises:
            CacheError: If the folder refuses.
        """
        self._remove(fingerprint, self._parts(fingerprint))

    def _remove(self, fingerprint: str, parts: Iterable[Path]) -> bool:
        """Whether anything was there, and went."""
        path = self.path(fingerprint)
        if not self.root.is_dir():
            return False
        lock, state = path.with_suffix(".lock"), "alone"
        with disk_errors(path), ExitStack() as stack:
            try:
                state = stack.enter_context(locked(lock, wait=False))
            except CacheError:  # a full disk may have no room for a lock; it must be possible to empty it all the same
                state = "busy" if os.path.lexists(lock) else "alone"
            parts = {"alone": parts, "busy": (), "no locks": self._parts(fingerprint, days=1)}[state]
            files = [file for file in (path, path.with_suffix(".h5"), *parts) if _is_file(file) or file.is_symlink()]
            for file in files:
                file.unlink(missing_ok=True)
        return bool(files)

    def _parts(self, fingerprint: str, days: float = 0) -> list[Path]:
        """Unfinished files of this fingerprint, not written to for so many days."""
        limit = time.time() - days * 86_400
        parts = [(path, status) for path, status in self._files(".part") if _digest_of(path) == fingerprint]
        return [path for path, status in parts if not days or status.st_mtime <= limit]

    def clear(self, *, name: str | None = None, older_than_days: float = 0.0) -> int:
        """Forgets entries whose dataset or backbone is `name` (all, if None) and that are at least that old.

        Returns:
            How many entries went, unfinished ones included; what is being written stays, and does not count.

        Raises:
            InputError: If `older_than_days` is negative or not finite.
        """
        if not 0 <= older_than_days < math.inf:
            raise InputError(f"`older_than_days` must be a finite number of at least 0, got {older_than_days!r}.")
        limit = time.time() - older_than_days * 86_400
        found: dict[str, list[Path]] = {}
        for path, status in [*self._files(), *self._files(".part")]:
            old = not older_than_days or status.st_mtime <= limit  # a wrong clock writes entries in the future
            if old and (name is None or name in _names(path)):
                found.setdefault(_digest_of(path), []).append(path)
        return sum(
            self._remove(fingerprint, [path for path in paths if path.suffix == ".part"])
            for fingerprint, paths in found.items()
        )

    @property
    def size(self) -> int:
        """Bytes on disk, unfinished files included."""
        return sum(status.st_size for _, status in [*self._files(), *self._files(".part")])

    def why(self, fingerprint: Fingerprint) -> dict[str, tuple[Any, Any]]:
        """Why is this a miss? Ingredient to (wanted, stored) against the stored entry that differs in fewest."""
        nearest: dict[str, tuple[Any, Any]] | None = None
        for path, _ in self._files():
            try:
                stored = Fingerprint(_open_entry(path).ingredients)
            except CacheError:
                continue
            differs = fingerprint.differences(stored)
            if nearest is None or len(differs) < len(nearest):
                nearest = differs
        return nearest or {}

    def _part(
        self, like: FeatureSet, shape: tuple[int, ...], batch_size: int, fingerprint: Fingerprint, *, alone: bool = True
    ) -> PartFile:
        """The unfinished file for these features: carried on if it has these batch boundaries, else begun.

        Args:
            like: Carries labels, classes, ids, layer and fingerprint.
            shape: (n, d) or (n, t, d).
            batch_size: Where batches begin.
            fingerprint: Its ingredients go into the file.
            alone: What `_writing` gave: if another process may write the same, each has a file of its own.
        """
        path = self.path(like.fingerprint)
        part = PartFile.resume(path, like.fingerprint) if alone else None
        if not alone:  # nobody carries these on, and whoever wrote them has gone
            for left in self._parts(like.fingerprint, days=1):
                left.unlink(missing_ok=True)
        if part is not None and (part.header.batch_size != batch_size or part.header.shape != shape):
            part.close()
            part = None
        return part or PartFile.create(path, like, shape, self.storage, batch_size, fingerprint.to_json(), alone=alone)

    def _unfinished_batch_size(self, fingerprints: Iterable[str]) -> int | None:
        """The batch size of the interrupted run that wrote one of these, if there was one."""
        for fingerprint in fingerprints:
            if (part := PartFile.resume(self.path(fingerprint), fingerprint)) is not None:
                part.close()
                return part.header.batch_size
        return None

    @contextmanager
    def _writing(self, fingerprints: Iterable[str]) -> Iterator[bool]:
        """Only one process at a time is inside with the same fingerprint; others wait, and take over if it dies.

        Yields:
            Whether that holds: False, with a warning, on a file system without locks.
        """
        with ExitStack() as stack:
            locks = [  # one order for all, so nobody waits in a circle
                stack.enter_context(locked(self.path(fingerprint).with_suffix(".lock")))
                for fingerprint in sorted(fingerprints)
            ]
            yield "no locks" not in locks

    def _files(self, *suffixes: str) -> list[tuple[Path, os.stat_result]]:
        """Plain files with names that we give, newest first: others may keep things in this folder, too."""
        found = []
        try:
            paths = list(self.root.iterdir())
        except OSError:
            paths = []
        for path in paths:
            if path.suffix not in (suffixes or (".safetensors", ".h5")) or not _digest_of(path):
                continue
            try:
                status = path.stat()
            except OSError:  # gone meanwhile, or a link that leads nowhere
                continue
            if stat.S_ISREG(status.st_mode):
                found.append((path, status))
        return sorted(found, key=lambda pair: -pair[1].st_mtime)

    def __repr__(self) -> str:
        count = len(self._files())
        return f"FeatureCache({count} {'entry' if count == 1 else 'entries'}, {self.size / 1e6:.1f} MB, {self.storage})"


_INGREDIENTS = ("dataset", "backbone", "image_size", "pooling", "precision")
_COLUMNS = ["dataset", "backbone", "layer", "pooling", "image_size", "precision", "storage"]
_COLUMNS += ["rows", "width", "MB", "written", "state", "fingerprint"]


def _open_entry(path: Path) -> CachedFeatures:
    """An entry of a cache. Its rows match the fingerprint in the file, so that must be the one it is named after."""
    entry = CachedFeatures(path)
    if entry.fingerprint != path.stem:
        raise CacheError(
            f"{path} holds the features of {entry.fingerprint[:12]}…, not those that it is named after. "
            "Extract them again."
        )
    return entry


def _state_of(path: Path) -> str:
    """``"ok"``, or what is wrong with this entry."""
    try:
        for _ in _open_entry(path).batches():
            pass
    except CacheError as error:
        return str(error)
    return "ok"


def _is_digest(name: str) -> bool:
    return len(name) == 64 and not set(name) - set("0123456789abcdef")


def _digest_of(path: Path) -> str:
    """The fingerprint that an entry's file is called after; empty if it is not ours."""
    match = re.fullmatch(r"([0-9a-f]{64})(\.safetensors|\.h5|(\.\d+-[0-9a-f]{8})?\.part)", path.name)
    return match[1] if match else ""


def _is_file(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except (OSError, ValueError):
        return False


def default_root() -> Path:
    """``$FROZENKIT_HOME/cache`` if set, else ``frozenkit`` in the user's cache folder."""
    if home := os.environ.get("FROZENKIT_HOME"):
        return Path(home) / "cache"
    import platformdirs

    return Path(platformdirs.user_cache_dir("frozenkit"))


def check_storage(storage: object) -> None:
    """Raise an `InputError` unless this is a type that features are stored in."""
    if not isinstance(storage, str) or storage not in STORAGE:
        raise InputError(f"`storage` must be one of {', '.join(STORAGE)}, got {storage!r}.")


def check_cache(cache: object) -> None:
    """Raise an `InputError` unless this is a cache or None."""
    if cache is not None and not isinstance(cache, FeatureCache):
        raise InputError(
            f"`cache` must be a FeatureCache or None, got {described(cache)}. Try cache=FeatureCache(folder)."
        )


def round_through(features: Tensor, storage: str) -> Tensor:
    """Float32 values after a trip through the storage type, so that cold and warm calls agree.

    Raises:
        CacheError: If a finite value overflows it (float16 ends at 65504).
    """
    stored = features.to(STORAGE[storage])
    if not torch.isfinite(stored).all() and torch.isfinite(features).all():
        raise CacheError(
            f"features must fit {storage}, whose largest value is {torch.finfo(stored.dtype).max:g}, but reach "
            f"{features.abs().max():g}. Use storage='bfloat16' or 'float32'."
        )
    return stored.float()


def _feature_set(path: Path, x: Tensor, y: Any, about: Any, fingerprint: Any) -> FeatureSet:
    """What a file holds, if it is what a `FeatureSet` may be."""
    try:
        classes, ids, layer = (about[name] for name in ("classes", "ids", "layer"))
        if not isinstance(classes, list) or not isinstance(ids, list) or not x.is_floating_point():
            raise TypeError("classes and ids must be lists, features floating")
        if not all(isinstance(text, str) for text in (*classes, *ids, layer, fingerprint)):
            raise TypeError("classes, ids, layer and fingerprint must be texts")
        return FeatureSet(x, y, tuple(classes), tuple(ids), layer, fingerprint)
    except (KeyError, TypeError, DataError) as error:
        raise CacheError(f"{path} is damaged or was not written by save_features: {error!r}") from error


def _names(path: Path) -> set[str]:
    """Data set and backbone of an entry, finished or not."""
    try:
        with closing(FeatureFile(path)) as file:
            ingredients = file.about()[1]["ingredients"]
        return {str(ingredients.get("dataset")), str(ingredients.get("backbone"))}
    except (CacheError, KeyError, TypeError, AttributeError):
        return set()
