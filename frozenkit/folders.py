"""A folder of pictures, one subfolder per class, as an `ImageDataset`."""

import warnings
from collections.abc import Sequence
from pathlib import Path

from frozenkit.errors import DataError, FrozenkitWarning
from frozenkit.images import FileSource, ImageDataset, open_image

SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".pgm", ".tif", ".tiff", ".webp"}
_PARTS = {"train", "training", "test", "val", "valid", "validation"}


def image_folder(path: str | Path, *, skip_bad: bool = False) -> ImageDataset:
    """One folder per class; class names, and then file names, in alphabetical order.

    Every picture is opened once, so that a bad one is known before any work is done. Pictures stay on disk and are
    decoded as they are read. Hidden files and files that are no pictures are ignored; subfolders of a class belong to
    it. If the folder holds ``train`` and ``test``, give these one by one.

    Args:
        path: The folder.
        skip_bad: Leave unreadable pictures out, listed in ``.skipped`` and in a warning, instead of stopping.

    Returns:
        The pictures; ids are paths relative to the folder.

    Raises:
        DataError: If the folder is missing or empty, has one class, a class has fewer than two pictures, a picture is
            unreadable, or leads out of the folder. Names the folder or file.

    Example:
        >>> image_folder("no/such/folder")
        Traceback (most recent call last):
        frozenkit.errors.DataError: no/such/folder is not a folder. Give one that holds a folder of pictures per class.
    """
    root = Path(path)
    if not root.is_dir():
        raise DataError(f"{root} is not a folder. Give one that holds a folder of pictures per class.")
    folders = sorted(child for child in root.iterdir() if child.is_dir() and not child.name.startswith("."))
    if folders and {folder.name.lower() for folder in folders} <= _PARTS:
        names = " and ".join(repr(str(folder)) for folder in folders)
        raise DataError(f"{root} holds parts of a data set, not classes. Give them one by one: {names}.")
    files = {folder.name: _pictures(folder, root) for folder in folders}
    if not any(files.values()):
        raise DataError(
            f"{root} holds no pictures. Put them into one folder per class, such as {root / 'cat' / '1.jpg'}."
        )

    skipped: list[tuple[str, str]] = []
    for name, paths in files.items():
        good = []
        for file in paths:
            try:
                open_image(file)
                good.append(file)
            except DataError as error:
                if not skip_bad:
                    raise
                skipped.append((file.relative_to(root).as_posix(), str(error)))
        files[name] = good
    if skipped:
        names = ", ".join(name for name, _ in skipped[:5]) + (" …" if len(skipped) > 5 else "")
        warnings.warn(f"left out {len(skipped)} unreadable pictures: {names}", FrozenkitWarning, stacklevel=2)

    for name, paths in files.items():
        if len(paths) < 2:
            found = f"only {paths[0].name!r}" if paths else "none"
            raise DataError(f"each class must have at least two pictures, but {root / name} has {found}.")
    if len(files) < 2:
        raise DataError(f"there must be at least two classes to tell apart, but {root} has only {next(iter(files))!r}.")
    every = [(label, file) for label, paths in enumerate(files.values()) for file in paths]
    return ImageDataset(
        FileSource([file for _, file in every]),
        [label for label, _ in every],
        list(files),
        [file.relative_to(root).as_posix() for _, file in every],
        name=root.resolve().name,
        skipped=skipped,
    )


def _pictures(folder: Path, root: Path) -> Sequence[Path]:
    """Picture files below a folder, sorted; refuses links that lead out of the root."""
    files = []
    for file in sorted(folder.rglob("*")):
        if any(part.startswith(".") for part in file.relative_to(folder).parts):
            continue  # hidden, or in a hidden folder such as .ipynb_checkpoints
        # A linked folder is not entered, and its pictures would be missing without a word.
        if (file.is_symlink() or folder.is_symlink()) and not _within(file, root):
            raise DataError(f"{file} is a link that leads out of {root}. Copy the pictures instead.")
        broken_link = file.is_symlink() and not file.exists()
        if file.suffix.lower() in SUFFIXES and (file.is_file() or broken_link):
            files.append(file)
    return files


def _within(file: Path, root: Path) -> bool:
    try:
        return file.resolve().is_relative_to(root.resolve())
    except (OSError, RuntimeError):  # a link that leads to itself
        return False
