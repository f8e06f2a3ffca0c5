"""What the course teaches and where: the table of lessons in the README, and which cell teaches which point."""

import re
from pathlib import Path
from typing import Any

from frozenkit.course.files import read_json, read_notebook, signed_text, write_made, write_whole
from frozenkit.errors import DataError, InputError

_TABLE = re.compile(r"(<!-- course -->\n).*?(<!-- /course -->)", re.DOTALL)
_TAG = "teaches-"


def lessons(notebooks: Path) -> list[dict[str, Any]]:
    """The entries of ``course.json``, in order.

    Raises:
        InputError: If there is no such file.
        DataError: If it is damaged.
    """
    path = notebooks / "course.json"
    found = read_json(path)
    listed = found.get("lessons") if isinstance(found, dict) else None
    if not isinstance(listed, list) or not all(map(_is_lesson, listed)):
        raise DataError(
            f"{path} must list the lessons, each with its id, file, title and minutes; it does not. "
            "Put back the file that came with the course."
        )
    return listed


def _is_lesson(entry: Any) -> bool:
    if not isinstance(entry, dict) or not all(isinstance(entry.get(key), str) for key in ("id", "file", "title")):
        return False
    inside = Path(entry["file"]).name == entry["file"] and entry["file"].endswith(".ipynb")  # beside course.json
    return inside and isinstance(entry.get("minutes"), int)


def course_table(notebooks: Path) -> str:
    """The lessons as a Markdown table: question, and minutes to read."""
    lines = ["| lesson | question | minutes to read |", "|---|---|---|"]
    for lesson in lessons(notebooks):
        title = f"[{lesson['id']} {lesson['title']}]({notebooks.name}/{lesson['file']})"
        lines.append(f"| {title} | {_question(notebooks / lesson['file'])} | {lesson['minutes']} |")
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
    write_whole(readme, made.encode("utf-8"))
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
        for cell in read_notebook(notebooks / lesson["file"])["cells"]:
            for tag in cell["metadata"].get("tags", []):
                if not tag.startswith(_TAG):
                    continue
                number = tag.removeprefix(_TAG)
                if number not in found:
                    raise DataError(f"{lesson['file']}, cell {cell.get('id')!r}: the syllabus has no point {number!r}.")
                found[number].append((lesson["file"], cell.get("id", "")))
    return found


def write_coverage(notebooks: Path) -> Path:
    """Writes ``coverage.md`` beside the lessons.

    Raises:
        InputError: If somebody changed the one that is there.
    """
    return write_made({notebooks / "coverage.md": signed_text(coverage_page(notebooks))})[0]


def coverage_page(notebooks: Path) -> str:
    """The syllabus as Markdown: every point, with the lesson and the cell that computes it."""
    found = coverage(notebooks)
    lines = ["# What is taught where", "", "Made by `frozenkit build --course` from the tags of the lessons' cells."]
    for section, points in _syllabus(notebooks).items():
        lines += ["", f"## {section}", "", "| point | | lesson and cell |", "|---|---|---|"]
        for number, text in points.items():
            places = ", ".join(f"[{file[:2]}]({file}) `{cell}`" for file, cell in found[number]) or "–"
            lines.append(f"| {number} | {text} | {places} |")
    return "\n".join(lines) + "\n"


def _syllabus(notebooks: Path) -> dict[str, dict[str, str]]:
    path = notebooks / "syllabus.json"
    found = read_json(path)
    sections = list(found.values()) if isinstance(found, dict) else [None]
    if not all(isinstance(points, dict) and all(isinstance(p, str) for p in points.values()) for points in sections):
        raise DataError(
            f"{path} must list sections, each with its points. Put back the file that came with the course."
        )
    return found


def _question(path: Path) -> str:
    """The one question that a lesson opens with, in bold."""
    opening = "".join(read_notebook(path)["cells"][0]["source"])
    asked = re.search(r"\*\*(.+?)\*\*", opening, re.DOTALL)
    return " ".join(asked[1].split()) if asked else ""
