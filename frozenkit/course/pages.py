"""Lessons as pages: a handout to read and a deck to show, each one HTML file with all that it needs inside."""

import base64
import html
import re
from functools import cache
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import tostring

from frozenkit.course.files import read_notebook, signed_text, write_made
from frozenkit.errors import InputError

STYLE = """
:root { color-scheme: light dark; --ink: #1a1a1a; --soft: #5c6570; --line: #d9dee4; --page: #fff; --card: #f5f7f9;
        --mark: #0072b2; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #eceff2; --soft: #a3adb8; --line: #3a434d; --page: #14181c; --card: #1d2329; --mark: #56b4e9; } }
@media print { :root { color-scheme: light; --ink: #000; --soft: #444; --line: #bbb; --page: #fff; --card: #f3f3f3; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 17px/1.6 system-ui, sans-serif; }
main { max-width: 60rem; margin: 0 auto; padding: 2.5rem 1.5rem 4rem; }
h1 { font-size: 2.2rem; line-height: 1.2; } h2 { font-size: 1.5rem; margin-top: 2.4rem; } h3 { color: var(--mark); }
a { color: var(--mark); } blockquote { margin: 1rem 0; padding: .3rem 1.2rem; border-left: 5px solid var(--mark); }
pre { background: var(--card); padding: .8rem 1rem; border-radius: 6px; white-space: pre-wrap; font-size: .86em; }
code { font-family: ui-monospace, monospace; } p code, li code, td code { background: var(--card); padding: 0 .3em; }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .8rem; border-bottom: 1px solid var(--line); } th { color: var(--soft); }
math[display="block"] { margin: 1rem 0; font-size: 1.15em; }
img { max-width: 100%; } .figure { background: #fff; border-radius: 6px; display: inline-block; padding: .4rem; }
.anchor-link, details.notes { display: none; } .output { margin-block: .4rem 1.2rem; overflow-x: auto; }
"""
_DECK = """
body { font-size: 24px; } main { max-width: none; padding: 0; }
section { display: none; min-height: 100vh; padding: 3.5vh 6vw 9vh; } section.shown { display: block; }
section > * { max-width: 72rem; margin-left: auto; margin-right: auto; }
nav { position: fixed; bottom: 0; right: 0; padding: .6rem 1.2rem; color: var(--soft); font-size: .8rem; }
nav button { font: inherit; color: inherit; background: var(--card); border: 1px solid var(--line); border-radius: 6px;
             padding: .3rem .9rem; }
@media print { section { display: block; page-break-after: always; } nav { display: none; } }
"""
_KEYS = """
const slides = [...document.querySelectorAll("section")];
const place = document.getElementById("place");
let at = Math.min(slides.length - 1, Math.max(0, Number(location.hash.slice(1)) - 1 || 0));
const show = (next) => {
  at = Math.min(slides.length - 1, Math.max(0, next));
  slides.forEach((slide, i) => slide.classList.toggle("shown", i === at));
  place.textContent = `${at + 1} / ${slides.length}`;
  history.replaceState(null, "", `#${at + 1}`);
  window.scrollTo(0, 0);
};
const step = { ArrowRight: 1, PageDown: 1, " ": 1, ArrowLeft: -1, PageUp: -1 };
document.addEventListener("keydown", (event) => {
  if (event.key in step) { event.preventDefault(); show(at + step[event.key]); }
  if (event.key === "Home") show(0);
  if (event.key === "End") show(slides.length - 1);
});
document.getElementById("back").onclick = () => show(at - 1);
document.getElementById("on").onclick = () => show(at + 1);
show(at);
"""

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def handout(path: Path) -> str:
    """One lesson as a page to read or print: prose, code, figures and tables, without lecturers' notes."""
    notebook = _read(path)
    shown = [cell for cell in notebook.cells if _slide_type(cell) != "notes"]
    body = "\n".join(_cell(cell, path.parent) for cell in shown)
    return page(_title(notebook), STYLE, f"<main>{body}</main>")


