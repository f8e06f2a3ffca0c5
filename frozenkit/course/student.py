"""The student's notebooks, made from the solutions: written once, so that the two can never say different things.

A solution cell marks what the student is to write::

    ### begin solution: answer = ...
    probe = fit_probe(train)
    answer = probe.score(test)
    ### end solution

In the student's version only the line after the colon is left, and the cell's metadata keeps it. Everything else, cell
ids included, stays the same.
"""

import io
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from frozenkit.course.files import contents, read_notebook, signed_notebook, write_made
from frozenkit.course.syllabus import lessons
from frozenkit.errors import DataError, InputError

# What a class needs beside the notebooks; nothing else of a folder is ever packed.
RECORDED = ("budgets", "gaps", "heads", "scaling")
_BESIDE = ("course.json", "syllabus.json", "coverage.md", *(f"results/{name}.json" for name in RECORDED))

_BLOCK = re.compile(r"^([ \t]*)### begin solution: (.+)\n(?:.*\n)*?\1### end solution[ \t]*$", re.MULTILINE)
_MARK = re.compile(r"### (begin|end) solution")


def student_version(notebook: dict[str, Any], name: str = "this notebook") -> dict[str, Any]:
    """A solution's JSON with its blanks open and without any output.

    Args:
        notebook: As read from an ``.ipynb`` file.
        name: How messages call it.

    Raises:
        DataError: If a cell tagged ``solution`` has no blank, or a mark has no counterpart.
    """
    made = json.loads(json.dumps(notebook))
    for cell in made["cells"]:
        source = "".join(cell["source"])
        opened, blanks = _BLOCK.subn(r"\1\2", source)
        tags = cell["metadata"].get("tags", [])
        if ("solution" in tags) != bool(blanks):
            raise DataError(
                f"{name}, cell {cell.get('id')!r}: a cell tagged `solution` and a marked blank go together."
            )
        if _MARK.search(opened):
            raise DataError(f"{name}, cell {cell.get('id')!r}: a solution's mark has no counterpart.")
        if blanks:
            cell["metadata"]["tags"] = ["exercise" if tag == "solution" else tag for tag in tags]
            cell["metadata"]["frozenkit"] = {"pristine": opened}  # what "start again" puts back
        cell["source"] = opened.splitlines(keepends=True)
        if cell["cell_type"] == "code":
            cell["outputs"], cell["execution_count"] = [], None
    made["metadata"].pop("widgets", None)
    return made


def build_exercises(notebooks: Path, *, to: Path | None = None) -> list[Path]:
    """Writes the student version of every solution; the same bytes each time.

    Only files that are missing, or still as they were made, are written: never one that somebody worked in.

    Args:
        notebooks: The folder that holds ``solutions/``.
        to: Default: ``exercises/`` beside it.

    Raises:
        InputError: If there are no solutions, or an exercise was changed; then nothing is written.
        DataError: If a solution is damaged.
    """
    folder = to or notebooks / "exercises"
    return write_made({folder / source.name: _student_file(source) for source in _solutions(notebooks)})


def build_zip(notebooks: Path, to: Path, *, solutions: bool = False) -> Path:
    """A class's folder as one file: the lessons, fresh exercises, recorded results, and the solutions where asked for.

    Packed is what the course lists, and nothing else that lies in the folder. Exercises are made from the solutions, so
    what somebody answered stays here.

    Raises:
        InputError: If a file of the course is missing or is a link, or the zip's place is taken.
        DataError: If a file of the course is damaged.
    """
    names = [lesson["file"] for lesson in lessons(notebooks)]
    sources = {path.name: path for path in _solutions(notebooks)}
    files = {name: _plain_file(notebooks, name) for name in names}
    files |= {name: _plain_file(notebooks, name) for name in _BESIDE if (notebooks / name).exists()}
    files |= {f"exercises/{name}": _student_file(sources[name]) for name in names if name in sources}
    if solutions:
        files |= {f"solutions/{name}": _plain_file(notebooks, f"solutions/{name}") for name in names if name in sources}
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as bundle:
        for name, content in sorted(files.items()):
            entry = zipfile.ZipInfo(f"frozenkit-course/notebooks/{name}", (1980, 1, 1, 0, 0, 0))
            entry.external_attr = 0o644 << 16
            bundle.writestr(entry, content, zipfile.ZIP_DEFLATED)
        bundle.comment = contents(bundle).encode()
    return write_made({to: packed.getvalue()})[0]


def _student_file(source: Path) -> bytes:
    return signed_notebook(student_version(read_notebook(source), source.name))


def _plain_file(notebooks: Path, name: str) -> bytes:
    """The bytes of a file that lies in the course itself."""
    path = notebooks / name
    if path.resolve() != notebooks.resolve() / name or not path.is_file():
        raise InputError(f"{path} must be a file of the course itself, not a link, and must be there.")
    return path.read_bytes()


def _solutions(notebooks: Path) -> Iterator[Path]:
    found = sorted((notebooks / "solutions").glob("*.ipynb"))
    if not found:
        raise InputError(f"the course must hold solutions/*.ipynb; none are in {notebooks}.")
    yield from found
