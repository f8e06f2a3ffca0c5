"""Students' versions: no blank leaks, and nobody's answers are touched."""

import json
import shutil
import zipfile
from pathlib import Path

import nbformat
import pytest

from frozenkit.app.cli import main
from frozenkit.course.student import build_exercises, build_zip, student_version
from frozenkit.errors import DataError, InputError

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
SOLUTIONS = sorted((NOTEBOOKS / "solutions").glob("*.ipynb"))


def test_the_students_versions_in_the_repository_are_those_of_the_solutions(tmp_path):
    for made in build_exercises(NOTEBOOKS, to=tmp_path):
        kept = NOTEBOOKS / "exercises" / made.name
        assert kept.read_bytes() == made.read_bytes(), f"run `frozenkit build --course`: {made.name} is not up to date"
    twice = [p.read_bytes() for p in build_exercises(NOTEBOOKS, to=tmp_path)]
    assert twice == [p.read_bytes() for p in build_exercises(NOTEBOOKS, to=tmp_path)]


def inside_blanks(source):
    """(lines between the marks, lines outside them)."""
    inside, outside, now = [], [], False
    for line in source.splitlines():
        if line.strip().startswith("### begin solution"):
            now = True
        elif line.strip().startswith("### end solution"):
            now = False
        elif line.strip():
            (inside if now else outside).append(line)
    return inside, outside


def leaks(solution, student):
    """Lines that only a solution has and that the student's version shows all the same."""
    parts = [inside_blanks("".join(c["source"])) for c in solution["cells"] if c["cell_type"] == "code"]
    known = {line for _, outside in parts for line in outside}
    shown = {line for c in student["cells"] for line in "".join(c["source"]).splitlines()}
    return [line for inside, _ in parts for line in inside if line in shown - known]


@pytest.mark.parametrize("path", SOLUTIONS, ids=lambda p: p.name)
def test_no_blank_leaks_its_answer(path):
    solution = json.loads(path.read_text(encoding="utf-8"))
    student = student_version(solution)
    assert leaks(solution, student) == []
    assert [c["id"] for c in solution["cells"]] == [c["id"] for c in student["cells"]]
    assert not any(c.get("outputs") for c in student["cells"])
    damaged = json.loads(json.dumps(student))
    blank = next(c for c in solution["cells"] if "solution" in c["metadata"].get("tags", []))
    damaged["cells"].append({"cell_type": "code", "source": blank["source"]})
    assert leaks(solution, damaged)  # and a leak would be seen


def test_a_solution_that_is_marked_wrongly_is_refused():
    def notebook(source, tags):
        return {
            "cells": [{"cell_type": "markdown", "id": "x", "metadata": {"tags": tags}, "source": [source]}],
            "metadata": {},
        }

    with pytest.raises(DataError, match="go together"):
        student_version(notebook("answer = 1", ["solution"]))
    with pytest.raises(DataError, match="go together"):
        student_version(notebook("### begin solution: a = ...\na = 1\n### end solution", []))
    with pytest.raises(DataError, match="no counterpart"):
        student_version(notebook("### begin solution: a = ...\na = 1", []))


