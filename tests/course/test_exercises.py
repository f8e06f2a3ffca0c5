"""Exercises: solutions pass, students' versions stop at exactly their blanks."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from frozenkit.course.checks import exercises
from frozenkit.course.student import build_exercises

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
