"""Folders of images, one subfolder per class or none, and single files, as an `ImageDataset`."""

import os
import unicodedata
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from frozenkit._arrays import described
from frozenkit.errors import DataError, FrozenkitWarning, InputError, Problem
from frozenkit.images.dataset import FileSource, ImageDataset, open_image, shown

SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".pgm", ".tif", ".tiff", ".webp"}
_PARTS = {"train", "training", "test", "val", "valid", "validation"}
_MOST_PROBLEMS = 20
_OTHER_SUFFIXES = {".avif", ".heic", ".heif", ".jxl"}
_BEGINNINGS = (
    b"\xff\xd8\xff",
    b"\x89PNG\r\n",
    b"GIF8",
    b"II*\0",
    b"MM\0*",
    b"\xff\x0a",
    b"\0\0\0\x0cJXL ",
    b"\0\0\0\x0cjP  ",
)
_BRANDS = {b"avif", b"avis", b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1"}  # of ISO media files


def image_folder(path: str | Path, *, labelled: bool = True, skip_bad: bool = False) -> ImageDataset:
    """One folder per class; class names, and then file names, in alphabetical order.

    Every image is opened once, so that all that is wrong is known, and said at once, before any work is done. Images
    stay on disk and are decoded as they are read; one that has changed since the digest was taken is an error. Hidden
    files and files that are no images are ignored; subfolders of a class belong to it. If the folder holds ``train``
    and ``test``, give these one by one. In names, bytes that are not UTF-8 read ``\\xff``.

    Args:
        path: The folder.
        labelled: False takes any folder: every image in it and below it, at least one, without a label. Such images
            can be predicted, not learned from. Labels in a table: `from_csv`.
        skip_bad: Leave unreadable images, and classes with fewer than two, out, listed in ``.skipped`` and in a
            warning, instead of stopping.

    Returns:
        The images; ids are paths relative to the folder.

    Raises:
        InputError: If `path` is no path.
        DataError: If the folder is missing or holds no images, has one class, a class has fewer than two images, two
            classes have the same name (letters with accents can be written in two ways), an image or a subfolder is
            unreadable, or a link leads out of the folder. The message lists every file and folder concerned (the first
            20), and ``error.problems`` holds them all.

    Example:
        >>> image_folder("no/such/folder")
        Traceback (most recent call last):
        frozenkit.errors.DataError: no/such/folder is not a folder. Give one that holds a folder of images per class.
    """
    root = as_path("path", path)
    name = shown(root)
    if not root.is_dir():
        what = "a folder of images per class" if labelled else "images"
        raise DataError(f"{name} is not a folder. Give one that holds {what}.")
    problems: list[Problem] = []
    others: list[Path] = []
    if not labelled:
        every_file = {
            f: shown(f.relative_to(root).as_posix()) for f in _images(root, root, problems.append, others.append)
        }
        _warn_of_others(root, others)
        dataset = _unlabelled(root, every_file, problems, skip_bad)
        dataset.code = _code("image_folder", str(path), skip_bad, "labelled=False")
        return dataset
    try:
        folders = sorted(child for child in root.iterdir() if child.is_dir() and not child.name.startswith("."))
    except OSError as error:
        raise DataError(f"{name} cannot be read: {error.strerror}. Ask for the right to read it.") from error
    if folders and {folder.name.lower() for folder in folders} <= _PARTS:
        names = " and ".join(repr(shown(folder)) for folder in folders)
        raise DataError(f"{name} holds parts of a data set, not classes. Give them one by one: {names}.")

    files = {folder: _images(folder, root, problems.append, others.append) for folder in folders}
    _warn_of_others(root, others)
    if not any(files.values()) and not problems:
        raise DataError(
            f"{name} holds no images. Put them into one folder per class, such as {shown(root / 'cat' / '1.jpg')}."
        )
    problems += _twins(folders)
    good = {folder: [f for f in paths if _is_readable(f, problems.append)] for folder, paths in files.items()}
    n_bad = len(problems)
    for folder, paths in good.items():
        if len(paths) < 2:
            there = f"only {shown(paths[0].name)!r}" if paths else "none"
            what = f"must hold at least two readable images, but has {there}"
            problems.append(Problem(shown(folder), what, "Add images, or remove the folder", can_skip=True))
    kept = {folder: paths for folder, paths in good.items() if len(paths) >= 2}
    skipped = _skipped(root, problems, skip_bad)
    if len(kept) < 2:
        there = f"only {shown(next(iter(kept)).name)!r}" if kept else "none"
        why = f", once these are left out:\n{_listed(problems)}" if problems else "."
        raise DataError(f"there must be at least two classes to tell apart, but {name} has {there}{why}", problems)
    if problems:
        _warn(skipped, {"unreadable images": n_bad, "classes with fewer than two images": len(problems) - n_bad})

    every = [(label, file) for label, paths in enumerate(kept.values()) for file in paths]
    dataset = ImageDataset(
        FileSource([file for _, file in every]),
        [label for label, _ in every],
        [shown(folder.name) for folder in kept],
        [shown(file.relative_to(root).as_posix()) for _, file in every],
        name=shown(root.resolve().name),
        skipped=skipped,
    )
    dataset.code = _code("image_folder", str(path), skip_bad)
    return dataset


def image_files(paths: Iterable[str | Path], *, skip_bad: bool = False) -> ImageDataset:
    """Single image files, in the order given, without labels; for those of a folder see `image_folder`.

    Args:
        paths: Of the files, each once.
        skip_bad: Leave unreadable images out, listed in ``.skipped`` and in a warning, instead of stopping.

    Returns:
        The images; ids are the paths as they were given.

    Raises:
        InputError: If `paths` is no list of paths, or names a file twice.
        DataError: If there is none, or one is missing or unreadable. The message lists every file concerned (the first
            20), and ``error.problems`` holds them all.

    Example:
        >>> image_files([])
        Traceback (most recent call last):
        frozenkit.errors.DataError: `paths` must name at least one image, got none.
    """
    if isinstance(paths, str | bytes | os.PathLike | Mapping) or not isinstance(paths, Iterable):
        raise InputError(
            f"`paths` must be a list of paths, got {described(paths)}. One file is [path]; the images of a folder are "
            "image_folder(path, labelled=False)."
        )
    names: dict[Path, str] = {}
    for path in paths:
        if not isinstance(path, str | Path):
            raise InputError(f"`paths` must be a list of paths, but one is {described(path)}.")
        if Path(path) in names:
            raise InputError(f"`paths` must name each file once, but {shown(path)!r} is in it twice.")
        names[Path(path)] = shown(path)
    if not names:
        raise DataError("`paths` must name at least one image, got none.")
    dataset = _unlabelled(None, names, [], skip_bad)
    dataset.code = _code("image_files", [str(path) for path in names], skip_bad)
    return dataset


def _code(function: str, given: object, skip_bad: bool, *options: str) -> str:
    """The Python expression that loads a dataset."""
    return f"{function}({', '.join([repr(given), *options, *(['skip_bad=True'] if skip_bad else [])])})"


def as_path(name: str, path: object) -> Path:
    """The argument `name` as a `Path`; raises an `InputError` if it is none."""
    if not isinstance(path, str | Path):
        raise InputError(f"`{name}` must be a path, got {described(path)}.")
    return Path(path)


def _unlabelled(root: Path | None, names: Mapping[Path, str], problems: list[Problem], skip_bad: bool) -> ImageDataset:
    """Images in files, called by these names; `root` is the folder they lie in, if it is one."""
    kept = [file for file in names if _is_readable(file, problems.append)]
    skipped = _skipped(root, problems, skip_bad)
    place = "`paths`" if root is None else shown(root)
    if not kept:
        why = f" that can be read, once these are left out:\n{_listed(problems)}" if problems else "."
        raise DataError(f"{place} must hold at least one image{why}", problems)
    if problems:
        _warn(skipped, {"unreadable images": len(problems)}, stacklevel=4)
    name = "files" if root is None else shown(root.resolve().name)
    return ImageDataset(FileSource(kept), None, (), [names[file] for file in kept], name=name, skipped=skipped)


def _skipped(root: Path | None, problems: list[Problem], skip_bad: bool) -> list[tuple[str, str]]:
    """(file, reason) of what is left out; raises a `DataError` where that was not asked for, or must not be."""
    stopping = [problem for problem in problems if not problem.can_skip]
    if problems and not skip_bad:
        raise _error(root, problems)
    if stopping:
        raise _error(root, stopping)
    if root is None:
        return [(p.where, str(p)) for p in problems]
    within = [replace(p, where=Path(os.path.relpath(p.where, shown(root))).as_posix()) for p in problems]
    return [(p.where, str(p)) for p in within]


def _warn(skipped: list[tuple[str, str]], counts: dict[str, int], stacklevel: int = 3) -> None:
    which = ", ".join(where for where, _ in skipped[:5]) + (" …" if len(skipped) > 5 else "")
    what = " and ".join(f"{n} {kind}" for kind, n in counts.items() if n)
    warnings.warn(f"left out {what}: {which}", FrozenkitWarning, stacklevel=stacklevel)


def _warn_of_others(root: Path, others: list[Path]) -> None:
    if others:
        names = sorted(shown(file.relative_to(root).as_posix()) for file in others)
        what = "1 file that looks like an image, but whose name ends" if len(names) == 1 else ""
        what = what or f"{len(names)} files that look like images, but whose names end"
        warnings.warn(
            f"left out {what} in none of {', '.join(sorted(SUFFIXES))}: {', '.join(names[:5])}"
            f"{' …' if len(names) > 5 else ''}. Convert them to JPEG or PNG, or mend their names",
            FrozenkitWarning,
            stacklevel=3,
        )


def _error(root: Path | None, problems: list[Problem]) -> DataError:
    advice = " With skip_bad=True they are left out." if all(problem.can_skip for problem in problems) else ""
    if len(problems) == 1:
        return DataError(f"{problems[0]}{advice.replace('they are', 'it is')}", problems)
    place = "`paths`" if root is None else shown(root)
    return DataError(f"{place} has {len(problems)} problems.{advice}\n{_listed(problems)}", problems)


def _listed(problems: list[Problem]) -> str:
    more = [f"… and {len(problems) - _MOST_PROBLEMS} more"] if len(problems) > _MOST_PROBLEMS else []
    return "\n".join(f"- {line}" for line in [*map(str, problems[:_MOST_PROBLEMS]), *more])


def _images(
    folder: Path,
    root: Path,
    report: Callable[[Problem], None],
    other: Callable[[Path], None] | None = None,
) -> list[Path]:
    """Image files below a folder, sorted; reports links that lead out of the root, and folders that cannot be read.

    Images of other formats and names go to `other`.
    """

    def leads_out(path: Path) -> bool:
        if not path.is_symlink() or _is_within(path, root):
            return False
        report(Problem(shown(path), "is a link that leads out of the folder", "Copy the images instead", False))
        return True

    def unreadable(error: OSError) -> None:
        what = f"cannot be read: {error.strerror}"
        report(Problem(shown(error.filename), what, "Ask for the right to read it, or remove it", can_skip=False))

    if leads_out(folder):  # before walking it: it may lead to the whole disk
        return []
    files = []
    for place, inside, names in os.walk(folder, onerror=unreadable):
        here = Path(place)
        inside[:] = sorted(name for name in inside if not name.startswith("."))  # such as .ipynb_checkpoints
        for name in inside:
            leads_out(here / name)  # links to folders are not entered, and their images would be missing unnoticed
        for name in names:
            file = here / name
            if name.startswith(".") or leads_out(file):
                continue
            broken_link = file.is_symlink() and not file.exists()
            if file.suffix.lower() in SUFFIXES and (file.is_file() or broken_link):
                files.append(file)
            elif other is not None and file.suffix.lower() not in SUFFIXES and _looks_like_image(file):
                other(file)
    return sorted(files)


def _looks_like_image(file: Path) -> bool:
    """Whether a file that is not taken for an image is called or begins like one."""
    if not file.is_file():
        return False
    if file.suffix.lower() in _OTHER_SUFFIXES:
        return True
    try:
        with file.open("rb") as opened:
            start = opened.read(12)
    except OSError:
        return False
    is_webp = start[:4] == b"RIFF" and start[8:] == b"WEBP"
    return start.startswith(_BEGINNINGS) or is_webp or (start[4:8] == b"ftyp" and start[8:] in _BRANDS)


def _is_readable(file: Path, report: Callable[[Problem], None]) -> bool:
    try:
        open_image(file)
    except DataError as error:
        what = str(error).removeprefix(f"{shown(file)} ").removesuffix(". Repair or remove it.")
        report(Problem(shown(file), what, "Repair or remove it", can_skip=True))
        return False
    return True


def _twins(folders: list[Path]) -> list[Problem]:
    """Folders whose names read the same: an é can be one character or two, and a space at the end is not seen."""
    first: dict[str, Path] = {}
    problems = []
    for folder in folders:
        other = first.setdefault(unicodedata.normalize("NFC", folder.name).strip(), folder)
        if other is not folder:
            what = f"has a name that reads like another class, {other.name!a}; this one is {folder.name!a}"
            problems.append(Problem(shown(folder), what, "Merge or rename them", can_skip=False))
    return problems


def _is_within(file: Path, root: Path) -> bool:
    try:
        return file.resolve().is_relative_to(root.resolve())
    except (OSError, RuntimeError):  # a link that leads to itself
        return False
