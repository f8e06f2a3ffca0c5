"""The student's notebooks, made from the solutions: written once, so that the two can never say different things.

A solution cell marks what the student is to write::

    ### begin solution: answer = ...
    probe = fit_probe(train)
    answer = probe.score(test)
    ### end solution

In the student's version only the line after the colon is left, and the cell's metadata keeps it. Everything else, cell
ids included, stays the same.
"""

import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from frozenkit.errors import DataError, InputError

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

    Args:
        notebooks: The folder that holds ``solutions/``.
        to: Default: ``exercises/`` beside it.

    Raises:
        InputError: If there are no solutions.
    """
    made = []
    for source in _solutions(notebooks):
        target = (to or notebooks / "exercises") / source.name
        target.parent.mkdir(parents=True, exist_ok=True)
        student = student_version(json.loads(source.read_text(encoding="utf-8")), source.name)
        target.write_text(json.dumps(student, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        made.append(target)
    return made


def build_zip(notebooks: Path, to: Path, *, solutions: bool = False) -> Path:
    """A class's folder as one file: lessons, exercises, recorded results, and the solutions where asked for."""
    kept = {"exercises", "results"} | ({"solutions"} if solutions else set())
    to.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(to, "w", zipfile.ZIP_DEFLATED) as bundle:
        for path in sorted(notebooks.rglob("*")):
            inside = path.relative_to(notebooks)
            wanted = len(inside.parts) == 1 or inside.parts[0] in kept
            if path.is_file() and wanted and ".ipynb_checkpoints" not in inside.parts:
                bundle.write(path, Path("frozenkit-course") / "notebooks" / inside)
    return to


def _solutions(notebooks: Path) -> Iterator[Path]:
    found = sorted((notebooks / "solutions").glob("*.ipynb"))
    if not found:
        raise InputError(f"the course must hold solutions/*.ipynb; none are in {notebooks}.")
    yield from found
