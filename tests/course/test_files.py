"""Files of the course: damaged ones are named, changed ones left alone."""

import shutil
from pathlib import Path

import pytest

from frozenkit.app.cli import main

ROOT = Path(__file__).parents[2]
NOTEBOOKS = ROOT / "notebooks"


@pytest.mark.parametrize("changed", ["notebooks/coverage.md", "out/glossary.html"])
def test_a_map_or_a_page_that_somebody_changed_is_left_alone(tmp_path, monkeypatch, capsys, changed):
    shutil.copytree(NOTEBOOKS, tmp_path / "notebooks")
    monkeypatch.chdir(tmp_path)
    words = ["build", "--course", "--reference", "--to", "out"]
    assert main(words) == 0
    mine = (tmp_path / changed).read_bytes().replace(b"</h1>", b" (mine)</h1>").replace(b"| 1.1 |", b"| 1.1! |")
    (tmp_path / changed).write_bytes(mine)
    assert main(words) == 2
    assert changed.split("/")[1] in capsys.readouterr().err
    assert (tmp_path / changed).read_bytes() == mine


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("course.json", "{"),
        ("course.json", "[]"),
        ("course.json", '{"lessons": [{"id": "00", "file": "../secret.ipynb", "title": "t", "minutes": 1}]}'),
        ("syllabus.json", '{"1": [2]}'),
        ("syllabus.json", "\x00"),
        ("00_start_here.ipynb", "{}"),
        ("solutions/00_start_here.ipynb", '{"cells": [{}], "metadata": {}}'),
    ],
)
def test_a_damaged_file_of_the_course_is_named(tmp_path, monkeypatch, capsys, name, text):
    shutil.copytree(NOTEBOOKS, tmp_path / "notebooks")
    (tmp_path / "README.md").write_text("<!-- course -->\n<!-- /course -->")
    (tmp_path / "notebooks" / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    assert main(["build", "--course"]) == 2
    err = capsys.readouterr().err
    assert name.split("/")[-1] in err
    assert "Error:" not in err  # no name of a Python exception
