"""What the course teaches and where: the table of lessons in the README, and which cell teaches which point."""

import json
import re
from pathlib import Path
from typing import Any

from frozenkit.errors import DataError, InputError

_TABLE = re.compile(r"(<!-- course -->\n).*?(<!-- /course -->)", re.DOTALL)
_TAG = "teaches-"


def lessons(notebooks: Path) -> list[dict[str, Any]]:
    """The entries of ``course.json``, in order.

    Raises:
        InputError: If there is no such file.
    """
    path = notebooks / "course.json"
    if not path.is_file():
        raise InputError(f"the course must hold course.json; it is not in {notebooks}.")
    found: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["lessons"]
    return found


def course_table(notebooks: Path) -> str:
    """The lessons as a Markdown table: question, minutes to read, and what a run was last measured to take."""
    recorded = notebooks / "results" / "budgets.json"
    rows = json.loads(recorded.read_text(encoding="utf-8"))["rows"] if recorded.is_file() else []
    runs = {row["notebook"]: row for row in rows}
    lines = ["| lesson | question | minutes to read | runs in | peak memory |", "|---|---|---|---|---|"]
    for lesson in lessons(notebooks):
        run = runs.get(f"{notebooks.name}/{lesson['file']}")
        measured = f"{run['seconds']:.0f} s | {run['peak_mb'] / 1000:.1f} GB" if run else "– | –"
        title = f"[{lesson['id']} {lesson['title']}]({notebooks.name}/{lesson['file']})"
        lines.append(f"| {title} | {_question(notebooks / lesson['file'])} | {lesson['minutes']} | {measured} |")
    return "\n".join(lines) + "\n"


def update_readme(readme: Path, notebooks: Path) -> Path:
    """Puts the table between its marks; everything else stays.

    Raises:
        InputError: If the marks are not there.
    """
    text = readme.read_text(encoding="utf-8")
    made, count = _TABLE.subn(lambda found: found[1] + course_table(notebooks) + found[2], text)
    if count != 1:
        raise InputError(f"{readme} must hold <!-- course --> and <!-- /course --> once.")
    readme.write_text(made, encoding="utf-8")
    return readme


def coverage(notebooks: Path) -> dict[str, list[tuple[str, str]]]:
    """Point of the syllabus → the cells that teach it, as (lesson file, cell id).

    A cell says what it teaches by tags such as ``teaches-2.3``; ``syllabus.json`` lists the points.

    Raises:
        DataError: If a tag names no point.
    """
    points = [number for section in _syllabus(notebooks).values() for number in section]
    found: dict[str, list[tuple[str, str]]] = {number: [] for number in points}
    for lesson in lessons(notebooks):
        for cell in _read(notebooks / lesson["file"])["cells"]:
            for tag in cell["metadata"].get("tags", []):
                if not tag.startswith(_TAG):
                    continue
                number = tag.removeprefix(_TAG)
                if number not in found:
                    raise DataError(f"{lesson['file']}, cell {cell['id']!r}: the syllabus has no point {number!r}.")
                found[number].append((lesson["file"], cell["id"]))
    return found


def write_coverage(notebooks: Path) -> Path:
    """Writes ``coverage.md`` beside the lessons."""
    path = notebooks / "coverage.md"
    path.write_text(coverage_page(notebooks), encoding="utf-8")
    return path


def coverage_page(notebooks: Path) -> str:
    """The syllabus as Markdown: every point, with the lesson and the cell that computes it."""
    found = coverage(notebooks)
    lines = ["# What is taught where", "", "Made by `frozenkit build` from the tags of the lessons' cells."]
    for section, points in _syllabus(notebooks).items():
        lines += ["", f"## {section}", "", "| point | | lesson and cell |", "|---|---|---|"]
        for number, text in points.items():
            places = ", ".join(f"[{file[:2]}]({file}) `{cell}`" for file, cell in found[number]) or "–"
            lines.append(f"| {number} | {text} | {places} |")
    return "\n".join(lines) + "\n"


def _syllabus(notebooks: Path) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = json.loads((notebooks / "syllabus.json").read_text(encoding="utf-8"))
    return found


def _read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _question(path: Path) -> str:
    """The one question that a lesson opens with, in bold."""
    opening = "".join(_read(path)["cells"][0]["source"])
    asked = re.search(r"\*\*(.+?)\*\*", opening, re.DOTALL)
    return " ".join(asked[1].split()) if asked else ""
