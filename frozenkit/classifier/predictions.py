"""What a classifier says of images: a class and a probability for each, as a table and as a CSV file."""

import csv
import hashlib
import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image
from torch import Tensor

from frozenkit._arrays import described
from frozenkit._files import as_path, disk_errors, written_aside
from frozenkit._outputs import Table, printable
from frozenkit.errors import DataError, InputError, require
from frozenkit.extraction.key import as_images
from frozenkit.images.dataset import ImageDataset, Images, to_rgb
from frozenkit.images.folder import image_files, image_folder

if TYPE_CHECKING:
    import pandas as pd

_SHOWN = 10  # rows


@dataclass(frozen=True, eq=False)
class Predictions:
    """One prediction per image, in the order of the images.

    Attributes:
        ids: n names, one per image; of a folder, the paths in it.
        labels: (n,) int64 indices of `classes`; (n, k) bool where an image may have several labels; in regression the
            values, float32, shaped like the labels of train.
        classes: k class names; empty for regression.
        probabilities: (n, k) float32, calibrated as the probe is, rows summing to 1 unless an image may have several
            labels; None for regression.
        skipped: (file, reason) of each that could not be read, where leaving out was asked for.

    Example:
        >>> import torch
        >>> Predictions(("a.png", "b.png"), torch.tensor([1, 0]), ("cat", "dog"), torch.eye(2).flip(0))
        Predictions(2 images, 2 classes)
        image  class  probability
        a.png  dog          1.000
        b.png  cat          1.000
    """

    ids: tuple[str, ...]
    labels: Tensor
    classes: tuple[str, ...]
    probabilities: Tensor | None
    skipped: tuple[tuple[str, str], ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def class_(self) -> tuple[str, ...]:
        """The class name of each image; of several labels, all of them, joined by ``; ``.

        Raises:
            InputError: In regression.
        """
        if self.probabilities is None:
            raise InputError("`class_` needs classes; these are predictions of a regression. See `labels`.")
        if self.labels.ndim == 2:
            return tuple("; ".join(self.classes[j] for j in row.nonzero().flatten()) for row in self.labels)
        return tuple(self.classes[i] for i in self.labels.tolist())

    @property
    def probability(self) -> Tensor:
        """(n,) float32 probability of the class that was predicted; of several labels, of the likeliest one.

        Raises:
            InputError: In regression.
        """
        if self.probabilities is None:
            raise InputError("`probability` needs classes; these are predictions of a regression. See `labels`.")
        return self.probabilities.amax(1)

    def to_frame(self, *, probabilities: bool = False) -> "pd.DataFrame":
        """A pandas table: ids as index, class and probability, or the values of a regression.

        Args:
            probabilities: One more column for each class, ``p(<class>)``.
        """
        pd = require("pandas", "course")

        names, rows = self._rows(probabilities)
        return pd.DataFrame(rows, index=pd.Index(self.ids, name="id"), columns=names)

    def to_csv(self, path: str | Path, *, probabilities: bool = False) -> None:
        """Writes the table to a CSV file, in UTF-8, written aside and renamed, so that it is never half there.

        Text that a spreadsheet would take for a formula (it begins with ``=``, ``+``, ``-``, ``@``, a tab or a line
        break) gets an apostrophe before it; `to_frame` gives names as they are.

        Args:
            path: The file; one that is there is replaced.
            probabilities: As in `to_frame`.

        Raises:
            CacheError: If the file cannot be written; what was there is still there.
        """
        path = as_path(path)
        names, rows = self._rows(probabilities)
        with (
            disk_errors(path),
            written_aside(path) as part,
            part.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file,
        ):
            writer = csv.writer(file)
            writer.writerow(["id", *map(_harmless, names)])
            for name, row in zip(self.ids, rows, strict=True):
                writer.writerow([_harmless(name), *(_harmless(v) if isinstance(v, str) else f"{v:.6g}" for v in row)])

    def __repr__(self) -> str:
        return f"{self._title()}\n{self._table()!r}" if len(self) else self._title()

    def _repr_html_(self) -> str:
        return f"<p>{html.escape(self._title())}</p>{self._table()._repr_html_() if len(self) else ''}"

    def _title(self) -> str:
        task = f"{len(self.classes)} classes" if self.classes else "regression"
        skipped = f", {len(self.skipped)} files left out" if self.skipped else ""
        more = f"; the first {_SHOWN}" if len(self) > _SHOWN else ""
        return f"Predictions({len(self)} images, {task}{skipped}{more})"

    def _table(self) -> Table:
        names, rows = self._rows(False, _SHOWN)
        cells = [
            [printable(name), *(printable(v) if isinstance(v, str) else f"{v:.3f}" for v in row)]
            for name, row in zip(self.ids, rows)
        ]
        numeric = {j + 1 for j, name in enumerate(names) if name != "class"}
        return Table(("image", *names), cells, numeric)

    def _rows(self, probabilities: bool, limit: int | None = None) -> tuple[list[str], list[list[Any]]]:
        """Names of the columns, and the first rows, without the ids."""
        labels = self.labels[:limit]
        if self.probabilities is None:
            columns = [""] if labels.ndim == 1 else [f" {j}" for j in range(labels.shape[1])]
            return [f"value{name}" for name in columns], labels.reshape(len(labels), -1).tolist()
        shown = Predictions(self.ids[:limit], labels, self.classes, self.probabilities[:limit])
        rows = [list(row) for row in zip(shown.class_, shown.probability.tolist(), strict=True)]
        if not probabilities:
            return ["class", "probability"], rows
        each = [row + p for row, p in zip(rows, shown.probabilities.tolist(), strict=True)]  # type: ignore[union-attr]
        return ["class", "probability", *(f"p({name})" for name in self.classes)], each


def _harmless(text: str) -> str:
    """Text that no spreadsheet takes for a formula."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r", "\n") else text


def as_unlabelled(images: Any, *, skip_bad: bool = False) -> Images:
    """The one door for images to predict: a folder, files, PIL images, or a dataset.

    Raises:
        InputError: If it is none of these, or empty.
        DataError: If a file is no readable image.
    """
    if isinstance(images, str | Path):
        if Path(images).is_dir():
            return image_folder(images, labelled=False, skip_bad=skip_bad)
        return image_files([images], skip_bad=skip_bad)
    given = [images] if isinstance(images, Image.Image) else images
    if isinstance(given, list | tuple):
        if given and all(isinstance(each, str | Path) for each in given):
            return image_files(given, skip_bad=skip_bad)
        if given and all(isinstance(each, Image.Image) for each in given):
            ids = [str(i) for i in range(len(given))]
            return ImageDataset(_ImageSource(given), None, (), ids, name="images")
    if isinstance(given, list | tuple | Tensor) or hasattr(given, "__array__"):
        raise InputError(
            f"`images` must be a folder, files, PIL images or a dataset, at least one, got {described(images)}. Images "
            "that are preprocessed already go through the classifier itself: model(images)."
        )
    return as_images(images)


class _ImageSource:
    """PIL images in memory, turned upright where their EXIF says so, as those in files are."""

    def __init__(self, images: Sequence[Image.Image]) -> None:
        self.images = images

    def open(self, index: int) -> Image.Image:
        image = self.images[index]
        if 0 in image.size:
            raise DataError(f"image {index} of these cannot be read: it has {image.width}×{image.height} pixels.")
        try:
            return to_rgb(image)
        except Exception as error:  # one opened and not yet read: PIL's readers raise what they like
            raise DataError(f"image {index} of these cannot be read: {error}") from error

    def digest(self, index: int) -> bytes:
        image = self.open(index)
        return hashlib.sha256(str(image.size).encode() + image.tobytes()).digest()
