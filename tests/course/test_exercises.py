"""Exercises: solutions pass, students' versions stop at exactly their blanks, odd answers get a sentence."""

import json
import shutil
import zipfile
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from nbclient import NotebookClient

from frozenkit import advise, course
from frozenkit.app.cli import main
from frozenkit.comparison.gaps import Gap
from frozenkit.course.checks import exercises
from frozenkit.course.student import build_exercises, build_zip, student_version
from frozenkit.errors import DataError, InputError, UnknownNameError

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
SOLUTIONS = sorted((NOTEBOOKS / "solutions").glob("*.ipynb"))
NUMBERS = exercises()


def cells(path, tag):
    return [c for c in nbformat.read(path, as_version=4).cells if tag in c.metadata.get("tags", [])]


def test_every_lesson_has_exercises_and_every_exercise_a_check():
    assert [path.name for path in SOLUTIONS] == [path.name for path in sorted(NOTEBOOKS.glob("*.ipynb"))]
    asked = [f'course.check("{number}", answer_{number[-1]})' for number in NUMBERS]
    assert [cell.source for path in SOLUTIONS for cell in cells(path, "check")] == asked
    assert all(len(cells(path, "check")) >= 3 for path in SOLUTIONS)


@pytest.mark.parametrize("path", SOLUTIONS, ids=lambda p: p.name)
def test_every_solution_passes_its_check(path):
    said = [cell.outputs[0].data["text/plain"] for cell in cells(path, "check")]
    assert all(text.startswith("✓") for text in said), said


@pytest.mark.parametrize("path", SOLUTIONS, ids=lambda p: p.name)
def test_every_exercise_has_three_hints(path):
    for level in (1, 2, 3):
        assert len(cells(path, f"hint-{level}")) == len(cells(path, "check"))


@pytest.mark.parametrize("path", SOLUTIONS, ids=lambda p: p.name)
def test_the_students_version_runs_and_is_open_at_exactly_its_blanks(path, tmp_path):
    (made,) = [p for p in build_exercises(NOTEBOOKS, to=tmp_path) if p.name == path.name]
    notebook = nbformat.read(made, as_version=4)
    NotebookClient(
        notebook, kernel_name="python3", timeout=300, resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            assert output.output_type != "error"
            if "check" in cell.metadata.get("tags", []):
                assert output.data["text/plain"].startswith("…")


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


ODD = [None, "", "no", b"x", -1, 0, 1e30, float("nan"), float("inf"), True, [], {}, object(), int, lambda: 1,
       np.zeros(3), torch.zeros(2, 2), torch.tensor(-5.0), ValueError("x"), "raw pixels "]  # fmt: skip


@pytest.mark.parametrize("number", NUMBERS)
def test_a_wrong_answer_of_any_kind_gets_a_sentence(number):
    for answer in ODD:
        found = course.check(number, answer)
        assert found.state == "wrong", (number, answer)
        assert len(found.message) > 10
        assert "Traceback" not in found.message
        assert not found
    assert course.check(number).state == "open"
    assert course.check(number)._repr_html_().startswith('<div role="status"')


def test_the_first_thing_wrong_is_said_and_not_the_answer():
    assert "multiplied" in repr(course.check("03.2", 0.62246))
    assert "the sign is turned" in repr(
        course.check("05.1", __import__("frozenkit").representation_gap([0] * 8 + [1] * 2, [0] * 7 + [1] * 3, [0] * 10))
    )
    with pytest.raises(UnknownNameError, match="Did you mean '02.3'"):
        course.check("02.33", 1)


def test_advice_is_asked_for_its_evidence():
    case = {"n": 300, "similarity": "far", "gpu": False, "probe_accuracy": 0.63, "target_accuracy": 0.9}
    sure = {"interval": (0.57, 0.68)}
    assert "says little without two more numbers" in repr(course.check("06.1", advise(**case)))
    assert "says little without two more numbers" in repr(course.check("06.1", advise(**case, chance=0.6)))
    assert "'domain similarity'" in repr(course.check("06.1", advise(n=300, probe_accuracy=0.63)))
    assert course.check("06.1", advise(**case, **sure, chance=0.6))

    gap = Gap(0.06, 0.02, 0.1, 0.004, 300)
    rented = advise(**{**case, "gpu": True}, **sure, chance=0.5)
    assert rented.choice == "fine-tune"  # and yet no reason to
    assert "no evidence that it helps" in repr(course.check("06.2", rented))
    assert "half of the x-rays" in repr(course.check("06.2", advise(**case, **sure, chance=0.6, gap=gap)))
    assert "still 'measure the gap'" in repr(course.check("06.2", advise(**case, **sure, chance=0.5)))
    assert "still 'improve the probe'" in repr(
        course.check("06.2", advise(**case, chance=0.5, gap=Gap(0.02, -0.02, 0.06, 0.4, 300)))
    )
    assert course.check("06.2", advise(**case, **sure, chance=0.5, gap=gap))
    assert "can end below" in repr(course.check("06.3", "every fine-tuning run from below"))


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


@pytest.mark.parametrize("thrown", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
def test_an_answer_that_ends_the_program_is_wrong(thrown):
    class Answer:
        def __float__(self):
            raise thrown

    found = course.check("03.2", Answer())
    assert found.state == "wrong"
    assert type(thrown).__name__ in found.message
