"""Handouts and decks: whole without a network, notes left out, one section a slide."""

import json
import re
from pathlib import Path

import nbformat
import pytest

from frozenkit.app.cli import main
from frozenkit.course.pages import build_pages, handout, slides
from frozenkit.errors import DataError, InputError

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
LESSONS = sorted(NOTEBOOKS.glob("*.ipynb"))


@pytest.mark.parametrize("make", [handout, slides])
@pytest.mark.parametrize("path", LESSONS, ids=lambda p: p.name)
def test_a_page_needs_nothing_from_outside(path, make):
    page = make(path)
    # A link that a reader may follow is no need of the page.
    assert not re.search(r"""src=["']https?://|<(?!a\b)[^>]*href=["']https?://|@import|url\(|<link""", page)
    assert "For lecturers" not in page
    figures = sum("image/png" in o.get("data", {}) for c in nbformat.read(path, 4).cells for o in c.get("outputs", []))
    assert page.count("data:image/png") == figures


def prose(page):
    """What a page shows as text, without code and outputs."""
    return re.sub(r"<(style|script|pre|code|annotation)\b.*?</\1>|<[^>]*>", "", page, flags=re.DOTALL)


@pytest.mark.parametrize("make", [handout, slides])
@pytest.mark.parametrize("path", LESSONS, ids=lambda p: p.name)
def test_formulas_are_typeset(path, make):
    assert re.findall(r"\$|\\[a-z(\[]+", prose(make(path))) == []


def lesson(folder, *sources):
    cells = [nbformat.v4.new_markdown_cell(source) for source in sources]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), folder / "x.ipynb")
    return folder / "x.ipynb"


@pytest.mark.parametrize(
    ("tex", "shown"),
    [
        ("a $f(x)$ b", '<math xmlns="http://www.w3.org/1998/Math/MathML" display="inline">'),
        ("$$\nX^\\top X = \\sum_{\\text{a<b}} X_c\n$$", "<mtext>a&lt;b</mtext>"),
        ("text $$\\varphi$$ text", "<mi>φ</mi>"),
        ("\\begin{align*}\na &= b\n\\end{align*}", "<mtable"),
        ("$\\text{<img src=x onerror=alert(1)>}$", "&lt;img"),
        ("$a_b_c$ and <b>bold</b>", "<code>a_b_c</code>"),  # no TeX: as it was written
    ],
)
def test_a_formula_becomes_mathml(tmp_path, tex, shown):
    page = handout(lesson(tmp_path, "# T", tex))
    assert shown in page
    assert "$" not in prose(page)
    assert "<img" not in page


def test_raw_formulas_would_be_seen():
    assert re.findall(r"\$|\\[a-z(\[]+", prose(r"<p>$$f(\varphi)$$</p><pre>$ ls \x</pre>")) == [
        "$",
        "$",
        r"\varphi",
        "$",
        "$",
    ]


def test_a_deck_has_a_section_a_slide():
    path = LESSONS[1]
    kinds = [c.metadata.get("slideshow", {}).get("slide_type", "-") for c in nbformat.read(path, 4).cells]
    assert slides(path).count("<section>") == sum(kind in ("slide", "subslide") for kind in kinds)


def test_text_from_a_notebook_stays_text(tmp_path):
    bad = nbformat.v4.new_output("stream", name="stdout", text="<img src=x onerror=alert(1)>")
    cells = [nbformat.v4.new_markdown_cell("# T"), nbformat.v4.new_code_cell("a < b", outputs=[bad])]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "x.ipynb")
    page = handout(tmp_path / "x.ipynb")
    assert "<img src=x" not in page
    assert "a &lt; b" in page


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda cell: cell["outputs"][0]["data"].update({"image/png": "abc"}), "outputs that are none"),
        (lambda cell: cell["outputs"].append("x"), "outputs that are none"),
        (lambda cell: cell.update(source=3), "no source"),
        (lambda cell: cell.update(metadata=None), "no metadata"),
        (lambda cell: cell["metadata"].update(tags=[1]), "tags that are not words"),
        (lambda cell: cell["metadata"].update(slideshow=1), "no slide type"),
        (lambda cell: cell.update(cell_type="poem"), "neither code nor prose"),
    ],
)
def test_a_damaged_lesson_is_named(tmp_path, damage, reason):
    notebook = json.loads(LESSONS[0].read_text(encoding="utf-8"))
    place, cell = next((i, c) for i, c in enumerate(notebook["cells"]) if "image/png" in str(c.get("outputs")))
    damage(cell)
    (tmp_path / "00.ipynb").write_text(json.dumps(notebook))
    with pytest.raises(DataError, match=rf"00\.ipynb is damaged: cell {place} (has|is) {reason}\. Put back"):
        handout(tmp_path / "00.ipynb")


def test_the_command_makes_what_it_is_asked_for(tmp_path, monkeypatch, capsys):
    import shutil

    shutil.copytree(NOTEBOOKS, tmp_path / "notebooks", ignore=shutil.ignore_patterns("*.part"))
    monkeypatch.chdir(tmp_path)
    assert main(["build", "--handout", "--slides", "--zip", "--to", "out"]) == 0
    made = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"00_start_here.html", "00_start_here-slides.html", "frozenkit-course.zip"} <= made
    assert len(capsys.readouterr().out.splitlines()) == 2 * len(LESSONS) + 1
    with pytest.raises(InputError, match="must hold lessons"):
        build_pages(tmp_path / "out", tmp_path, deck=False)
