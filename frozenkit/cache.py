"""The store of features: one HDF5 file a fingerprint, never stale, never half; lazy reading of what exceeds memory."""

import json
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from frozenkit.errors import CacheError, CacheMissError, InputError
from frozenkit.features import FeatureSet
from frozenkit.fingerprint import Fingerprint
from frozenkit.locks import locked
from frozenkit.storage import STORAGE, FeatureFile, PartFile


class CachedFeatures(torch.utils.data.Dataset):
    """A `FeatureSet` that stays on disk: same attributes, but rows are read, and verified, when asked for.

    Indexing gives (feature, label) float32 pairs; it may be shared with DataLoader workers, each of which opens the
    file for itself.

    Args:
        path: A complete feature file.

    Raises:
        CacheError: If the file is damaged.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._file: FeatureFile | None = None
        self._owner = -1
        header = self._open().header
        self.labels, about = self._open().about()
        self.classes = tuple(about["classes"])
        self.ids = tuple(about["ids"])
        self.layer: str = about["layer"]
        self.ingredients: dict[str, Any] = about["ingredients"]
        self.fingerprint = header.fingerprint
        self.shape = header.shape
        self.storage = header.storage

    @property
    def n_features(self) -> int:
        """d, the width of one feature vector."""
        return self.shape[-1]

    @property
    def n_classes(self) -> int:
        """k, the number of classes; 0 for regression."""
        return len(self.classes)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        row = range(len(self))[index]
        return self.rows([row])[0], self.labels[row]

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
        """A whole batch in one go: what DataLoader calls."""
        return list(zip(self.rows(indices), self.labels[torch.as_tensor(indices)], strict=True))

    def rows(self, indices: Sequence[int] | np.ndarray | Tensor) -> Tensor:
        """Those rows, in that order, as (m, d) float32."""
        index = np.asarray(indices, dtype=np.int64)
        if len(index) and (index.min() < 0 or index.max() >= len(self)):
            raise InputError(f"`indices` must lie in 0..{len(self) - 1}, got {index.min()}..{index.max()}.")
        file, out = self._open(), torch.empty(len(index), *self.shape[1:])
        for start in range(0, len(index), block := max(1, 2**20 // file.header.row_bytes)):
            # A megabyte at a time is read, compared with its checksums and converted while it lies in the cache.
            out[start : start + block] = file.rows(index[start : start + block])
        return out

    def batches(self, size: int = 4096) -> Iterator[tuple[Tensor, Tensor]]:
        """All rows in order, as (features, labels) chunks of `size`; memory stays flat."""
        for start in range(0, len(self), size):
            stop = min(start + size, len(self))
            yield self.rows(range(start, stop)), self.labels[start:stop]

    def load(self) -> FeatureSet:
        """Everything, in memory."""
        features = self.rows(np.arange(len(self)))
        return FeatureSet(features, self.labels, self.classes, self.ids, self.layer, self.fingerprint)

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
            self._file, self._owner = FeatureFile(self.path), os.getpid()
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
        if storage not in STORAGE:
            raise InputError(f"`storage` must be one of {', '.join(STORAGE)}, got {storage!r}.")
        self.root = Path(root) if root is not None else default_root()
        self.storage = storage
        shared = shared or os.environ.get("FROZENKIT_SHARED_CACHE")
        self.shared = Path(shared) if shared else None

    def __contains__(self, fingerprint: str) -> bool:
        return self._found(fingerprint).is_file()

    def path(self, fingerprint: str) -> Path:
        """Where the features of this fingerprint are, or would be."""
        if not _is_digest(fingerprint):
            raise InputError(f"`fingerprint` must be 64 hexadecimal digits, got {fingerprint!r}.")
        return self.root / f"{fingerprint}.h5"

    def _found(self, fingerprint: str) -> Path:
        """The own file, else the shared one, else where the own one would be."""
        own = self.path(fingerprint)
        shared = self.shared / own.name if self.shared else own
        return shared if shared.is_file() and not own.is_file() else own

    def open(self, fingerprint: str) -> CachedFeatures:
        """The stored features, left on disk.

        Raises:
            CacheMissError: If there are none.
            CacheError: If they are damaged, or of another version.
        """
        if fingerprint not in self:
            raise CacheMissError(f"nothing is stored under {fingerprint[:12]}… in {self.root}. Extract it first.")
        return CachedFeatures(self._found(fingerprint))

    def load(self, fingerprint: str) -> FeatureSet:
        """The stored features, in memory; raises like `open`."""
        return self.open(fingerprint).load()

    def entries(self) -> Any:
        """A pandas table, newest first: what is stored, how large, and from which ingredients."""
        import pandas as pd

        rows: list[dict[str, Any]] = []
        for path in self._files():
            try:
                file = CachedFeatures(path)
            except CacheError as error:
                rows.append({"fingerprint": path.stem, "state": str(error)})
                continue
            named = {
                key: file.ingredients.get(key) for key in ("dataset", "backbone", "image_size", "pooling", "precision")
            }
            shape = {"layer": file.layer, "rows": len(file), "width": file.n_features, "storage": file.storage}
            rows.append({"fingerprint": path.stem, **named, **shape, "state": "ok"})
            rows[-1] |= {
                "MB": round(path.stat().st_size / 1e6, 2),
                "written": pd.Timestamp(path.stat().st_mtime, unit="s"),
            }
        return pd.DataFrame(rows, columns=_COLUMNS)

    def verify(self) -> dict[str, str]:
        """Reads every byte that would ever be returned: fingerprint to ``"ok"`` or to what is wrong."""
        return {path.stem: self.verify_entry(path.stem) for path in self._files()}

    def verify_entry(self, fingerprint: str) -> str:
        """``"ok"``, or what is wrong with this entry."""
        try:
            for _ in self.open(fingerprint).batches():
                pass
        except CacheError as error:
            return str(error)
        return "ok"

    def remove(self, fingerprint: str) -> None:
        """Forgets one entry, its unfinished part included."""
        path = self.path(fingerprint)
        for file in (path, path.with_suffix(".part"), path.with_suffix(".lock")):
            file.unlink(missing_ok=True)

    def clear(self, *, name: str | None = None, older_than_days: float = 0.0) -> int:
        """Forgets entries whose dataset or backbone is `name` (all, if None) and that are at least that old.

        Returns:
            How many entries went.
        """
        limit = time.time() - older_than_days * 86_400
        count = 0
        for path in [*self._files(), *self.root.glob("*.part")]:
            if path.stat().st_mtime > limit or (name is not None and name not in _names(path)):
                continue
            self.remove(path.stem)
            count += 1
        return count

    @property
    def size(self) -> int:
        """Bytes on disk, unfinished files included."""
        return sum(path.stat().st_size for path in [*self._files(), *self.root.glob("*.part")])

    def why(self, fingerprint: Fingerprint) -> dict[str, tuple[Any, Any]]:
        """Why is this a miss? Ingredient to (wanted, stored) against the stored entry that differs in fewest."""
        nearest: dict[str, tuple[Any, Any]] | None = None
        for path in self._files():
            try:
                stored = Fingerprint(CachedFeatures(path).ingredients)
            except CacheError:
                continue
            differs = fingerprint.differences(stored)
            if nearest is None or len(differs) < len(nearest):
                nearest = differs
        return nearest or {}

    def part(self, like: FeatureSet, shape: tuple[int, ...], batch_size: int, fingerprint: Fingerprint) -> PartFile:
        """The unfinished file for these features: carried on if it has these batch boundaries, else begun."""
        path = self.path(like.fingerprint)
        part = PartFile.resume(path, like.fingerprint)
        if part is not None and (part.header.batch_size != batch_size or part.header.shape != shape):
            part.close()
            part = None
        return part or PartFile.create(path, like, shape, self.storage, batch_size, fingerprint.to_json())

    def unfinished_batch_size(self, fingerprints: Iterable[str]) -> int | None:
        """The batch size of the interrupted run that wrote one of these, if there was one."""
        for fingerprint in fingerprints:
            if (part := PartFile.resume(self.path(fingerprint), fingerprint)) is not None:
                part.close()
                return part.header.batch_size
        return None

    @contextmanager
    def writing(self, fingerprints: Iterable[str]) -> Iterator[None]:
        """Only one process at a time is inside with the same fingerprint; others wait, and take over if it dies."""
        with ExitStack() as stack:
            for fingerprint in sorted(fingerprints):  # one order for all, so nobody waits in a circle
                stack.enter_context(locked(self.path(fingerprint).with_suffix(".lock")))
            yield

    def _files(self) -> list[Path]:
        own = [path for path in self.root.glob("*.h5") if _is_digest(path.stem)]  # others may keep files here, too
        return sorted(own, key=lambda path: -path.stat().st_mtime)

    def __repr__(self) -> str:
        count = len(self._files())
        return f"FeatureCache({count} {'entry' if count == 1 else 'entries'}, {self.size / 1e6:.1f} MB, {self.storage})"


_COLUMNS = ["dataset", "backbone", "layer", "pooling", "image_size", "precision", "storage"]
_COLUMNS += ["rows", "width", "MB", "written", "state", "fingerprint"]


def _is_digest(name: str) -> bool:
    return len(name) == 64 and not set(name) - set("0123456789abcdef")


def default_root() -> Path:
    """``$FROZENKIT_HOME/cache`` if set, else ``frozenkit`` in the user's cache folder."""
    if home := os.environ.get("FROZENKIT_HOME"):
        return Path(home) / "cache"
    import platformdirs

    return Path(platformdirs.user_cache_dir("frozenkit"))