def everything(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def answer(folder):
    """Type an answer into the first exercise, as JupyterLab would save it."""
    path = folder / "notebooks" / "exercises" / "00_start_here.ipynb"
    notebook = nbformat.read(path, as_version=4)
    cell = next(c for c in notebook.cells if "= ..." in c.source)
    cell.source = cell.source.replace("...", "'my answer'")
    nbformat.write(notebook, path)
    assert b"my answer" in path.read_bytes()
    return path


@pytest.mark.parametrize("option", [None, "--handout", "--slides", "--zip", "--reference", "--course"])
def test_no_way_to_build_touches_an_answer(tmp_path, monkeypatch, capsys, option):
    shutil.copytree(NOTEBOOKS, tmp_path / "notebooks")
    monkeypatch.chdir(tmp_path)
    path = answer(tmp_path)
    before = everything(tmp_path / "notebooks")
    status = main(["build", *filter(None, [option]), "--to", str(tmp_path / "out")])
    assert everything(tmp_path / "notebooks") == before
    assert status == (2 if option in (None, "--course") else 0)
    err = capsys.readouterr().err
    assert (path.name in err and "maybe somebody's work" in err) == (option == "--course")


def test_an_exercise_is_made_anew_only_while_nobody_touched_it(tmp_path):
    shutil.copytree(NOTEBOOKS / "solutions", tmp_path / "solutions")
    (first, *_) = build_exercises(tmp_path)
    solution = tmp_path / "solutions" / first.name
    solution.write_text(solution.read_text(encoding="utf-8").replace("#", "##", 1), encoding="utf-8")
    old = first.read_bytes()
    build_exercises(tmp_path)
    assert first.read_bytes() != old  # as it was made: the author's change comes through
    ran = json.loads(first.read_bytes())
    next(c for c in ran["cells"] if c["cell_type"] == "code")["outputs"] = [
        {"output_type": "stream", "name": "stdout", "text": ["1"]}
    ]
    first.write_text(json.dumps(ran))
    with pytest.raises(InputError, match=rf"nothing was written.*{first.name}.*Move it away"):
        build_exercises(tmp_path)
    first.unlink()
    first.symlink_to(tmp_path / "elsewhere.ipynb")
    with pytest.raises(InputError, match="nothing was written"):
        build_exercises(tmp_path)


def names_in(path):
    with zipfile.ZipFile(path) as bundle:
        assert bundle.testzip() is None
        return sorted(name.removeprefix("frozenkit-course/notebooks/") for name in bundle.namelist())


def test_a_class_gets_one_file_without_the_solutions(tmp_path):
    lessons = [path.name for path in SOLUTIONS]
    tracked = {path.relative_to(NOTEBOOKS).as_posix() for path in NOTEBOOKS.glob("results/*.json")}
    expected = {*lessons, *(f"exercises/{name}" for name in lessons), "course.json", "syllabus.json", "coverage.md"}
    assert set(names_in(build_zip(NOTEBOOKS, tmp_path / "class.zip"))) == expected | tracked
    whole = names_in(build_zip(NOTEBOOKS, tmp_path / "all.zip", solutions=True))
    assert set(whole) == expected | tracked | {f"solutions/{name}" for name in lessons}
    with pytest.raises(InputError, match="none are in"):
        build_exercises(tmp_path)


def test_the_zip_packs_the_course_alone_and_never_itself(tmp_path, monkeypatch):
    notebooks = tmp_path / "notebooks"
    shutil.copytree(NOTEBOOKS, notebooks)
    monkeypatch.chdir(tmp_path)
    expected = names_in(build_zip(notebooks, tmp_path / "clean.zip"))
    for name in (".env", "grades.csv", "results/grades.json", "exercises/anna.ipynb", "07_mine.ipynb", ".x.ipynb"):
        (notebooks / name).write_text("secret")
    (notebooks / "shadow").symlink_to("/etc/shadow")
    (notebooks / "results" / "loop").symlink_to(notebooks)
    answer(tmp_path)
    for _ in range(2):
        assert main(["build", "--zip", "--to", "notebooks"]) == 0
        assert names_in(notebooks / "frozenkit-course.zip") == expected
        with zipfile.ZipFile(notebooks / "frozenkit-course.zip") as bundle:
            assert not any(b"secret" in bundle.read(n) or b"my answer" in bundle.read(n) for n in bundle.namelist())
    assert sorted(notebooks.glob(".frozenkit-*")) == []
    with zipfile.ZipFile(notebooks / "frozenkit-course.zip", "a") as bundle:
        bundle.writestr("mine.txt", "added by a lecturer")
    assert main(["build", "--zip", "--to", "notebooks"]) == 2
    assert "mine.txt" in zipfile.ZipFile(notebooks / "frozenkit-course.zip").namelist()


@pytest.mark.parametrize("name", ["01_theory.ipynb", "results/heads.json", "results"])
def test_a_link_in_the_course_is_not_packed(tmp_path, name):
    shutil.copytree(NOTEBOOKS, tmp_path / "notebooks")
    (tmp_path / "notebooks" / name).rename(tmp_path / "elsewhere")
    (tmp_path / "notebooks" / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="must be a file of the course itself, not a link"):
        build_zip(tmp_path / "notebooks", tmp_path / "class.zip")
    assert not (tmp_path / "class.zip").exists()
