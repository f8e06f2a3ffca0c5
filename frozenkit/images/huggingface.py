"""Datasets of Hugging Face's `datasets` as an `ImageDataset`."""

import hashlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from frozenkit._arrays import coded_labels, described
from frozenkit.errors import DataError, InputError, UnknownNameError, require
from frozenkit.images.dataset import ImageDataset, _read, read_image, shown


def from_huggingface(
    dataset: Any, *, image: str = "image", label: str | None = "label", ids: str | None = None
) -> ImageDataset:
    """One split of a dataset of Hugging Face, from the hub or from disk, as an `ImageDataset`.

    Labels are read here; images when they are asked for, which an extraction does once, by the same rules as files: the
    way the camera was held, transparency on white. How the dataset is formatted does not matter.

    Args:
        dataset: A ``datasets.Dataset``.
        image: The column of images: of type ``Image``, bytes of image files, or their paths.
        label: The column of labels: ``ClassLabel``, whole numbers from 0 on, booleans or text are classes;
            floating-point numbers, one or several, are for regression; lists of ``ClassLabel`` or of text are any of k
            labels. None for images without labels.
        ids: A column of unique names; default the split and the row.

    Raises:
        InputError: If it is no such dataset, or a column does not exist (`UnknownNameError`) or is of another type.
        DataError: If it is empty, or a label is missing. An image that cannot be read is a `DataError` once it is.
        NotAvailableError: If `datasets` is not installed.

    Example:
        >>> import datasets
        >>> rows = {"image": [Image.new("RGB", (8, 8), name) for name in ("red", "blue")], "label": ["red", "blue"]}
        >>> features = datasets.Features(image=datasets.Image(), label=datasets.Value("string"))
        >>> from_huggingface(datasets.Dataset.from_dict(rows, features=features))
        ImageDataset('Dataset', 2 images, 2 classes)
    """
    hub = require("datasets", "hf")
    _check(dataset, hub)
    for name, column in {"image": image, "label": label, "ids": ids}.items():
        if column not in dataset.column_names and not (column is None and name != "image"):
            hint = "Images without labels are label=None." if name == "label" else ""
            raise UnknownNameError(name, column, dataset.column_names, hint=hint)
    if len(dataset) == 0:
        raise DataError("`dataset` must hold at least one image, got none.")
    plain = dataset.with_format(None)
    labels, classes = (None, ()) if label is None else _labels(plain, label, hub)
    name = dataset.info.dataset_name or dataset.info.builder_name or "Dataset"
    names = [f"{dataset.split or name}/{i}" for i in range(len(dataset))] if ids is None else _column(plain, ids)
    return ImageDataset(
        _RowSource(_undecoded(plain, image, hub), image), labels, classes, [str(each) for each in names], name=name
    )


def is_huggingface(dataset: Any) -> bool:
    """Whether this is a dataset of Hugging Face, of any kind; does not import their package."""
    if "datasets.arrow_dataset" not in sys.modules:
        return False
    hub = sys.modules["datasets"]
    return isinstance(dataset, hub.Dataset | hub.DatasetDict | hub.IterableDataset | hub.IterableDatasetDict)


def _check(dataset: Any, hub: Any) -> None:
    """Raise an `InputError` unless this is one split, in rows, without a transform."""
    if isinstance(dataset, hub.DatasetDict | hub.IterableDatasetDict):
        split = next(iter(dataset), "train")
        raise InputError(
            f"`dataset` must be one split, got several: {', '.join(map(repr, dataset))}. Take one of them: "
            f"from_huggingface(dataset[{split!r}])."
        )
    if isinstance(dataset, hub.IterableDataset):
        raise InputError(
            "`dataset` must have rows by number, got a stream. Load it with streaming=False, or keep its beginning: "
            "datasets.Dataset.from_list(list(dataset.take(1000)), features=dataset.features)."
        )
    if not isinstance(dataset, hub.Dataset):
        raise InputError(
            f"`dataset` must be a datasets.Dataset, got {described(dataset)}. By name: "
            "datasets.load_dataset(name, split='train'); of torch: from_torch(dataset)."
        )
    if dataset.format["type"] == "custom":
        raise InputError(
            "`dataset` must be without a transform, since each backbone has its own preprocessing. Take it off: "
            "from_huggingface(dataset.with_format(None))."
        )


def _column(plain: Any, column: str) -> list[Any]:
    values: list[Any] = plain.select_columns([column])[:][column]
    return values


