"""Controlled shifts: the same images, turned, blurred, drowned in noise, to a chosen degree."""

import hashlib
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageFilter

from frozenkit.errors import InputError, UnknownNameError
from frozenkit.images.dataset import ImageDataset, Source, check_images


def _rotate(image: Image.Image, severity: int, random: np.random.RandomState) -> Image.Image:
    angle = 18 * severity * random.choice([-1, 1])
    corner = tuple(np.asarray(image)[[0, 0, -1, -1], [0, -1, 0, -1]].mean(0).astype(int))
    return image.rotate(angle, Image.Resampling.BICUBIC, fillcolor=corner)


def _blur(image: Image.Image, severity: int, random: np.random.RandomState) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(0.015 * severity * max(image.size)))


def _noise(image: Image.Image, severity: int, random: np.random.RandomState) -> Image.Image:
    pixels = np.asarray(image, dtype=np.float32)
    noisy = pixels + random.normal(0, 20 * severity, pixels.shape)
    return Image.fromarray(noisy.clip(0, 255).round().astype(np.uint8))


def _invert(image: Image.Image, severity: int, random: np.random.RandomState) -> Image.Image:
    pixels = np.asarray(image, dtype=np.float32)
    share = severity / 5
    return Image.fromarray(((1 - share) * pixels + share * (255 - pixels)).round().astype(np.uint8))


def _contrast(image: Image.Image, severity: int, random: np.random.RandomState) -> Image.Image:
    pixels = np.asarray(image, dtype=np.float32)
    mean = pixels.mean()
    return Image.fromarray((mean + (1 - 0.18 * severity) * (pixels - mean)).clip(0, 255).round().astype(np.uint8))


def _resolution(image: Image.Image, severity: int, random: np.random.RandomState) -> Image.Image:
    factor = (1, 0.6, 0.4, 0.25, 0.16, 0.1)[severity]
    small = image.resize([max(1, round(side * factor)) for side in image.size], Image.Resampling.BOX)
    return small.resize(image.size, Image.Resampling.BICUBIC)


KINDS: dict[str, Callable[[Image.Image, int, np.random.RandomState], Image.Image]] = {
    "rotate": _rotate,
    "blur": _blur,
    "noise": _noise,
    "invert": _invert,
    "contrast": _contrast,
    "resolution": _resolution,
}


def shift(dataset: ImageDataset, kind: str, severity: int) -> ImageDataset:
    """The same images and labels under a controlled shift; deterministic for each image.

    Per step of severity: ``"rotate"`` 18° left or right; ``"blur"`` a Gaussian of 1.5 % of the longer side;
    ``"noise"`` a standard deviation of 20 (of 255); ``"invert"`` a fifth of the way to the negative, which at 5 it is;
    ``"contrast"`` 18 % less around the image's mean; ``"resolution"`` down to 60, 40, 25, 16, 10 % and back up.

    Args:
        dataset: Any `ImageDataset`.
        kind: One of the six.
        severity: 0 to 5; 0 gives the dataset itself.

    Example:
        >>> from frozenkit import load_dataset
        >>> shift(load_dataset("digits", limit=10), "blur", 3)
        ImageDataset('digits, blur 3', 10 images, 10 classes)
    """
    check_images("dataset", dataset, any_labels=True)
    if kind not in KINDS:
        raise UnknownNameError("kind", kind, KINDS)
    if severity not in range(6):
        raise InputError(f"`severity` must be a whole number from 0 to 5, got {severity!r}.")
    if severity == 0:
        return dataset
    source = _Shifted(dataset, kind, int(severity))
    return ImageDataset(
        source,
        dataset.labels,
        dataset.classes,
        dataset.ids,
        name=f"{dataset.name}, {kind} {severity}",
        tasks=dataset.tasks,
    )


class _Shifted:
    """Images of another dataset, changed as they are read."""

    def __init__(self, dataset: ImageDataset, kind: str, severity: int) -> None:
        self.dataset, self.kind, self.severity = dataset, kind, severity
        self.source: Source = dataset.source

    def pinned(self) -> "_Shifted":
        return _Shifted(self.dataset.pinned(), self.kind, self.severity)

    def open(self, index: int) -> Image.Image:
        name = self.dataset.ids[index].encode(errors="surrogateescape")  # file names need not be UTF-8
        seed = int.from_bytes(hashlib.sha256(name).digest()[:4], "little")
        return KINDS[self.kind](self.dataset[index][0], self.severity, np.random.RandomState(seed))

    def digest(self, index: int) -> bytes:
        inner = self.source.digest(int(self.dataset._rows[index]))
        change = f"{self.kind}-{self.severity}-{self.dataset.ids[index]}".encode(errors="surrogateescape")
        return hashlib.sha256(change + inner).digest()
