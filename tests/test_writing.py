"""What people read: links lead somewhere, headings are in order, figures say what they show, words are spelled."""

import itertools
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted(ROOT.glob("notebooks/**/*.ipynb"))
PAGES = [*NOTEBOOKS, *sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("notebooks/*.md"))]
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
IMAGE = re.compile(r"!\[([^\]]*)\]\(|<img(?![^>]*\balt=)")
FENCE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)


def prose(path):
    """The text that people read, without code."""
    if path.suffix == ".md":
        return FENCE.sub("", path.read_text(encoding="utf-8"))
    return "\n\n".join(c.source for c in nbformat.read(path, as_version=4).cells if c.cell_type == "markdown")


def dead_links(text, folder):
    places = [link.split("#")[0] for link in LINK.findall(text) if not link.startswith(("http", "#", "mailto:"))]
    return [place for place in places if place and not (folder / place).exists()]


def jumps(text):
    """Headings that skip a level, or a second title."""
    levels = [len(marks) for marks in re.findall(r"^(#+) ", FENCE.sub("", text), flags=re.MULTILINE)]
    found = [f"level {b} after {a}" for a, b in itertools.pairwise(levels) if b > a + 1]
    return found + (["a second title"] if levels.count(1) != 1 else [])


@pytest.mark.parametrize("path", PAGES, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_links_lead_somewhere_and_headings_are_in_order(path):
    text = prose(path)
    assert dead_links(text, path.parent) == []
    assert jumps(text) == []
    assert [alt for alt in IMAGE.findall(text) if not alt] == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_every_figure_says_what_it_shows(path):
    outputs = [o for c in nbformat.read(path, as_version=4).cells for o in c.get("outputs", [])]
    said = [o.data["text/plain"] for o in outputs if "image/png" in o.get("data", {})]
    assert [text for text in said if not text.startswith("<Figure: ")] == []


def misspelled(folder):
    command = [sys.executable, "-m", "codespell_lib", str(folder)]
    return subprocess.run(command, capture_output=True, text=True).stdout.splitlines()


def test_words_are_spelled(tmp_path):
    for path in PAGES:
        (tmp_path / f"{path.parent.name}-{path.name}.txt").write_text(prose(path), encoding="utf-8")
    for path in ROOT.glob("frozenkit/**/*.py"):
        (tmp_path / f"{path.parent.name}-{path.name}.txt").write_text(path.read_text(encoding="utf-8"))
    assert misspelled(tmp_path) == []
    (tmp_path / "wrong.txt").write_text("an accurracy of one half")
    assert len(misspelled(tmp_path)) == 1


def test_what_is_wrong_would_be_seen(tmp_path):
    assert dead_links("[a](nowhere.md) and [b](https://example.org)", tmp_path) == ["nowhere.md"]
    assert jumps("# a\n\n### c") == ["level 3 after 1"]
    assert jumps("# a\n\n## b\n\n# c") == ["a second title"]
    assert IMAGE.findall("![](x.png)") == [""]
