"""Images whose labels stand in a table, as an `ImageDataset`."""

import csv
import io
import math
import os
import re
import unicodedata
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from torch import Tensor

from frozenkit.errors import DataError, FrozenkitWarning, InputError, Problem
from frozenkit.images.dataset import FileSource, ImageDataset, shown
from frozenkit.images.folder import SUFFIXES, _code, _images, _is_readable, _listed, _skipped, _warn, as_path

TASKS = ("classes", "regression", "multilabel")
_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
_GROUPED = re.compile(r"[+-]?[0-9]{1,3}([,.'’ \u00a0\u202f])[0-9]{3}(\1[0-9]{3})*([.,][0-9]*)?")  # 1,234.5 or 1.234,5
_LARGEST = float(torch.finfo(torch.float32).max)
_WHOLE = re.compile(r"[+-]?[0-9]{1,18}")


def from_csv(
    path: str | Path, *, folder: str | Path | None = None, task: str | None = None, skip_bad: bool = False
) -> ImageDataset:
    r"""Images whose labels stand in a CSV table: a line for each file, under a header such as ``file,price``.

    The first column names files, relative to the folder. What the others hold decides the labels: words in one column
    are classes; numbers, in one or several, are values to predict (regression); zeros and ones in several columns say
    which of as many labels, named by the header, an image has (multi-label). Commas, semicolons or tabs separate the
    columns; with semicolons a comma may be the decimal point, in all of a column. Numbers have no thousands separators.

    Every image that is named is opened once, as by `image_folder`, so that all that is wrong is said at once. Images
    of the folder that the table does not name are left out, with a warning.

    Args:
        path: The table, in UTF-8.
        folder: Where the images are; default the folder that the table is in.
        task: ``"classes"``, ``"regression"`` or ``"multilabel"``, where the table does not say it by itself, as whole
            numbers other than such zeros and ones do not.
        skip_bad: Leave lines and images out that cannot be used, listed in ``.skipped`` and in a warning, instead of
            stopping.

    Returns:
        The images in the order of the table; ids are paths relative to the folder. Classes are sorted by name, or as
        numbers where all of them are.

    Raises:
        InputError: If `task` is unknown, does not fit the columns, or must be given.
        DataError: If the table or the folder is missing or unreadable; a file is missing, named twice or no readable
            image; a value is missing or no number; or a column of numbers has thousands separators or two decimal
            signs. The message names file and line of each (the first 20), and
            ``error.problems`` holds them all.

    Example:
        >>> import tempfile
        >>> from pathlib import Path, PurePosixPath
        >>> from PIL import Image
        >>> with tempfile.TemporaryDirectory() as name:
        ...     for i in range(3):
        ...         Image.new("RGB", (8, 8), (i, i, i)).save(Path(name, f"{i}.png"))
        ...     _ = Path(name, "ages.csv").write_text("file,age\n0.png,3.5\n1.png,12\n2.png,40\n")
        ...     from_csv(Path(name, "ages.csv")).labels
        tensor([ 3.5000, 12.0000, 40.0000])
    """
    if task is not None and task not in TASKS:
        raise InputError(f"`task` must be one of {', '.join(TASKS)}, or None, got {task!r}.")
    table = _read_table(as_path("path", path))
    root = table.path.parent if folder is None else as_path("folder", folder)
    if not root.is_dir():
        raise DataError(f"{shown(root)} is not a folder. Give the one that holds the images, with `folder`.")
    problems = list(table.problems)
    _check_signs(table, task)
    task = task or _task_of(table)
    _check_columns(table, task)
    apart: list[Problem] = []
    files = {shown(file.relative_to(root).as_posix()): file for file in _images(root, root, apart.append)}
    problems += _concerning(table, apart, root)
    lines = list(_found(table, files, root, problems.append))
    unnamed = len(files) - len({name for name, _ in lines})
    good = [(name, line) for name, line in lines if _is_readable(files[name], problems.append)]
    values = [(name, _values(table, line, task, problems.append)) for name, line in good]
    kept = [(name, value) for name, value in values if value is not None]
    skipped = _skipped(root, problems, skip_bad)
    if not kept:
        why = f" that can be used, once these are left out:\n{_listed(problems)}" if problems else "."
        raise DataError(f"{table.name} must name at least one image{why}", problems)
    if problems:
        _warn(skipped, {"lines or images that cannot be used": len(problems)})
    if unnamed:
        message = f"{unnamed} images in {shown(root)} are not in {table.name}, and left out"
        warnings.warn(message, FrozenkitWarning, stacklevel=2)
    names = [name for name, _ in kept]
    labels, classes = _labels_of([value for _, value in kept], task, table.columns)
    source = FileSource([files[name] for name in names])
    dataset = ImageDataset(source, labels, classes, names, name=shown(table.path.stem), skipped=skipped)
    options = [f"folder={str(folder)!r}"] if folder is not None else []
    dataset.code = _code("from_csv", str(path), skip_bad, *options, f"task={task!r}")
    return dataset


