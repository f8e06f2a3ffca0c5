"""`ImageDataset`: labelled images that are decoded when asked for, and a digest of what they are."""

import base64
import copy
import hashlib
import html
import io
import os
import stat
import time
from collections.abc import Mapping, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any, Protocol, overload

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from frozenkit._arrays import described, row_indices
from frozenkit.errors import DataError, InputError

MAX_PIXELS = 64_000_000  # a 50-megapixel photograph passes, a decompression bomb does not
MAX_BYTES = 1 << 30  # 64 megapixels in 16 bytes each
# Formats that PIL decodes by itself. It would hand PostScript, whatever its name, to Ghostscript.
FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")


class Source(Protocol):
    """Where images come from: opened by number, and digested by number without being kept."""

    def open(self, index: int) -> Image.Image:
        """One RGB image; raises `DataError` if it is no longer the one that was digested."""
        ...

    def digest(self, index: int) -> bytes:
        """sha256 of what decides the image's pixels."""
        ...


class ArraySource:
    """Images in one uint8 array.

    Args:
        pixels: (n, h, w) grey or (n, h, w, 3) RGB.
    """

    def __init__(self, pixels: np.ndarray) -> None:
        self.pixels = pixels

    def open(self, index: int) -> Image.Image:
        """One RGB image."""
        return Image.fromarray(self.pixels[index]).convert("RGB")

    def digest(self, index: int) -> bytes:
        """sha256 of shape and pixels."""
        image = np.ascontiguousarray(self.pixels[index])
        return hashlib.sha256(str(image.shape).encode() + image.tobytes()).digest()


class FileSource:
    """Images in files, decoded as they are read.

    A file that changes is never mixed up with what it was: its digest follows its bytes, and `open` refuses bytes that
    are not those last digested. Once pinned, the first bytes that are seen, opened or digested, hold.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = tuple(paths)
        self._digests: dict[int, tuple[_Stamp, bytes]] = {}
        self._expected: dict[int, bytes] = {}
        self._told = [self._expected]
        self._is_pinned = False

    def pinned(self) -> "FileSource":
        """The same files; what is digested here later changes nothing there. What is known of them is shared."""
        other = FileSource(self.paths)
        other._digests = self._digests
        other._told += self._told
        other._is_pinned = True
        return other

    def open(self, index: int) -> Image.Image:
        """One RGB image; raises `DataError` naming the file if it cannot be read, or changed since it was digested."""
        path = self.paths[index]
        content = _read(path)
        if self._is_pinned or index in self._expected:
            digest = hashlib.sha256(content).digest()
            if self._expected.setdefault(index, digest) != digest:
                raise DataError(f"{shown(path)} has changed since the dataset was digested. Load the dataset again.")
        return _decode(content, path)

    def digest(self, index: int) -> bytes:
        """sha256 of the file's bytes; read again only where size, times or inode have changed."""
        if self._is_pinned and index in self._expected:
            return self._expected[index]
        path = self.paths[index]
        try:
            now = _stamp(path.stat())
        except OSError as error:
            raise DataError(f"{shown(path)} can no longer be read: {error.strerror}.") from error
        known = self._digests.get(index)
        if known is None or known[0] != now:
            # Clocks of file systems tick slowly: a file that changed just now could change again within the tick.
            settled = time.time_ns() - max(now[1], now[2]) > 2_000_000_000
            known = self._digests[index] = (now if settled else None, hashlib.sha256(_read(path)).digest())
        for expected in self._told:
            expected[index] = known[1]
        return known[1]


_Stamp = tuple[int, int, int, int, int] | None


def _stamp(status: os.stat_result) -> tuple[int, int, int, int, int]:
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_dev


