"""`ImageDataset`: images, mostly with labels, that are decoded when asked for, and a digest of what they are."""

import base64
import copy
import hashlib
import html
import io
import os
import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any, Protocol, overload

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from frozenkit._arrays import as_tensor, described, first_row, row_indices
from frozenkit.errors import DataError, InputError

MAX_PIXELS = 64_000_000  # a 50-megapixel photograph passes, a decompression bomb does not
MAX_BYTES = 1 << 30  # 64 megapixels in 16 bytes each
_MOST_SAMPLES = 12  # that a dataset shows of itself
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
    """n images; ``ds[i]`` gives (PIL RGB image, label), and ``ds[10:20]``, a mask or indices a smaller set.

    Args:
        source: Where the images come from.
        labels: (n,) class indices; (n, k) booleans, of which several may hold for an image; (n,) or (n, m)
            floating-point numbers, for regression; or None for images without labels. A single label is an int, k
            booleans, a float or m of them, or None.
        classes: Names of the k classes; empty for regression and without labels.
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
        labels: Sequence[int] | Tensor | np.ndarray | None,
        classes: Sequence[str],
        ids: Sequence[str],
        *,
        name: str,
        tasks: Mapping[str, tuple[Tensor, tuple[str, ...]]] | None = None,
        rows: np.ndarray | None = None,
        skipped: Sequence[tuple[str, str]] = (),
    ) -> None:
        self.source = source
        self.classes = tuple(classes)
        self.labels: Tensor = _coerce_labels(labels, self.classes)  # type: ignore[assignment]  # as in FeatureSet
        self.ids = tuple(ids)
        self.name = name
        self.tasks = dict(tasks or {})
        self.skipped = tuple(skipped)
        self.code = ""
        self._rows = np.arange(len(self.ids)) if rows is None else rows
        n_labels = len(self.ids) if self.labels is None else len(self.labels)
        if not n_labels == len(self.ids) == len(self._rows):
            raise InputError(f"`labels` and `ids` must have one entry an image, got {n_labels}, {len(self.ids)}.")
        if len(set(self.ids)) != len(self.ids):
            raise InputError("`ids` must be unique, but at least one occurs twice.")
        indices = len(self.ids) > 0 and self.labels is not None and self.labels.dtype == torch.int64
        if indices and not (self.labels.min() >= 0 and self.labels.max() < len(self.classes)):
            raise InputError(f"`labels` must lie in 0..{len(self.classes) - 1} for {len(self.classes)} classes.")

    def __len__(self) -> int:
        return len(self.ids)

    @overload
    def __getitem__(self, index: int) -> tuple[Image.Image, Any]: ...
    @overload
    def __getitem__(self, index: slice | Sequence[int] | Tensor | np.ndarray) -> "ImageDataset": ...
    def __getitem__(self, index: Any) -> Any:
        """One (image, label) by its number; those images by a slice, a mask or indices, see `subset`."""
        if isinstance(index, slice):
            return self.subset(range(len(self))[index])
        if not isinstance(index, Integral) and getattr(index, "ndim", None) != 0:
            return self.subset(index)
        row = range(len(self))[index]
        label = None if self.labels is None else self.labels[row]
        return self.source.open(int(self._rows[row])), label.item() if label is not None and label.ndim == 0 else label

    @property
    def digest(self) -> str:
        """Depends on every image, every label, the ids, the class names, and their order."""
        labels = None if self.labels is None else self.labels.tolist()
        total = hashlib.sha256(repr((self.classes, self.ids, labels)).encode())
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
            None if self.labels is None else self.labels[index],
            self.classes,
            [self.ids[i] for i in index.tolist()],
            name=self.name,
            tasks={task: (labels[index], names) for task, (labels, names) in self.tasks.items()},
            rows=self._rows[index.numpy()],
            skipped=self.skipped,
        )

    def __repr__(self) -> str:
        return f"ImageDataset({self.name!r}, {len(self)} images, {self._task})"

    @property
    def _task(self) -> str:
        if self.labels is None:
            return "no labels"
        if not self.classes:
            return "regression"
        k = len(self.classes)
        return f"any of {k} labels" if self.labels.ndim == 2 else f"{k} classes"

    def _repr_html_(self) -> str:
        cells = []
        for caption, detail, rows in self._samples():
            image = _thumbnail(self[rows[0]][0], caption) if rows else ""
            cells.append(f"<td style='text-align:center'>{image}<br>{html.escape(caption)}<br>{detail}</td>")
        n, what = (len(self.classes), "classes") if self.classes else (len(self), "images")
        more = f"<td>and {n - _MOST_SAMPLES} more {what}</td>" if n > _MOST_SAMPLES else ""
        return f"<b>{html.escape(repr(self))}</b><table><tr>{''.join(cells)}{more}</tr></table>"

    def _samples(self) -> Iterator[tuple[str, str, list[int]]]:
        """(caption, number below it, the row to show, if there is one) for each of the first classes, or images."""
        if self.labels is None or not self.classes:
            for row, name in enumerate(self.ids[:_MOST_SAMPLES]):
                values = [] if self.labels is None else self.labels[row].reshape(-1).tolist()
                yield name, ", ".join(f"{value:.4g}" for value in values), [row]
            return
        for label, name in enumerate(self.classes[:_MOST_SAMPLES]):
            members = self.labels[:, label] if self.labels.ndim == 2 else self.labels == label
            yield name, str(int(members.sum())), members.nonzero().flatten()[:1].tolist()


def _coerce_labels(labels: Any, classes: tuple[str, ...]) -> Tensor | None:
    """Labels as an `ImageDataset` keeps them: int64 (n,), bool (n, k), float32 (n,) or (n, m), or None."""
    if labels is None:
        if classes:
            raise InputError(f"`classes` must be empty for images without labels, got {', '.join(classes[:12])}.")
        return None
    kind = str(getattr(labels, "dtype", "")).removeprefix("torch.")
    if kind == "bool" and labels.ndim == 2:
        if labels.shape[1] != len(classes):
            raise InputError(f"`labels` must have a column for each of {len(classes)} classes, got {labels.shape[1]}.")
        return as_tensor(labels, "labels")
    if kind.startswith("float") and not classes:
        numbers = as_tensor(labels, "labels").float()
        if numbers.ndim not in (1, 2) or not numbers.isfinite().all():
            raise InputError(
                f"`labels` must be (n,) or (n, m) finite numbers, got {described(labels)}"
                + (f" with NaN or infinity in row {first_row(~numbers.isfinite())}." if numbers.ndim in (1, 2) else ".")
            )
        return numbers
    return _class_indices(labels)


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
            return to_rgb(file)
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
        descriptor = os.open(path, flags)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise DataError(f"{shown(path)} is not a readable image: it is no regular file. Repair or remove it.")
            if status.st_size > MAX_BYTES:
                raise DataError(
                    f"{shown(path)} is not a readable image: it has {status.st_size:,} bytes, more than {MAX_BYTES:,}."
                    " Repair or remove it."
                )
            with open(descriptor, "rb", closefd=False) as file:
                return file.read()
        finally:
            os.close(descriptor)
    except DataError:
        raise
    except (OSError, ValueError) as error:  # a name with a zero byte is a ValueError
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{shown(path)} is not a readable image: {reason}. Repair or remove it.") from error


def shown(path: str | Path) -> str:
    r"""A path as text that can be printed and written: bytes that are not UTF-8 as ``\xff``.

    Example:
        >>> print(shown("\udcff.png"))
        \xff.png
    """
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def to_rgb(image: Image.Image) -> Image.Image:
    """Any PIL mode as 8-bit RGB, turned the way the camera was held; transparency becomes white.

    Example:
        >>> to_rgb(Image.new("RGBA", (1, 1), (0, 0, 0, 0))).getpixel((0, 0))
        (255, 255, 255)
    """
    if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:  # turning removes the tag, so nothing turns twice
        image = ImageOps.exif_transpose(image)
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


def check_images(name: str, images: Any, *, any_labels: bool = False) -> None:
    """Refuses what is no set of images, and unless `any_labels` also one without one class per image.

    Raises:
        InputError: If it has no digest or no classes, as features or a list have not; or if it has no labels, several
            classes per image, or numbers in their place.
    """
    has_digest = hasattr(type(images), "digest") or hasattr(images, "digest")  # of an instance, it reads every image
    if isinstance(images, type) or not has_digest or not hasattr(images, "classes"):
        raise InputError(
            f"`{name}` must be an ImageDataset, got {described(images)}. See `image_folder`, `from_torch` and "
            "`load_dataset`, which make one."
        )
    if any_labels:
        return
    if images.labels is None or not images.classes:
        advice = (
            "Give images that are sorted into one folder per class."
            if images.labels is None
            else "A probe fits numbers: fit_probe(extract(backbone, images))."
        )
    elif getattr(images.labels, "ndim", 1) > 1:
        advice = "A probe fits several labels per image: fit_probe(extract(backbone, images))."
    else:
        return
    raise InputError(f"`{name}` must have one class per image, got {images!r}. {advice}")


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
    def __getitem__(self, index: int, /) -> tuple[Any, Any]: ...