def _undecoded(plain: Any, column: str, hub: Any) -> Any:
    """The column of images alone, as bytes or paths."""
    feature = plain.features[column]
    if isinstance(feature, hub.Image):
        return plain.select_columns([column]).cast_column(column, hub.Image(decode=False))
    if getattr(feature, "dtype", "") in ("binary", "large_binary", "string", "large_string"):
        return plain.select_columns([column])
    raise InputError(
        f"`image` must name a column of images, of their bytes or of their paths, but {column!r} holds {feature}. Make "
        f"it one with dataset.cast_column({column!r}, datasets.Image()), if it can be."
    )


def _labels(plain: Any, column: str, hub: Any) -> tuple[Tensor, tuple[str, ...]]:
    """Labels and classes as an `ImageDataset` has them."""
    feature, values = plain.features[column], _column(plain, column)
    inner = feature[0] if isinstance(feature, list) else getattr(feature, "feature", None)
    if isinstance(feature, hub.ClassLabel):
        missing = [row for row, value in enumerate(values) if value is None or value < 0]
        if len(missing) == len(values):
            raise InputError(f"`label` must name a column of labels, but {column!r} holds none. Give label=None.")
        _check_present(values, missing, column)
        return torch.tensor(values), tuple(feature.names)
    _check_present(values, [row for row, value in enumerate(values) if value is None], column)
    if isinstance(inner, hub.ClassLabel):
        return _many_hot(values, list(range(inner.num_classes)), column), tuple(inner.names)
    inner_type, own_type = getattr(inner, "dtype", ""), getattr(feature, "dtype", "")
    if inner_type in ("string", "large_string"):
        names = sorted({name for value in values for name in value if name is not None})
        return _many_hot(values, names, column), tuple(names)
    if inner_type.startswith("float") and len({len(value) for value in values}) == 1:
        return coded_labels(np.array(values, dtype=np.float64), None)
    if inner is None and own_type.startswith(("int", "uint", "bool", "float", "string", "large_string")):
        return coded_labels(values, None)
    raise InputError(
        f"`label` must name a column of classes or numbers, but {column!r} holds {feature}. Of lists of whole numbers, "
        f"say what they mean: dataset.cast_column({column!r}, datasets.Sequence(datasets.ClassLabel(names=[…])))."
    )


def _check_present(values: list[Any], missing: list[int], column: str) -> None:
    if missing:
        raise DataError(
            f"{column!r} must hold a label for each image, but {len(missing)} of {len(values)} have none, row "
            f"{missing[0]} the first. Leave them out with dataset.filter, or give label=None."
        )


def _many_hot(values: list[list[Any]], known: list[Any], column: str) -> Tensor:
    """(n, k) bool of lists."""
    place = {value: j for j, value in enumerate(known)}
    labels = torch.zeros(len(values), len(known), dtype=torch.bool)
    for row, value in enumerate(values):
        if odd := [v for v in value if v not in place]:
            raise DataError(f"{column!r} must hold known labels, but row {row} has {odd[0]!r}.")
        labels[row, [place[v] for v in value]] = True
    return labels


class _RowSource:
    """Images in the rows of a table, which never changes, or in files that it names, which must not either."""

    def __init__(self, rows: Any, column: str) -> None:
        self.rows, self.column = rows, column
        self._digests: dict[int, bytes] = {}

    def open(self, index: int) -> Image.Image:
        content, name = self._content(index)
        if self._digests.get(index, digest := hashlib.sha256(content).digest()) != digest:
            raise DataError(f"{name} has changed since the dataset was digested. Load the dataset again.")
        try:
            return read_image(content)
        except DataError as error:
            raise DataError(f"{name} is not a readable image: {error}. Leave it out with dataset.filter.") from error

    def digest(self, index: int) -> bytes:
        if index not in self._digests:
            self._digests[index] = hashlib.sha256(self._content(index)[0]).digest()
        return self._digests[index]

    def _content(self, index: int) -> tuple[bytes, str]:
        """An image's bytes, and what messages call it."""
        cell = self.rows[index][self.column]
        content, path = (cell.get("bytes"), cell.get("path")) if isinstance(cell, dict) else (cell, None)
        if isinstance(content, str):
            content, path = None, content
        if content is not None:
            return content, f"image {index}" + (f" ({shown(path)})" if path else "")
        if path is None:
            raise DataError(f"image {index} is missing: its row holds none. Leave it out with dataset.filter.")
        if "://" in path:
            raise DataError(f"image {index} lies at {path!r}, which is not on this machine. Load the images first.")
        return _read(Path(path)), shown(path)