@dataclass(frozen=True)
class _Line:
    number: int
    file: str
    cells: tuple[str, ...]


@dataclass(frozen=True)
class _Table:
    """A CSV file: the columns beside that of the files, its lines, and what is wrong with others."""

    path: Path
    columns: tuple[str, ...]
    lines: tuple[_Line, ...]
    decimal_comma: bool
    problems: tuple[Problem, ...]

    @property
    def name(self) -> str:
        return shown(self.path)

    def number(self, cell: str) -> float | None:
        """The number that is written there; None if there is none, or none that float32 can hold."""
        text = cell.replace(",", ".") if self.decimal_comma else cell
        value = float(text) if _NUMBER.fullmatch(text) else math.inf
        return value if abs(value) <= _LARGEST else None


def _read_table(path: Path) -> _Table:
    name = shown(path)
    if not path.is_file():
        raise DataError(f"{name} is not a file. Give a table with a line for each image, and a header: file,value.")
    try:
        content = path.read_bytes()
        text = content.decode("utf-8-sig")
    except OSError as error:
        raise DataError(f"{name} cannot be read: {error.strerror}. Ask for the right to read it.") from error
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(f"{name} must be UTF-8, but line {line} is not. Save it as 'CSV UTF-8'.") from error
    if "\0" in text:
        raise DataError(f"{name} must be text in UTF-8, but holds zero bytes. Save it as 'CSV UTF-8'.")
    first = next((line for line in text.splitlines() if line.strip()), "")
    delimiter = max(",;\t", key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader if any(map(str.strip, row))]
    except csv.Error as error:
        raise DataError(f"{name} is no CSV table: line {reader.line_num}: {error}. Mend its quotes.") from error
    header = rows[0][1] if rows else []
    advice = "Begin the table with a line such as 'file,value'."
    if len(header) < 2:
        raise DataError(
            f"{name} must have a column of files and at least one of values, separated by commas, semicolons or tabs; "
            f"got {len(header)}. {advice}"
        )
    if Path(header[0]).suffix.lower() in SUFFIXES:
        raise DataError(f"{name} must begin with the names of its columns, but begins with {header[0]!r}. {advice}")
    if not all(header):
        raise DataError(
            f"{name} must have a name for each column, but column {header.index('') + 1} has none. If pandas wrote it: "
            "to_csv(…, index=False)."
        )
    if len(set(header)) < len(header):
        twice = next(column for column in header if header.count(column) > 1)
        raise DataError(f"{name} must have columns of distinct names, but {twice!r} is there twice. Rename one.")
    lines, problems = [], []
    for number, cells in rows[1:]:
        if len(cells) == len(header):
            lines.append(_Line(number, cells[0], tuple(cells[1:])))
        else:
            what = f"has {len(cells)} cells, where the header has {len(header)}"
            problems.append(Problem(f"{name}:{number}", what, "Mend or remove the line", can_skip=True))
    if not lines and not problems:
        raise DataError(f"{name} must name at least one image, but ends after its header.")
    return _Table(path, tuple(header[1:]), tuple(lines), delimiter == ";", tuple(problems))


def _task_of(table: _Table) -> str:
    """What the table's values are, where they show it."""
    cells = [cell for line in table.lines for cell in line.cells if cell]
    numbers = [table.number(cell) for cell in cells]
    n_numbers = sum(number is not None for number in numbers)
    several = len(table.columns) > 1
    if several and set(numbers) <= {0, 1}:
        return "multilabel"
    if not several and (2 * n_numbers < len(cells) or not cells):
        return "classes"
    if n_numbers and all(_WHOLE.fullmatch(cell) for cell, number in zip(cells, numbers) if number is not None):
        columns, other = ", ".join(map(repr, table.columns[:12])), "multilabel" if several else "classes"
        raise InputError(
            f'`task` must say what whole numbers under {columns} are: task="{other}" or, for values to predict, '
            f'task="regression".'
        )
    return "regression"


def _check_signs(table: _Table, task: str | None) -> None:
    """Raise a `DataError` where a column of numbers leaves open what a comma or a point in it stands for."""
    for j, column in enumerate(table.columns if task != "classes" else ()):
        cells = [(line.number, line.cells[j]) for line in table.lines if line.cells[j]]
        numbers = [(line, cell) for line, cell in cells if table.number(cell) is not None]
        grouped = [(line, cell) for line, cell in cells if table.number(cell) is None and _GROUPED.fullmatch(cell)]
        if task is None and 2 * (len(numbers) + len(grouped)) < len(cells):  # words
            continue
        advice = "" if task else ', or say task="classes"'
        if grouped:
            line, cell = grouped[0]
            raise DataError(
                f"{table.name} must have no thousands separators under {column!r}, but line {line} has {cell[:40]!r}. "
                f"Write numbers such as 1234.5{advice}."
            )
        first = {sign: next(((n, c) for n, c in numbers if sign in c), None) for sign in ".,"}
        if first["."] and first[","]:
            (line, cell), (other, another) = sorted(where for where in first.values() if where)
            raise DataError(
                f"{table.name} must have one decimal sign under {column!r}, but line {line} has {cell[:40]!r} and line "
                f"{other} {another[:40]!r}. Write numbers without thousands separators, such as 1234.5{advice}."
            )


