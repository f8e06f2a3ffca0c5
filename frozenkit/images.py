"""`ImageDataset`: labelled pictures that are decoded when asked for, and a digest of what they are."""

import base64
import hashlib
import html
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from frozenkit.errors import DataError, InputError

MAX_PIXELS = 64_000_000  # a 50-megapixel photograph passes, a decompression bomb does not


class Source(Protocol):
    """Where pictures come from: opened by number, and digested by number without being kept."""

    def open(self, index: int) -> Image.Image:
        """One RGB picture."""
        ...

    def digest(self, index: int) -> bytes:
        """sha256 of what decides the picture's pixels."""
        ...


class ArraySource:
    """Pictures in one uint8 array.

    Args:
        pixels: (n, h, w) grey or (n, h, w, 3) RGB.
    """

    def __init__(self, pixels: np.ndarray) -> None:
        self.pixels = pixels

    def open(self, index: int) -> Image.Image:
        """One RGB picture."""
        return Image.fromarray(self.pixels[index]).convert("RGB")

    def digest(self, index: int) -> bytes:
        """sha256 of shape and pixels."""
        picture = np.ascontiguousarray(self.pixels[index])
        return hashlib.sha256(str(picture.shape).encode() + picture.tobytes()).digest()


class FileSource:
    """Pictures in files, decoded as they are read."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = tuple(paths)

    def open(self, index: int) -> Image.Image:
        """One RGB picture; raises `DataError` naming the file if it cannot be read."""
        return open_image(self.paths[index])

    def digest(self, index: int) -> bytes:
        """sha256 of the file's bytes."""
        try:
            return hashlib.sha256(self.paths[index].read_bytes()).digest()
        except OSError as error:
            raise DataError(f"{self.paths[index]} can no longer be read: {error.strerror}.") from error


class ImageDataset:
    """n labelled pictures; ``ds[i]`` gives (PIL RGB image, int).

    Args:
        source: Where the pictures come from.
        labels: (n,) class indices.
        classes: Class names.
        ids: n unique, stable names.
        name: How messages and tables call it.
        tasks: Further label sets of the same pictures: name to (labels, class names).
        rows: Which pictures of the source these are; default all, in order.
        skipped: (file, reason) of what was left out, where that was asked for.

    Raises:
        InputError: If the parts do not fit together.
    """

    def __init__(
        self,
        source: Source,
        labels: Sequence[int] | Tensor | np.ndarray,
        classes: Sequence[str],
        ids: Sequence[str],
        *,
        name: str,
        tasks: Mapping[str, tuple[Tensor, tuple[str, ...]]] | None = None,
        rows: np.ndarray | None = None,
        skipped: Sequence[tuple[str, str]] = (),
    ) -> None:
        self.source = source
        self.labels = _class_indices(labels)
        self.classes = tuple(classes)
        self.ids = tuple(ids)
        self.name = name
        self.tasks = dict(tasks or {})
        self.skipped = tuple(skipped)
        self._rows = np.arange(len(self.ids)) if rows is None else rows
        self._digest: str | None = None
        if not len(self.labels) == len(self.ids) == len(self._rows):
            raise InputError(
                f"`labels` and `ids` must have one entry a picture, got {len(self.labels)}, {len(self.ids)}."
            )
        if len(set(self.ids)) != len(self.ids):
            raise InputError("`ids` must be unique, but at least one occurs twice.")
        if len(self.ids) and not (self.labels.min() >= 0 and self.labels.max() < len(self.classes)):
            raise InputError(f"`labels` must lie in 0..{len(self.classes) - 1} for {len(self.classes)} classes.")

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        row = range(len(self))[index]
        return self.source.open(int(self._rows[row])), int(self.labels[row])

    @property
    def digest(self) -> str:
        """Depends on every picture, every label, the ids, the class names, and their order."""
        if self._digest is None:
            total = hashlib.sha256(repr((self.classes, self.ids, self.labels.tolist())).encode())
            for row in self._rows.tolist():
                total.update(self.source.digest(row))
            self._digest = total.hexdigest()
        return self._digest

    def subset(self, indices: Sequence[int] | Tensor | np.ndarray) -> "ImageDataset":
        """Those pictures, in that order; nothing is copied."""
        index = np.asarray(indices)
        if index.dtype == bool and index.shape == (len(self),):
            index = np.flatnonzero(index)
        inside = index.size == 0 or (index.dtype.kind in "iu" and -len(self) <= index.min() <= index.max() < len(self))
        if index.ndim != 1 or not inside:
            raise InputError(
                f"`indices` must be whole numbers below {len(self)}, or that many booleans, got {indices!r}."
            )
        index = index.astype(np.int64)
        return ImageDataset(
            self.source,
            self.labels[torch.from_numpy(index)],
            self.classes,
            [self.ids[i] for i in index],
            name=self.name,
            tasks={task: (labels[torch.from_numpy(index)], names) for task, (labels, names) in self.tasks.items()},
            rows=self._rows[index],
            skipped=self.skipped,
        )

    def __repr__(self) -> str:
        return f"ImageDataset({self.name!r}, {len(self)} images, {len(self.classes)} classes)"

    def _repr_html_(self) -> str:
        counts = torch.bincount(self.labels, minlength=len(self.classes)).tolist()
        cells = []
        for label, (name, count) in list(enumerate(zip(self.classes, counts, strict=True)))[:12]:
            rows = (self.labels == label).nonzero().flatten()[:1].tolist()
            picture = _thumbnail(self[rows[0]][0], self.classes[label]) if rows else ""
            cells.append(f"<td style='text-align:center'>{picture}<br>{html.escape(name)}<br>{count}</td>")
        more = f"<td>and {len(self.classes) - 12} more classes</td>" if len(self.classes) > 12 else ""
        return f"<b>{html.escape(repr(self))}</b><table><tr>{''.join(cells)}{more}</tr></table>"


