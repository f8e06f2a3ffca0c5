"""Toy data that tests share: each drawn from a seed, and no larger than what it has to show."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from frozenkit import FeatureSet, from_torch
from frozenkit.fingerprint import probe_images
from frozenkit.images.dataset import ArraySource, ImageDataset
from frozenkit.networks.backbone import Backbone

CLASSES = ("ant", "bee", "cat", "dog")
# torch 2.6 exports for one number of images only.
NEEDS_EXPORT = pytest.mark.skipif(
    tuple(map(int, torch.__version__.split(".")[:2])) < (2, 14),
    reason="torch.export with a free number of images was tried from torch 2.14 on",
)


def clouds(
    n: int,
    seed: int = 0,
    *,
    d: int = 6,
    apart: float = 3.0,
    shift: float = 0.0,
    drawn: bool = False,
    classes: Sequence[str] = CLASSES[:3],
    layer: str = "pool",
) -> FeatureSet:
    """Unit Gaussians, each class `apart` along an axis of its own, all of them moved by `shift` along the last axis.

    `apart=0` makes labels that say nothing. Classes come in turn, or `drawn` at random, as theorems assume.
    """
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(len(classes), (n,), generator=generator) if drawn else torch.arange(n) % len(classes)
    x = torch.randn(n, d, generator=generator)
    x[torch.arange(n), labels] += apart
    x[:, -1] += shift
    return with_ids(x, labels, seed, classes, layer)


def blobs(
    n: int,
    d: int = 20,
    *,
    seed: int = 0,
    apart: float = 1.0,
    noise: float = 1.5,
    classes: Sequence[str] = CLASSES,
    layer: str = "late",
) -> FeatureSet:
    """Gaussians around centres that are the same for every seed, so that each feature tells a little."""
    labels = torch.arange(n) % len(classes)
    centres = apart * torch.randn(len(classes), d, generator=torch.Generator().manual_seed(99))
    x = centres[labels] + noise * torch.randn(n, d, generator=torch.Generator().manual_seed(seed))
    return with_ids(x, labels, seed, classes, layer)


def overlapping(
    n: int = 120, *, d: int = 30, seed: int = 0, classes: Sequence[str] = "abc", layer: str = "blocks.6"
) -> FeatureSet:
    """Blobs that no head tells apart without a mistake."""
    return blobs(n, d, seed=seed, apart=0.6, noise=1.0, classes=classes, layer=layer)


def with_ids(x: Tensor, labels: Tensor, seed: int, classes: Sequence[str], layer: str) -> FeatureSet:
    """A set whose ids say seed and row: other seeds are other images."""
    return FeatureSet.from_arrays(
        x, labels, classes=tuple(classes), ids=[f"{seed}/{i}" for i in range(len(x))], layer=layer
    )


def tiny_images(
    labels: Sequence[int] | Tensor | None = (0, 1, 0, 1),
    classes: Sequence[str] = ("cat", "dog"),
    name: str = "small",
    values: np.ndarray | None = None,
    ids: Sequence[str] | None = None,
) -> ImageDataset:
    """Images of 4 × 4 pixels, no two of them equal; four of them where there are no labels."""
    n = 4 if labels is None else len(labels)
    values = np.arange(n * 48, dtype=np.uint8).reshape(-1, 4, 4, 3) if values is None else values
    return ImageDataset(ArraySource(values), labels, classes, ids or [f"id{i}" for i in range(n)], name=name)


def coloured_squares(n: int, seed: int, colours: Sequence[str] = ("red", "blue")) -> ImageDataset:
    """Squares of one colour per class, with noise: easy, and quick."""
    generator = torch.Generator().manual_seed(seed)
    made = []
    for i in range(n):
        base = torch.tensor(Image.new("RGB", (1, 1), colours[i % len(colours)]).getpixel((0, 0)))
        noisy = (base + torch.randint(-60, 60, (24, 24, 3), generator=generator)).clamp(0, 255).to(torch.uint8)
        made.append((Image.fromarray(noisy.numpy()), i % len(colours)))
    return from_torch(made, classes=tuple(colours))


class Noise:
    """n seeded noise images; a real dataset in all that extraction asks of one."""

    def __init__(self, n: int, size: int = 48, seed: int = 0):
        self.pixels = np.random.RandomState(seed).randint(0, 256, (n, size, size, 3), np.uint8)
        self.labels = torch.arange(n) % 3
        self.classes = ("a", "b", "c")
        self.ids = tuple(f"noise-{i}" for i in range(n))
        self.name, self.digest = "noise", f"{n}-{size}-{seed}"

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, i: int) -> tuple[Image.Image, int]:
        return Image.fromarray(self.pixels[i]), int(self.labels[i])


def pixels(dataset: ImageDataset, i: int = 0) -> np.ndarray:
    """(h, w, 3) uint8 of one image."""
    return np.asarray(dataset[i][0])


def stacked(backbone: Backbone, dataset: ImageDataset | Noise) -> Tensor:
    """(n, 3, side, side) of all images, as the backbone takes them."""
    return torch.stack([backbone.preprocess(dataset[i][0]) for i in range(len(dataset))])


def turned_photograph(folder: Path) -> Path:
    """A JPEG that lies on its side, and whose EXIF says so, as phones write them."""
    image, exif = probe_images([(64, 32)])[0], Image.Exif()
    exif[0x0112] = 6
    image.save(path := folder / "photo.jpg", exif=exif)
    return path
