"""Every point of the syllabus is taught by a cell; what is made from the course is up to date."""

import json
import re
import shutil
from pathlib import Path

import pytest

from frozenkit.app.cli import main
from frozenkit.course.files import signed_text
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


def test_a_lesson_takes_no_more_than_it_and_the_readme_say():
    promised = re.search(r"the lessons take one to (\w+) minutes", (ROOT / "README.md").read_text(encoding="utf-8"))
    rows = json.loads((NOTEBOOKS / "results" / "budgets.json").read_text(encoding="utf-8"))["rows"]
    measured = {row["notebook"]: row for row in rows}
    for lesson in lessons(NOTEBOOKS):
        run = measured[f"notebooks/{lesson['file']}"]
        assert run["seconds"] <= 60 * {"two": 2, "three": 3}[promised[1]]
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


def test_build_keeps_everything_up_to_date(tmp_path, monkeypatch, capsys):
    shutil.copytree(NOTEBOOKS, tmp_path / "notebooks")
    shutil.copy(ROOT / "README.md", tmp_path)
    monkeypatch.chdir(tmp_path)
    assert main(["build", "--course", "--reference", "--to", "out"]) == 0
    assert (tmp_path / "README.md").read_bytes() == (ROOT / "README.md").read_bytes()
    assert (tmp_path / "notebooks" / "coverage.md").read_bytes() == (NOTEBOOKS / "coverage.md").read_bytes()
    assert {"glossary.html", "cheatsheet.html"} == {path.name for path in (tmp_path / "out").iterdir()}
    assert "coverage.md" in capsys.readouterr().out
