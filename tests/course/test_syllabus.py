"""Every point of the syllabus is taught by a cell; what is made from the course is up to date."""

import json
import re
import shutil
from pathlib import Path

import pytest

import frozenkit
from frozenkit.app.cli import main
from frozenkit.course.files import signed_text
from frozenkit.course.reference import build_reference, cheatsheet, glossary
from frozenkit.course.syllabus import course_table, coverage, coverage_page, lessons, update_readme
from frozenkit.errors import DataError, InputError

ROOT = Path(__file__).parents[2]
NOTEBOOKS = ROOT / "notebooks"


def cell(lesson, name):
    notebook = json.loads((NOTEBOOKS / lesson).read_text(encoding="utf-8"))
    return next(c for c in notebook["cells"] if c["id"] == name)


def test_every_point_is_computed_by_a_cell():
    found = coverage(NOTEBOOKS)
    assert [number for number, places in found.items() if not places] == []
    for places in found.values():
        assert any(cell(*place)["cell_type"] == "code" for place in places)


def test_the_map_and_the_table_of_lessons_are_up_to_date():
    assert (NOTEBOOKS / "coverage.md").read_bytes() == signed_text(coverage_page(NOTEBOOKS)), (
        "run `frozenkit build --course`"
    )
    assert course_table(NOTEBOOKS) in (ROOT / "README.md").read_text(encoding="utf-8"), "run `frozenkit build --course`"


def test_the_table_shows_what_was_measured_within_the_budget():
    rows = json.loads((NOTEBOOKS / "results" / "budgets.json").read_text(encoding="utf-8"))["rows"]
    measured = {row["notebook"]: row for row in rows}
    for lesson in lessons(NOTEBOOKS):
        run = measured[f"notebooks/{lesson['file']}"]
        assert run["seconds"] < 60
        assert run["peak_mb"] <= lesson["peak_mb"]


def test_an_unknown_point_and_a_missing_course_are_refused(tmp_path):
    shutil.copytree(NOTEBOOKS, tmp_path / "notebooks", ignore=shutil.ignore_patterns("solutions", "exercises"))
    path = tmp_path / "notebooks" / "00_start_here.ipynb"
    path.write_text(path.read_text(encoding="utf-8").replace("teaches-1.1", "teaches-9.9"), encoding="utf-8")
    with pytest.raises(DataError, match=r"no point '9\.9'"):
        coverage(tmp_path / "notebooks")
    with pytest.raises(InputError, match=r"course\.json"):
        lessons(tmp_path)
    (tmp_path / "README.md").write_text("nothing")
    with pytest.raises(InputError, match="<!-- course -->"):
        update_readme(tmp_path / "README.md", NOTEBOOKS)


def test_only_the_table_of_a_readme_changes(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- course -->\nold\n<!-- /course -->\nafter\n")
    update_readme(readme, NOTEBOOKS)
    text = readme.read_text(encoding="utf-8")
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert text.count("](notebooks/") == 7


def test_the_glossary_has_every_name_and_a_sentence_for_it():
    rows = re.findall(r'<tr id="(\w+)"><td>.*?</td><td>(.*?)</td>', glossary())
    assert sorted(name for name, _ in rows) == sorted(frozenkit.__all__)
    assert [name for name, text in rows if len(text) < 10] == []


def test_the_cheat_sheet_is_made_from_the_tables():
    page = cheatsheet()
    for rule in (*frozenkit.HEAD_RULES["per-class"], *frozenkit.HEAD_RULES["data-size"]):
        assert rule.advice in page
    for name in ("layer_report", "domain_bound", "finetune", "load_dataset"):
        assert f"<code>{name}</code>" in page


def test_pages_need_nothing_from_outside(tmp_path):
    for path in build_reference(tmp_path):
        assert not re.search(r"""(src|href)=["']https?://|@import|url\(|<link""", path.read_text(encoding="utf-8"))


def test_build_keeps_everything_up_to_date(tmp_path, monkeypatch, capsys):
    shutil.copytree(NOTEBOOKS, tmp_path / "notebooks")
    shutil.copy(ROOT / "README.md", tmp_path)
    monkeypatch.chdir(tmp_path)
    assert main(["build", "--course", "--reference", "--to", "out"]) == 0
    assert (tmp_path / "README.md").read_bytes() == (ROOT / "README.md").read_bytes()
    assert (tmp_path / "notebooks" / "coverage.md").read_bytes() == (NOTEBOOKS / "coverage.md").read_bytes()
    assert {"glossary.html", "cheatsheet.html"} == {path.name for path in (tmp_path / "out").iterdir()}
    assert "coverage.md" in capsys.readouterr().out


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


def test_build_says_what_it_can_make(capsys):
    assert main(["build"]) == 2
    assert "say what to make: --handout, --slides, --zip, --reference, or --course" in capsys.readouterr().err
    assert main(["build", "--handout", "--solutions"]) == 2
    assert "`--solutions` goes with --zip" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("course.json", "{"),
        ("course.json", "[]"),
        ("course.json", '{"lessons": [{"id": "00", "file": "../secret.ipynb", "title": "t", "minutes": 1}]}'),
        ("syllabus.json", '{"1": [2]}'),
        ("syllabus.json", "\x00"),
        ("results/budgets.json", '{"rows": [{}]}'),
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