class ImageDataset:
    """n labelled images; ``ds[i]`` gives (PIL RGB image, int), and ``ds[10:20]``, a mask or indices a smaller set.

    Args:
        source: Where the images come from.
        labels: (n,) class indices.
        classes: Class names.
        ids: n unique, stable names.
        name: How messages and tables call it.
        tasks: Further label sets of the same images: name to (labels, class names).
        rows: Which images of the source these are; default all, in order.
        skipped: (file, reason) of what was left out, where that was asked for.

    Attributes:
        code: The Python expression that loads these images; empty where it is not known, as of a subset.

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
        self.code = ""
        self._rows = np.arange(len(self.ids)) if rows is None else rows
        if not len(self.labels) == len(self.ids) == len(self._rows):
            raise InputError(
                f"`labels` and `ids` must have one entry an image, got {len(self.labels)}, {len(self.ids)}."
            )
        if len(set(self.ids)) != len(self.ids):
            raise InputError("`ids` must be unique, but at least one occurs twice.")
        if len(self.ids) and not (self.labels.min() >= 0 and self.labels.max() < len(self.classes)):
            raise InputError(f"`labels` must lie in 0..{len(self.classes) - 1} for {len(self.classes)} classes.")

    def __len__(self) -> int:
        return len(self.ids)

    @overload
    def __getitem__(self, index: int) -> tuple[Image.Image, int]: ...
    @overload
    def __getitem__(self, index: slice | Sequence[int] | Tensor | np.ndarray) -> "ImageDataset": ...
    def __getitem__(self, index: Any) -> Any:
        """One (image, label) by its number; those images by a slice, a mask or indices, see `subset`."""
        if isinstance(index, slice):
            return self.subset(range(len(self))[index])
        if not isinstance(index, Integral) and getattr(index, "ndim", None) != 0:
            return self.subset(index)
        row = range(len(self))[index]
        return self.source.open(int(self._rows[row])), int(self.labels[row])

    @property
    def digest(self) -> str:
        """Depends on every image, every label, the ids, the class names, and their order."""
        total = hashlib.sha256(repr((self.classes, self.ids, self.labels.tolist())).encode())
        for row in self._rows.tolist():
            total.update(self.source.digest(row))
        return total.hexdigest()

    def pinned(self) -> "ImageDataset":
        """The same images, held to the digest taken here, whoever digests the original, or a subset, later."""
        if not hasattr(self.source, "pinned"):  # a source that never takes a newer digest
            return self
        other = copy.copy(self)
        other.source = self.source.pinned()
        return other

    def subset(self, indices: Sequence[int] | Tensor | np.ndarray) -> "ImageDataset":
        """Those images, in that order, by their indices or by a mask; nothing is copied.

        Raises:
            InputError: If a mask has another length, or an index is no whole number in −n..n−1.
        """
        index = row_indices(indices, len(self))
        return ImageDataset(
            self.source,
            self.labels[index],
            self.classes,
            [self.ids[i] for i in index.tolist()],
            name=self.name,
            tasks={task: (labels[index], names) for task, (labels, names) in self.tasks.items()},
            rows=self._rows[index.numpy()],
            skipped=self.skipped,
        )

    def __repr__(self) -> str:
        return f"ImageDataset({self.name!r}, {len(self)} images, {len(self.classes)} classes)"

    def _repr_html_(self) -> str:
        counts = torch.bincount(self.labels, minlength=len(self.classes)).tolist()
        cells = []
        for label, (name, count) in list(enumerate(zip(self.classes, counts, strict=True)))[:12]:
            rows = (self.labels == label).nonzero().flatten()[:1].tolist()
            image = _thumbnail(self[rows[0]][0], self.classes[label]) if rows else ""
            cells.append(f"<td style='text-align:center'>{image}<br>{html.escape(name)}<br>{count}</td>")
        more = f"<td>and {len(self.classes) - 12} more classes</td>" if len(self.classes) > 12 else ""
        return f"<b>{html.escape(repr(self))}</b><table><tr>{''.join(cells)}{more}</tr></table>"


def open_image(path: str | Path) -> Image.Image:
    """An image file as RGB: transparency on white, 16 bits scaled to 8, turned the way the camera was held.

    The content decides, whatever the name says: BMP, GIF, JPEG, JPEG 2000, PNG, PPM, TIFF and WebP are read, and
    nothing that an interpreter would have to run, such as PostScript.

    Raises:
        DataError: If the file is no readable image, is empty, cut off, no regular file, or too large to be honest;
            names the file.
    """
    return _decode(_read(Path(path)), Path(path))


def read_image(content: bytes, *, side: int | None = None) -> Image.Image:
    """The content of an image file as `open_image` gives it.

    Args:
        content: The file's bytes.
        side: A smaller copy of about this many pixels or more is enough, which JPEG decodes faster.

    Raises:
        DataError: If it is no readable image; says why, without a name.
    """
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as file:
            if file.width * file.height > MAX_PIXELS:
                raise DataError(f"it has {file.width}×{file.height} pixels, more than {MAX_PIXELS:,}; scale it down")
            if side is not None:
                file.draft("RGB", (side, side))
            file.load()
            return to_rgb(ImageOps.exif_transpose(file))
    except DataError:
        raise
    except UnidentifiedImageError as error:
        raise DataError("it is no image of a known format" if content else "it is empty") from error
    except Exception as error:  # PIL's readers raise what they like: OSError, SyntaxError, ValueError, struct.error …
        raise DataError(str(error) or type(error).__name__) from error


def _decode(content: bytes, path: Path) -> Image.Image:
    try:
        return read_image(content)
    except DataError as error:
        raise DataError(f"{shown(path)} is not a readable image: {error}. Repair or remove it.") from error


def _read(path: Path) -> bytes:
    """The bytes of a regular file; a pipe or a device, which might never end, is refused without waiting for it."""
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        with open(os.open(path, flags), "rb") as file:  # noqa: PTH123
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise DataError(f"{shown(path)} is not a readable image: it is no regular file. Repair or remove it.")
            if status.st_size > MAX_BYTES:
                raise DataError(
                    f"{shown(path)} is not a readable image: it has {status.st_size:,} bytes, more than {MAX_BYTES:,}."
                    " Repair or remove it."
                )
            return file.read()
    except OSError as error:
        raise DataError(f"{shown(path)} is not a readable image: {error.strerror}. Repair or remove it.") from error


def shown(path: str | Path) -> str:
    r"""A path as text that can be printed and written: bytes that are not UTF-8 as ``\xff``.

    Example:
        >>> print(shown("\udcff.png"))
        \xff.png
    """
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def to_rgb(image: Image.Image) -> Image.Image:
    """Any PIL mode as 8-bit RGB; transparency becomes white.

    Example:
        >>> to_rgb(Image.new("RGBA", (1, 1), (0, 0, 0, 0))).getpixel((0, 0))
        (255, 255, 255)
    """
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        values = np.asarray(image).reshape(-1)
        if not np.isfinite(values).all():
            raise DataError(f"an image of mode {image.mode} must hold finite numbers only")
        # The mode I;16 says its depth; I and F do not, so the values must: fractions, 8 bits or 16.
        deep, top = image.mode.startswith("I;16"), values.max(initial=0)
        ceiling = 65535.0 if deep or top > 255 else 1.0 if image.mode == "F" and top <= 1 else 255.0
        grey = np.empty(values.shape, np.uint8)
        for start in range(0, len(values), 1 << 20):  # in parts: whole copies in float64 took 2 GB at 64 megapixels
            part = values[start : start + (1 << 20)].astype(np.float64)
            grey[start : start + len(part)] = (part.clip(0, ceiling) / ceiling * 255).round()
        return Image.fromarray(grey.reshape(image.height, image.width)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def _thumbnail(image: Image.Image, alt: str) -> str:
    small = image.copy()
    small.thumbnail((64, 64))
    buffer = io.BytesIO()
    small.save(buffer, "PNG")
    data = base64.b64encode(buffer.getvalue()).decode()
    return f"<img alt='{html.escape(alt, quote=True)}' src='data:image/png;base64,{data}'>"


def from_torch(dataset: Any, *, classes: Sequence[str] | None = None) -> ImageDataset:
    """Any map-style dataset of (PIL image or (c, h, w) tensor, label) as an `ImageDataset`.

    Each image is read once here, for its label and its digest (the first eight five times, to find random
    augmentation), and then whenever it is asked for, which an extraction does once. An image that reads otherwise by
    then is an error. A change is not seen where features come from a cache, since then no image is read: after
    changing images, call `from_torch` again, or load files with `image_folder`, which looks at them each time.

    Args:
        dataset: Has ``len`` and ``dataset[i]``; float tensors lie in [0, 1], integer tensors in 0..255.
        classes: Names; default ``dataset.classes``, else the label numbers.

    Raises:
        InputError: If it is no such dataset, or a label is no class index.
        DataError: If it is empty, an image does not fit, or one changes each time it is read.

    Example:
        >>> images = torch.utils.data.TensorDataset(torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 0, 1]))
        >>> from_torch(images, classes=["cat", "dog"])
        ImageDataset('TensorDataset', 4 images, 2 classes)
    """
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
        item = dataset[i]
        if not isinstance(item, Sequence) or isinstance(item, str) or len(item) < 2:
            raise InputError(f"`dataset` must give (image, label) pairs, but row {i} is {described(item)}.")
        given.append(item[1])
        source.digests.append(_digest_pixels(source.to_image(i, item[0])))
        if i < 8 and {_digest_pixels(source.read(i)) for _ in range(4)} != {source.digests[i]}:
            # Features are kept, so one image must stay one image.
            raise DataError(f"image {i} changes each time it is read; take random augmentation out of `dataset`.")
    labels = _class_indices(given)
    names = classes or getattr(dataset, "classes", None) or [str(k) for k in range(int(labels.max()) + 1)]
    name = type(dataset).__name__
    return ImageDataset(source, labels, names, [f"{name}/{i}" for i in range(len(labels))], name=name)


def _class_indices(labels: Any) -> Tensor:
    """(n,) int64, or an error that names the first label that is no whole number."""
    values = (
        labels.tolist()
        if isinstance(labels, Tensor | np.ndarray)
        else [getattr(v, "tolist", lambda v=v: v)() for v in labels]
    )
    for i, value in enumerate(values):
        if not isinstance(value, Integral):
            raise InputError(
                f"`labels` must be class indices 0, 1, …, but label {i} is {value!r}. Number the classes first."
            )
    return torch.tensor(values, dtype=torch.int64)


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
        return self.to_image(index, self.dataset[index][0])

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


def check_images(name: str, images: Any) -> None:
    """Refuses what is no set of images.

    Raises:
        InputError: If it has no digest or no classes, as features or a list have not.
    """
    if not hasattr(images, "digest") or not hasattr(images, "classes"):
        raise InputError(
            f"`{name}` must be an ImageDataset, got {described(images)}. See `image_folder`, `from_torch` and "
            "`load_dataset`, which make one."
        )


class Images(Protocol):
    """What `extract` asks of a dataset; every `ImageDataset` has it."""

    labels: Tensor
    classes: tuple[str, ...]
    ids: tuple[str, ...]
    name: str

    @property
    def digest(self) -> str:
        """Depends on images, labels and order."""
        ...

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> tuple[Any, int]: ...
