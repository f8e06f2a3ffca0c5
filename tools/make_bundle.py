"""Makes the bundled images from their original packages; kept so that anyone can make them again.

::

    npm pack emoji-datasource-google@16.0.0 emoji-datasource-twitter@16.0.0    # and unpack each
    apt-get install dataset-fashion-mnist
    python tools/make_bundle.py GOOGLE_PACKAGE TWITTER_PACKAGE FASHION_FOLDER

Images lie side by side on one lossless WebP sheet a set, 40 to a row; the JSON beside it names them in this order.
Prints the sha256 sums that `frozenkit.images.catalog` checks.
"""

import gzip
import hashlib
import json
import sys
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

from frozenkit.splits import few_shot, split

BUNDLED = Path(__file__).parents[1] / "frozenkit" / "images" / "bundled"
COLUMNS = 40
CATEGORIES = ("Activities", "Animals & Nature", "Food & Drink", "Objects", "Travel & Places")
FASHION = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
RARE = 5  # subcategories with fewer images are divided together
# … and then join the nearest: a frog and two hotel things cannot be both learnt and tested.
JOINED = {"animal-amphibian": "animal-reptile", "hotel": "place-other"}


def sheet(images: list[Image.Image]) -> Image.Image:
    """All images side by side, row by row."""
    width, height = images[0].size
    rows = -(-len(images) // COLUMNS)
    page = Image.new(images[0].mode, (COLUMNS * width, rows * height), "white")
    for i, image in enumerate(images):
        page.paste(image, (i % COLUMNS * width, i // COLUMNS * height))
    return page


def on_white(path: Path) -> Image.Image:
    """RGB, transparency on white."""
    image = Image.open(path).convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def make_emoji(google: Path, twitter: Path) -> None:
    """857 images that both styles have, with category, subcategory and the split into 600 and 257."""
    rows = [
        row
        for row in json.loads((google / "emoji.json").read_text())
        if row["category"] in CATEGORIES and row["has_img_google"] and row["has_img_twitter"]
    ]
    rows.sort(key=lambda row: row["sort_order"])
    counts = Counter((row["category"], row["subcategory"]) for row in rows)
    kinds = [
        row["subcategory"]
        if counts[row["category"], row["subcategory"]] >= RARE
        else f"other {row['category'].lower()}"
        for row in rows
    ]
    strata = sorted(set(kinds))
    train, _ = split([strata.index(kind) for kind in kinds], fractions=(600, 257), seed=0)
    kinds = [JOINED.get(row["subcategory"], row["subcategory"]) for row in rows]
    names = sorted(set(kinds))
    about = {
        "width": 64,
        "count": len(rows),
        "categories": CATEGORIES,
        "subcategories": names,
        "names": [row["short_name"] for row in rows],
        "category": [CATEGORIES.index(row["category"]) for row in rows],
        "subcategory": [names.index(kind) for kind in kinds],
        "train": train.tolist(),
    }
    (BUNDLED / "emoji.json").write_text(json.dumps(about, separators=(",", ":")))
    for style, package in (("google", google), ("twitter", twitter)):
        images = [on_white(package / "img" / style / "64" / row["image"]) for row in rows]
        sheet(images).save(BUNDLED / f"emoji-{style}.webp", lossless=True, quality=100, method=6)


def make_fashion(folder: Path) -> None:
    """The first seeded draw of 400 training and 200 test images per class, class after class mixed by the draw."""
    images, labels, ids = [], [], []
    for part, stem, shots in (("train", "train", 400), ("test", "t10k", 200)):
        pixels = np.frombuffer(
            gzip.decompress((folder / f"{stem}-images-idx3-ubyte.gz").read_bytes()), np.uint8, offset=16
        )
        targets = np.frombuffer(
            gzip.decompress((folder / f"{stem}-labels-idx1-ubyte.gz").read_bytes()), np.uint8, offset=8
        )
        for row in few_shot(targets, shots=shots, seed=0).tolist():
            images.append(Image.fromarray(pixels.reshape(-1, 28, 28)[row]))
            labels.append(int(targets[row]))
            ids.append(f"{part}/{row}")
    about = {
        "width": 28,
        "count": len(ids),
        "classes": FASHION,
        "labels": labels,
        "ids": ids,
        "train": list(range(4000)),
    }
    (BUNDLED / "fashion-mnist.json").write_text(json.dumps(about, separators=(",", ":")))
    sheet(images).save(BUNDLED / "fashion-mnist.webp", lossless=True, quality=100, method=6)


if __name__ == "__main__":
    make_emoji(Path(sys.argv[1]), Path(sys.argv[2]))
    make_fashion(Path(sys.argv[3]))
    for path in sorted([*BUNDLED.glob("*.webp"), *BUNDLED.glob("*.json")]):
        print(f'    "{path.name}": "{hashlib.sha256(path.read_bytes()).hexdigest()}",  # {path.stat().st_size:,} bytes')
