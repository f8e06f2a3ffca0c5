"""Datasets of torch, (image, label) pairs by number, as an `ImageDataset`."""

import hashlib
from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from frozenkit._arrays import described
from frozenkit.errors import DataError, InputError
from frozenkit.images.dataset import ImageDataset, _class_indices, to_rgb


def from_torch(dataset: Any, *, classes: Sequence[str] | None = None) -> ImageDataset:
    """Any map-style dataset of (PIL image or (c, h, w) tensor, label) as an `ImageDataset`.

    Each image is read once here, for its label and its digest (the first eight five times, to find random
    augmentation), and then whenever it is asked for, which an extraction does once. An image that reads otherwise by
    then is an error. A change is not seen where features come from a cache, since then no image is read: after
    changing images, call `from_torch` again, or load files with `image_folder`, which looks at them each time.

    Args:
        dataset: Has ``len`` and ``dataset[i]``; float tensors lie in [0, 1], integer tensors in 0..255. Labels are
            class indices; a floating-point number, or m of them, for regression; k zeros and ones, where several of k
            classes may hold; or None, or left out, throughout.
        classes: Names; default ``dataset.classes``, also of the dataset that a `Subset` or a `ConcatDataset` is made
            of, else the label numbers.

    Raises:
        InputError: If it is no such dataset, or a label is none of these.
        DataError: If it is empty, an image does not fit, or one changes each time it is read.

    Example:
        >>> images = torch.utils.data.TensorDataset(torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 0, 1]))
        >>> from_torch(images, classes=["cat", "dog"])
        ImageDataset('TensorDataset', 4 images, 2 classes)
    """
    if isinstance(dataset, torch.utils.data.DataLoader):
        raise InputError(
            "`dataset` must have rows, got a DataLoader, which mixes and batches them. Give what it loads from: "
            "from_torch(loader.dataset)."
        )
    is_dataset = hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")
    if not is_dataset or isinstance(dataset, str | type | Mapping) or hasattr(dataset, "__array__"):
        raise InputError(
            f"`dataset` must have a length and rows, (image, label) pairs, got {described(dataset)}. "
            "A folder is image_folder(path), arrays are TensorDataset(images, labels)."
        )
    if len(dataset) == 0:
        raise DataError("`dataset` must hold at least one image, got none.")
    source, given = _TorchSource(dataset), []
    for i in range(len(dataset)):
        image, label = _pair(dataset[i], i)
        given.append(label)
        source.digests.append(_digest_pixels(source.to_image(i, image)))
        if i < 8 and {_digest_pixels(source.read(i)) for _ in range(4)} != {source.digests[i]}:
            # Features are kept, so one image must stay one image.
            raise DataError(f"image {i} changes each time it is read; take random augmentation out of `dataset`.")
    labels, n_classes = _labels_of(given)
    names = classes or (_class_names(dataset) if n_classes else ()) or [str(k) for k in range(n_classes)]
    name = type(dataset).__name__
    return ImageDataset(source, labels, names, [f"{name}/{i}" for i in range(len(given))], name=name)


def _pair(item: Any, row: int) -> tuple[Any, Any]:
    """Image and label of a row; label None where there is none."""
    if isinstance(item, tuple | list) and len(item) == 1:
        return item[0], None
    if isinstance(item, Sequence) and not isinstance(item, str) and len(item) >= 2:
        return item[0], item[1]
    advice = " Of Hugging Face's datasets: from_huggingface(dataset)." if isinstance(item, Mapping) else ""
    raise InputError(f"`dataset` must give (image, label) pairs, but row {row} is {described(item)}.{advice}")


def _labels_of(given: list[Any]) -> tuple[Tensor | None, int]:
    """Labels as an `ImageDataset` has them, and the number of classes: 0 for numbers, and without labels."""
    values = [getattr(value, "tolist", lambda value=value: value)() for value in given]
    if all(value is None for value in values):
        return None, 0
    if all(isinstance(value, list | tuple) and value for value in values):
        if len({len(value) for value in values}) > 1 or not all(_is_number(v) for value in values for v in value):
            raise InputError("`labels` of several numbers must hold equally many for each image, and nothing else.")
        if any(isinstance(v, float) for value in values for v in value):
            return torch.tensor(values, dtype=torch.float32), 0
        if all(v in (0, 1) for value in values for v in value):
            return torch.tensor(values, dtype=torch.bool), len(values[0])
    elif any(isinstance(value, float) for value in values) and all(map(_is_number, values)):
        return torch.tensor(values, dtype=torch.float32), 0
    indices = _class_indices(values)
    return indices, int(indices.max()) + 1


def _is_number(value: Any) -> bool:
    return isinstance(value, Integral | float)


def _class_names(dataset: Any) -> Any:
    """``dataset.classes``, or that of the datasets it is made of, if they agree."""
    if names := getattr(dataset, "classes", None):
        return names
    parts = [dataset.dataset] if hasattr(dataset, "dataset") else getattr(dataset, "datasets", [])
    each = [_class_names(part) for part in parts]
    return each[0] if each and all(names == each[0] for names in each) else None


class _TorchSource:
    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset
        self.digests: list[bytes] = []

    def open(self, index: int) -> Image.Image:
        image = self.read(index)
        if self.digests[index] != _digest_pixels(image):
            raise DataError(f"image {index} has changed since the dataset was digested. Call from_torch again.")
        return image

    def digest(self, index: int) -> bytes:
        return self.digests[index]

    def read(self, index: int) -> Image.Image:
        return self.to_image(index, _pair(self.dataset[index], index)[0])

    def to_image(self, index: int, image: Any) -> Image.Image:
        if isinstance(image, Image.Image):
            return to_rgb(image)
        pixels = torch.as_tensor(image)
        if pixels.ndim == 2:
            pixels = pixels[None]
        if pixels.ndim != 3 or pixels.shape[0] not in (1, 3):
            raise DataError(f"image {index} must be (1 or 3, h, w), got shape {tuple(pixels.shape)}.")
        if pixels.is_floating_point():
            if not (pixels.min() >= 0 and pixels.max() <= 1):
                raise DataError(f"image {index} must lie in [0, 1]; undo its normalisation, the backbone has its own.")
            pixels = (pixels * 255).round()
        elif not (pixels.min() >= 0 and pixels.max() <= 255):
            raise DataError(f"image {index} must lie in 0..255, got {int(pixels.min())}..{int(pixels.max())}.")
        array = pixels.expand(3, -1, -1).permute(1, 2, 0).to(torch.uint8).numpy()
        return Image.fromarray(np.ascontiguousarray(array))


def _digest_pixels(image: Image.Image) -> bytes:
    return hashlib.sha256(str(image.size).encode() + image.tobytes()).digest()
