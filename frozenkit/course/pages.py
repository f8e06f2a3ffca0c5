"""Lessons as pages: a handout to read and a deck to show, each one HTML file with all that it needs inside."""

import base64
import html
import re
from functools import cache
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import tostring

from markupsafe import Markup

from frozenkit._outputs import render
from frozenkit.course.files import read_notebook, signed_text, write_made
from frozenkit.errors import InputError, require

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def handout(path: Path) -> str:
    """One lesson as a page to read or print: prose, code, figures and tables, without lecturers' notes."""
    notebook = _read(path)
    shown = [cell for cell in notebook.cells if _slide_type(cell) != "notes"]
    return render("course/handout.html", title=_title(notebook), cells=map(_cell, shown))


def slides(path: Path) -> str:
    """One lesson as a deck, by its slide types: arrows, page keys and a presenter's remote move it."""
    notebook = _read(path)
    parts: list[list[dict[str, Any]]] = []
    for cell in notebook.cells:
        kind = _slide_type(cell)
        if kind in ("notes", "skip"):
            continue
        if kind in ("slide", "subslide") or not parts:
            parts.append([])
        parts[-1].append(_cell(cell))
    return render("course/slides.html", title=_title(notebook), slides=parts)


def build_pages(notebooks: Path, to: Path, *, deck: bool) -> list[Path]:
    """Writes the handout, or the deck, of every lesson into a folder.

    Raises:
        InputError: If there are no lessons, or somebody changed a page that is there.
        DataError: If a lesson is damaged.
    """
    lessons = sorted(notebooks.glob("*.ipynb"))
    if not lessons:
        raise InputError(f"the course must hold lessons; none are in {notebooks}.")
    make, ending = (slides, "-slides") if deck else (handout, "")
    return write_made({to / f"{lesson.stem}{ending}.html": signed_text(make(lesson)) for lesson in lessons})


def _read(path: Path) -> Any:
    cells = require("nbformat", "course").from_dict(read_notebook(path))
    return require("nbformat.v4.rwbase", "course").rejoin_lines(cells)


def _title(notebook: Any) -> str:
    first = notebook.cells[0].source.splitlines()[0] if notebook.cells else ""
    return first.lstrip("# ") or "frozenkit"


def _slide_type(cell: Any) -> str:
    return cell.metadata.get("slideshow", {}).get("slide_type", "-")


def _cell(cell: Any) -> dict[str, Any]:
    """What a page shows of a cell: its prose as HTML, or its code and outputs."""
    if cell.cell_type == "markdown":
        return {"prose": Markup(_markdown(cell.source))}
    return {"code": cell.source, "outputs": list(map(_output, cell.get("outputs", [])))}


def _markdown(source: str) -> str:
    # Lessons link to one another; so do their pages.
    made = re.sub(r'href="([^":#]+)\.ipynb"', r'href="\1.html"', _markdown_renderer().render(source))
    return re.sub(r"<a[^>]*anchor-link[^>]*>.*?</a>", "", made)


@cache
def _markdown_renderer() -> Any:
    """Markdown to HTML as nbconvert does it, with formulas as MathML: browsers typeset it without a script."""
    mistune = require("nbconvert.filters.markdown_mistune", "course")

    class Renderer(mistune.IPythonRenderer):  # type: ignore[name-defined]
        def block_math(self, body: str) -> str:
            return _formula(body, "block")

        def inline_math(self, body: str) -> str:
            return _formula(body, "inline")

        def latex_environment(self, name: str, body: str) -> str:
            return _formula(rf"\begin{{{name}}}{body}\end{{{name}}}", "block")

    return mistune.MarkdownWithMath(renderer=Renderer(escape=False))


def _formula(tex: str, display: str) -> str:
    """TeX as MathML; what is no TeX stays as it was written."""
    converter = require("latex2mathml.converter", "course")
    try:
        made = converter.convert_to_element(tex.strip(), display=display)
    except Exception:  # its errors have no common base
        return f"<code>{html.escape(tex)}</code>"
    for part in made.iter():
        part.text = html.unescape(part.text or "")  # signs are written as references there
    return tostring(made, encoding="unicode")


def _output(output: Any) -> dict[str, Any]:
    data = output.get("data", {})
    if "image/png" in data:
        image = base64.b64encode(base64.b64decode(data["image/png"])).decode()  # nothing but base64
        return {"image": image, "alt": data.get("text/plain", "figure").strip("<>")}
    if "text/html" in data:
        return {"html": Markup(data["text/html"])}
    text = output.get("text") or data.get("text/plain") or "\n".join(output.get("traceback", []))
    return {"text": _COLOUR.sub("", text).replace("⟦", "").replace("⟧", "")}  # a terminal's colours, a test's marks
