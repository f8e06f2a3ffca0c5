"""The course panel and the lecture mode, in JupyterLab and in Notebook 7, by keyboard."""

import json
import shutil
from contextlib import contextmanager
from pathlib import Path

import pytest

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
PROGRESS = "frozenkit-progress"


@pytest.fixture(scope="module")
def course(jupyter):
    """A copy of the course where the server serves it."""
    _, _, folder = jupyter
    target = folder / "notebooks"
    shutil.copytree(NOTEBOOKS, target, ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    return target


@pytest.fixture
def visit(course, open_page):
    """``with visit(path, app="lab", storage=None) as notebook``: a notebook of the course, in a browser of its own."""

    @contextmanager
    def opened(path, app="lab", storage=None, width=1500):
        with open_page(f"notebooks/{path}", app=app, storage=storage, width=width) as notebook:
            yield notebook

    return opened


def panel(notebook):
    """The course panel, brought up by its command."""
    notebook.page.evaluate("() => jupyterapp.commands.execute('frozenkit:open')")
    found = notebook.page.get_by_role("region", name="frozenkit course")
    found.get_by_role("heading", name="Frozen feature transfer").wait_for()
    return found


@pytest.mark.parametrize("app", ["lab", "notebook"])
def test_the_map_shows_the_course(visit, screenshots, app):
    with visit("exercises/02_layers.ipynb", app=app) as notebook:
        found = panel(notebook)
        lessons = json.loads((NOTEBOOKS / "course.json").read_text())["lessons"]
        for lesson in lessons:
            found.get_by_role("button", name=f"{lesson['id']} {lesson['title']}").wait_for()
        notebook.page.screenshot(path=screenshots / f"course-{app}.png")
        assert notebook.traffic.hosts == {"127.0.0.1"}
        if app == "lab":
            assert notebook.traffic.errors == []
