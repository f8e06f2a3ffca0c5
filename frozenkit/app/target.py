"""What the commands are pointed at: a data set's name, or a folder; and its parts to learn from and to report on."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from frozenkit.app.cross_validation import stratified_parts
from frozenkit.errors import DataError, FrozenkitWarning, UnknownNameError
from frozenkit.images.catalog import dataset_names, load_dataset
from frozenkit.images.dataset import ImageDataset
from frozenkit.images.folder import image_folder
from frozenkit.splits import duplicates, split


class Target(NamedTuple):
    """What `load_target` loads.

    Attributes:
        train: Images to learn from.
        test: Images to report on.
        copies: Groups of ids whose images are equal pixel by pixel, in a folder.
        image_size: Pixels that show them well: 96 where they came by name; None, the backbone's own, for a folder.
        code: The Python expression that loads the images of both together: those of a folder.
    """

    train: ImageDataset
    test: ImageDataset
    copies: tuple[tuple[str, ...], ...] = ()
    image_size: int | None = None
    code: str = ""


def load_images(target: str, *, limit: int | None, seed: int, skip_bad: bool) -> tuple[ImageDataset, ImageDataset]:
    """Train and test images of a data set's name, or of a folder: the first two of `load_target`."""
    return load_target(target, limit=limit, seed=seed, skip_bad=skip_bad)[:2]


def load_target(target: str, *, limit: int | None, seed: int, skip_bad: bool, test: str | None = None) -> Target:
    """Train and test images of a data set's name, or of a folder (seeded, stratified, 70 % and 30 %).

    With `test`, a folder of images per class, that is what is reported on, and all of the target is to learn from.

    A name goes before a folder that is called the same; ``./digits`` is the folder. Images that are equal pixel by
    pixel go into the same part.

    Raises:
        UnknownNameError: If it is neither.
        DataError: If the folder is not usable.
    """
    if target in dataset_names():
        if Path(target).is_dir():
            warnings.warn(
                f"{target} is taken for the data set of that name, not for the folder; that one is ./{target}",
                FrozenkitWarning,
                stacklevel=2,
            )
        train = load_dataset(target, limit=limit, seed=seed)
        other = load_dataset(target, split="test") if test is None else load_test(test, train.classes, skip_bad)
        return Target(train, other, image_size=96)
    if not Path(target).exists():
        hint = "Or give a folder with one folder of images per class; no such folder is here."
        raise UnknownNameError("target", target, dataset_names(), hint=hint)
    images = image_folder(target, skip_bad=skip_bad)
    if Path(target).is_absolute():  # whoever gets the recipe need not know where on this disk the folder lies
        images.code = images.code.replace(repr(target), repr(Path(target).name), 1)
    copies = duplicates(images[i] for i in range(len(images)))
    if copies:
        shown = "; ".join(" = ".join(images.ids[i] for i in rows[:3]) for rows in copies[:3])
        warnings.warn(
            f"{sum(map(len, copies))} images are equal to others, pixel by pixel: {shown}"
            f"{'; …' if len(copies) > 3 else ''}. Equal images stay on one side of every split; leave-one-out sees "
            "them all the same, and flatters",
            FrozenkitWarning,
            stacklevel=2,
        )
    groups = tuple(tuple(images.ids[i] for i in group) for group in copies)
    if test is not None:
        return Target(_limited(images, limit, seed), load_test(test, images.classes, skip_bad), groups)
    rows = stratified_parts(images.labels, copies, fractions=(0.7, 0.3), seed=seed)
    train, other = (images.subset(part) for part in rows)
    limited = _limited(train, limit, seed)
    return Target(limited, other, groups, code=images.code if limited is train else "")


def _limited(train: ImageDataset, limit: int | None, seed: int) -> ImageDataset:
    if limit is None or limit >= len(train):
        return train
    return train.subset(split(train.labels, fractions=(limit, len(train) - limit), seed=seed)[0])


def load_test(path: str, classes: Sequence[str], skip_bad: bool) -> ImageDataset:
    """Images to report on: one folder per class, of classes that there are to learn from, one image being enough.

    Raises:
        DataError: If it is no such folder; names what is in no class, and what class is unknown.
    """
    images = image_folder(path, labelled=False, skip_bad=skip_bad)
    place = {name: label for label, name in enumerate(classes)}
    folders = [name.split("/")[0] if "/" in name else "" for name in images.ids]
    for name, folder in zip(images.ids, folders):
        if folder not in place:
            there = f"in the folder {folder!r}" if folder else "in no folder"
            raise DataError(
                f"`--test` must hold a folder of images per class, of the classes to learn from: {name} is {there}. "
                f"Classes: {', '.join(classes[:12])}{', …' * (len(classes) > 12)}."
            )
    return ImageDataset(
        images.source,
        [place[folder] for folder in folders],
        classes,
        images.ids,
        name=images.name,
        skipped=images.skipped,
    )
