"""Features in a file of their own, saved and loaded by name."""

import hashlib
import json
import math
import os
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from frozenkit._files import disk_errors, open_regular, written_aside
from frozenkit.errors import CacheError, InputError
from frozenkit.extraction._file import OutdatedError, PartFile
from frozenkit.extraction.cache import CachedFeatures, _feature_set
from frozenkit.features import FeatureSet, as_features
from frozenkit.fingerprint import Origin


def save_features(features: FeatureSet, path: str | Path) -> None:
    """Writes a `FeatureSet` to one file, by suffix: ``.safetensors`` (float32) or ``.npz``; without pickle.

    The file is written aside and renamed when it is on the disk: at each moment `path` is the old file or the new one,
    whole. What is in it is covered by checksums, which `load_features` compares.

    Raises:
        InputError: If `features` is something else, has no labels for ``.npz``, or the suffix is another one.
        CacheError: If the file cannot be written; what was there is still there.
    """
    if not isinstance(features, FeatureSet):
        raise InputError(f"`features` must be a FeatureSet, got {type(features).__name__}. Stored ones have `.load()`.")
    path = _with_known_suffix(path)
    x = features.features.detach().cpu()
    if path.suffix == ".safetensors":
        made = json.dumps(features.origin.to_ingredients() if features.origin else {})
        part = PartFile.create(path, features, tuple(x.shape), "float32", max(len(x), 1), made, alone=False)
        try:
            part.write(0, x)
            part.finish()
        finally:
            part.close()
        return
    as_features(features, "features", multilabel=True)  # with labels
    about: dict[str, Any] = {name: getattr(features, name) for name in ("classes", "ids", "layer", "fingerprint")}
    if features.origin:
        about["origin"] = features.origin.to_ingredients()
    x, y = x.float(), features.labels.cpu().contiguous()
    signed = json.dumps({**about, "sha256": _sha256(about, x, y)})
    with disk_errors(path), written_aside(path) as part_path, part_path.open("wb") as file:
        np.savez(file, features=x.numpy(), labels=y.numpy(), about=np.array(signed))  # numbers and text: no pickle


def load_features(path: str | Path) -> FeatureSet:
    """Reads what `save_features` wrote.

    Raises:
        InputError: If the suffix is unknown.
        CacheError: If the file is damaged or holds something else.
    """
    path = Path(path) if Path(path).suffix == ".h5" else _with_known_suffix(path)
    os.close(open_regular(path))  # no pipe, no device
    if path.suffix != ".npz":
        try:
            return CachedFeatures(path).load()
        except OutdatedError as error:
            reader = "h5py" if path.suffix == ".h5" else "safetensors.torch.load_file"
            raise CacheError(
                f"{str(error).removesuffix('.')}, or read its `features` and `labels` with {reader}, make a set of "
                "them with FeatureSet.from_arrays, and save that."
            ) from error
    try:
        x, y, text = _read_npz(path)
        about = json.loads(text)
        expected = about.pop("sha256", None)
        actual = _sha256(about, x, y)
    except Exception as error:  # each library has its own family for "not my format"
        raise CacheError(f"{path} is damaged or was not written by save_features: {error}") from error
    if expected is None:
        raise CacheError(
            f"{path} carries no sha256: another program wrote it, or frozenkit before it wrote one. "
            "Extract the features, and save them, again."
        )
    if actual != expected:
        raise CacheError(f"{path} is damaged: its content does not match its sha256. Extract the features again.")
    made = about.get("origin")
    origin = Origin.from_ingredients(made) if isinstance(made, dict) else None
    return replace(_feature_set(path, x, y, about, about.get("fingerprint")), origin=origin)


def _with_known_suffix(path: str | Path) -> Path:
    if Path(path).suffix not in (".safetensors", ".npz"):
        raise InputError(f"`path` must end in .safetensors or .npz, got {Path(path).name!r}.")
    return Path(path)


def _read_npz(path: Path) -> tuple[Tensor, Tensor, str]:
    names = ["features.npy", "labels.npy", "about.npy"]
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if sorted(member.filename for member in members) != sorted(names):
            raise CacheError("it must hold features, labels and about, and nothing else.")
        if sum(member.file_size for member in members) > path.stat().st_size:
            raise CacheError("it is compressed, or names more than the file can hold.")
        for member in members:
            with archive.open(member) as file:  # np.load takes the memory that an array's header asks for
                version = np.lib.format.read_magic(file)
                read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                shape, _, dtype = read(file)
                if not dtype.hasobject and math.prod(shape) * dtype.itemsize != member.file_size - file.tell():
                    raise CacheError(f"{member.filename} names more, or less, than it holds.")
    with np.load(path, allow_pickle=False) as arrays:
        return torch.from_numpy(arrays["features"]), torch.from_numpy(arrays["labels"]), str(arrays["about"])


def _sha256(about: dict[str, Any], *tensors: Tensor) -> str:
    total = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for tensor in tensors:
        total.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
        if tensor.numel():  # torch has no byte view of nothing
            total.update(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
    return total.hexdigest()