def save_features(features: FeatureSet, path: str | Path) -> None:
    """Writes a `FeatureSet` to one file, by suffix: ``.h5``, ``.npz`` or ``.safetensors``; without pickle.

    Raises:
        InputError: If the suffix is another one.
        CacheError: If the file cannot be written.
    """
    path = Path(path)
    about = {name: getattr(features, name) for name in ("classes", "ids", "layer", "fingerprint")}
    if path.suffix == ".h5":
        part = PartFile.create(path, features, tuple(features.features.shape), "float32", max(len(features), 1), "{}")
        try:
            part.write(0, features.features.cpu())
            part.finish()
        finally:
            part.close()
    elif path.suffix == ".npz":
        x, y = features.numpy()
        np.savez(path, allow_pickle=False, features=x, labels=y, about=np.array(json.dumps(about)))
    elif path.suffix == ".safetensors":
        from safetensors.torch import save_file

        tensors = {"features": features.features.cpu().contiguous(), "labels": features.labels.cpu().contiguous()}
        save_file(tensors, path, metadata={"about": json.dumps(about)})
    else:
        raise InputError(f"`path` must end in .h5, .npz or .safetensors, got {path.name!r}.")


def load_features(path: str | Path) -> FeatureSet:
    """Reads what `save_features` wrote.

    Raises:
        InputError: If the suffix is unknown.
        CacheError: If the file is damaged or holds something else.
    """
    path = Path(path)
    if path.suffix not in (".h5", ".npz", ".safetensors"):
        raise InputError(f"`path` must end in .h5, .npz or .safetensors, got {path.name!r}.")
    if not path.is_file():
        raise CacheError(f"{path} does not exist.")
    if path.suffix == ".h5":
        return CachedFeatures(path).load()
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as file:
                x, y = torch.from_numpy(file["features"]), torch.from_numpy(file["labels"])
                about = json.loads(str(file["about"]))
        else:
            from safetensors import safe_open

            with safe_open(path, "pt") as file:
                x, y = file.get_tensor("features"), file.get_tensor("labels")
                about = json.loads(file.metadata()["about"])
    except Exception as error:  # each library has its own family for "not my format"
        raise CacheError(f"{path} is damaged or was not written by save_features: {error}") from error
    return FeatureSet(x, y, tuple(about["classes"]), tuple(about["ids"]), about["layer"], about["fingerprint"])


def _names(path: Path) -> set[str]:
    try:
        ingredients = CachedFeatures(path).ingredients
    except CacheError:
        return set()
    return {str(ingredients.get("dataset")), str(ingredients.get("backbone"))}
