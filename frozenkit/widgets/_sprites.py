"""Images for the browser: many thumbnails as one sprite, and the data sets that a lab starts with."""

import io
import math
from collections.abc import Iterable
from typing import Any

from PIL import Image, ImageOps

from frozenkit.images.catalog import load_dataset
from frozenkit.images.dataset import ImageDataset


def make_sprite(images: Iterable[Image.Image], *, side: int = 48) -> tuple[bytes, dict[str, int]]:
    """A PNG of square thumbnails, row by row, and how to find the i-th: its side in pixels and columns of the sheet."""
    tiles = [image.convert("RGB") for image in images]
    columns = max(1, math.ceil(math.sqrt(len(tiles))))
    page = Image.new("RGB", (columns * side, max(1, math.ceil(len(tiles) / columns)) * side), "white")
    for i, tile in enumerate(tiles):
        tile = ImageOps.contain(tile, (side, side))
        offset = ((side - tile.width) // 2, (side - tile.height) // 2)
        page.paste(tile, ((i % columns) * side + offset[0], (i // columns) * side + offset[1]))
    out = io.BytesIO()
    page.save(out, "PNG")
    return out.getvalue(), {"side": side, "columns": columns}


def dataset_sprite(dataset: Any, rows: Iterable[int], *, side: int = 48) -> tuple[bytes, dict[str, int]]:
    """`make_sprite` of some images of a data set."""
    return make_sprite((dataset[int(i)][0] for i in rows), side=side)


def train_and_test(name: str, limit: int | None = None) -> tuple[ImageDataset, ImageDataset]:
    """Train and test part of a bundled data set."""
    train, test = (load_dataset(name, split=part, limit=limit) for part in ("train", "test"))
    return train, test