def open_image(path: Path) -> Image.Image:
    """A picture file as RGB: transparency on white, 16 bits scaled to 8, turned the way the camera was held.

    Raises:
        DataError: If the file is no readable picture, is empty, cut off, or too large to be honest; names the file.
    """
    try:
        with Image.open(path) as file:
            if file.width * file.height > MAX_PIXELS:
                raise DataError(
                    f"{path} has {file.width}×{file.height} pixels, more than {MAX_PIXELS:,}; scale it down."
                )
            file.load()
            return to_rgb(ImageOps.exif_transpose(file))
    except DataError:
        raise
    except Exception as error:  # PIL's readers raise what they like: OSError, SyntaxError, ValueError, struct.error …
        reason = "it is empty" if path.exists() and path.stat().st_size == 0 else str(error) or type(error).__name__
        raise DataError(f"{path} is not a readable picture: {reason}. Remove it, or skip it (skip_bad).") from error


def to_rgb(picture: Image.Image) -> Image.Image:
    """Any PIL mode as 8-bit RGB; transparency becomes white.

    Example:
        >>> to_rgb(Image.new("RGBA", (1, 1), (0, 0, 0, 0))).getpixel((0, 0))
        (255, 255, 255)
    """
    if picture.mode.startswith("I;16") or picture.mode in ("I", "F"):
        values = np.asarray(picture, dtype=np.float64)
        if not np.isfinite(values).all():
            raise DataError(f"a picture of mode {picture.mode} must hold finite numbers only.")
        # The mode I;16 says its depth; I and F do not, so the values must: fractions, 8 bits or 16.
        deep, top = picture.mode.startswith("I;16"), values.max(initial=0)
        ceiling = 65535.0 if deep or top > 255 else 1.0 if picture.mode == "F" and top <= 1 else 255.0
        return Image.fromarray((values.clip(0, ceiling) / ceiling * 255).round().astype(np.uint8)).convert("RGB")
    if picture.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
    return picture.convert("RGB")


def _thumbnail(picture: Image.Image, alt: str) -> str:
    small = picture.copy()
    small.thumbnail((64, 64))
    buffer = io.BytesIO()
    small.save(buffer, "PNG")
    data = base64.b64encode(buffer.getvalue()).decode()
    return f"<img alt='{html.escape(alt, quote=True)}' src='data:image/png;base64,{data}'>"


def from_torch(dataset: Any, *, classes: Sequence[str] | None = None) -> ImageDataset:
    """Any map-style dataset of (PIL image or (c, h, w) tensor, label) as an `ImageDataset`.

    The pictures are read once, for labels and digest, and again whenever they are asked for.

    Args:
        dataset: Has ``len`` and ``dataset[i]``; float tensors lie in [0, 1], integer tensors in 0..255.
        classes: Names; default ``dataset.classes``, else the label numbers.

    Example:
        >>> pictures = torch.utils.data.TensorDataset(torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 0, 1]))
        >>> from_torch(pictures, classes=["cat", "dog"])
        ImageDataset('TensorDataset', 4 images, 2 classes)
    """
    if len(dataset) == 0:
        raise DataError("`dataset` must hold at least one picture, got none.")
    labels = _class_indices([dataset[i][1] for i in range(len(dataset))])
    names = classes or getattr(dataset, "classes", None) or [str(k) for k in range(int(labels.max()) + 1)]
    name, source = type(dataset).__name__, _TorchSource(dataset)
    for i in range(min(8, len(dataset))):
        if source.digest(i) != source.digest(i):  # features are kept, so one picture must stay one picture
            raise DataError(f"picture {i} changes each time it is read; take random augmentation out of `dataset`.")
    return ImageDataset(source, labels, names, [f"{name}/{i}" for i in range(len(labels))], name=name)


def _class_indices(labels: Any) -> Tensor:
    """(n,) int64, or an error that names the first label that is no whole number."""
    values = (
        labels.tolist()
        if isinstance(labels, Tensor | np.ndarray)
        else [getattr(v, "tolist", lambda v=v: v)() for v in labels]
    )
    for i, value in enumerate(values):
        if not isinstance(value, int):
            raise InputError(
                f"`labels` must be class indices 0, 1, …, but label {i} is {value!r}. Number the classes first."
            )
    return torch.tensor(values, dtype=torch.int64)


class _TorchSource:
    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def open(self, index: int) -> Image.Image:
        picture = self.dataset[index][0]
        if isinstance(picture, Image.Image):
            return to_rgb(picture)
        pixels = torch.as_tensor(picture)
        if pixels.ndim == 2:
            pixels = pixels[None]
        if pixels.ndim != 3 or pixels.shape[0] not in (1, 3):
            raise DataError(f"picture {index} must be (1 or 3, h, w), got shape {tuple(pixels.shape)}.")
        if pixels.is_floating_point():
            if not (pixels.min() >= 0 and pixels.max() <= 1):
                raise DataError(
                    f"picture {index} must lie in [0, 1]; undo its normalisation, the backbone has its own."
                )
            pixels = (pixels * 255).round()
        elif not (pixels.min() >= 0 and pixels.max() <= 255):
            raise DataError(f"picture {index} must lie in 0..255, got {int(pixels.min())}..{int(pixels.max())}.")
        array = pixels.expand(3, -1, -1).permute(1, 2, 0).to(torch.uint8).numpy()
        return Image.fromarray(np.ascontiguousarray(array))

    def digest(self, index: int) -> bytes:
        picture = self.open(index)
        return hashlib.sha256(str(picture.size).encode() + picture.tobytes()).digest()