def slides(path: Path) -> str:
    """One lesson as a deck, by its slide types: arrows, page keys and a presenter's remote move it."""
    notebook = _read(path)
    parts: list[list[str]] = []
    for cell in notebook.cells:
        kind = _slide_type(cell)
        if kind in ("notes", "skip"):
            continue
        if kind in ("slide", "subslide") or not parts:
            parts.append([])
        parts[-1].append(_cell(cell, path.parent))
    sections = "\n".join(f"<section>{''.join(part)}</section>" for part in parts)
    buttons = '<button id="back" aria-label="back">←</button> <button id="on" aria-label="on">→</button>'
    nav = f'<nav aria-label="slides">{buttons} <span id="place" role="status"></span></nav>'
    return page(_title(notebook), STYLE + _DECK, f"<main>{sections}</main>{nav}<script>{_KEYS}</script>")


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
    from nbformat import from_dict
    from nbformat.v4.rwbase import rejoin_lines

    return rejoin_lines(from_dict(read_notebook(path)))


def _title(notebook: Any) -> str:
    first = notebook.cells[0].source.splitlines()[0] if notebook.cells else ""
    return first.lstrip("# ") or "frozenkit"


def _slide_type(cell: Any) -> str:
    return cell.metadata.get("slideshow", {}).get("slide_type", "-")


def _cell(cell: Any, folder: Path) -> str:
    if cell.cell_type == "markdown":
        return _markdown(cell.source)
    parts = [f"<pre><code>{html.escape(cell.source)}</code></pre>"]
    parts += [_output(output) for output in cell.get("outputs", [])]
    return "\n".join(parts)


def _markdown(source: str) -> str:
    # Lessons link to one another; so do their pages.
    made = re.sub(r'href="([^":#]+)\.ipynb"', r'href="\1.html"', _markdown_renderer().render(source))
    return re.sub(r"<a[^>]*anchor-link[^>]*>.*?</a>", "", made)


@cache
def _markdown_renderer() -> Any:
    """Markdown to HTML as nbconvert does it, with formulas as MathML: browsers typeset it without a script."""
    from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

    class Renderer(IPythonRenderer):
        def block_math(self, body: str) -> str:
            return _formula(body, "block")

        def inline_math(self, body: str) -> str:
            return _formula(body, "inline")

        def latex_environment(self, name: str, body: str) -> str:
            return _formula(rf"\begin{{{name}}}{body}\end{{{name}}}", "block")

    return MarkdownWithMath(renderer=Renderer(escape=False))


def _formula(tex: str, display: str) -> str:
    """TeX as MathML; what is no TeX stays as it was written."""
    from latex2mathml.converter import convert_to_element

    try:
        made = convert_to_element(tex.strip(), display=display)
    except Exception:  # its errors have no common base
        return f"<code>{html.escape(tex)}</code>"
    for part in made.iter():
        part.text = html.unescape(part.text or "")  # signs are written as references there
    return tostring(made, encoding="unicode")


def _output(output: Any) -> str:
    data = output.get("data", {})
    if "image/png" in data:
        picture = f"data:image/png;base64,{base64.b64encode(base64.b64decode(data['image/png'])).decode()}"
        alt = html.escape(data.get("text/plain", "figure").strip("<>"), quote=True)
        return f'<div class="output"><span class="figure"><img alt="{alt}" src="{picture}"></span></div>'
    if "text/html" in data:
        return f'<div class="output">{data["text/html"]}</div>'
    text = output.get("text") or data.get("text/plain") or "\n".join(output.get("traceback", []))
    plain = _COLOUR.sub("", text).replace("⟦", "").replace("⟧", "")  # a terminal's colours, a test's marks
    return f'<pre class="output">{html.escape(plain)}</pre>'


def page(title: str, style: str, body: str) -> str:
    """One HTML document with its style inside."""
    head = (
        f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{html.escape(title)}</title>'
    )
    return f'<!doctype html><html lang="en"><head>{head}<style>{style}</style></head><body>{body}</body></html>\n'