def _check_columns(table: _Table, task: str) -> None:
    """Raise an `InputError` where these columns cannot be for this task."""
    columns = ", ".join(map(repr, table.columns[:12]))
    if task == "classes" and len(table.columns) > 1:
        raise InputError(f"{table.name} must have one column of classes beside that of the files, got {columns}.")
    for j, column in enumerate(table.columns):
        cells = [line.cells[j] for line in table.lines if line.cells[j]]
        if task != "classes" and cells and not any(table.number(cell) is not None for cell in cells):
            keep = "one column of words, for classes, or columns of numbers"
            raise InputError(
                f"{table.name} must hold numbers beside the files, for {task}, but {column!r} holds none, such as "
                f"{cells[0]!r}. Keep {keep}."
            )


def _concerning(table: _Table, problems: list[Problem], root: Path) -> Iterator[Problem]:
    """Of what is wrong with the folder, what files of the table are in; the folder may hold other things, too."""
    files = [PurePosixPath(line.file) for line in table.lines]
    named = {str(path) for file in files for path in (file, *file.parents)}
    for problem in problems:
        if Path(os.path.relpath(problem.where, shown(root))).as_posix() in named:
            yield problem


def _found(
    table: _Table, files: dict[str, Path], root: Path, report: Callable[[Problem], None]
) -> Iterator[tuple[str, _Line]]:
    """(name, line) of each file that the table names and the folder holds, once."""
    composed = {unicodedata.normalize("NFC", name): name for name in files}
    names = [_name_of(line.file, files, composed) for line in table.lines]
    if table.lines and not any(names):
        there = f"holds {min(files)!r}" if files else "holds no images"
        raise DataError(
            f"none of the {len(names)} files that {table.name} names is in {shown(root)}, such as "
            f"{table.lines[0].file!r}; it {there}. Names are relative to that folder; give another with `folder`."
        )
    first: dict[str, _Line] = {}
    for line, name in zip(table.lines, names, strict=True):
        where = f"{table.name}:{line.number}"
        if name is None:
            what = f"names {line.file!r}, which is no image in {shown(root)}" if line.file else "names no file"
            report(Problem(where, what, "Correct the name, or remove the line", can_skip=True))
        elif (before := first.setdefault(name, line)) is not line:
            same = before.cells == line.cells
            what = f"names {name!r} again, after line {before.number}" + ("" if same else ", with another value")
            report(Problem(where, what, "Remove one of both", can_skip=same))
        else:
            yield name, line


def _name_of(given: str, files: dict[str, Path], composed: dict[str, str]) -> str | None:
    """A file by what a table calls it: Windows writes backslashes, and an é can be one character or two."""
    for name in (given, given.replace("\\", "/")):
        name = name.removeprefix("./")
        if name in files:
            return name
        if (same := composed.get(unicodedata.normalize("NFC", name))) is not None:
            return same
    return None


def _values(table: _Table, line: _Line, task: str, report: Callable[[Problem], None]) -> Sequence[Any] | None:
    """What a line says of its image, or None if it cannot be used."""
    if task == "classes" and all(line.cells):
        return [unicodedata.normalize("NFC", cell) for cell in line.cells]
    numbers = [table.number(cell) for cell in line.cells]
    wanted = {"classes": "a class", "regression": "a number", "multilabel": "0 or 1"}[task]
    for column, cell, number in zip(table.columns, line.cells, numbers, strict=True):
        if not cell or number is None or (task == "multilabel" and number not in (0, 1)):
            what = f"must hold {wanted} under {column!r}, but has {cell[:40]!r}" if cell else f"has no {column!r}"
            where = f"{table.name}:{line.number}"
            report(Problem(where, what, "Fill it in, or remove the line", can_skip=True))
            return None
    return numbers


def _labels_of(values: list[Any], task: str, columns: tuple[str, ...]) -> tuple[Tensor, tuple[str, ...]]:
    """Labels and classes as an `ImageDataset` has them."""
    if task == "classes":
        given = [value[0] for value in values]
        whole = all(_WHOLE.fullmatch(name) for name in given)
        classes = sorted(set(given), key=lambda name: (int(name) if whole else 0, name))
        place = {name: i for i, name in enumerate(classes)}
        return torch.tensor([place[name] for name in given]), tuple(classes)
    numbers = torch.tensor(values, dtype=torch.float32)
    if task == "multilabel":
        return numbers.bool(), columns
    return numbers.squeeze(1) if len(columns) == 1 else numbers, ()
