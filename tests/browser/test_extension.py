"""The course panel and the lecture mode, in JupyterLab and in Notebook 7, by keyboard."""

import json
import shutil
import time
from pathlib import Path

import nbformat
import pytest

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
LESSONS = json.loads((NOTEBOOKS / "course.json").read_text(encoding="utf-8"))["lessons"]
EXERCISES = "exercises/02_layers.ipynb"
STORED = "frozenkit-progress"
NOTEBOOK_7_LOGS = {  # with or without us
    "Cannot read properties of undefined (reading 'schema')",
    "Command 'filebrowser:open-path' not registered.",
}
APPS = pytest.mark.parametrize("app", ["lab", "notebook"])


@pytest.fixture
def course(jupyter, open_page):
    """``course(path, …)`` opens a notebook of a fresh copy of the course; `course.folder` is where it lies."""
    _, _, served = jupyter
    folder = served / "notebooks"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(NOTEBOOKS, folder, ignore=shutil.ignore_patterns(".ipynb_checkpoints", "results"))

    def visit(path=EXERCISES, **options):
        return open_page(f"notebooks/{path}", **options)

    visit.folder = folder
    return visit


def panel(notebook):
    """The course panel, brought up by its command."""
    notebook.page.evaluate("() => jupyterapp.commands.execute('frozenkit:open')")
    found = notebook.page.get_by_role("region", name="frozenkit course")
    found.get_by_role("heading", name="Frozen feature transfer").wait_for()
    return found


def bar(notebook, exercise="02.3"):
    return notebook.page.get_by_role("group", name=f"Exercise {exercise}")


def write(notebook, cell, source):
    """What a hand would type into a cell."""
    notebook.page.evaluate(
        """([id, source]) => jupyterapp.shell.currentWidget.content.widgets
            .find((cell) => cell.model.id === id).model.sharedModel.setSource(source)""",
        [cell, source],
    )


def source(notebook, cell):
    return notebook.page.evaluate(
        """(id) => jupyterapp.shell.currentWidget.content.widgets
            .find((cell) => cell.model.id === id)?.model.sharedModel.getSource()""",
        cell,
    )


def run(notebook, *cells):
    """Run these cells, as a person would, one after the other."""
    for cell in cells:
        notebook.page.evaluate(
            """async (id) => {
                const notebook = jupyterapp.shell.currentWidget.content;
                notebook.activeCellIndex = notebook.widgets.findIndex((cell) => cell.model.id === id);
                await jupyterapp.commands.execute("notebook:run-cell");
            }""",
            cell,
        )


def kept(notebook):
    return json.loads(notebook.page.evaluate(f"localStorage.getItem('{STORED}')") or "{}")


def until_kept(notebook, holds):
    """Wait until what the browser keeps is so: typing is kept when the hand rests."""
    end = time.monotonic() + 10
    while not holds(found := kept(notebook)):
        assert time.monotonic() < end, found
        notebook.page.wait_for_timeout(100)


# --- the map ---


@APPS
def test_the_map_shows_the_course(course, screenshots, app):
    with course(app=app) as notebook:
        found = panel(notebook)
        for lesson in LESSONS:
            found.get_by_role("button", name=f"{lesson['id']} {lesson['title']}").wait_for()
        found.get_by_text(LESSONS[2]["objectives"][1]).wait_for()  # of the lesson that is open
        fold = found.get_by_role("button", name="Objectives of 05")
        fold.press("Enter")
        found.get_by_text(LESSONS[5]["objectives"][0]).wait_for()
        assert fold.evaluate("(button) => button === document.activeElement")
        notebook.page.screenshot(path=screenshots / f"course-{app}.png")
        assert notebook.traffic.hosts == {"127.0.0.1"}
        assert set(notebook.traffic.errors) <= (set() if app == "lab" else NOTEBOOK_7_LOGS)


def test_who_is_new_sees_the_map_once(course):
    with course("00_start_here.ipynb") as notebook:
        notebook.page.get_by_role("region", name="frozenkit course").wait_for()
        notebook.page.evaluate("() => (jupyterapp.shell.currentWidget.content.activeCellIndex = 3)")
        until_kept(notebook, lambda found: found.get("last"))
        notebook.page.evaluate("() => jupyterapp.shell.collapseLeft()")
        notebook.page.wait_for_timeout(1500)  # for the layout to be kept
        notebook.page.reload()
        notebook.ready()
        notebook.page.get_by_role("button", name="▷ Lecture").wait_for()
        assert notebook.page.get_by_role("region", name="frozenkit course").count() == 0


@APPS
def test_next_and_previous_lesson_from_the_toolbar(course, app):
    with course("02_layers.ipynb", app=app) as notebook:
        page = notebook.page
        page.get_by_role("button", name="‹ 01").wait_for()
        page.get_by_role("button", name="03 ›").press("Enter")
        page.get_by_role("heading", name="Which head?").wait_for()
        assert "03_heads.ipynb" in page.evaluate("jupyterapp.shell.currentWidget.context.path")


def test_launcher_card_and_help_entry_open_the_panel(course):
    with course() as notebook:
        page = notebook.page
        page.get_by_role("menuitem", name="Help", exact=True).click()
        page.get_by_role("menuitem", name="frozenkit course").click()
        page.get_by_role("region", name="frozenkit course").wait_for()
        page.evaluate(
            "() => { jupyterapp.shell.collapseLeft(); return jupyterapp.commands.execute('launcher:create'); }"
        )
        page.locator(".jp-LauncherCard", has_text="frozenkit course").press("Enter")
        page.get_by_role("region", name="frozenkit course").wait_for()


def test_it_goes_on_where_the_learner_stopped(course):
    with course("02_layers.ipynb") as notebook:
        page = notebook.page
        page.get_by_role("button", name="▷ Lecture").wait_for()
        page.evaluate("() => (jupyterapp.shell.currentWidget.content.activeCellIndex = 12)")
        cell = page.evaluate("() => jupyterapp.shell.currentWidget.content.activeCell.model.id")
        until_kept(notebook, lambda found: found.get("last", {}).get("cell") == cell)
        storage = {STORED: page.evaluate(f"localStorage.getItem('{STORED}')")}
    with course("00_start_here.ipynb", storage=storage) as notebook:
        panel(notebook).get_by_role("button", name="Continue: 02 Which layer?").press("Enter")
        notebook.page.wait_for_function(
            "(id) => jupyterapp.shell.currentWidget.content.activeCell?.model.id === id", arg=cell
        )


# --- exercises ---


@APPS
def test_an_exercise_by_keyboard(course, app):
    with course(app=app) as notebook:
        page = notebook.page
        hints = page.get_by_text("Hint", exact=False).and_(page.locator("summary"))
        for number in (1, 2, 3):
            button = bar(notebook).get_by_role("button", name=f"Hint {number} of 3")
            button.press("Enter")
            hints.locator("visible=true").nth(number - 1).wait_for()
            assert hints.locator("visible=true").count() == number
        assert page.get_by_role("paragraph").filter(has_text="asks about each training image").is_visible()
        assert kept(notebook)["hints"] == {"02.3": 3}

        bar(notebook).get_by_role("button", name="Insert the solution below").press("Enter")
        page.wait_for_function(
            "() => jupyterapp.shell.currentWidget.content.activeCell.model.sharedModel.getSource() "
            "=== 'answer_3 = \"leave-one-out\"'"
        )
        assert source(notebook, "sol3") == "answer_3 = ..."  # the learner's cell is as it was
        count = "() => jupyterapp.shell.currentWidget.content.widgets.length"
        before = page.evaluate(count)
        bar(notebook).get_by_role("button", name="Insert the solution below").press("Enter")
        page.wait_for_timeout(500)
        assert page.evaluate(count) == before  # a second time leads to the first

        write(notebook, "sol3", 'answer_3 = "leave-one-out"')
        run(notebook, "setup", "sol3", "check3")
        bar(notebook).get_by_text("✓ 02.3 right").wait_for()
        found = panel(notebook)
        found.get_by_text("Exercises (1 of 3 right)").wait_for()
        found.get_by_text("✓ Measure accuracy by depth").wait_for()
        found.get_by_text("MB in use, at most").wait_for()
        found.get_by_text("✓ weights and data are here").wait_for()
        until_kept(notebook, lambda found: found["answers"]["02"]["sol3"]["source"] == 'answer_3 = "leave-one-out"')
        page.reload()
        notebook.ready()
        bar(notebook).get_by_text("✓ 02.3 right").wait_for()


def test_a_wrong_answer_gets_no_tick(course):
    with course() as notebook:
        write(notebook, "sol3", 'answer_3 = "the test score"')
        run(notebook, "setup", "sol3", "check3")
        notebook.page.get_by_text("✗ 02.3").wait_for()
        assert kept(notebook)["checks"] == {}
        bar(notebook).get_by_text("○ 02.3 open").wait_for()


def test_start_again_keeps_what_was_there(course):
    with course() as notebook:
        write(notebook, "sol3", "answer_3 = 'mine'")
        bar(notebook).get_by_role("button", name="Start this one again").press("Enter")
        assert source(notebook, "sol3") == "answer_3 = ..."
        notebook.page.get_by_text("Your answer to 02.3 before you started again:").wait_for()
        bar(notebook).get_by_role("button", name="Put back your answer").press("Enter")
        assert source(notebook, "sol3") == "answer_3 = 'mine'"
        panel(notebook).get_by_role("button", name="Start all exercises again, and keep a copy").press("Enter")
        notebook.page.get_by_text("What you had is in").first.wait_for()
        assert source(notebook, "sol3") == "answer_3 = ..."
    (copy,) = (course.folder / "exercises").glob("02_layers-Copy*.ipynb")
    assert "answer_3 = 'mine'" in copy.read_text()


def test_a_new_browser_and_the_downloaded_file_bring_everything_back(course, tmp_path):
    with course() as notebook:
        write(notebook, "sol3", 'answer_3 = "leave-one-out"')
        run(notebook, "setup", "sol3", "check3")
        bar(notebook).get_by_text("✓ 02.3 right").wait_for()
        until_kept(notebook, lambda found: "sol3" in found["answers"].get("02", {}))
        with notebook.page.expect_download() as waiting:
            panel(notebook).get_by_role("button", name="Download", exact=True).press("Enter")
        file = tmp_path / waiting.value.suggested_filename
        waiting.value.save_as(file)
    shutil.copy(NOTEBOOKS / EXERCISES, course.folder / EXERCISES)
    with course() as notebook:
        found = panel(notebook)
        bar(notebook).get_by_text("○ 02.3 open").wait_for()
        with notebook.page.expect_file_chooser() as asked:
            found.get_by_role("button", name="Restore …").press("Enter")
        asked.value.set_files(file)
        bar(notebook).get_by_text("✓ 02.3 right").wait_for()
        assert source(notebook, "sol3") == "answer_3 = ..."  # nothing is put back unasked
        found.get_by_role("button", name="Put back 1 answer from this browser").press("Enter")
        assert source(notebook, "sol3") == 'answer_3 = "leave-one-out"'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "this file is damaged"),
        ('{"cells": []}', "does not hold progress"),
        ("[1]", "does not hold progress"),
        ('{"frozenkit": 2, "digest": "of another kind"}', "a newer frozenkit wrote this file"),
        ('{"frozenkit": 1, "checks": {"00.2": 1}, "digest": "00000000"}', "it is not what was written"),
    ],
)
def test_a_foreign_file_changes_nothing(course, tmp_path, text, words):
    file = tmp_path / "progress.json"
    file.write_text(text)
    before = '{"frozenkit": 1, "checks": {"00.1": 1}}'
    with course(storage={STORED: before}) as notebook:
        panel(notebook).locator("input[type=file]").set_input_files(file)
        notebook.page.get_by_text(words).first.wait_for()
        assert kept(notebook)["checks"] == {"00.1": 1}


def test_hostile_progress_stays_text(course, tmp_path):
    name = "<img src=x onerror=document.title='broken'>"
    answer = {"source": name, "at": 1, "older": []}
    hostile = {
        "frozenkit": 1,
        "checks": {name: 1},
        "answers": {"02": {"sol3": answer, "gone": answer}},
        "last": {name: 1},
    }
    file = tmp_path / "progress.json"
    file.write_text(json.dumps(hostile))
    with course() as notebook:
        found = panel(notebook)
        found.locator("input[type=file]").set_input_files(file)
        found.get_by_text("1 kept answer fit no cell here any more").wait_for()
        found.get_by_role("button", name="Put back 1 answer").press("Enter")
        assert source(notebook, "sol3") == name
        assert notebook.page.locator("img[src=x]").count() == 0
        assert notebook.page.title() != "broken"


def test_damaged_storage_is_put_aside_and_said(course):
    with course(storage={STORED: "{damaged"}) as notebook:
        panel(notebook).get_by_text("What this browser had kept is damaged").wait_for()
        assert notebook.page.evaluate(f"localStorage.getItem('{STORED}-damaged')") == "{damaged"
        write(notebook, "sol3", "answer_3 = 1")
        until_kept(notebook, lambda found: "02" in found.get("answers", {}))


def test_what_is_put_aside_stays_and_a_newer_format_is_called_newer(course):
    first = {STORED: "{second", f"{STORED}-damaged": "{first"}
    with course(storage=first) as notebook:
        panel(notebook).get_by_text("What this browser had kept is damaged").wait_for()
        stored = "Object.fromEntries(Object.entries(localStorage).filter(([name]) => name.includes('-damaged')))"
        expected = {f"{STORED}-damaged": "{first", f"{STORED}-damaged-2": "{second"}
        assert notebook.page.evaluate(stored) == expected
    newer = '{"frozenkit": 2, "marks": []}'
    with course(storage={STORED: newer}) as notebook:
        panel(notebook).get_by_text("was written by a newer frozenkit").wait_for()
        assert notebook.page.evaluate(f"localStorage.getItem('{STORED}-newer')") == newer


def test_one_changed_letter_in_what_was_kept_is_seen(course):
    with course() as notebook:
        write(notebook, "sol3", "answer_3 = 12345")
        until_kept(notebook, lambda found: "02" in found.get("answers", {}))
        text = notebook.page.evaluate(f"localStorage.getItem('{STORED}')")
    with course(storage={STORED: text}) as notebook:
        panel(notebook).get_by_role("button", name="Put back 1 answer from this browser").wait_for()
    with course(storage={STORED: text.replace("12345", "12346")}) as notebook:
        panel(notebook).get_by_text("What this browser had kept is damaged").wait_for()


def test_what_was_typed_last_survives_the_closing_of_the_notebook(course):
    with course() as notebook:
        bar(notebook).wait_for()
        write(notebook, "sol3", "answer_3 = 'typed'")
        notebook.page.evaluate("() => jupyterapp.shell.currentWidget.dispose()")
        assert kept(notebook)["answers"]["02"]["sol3"]["source"] == "answer_3 = 'typed'"
        notebook.page.wait_for_timeout(600)
        theirs = ("debugger", "Canceled future for")  # JupyterLab's own, of a kernel whose notebook went
        assert [error for error in notebook.traffic.errors if not any(word in error for word in theirs)] == []


def test_a_full_storage_is_said_and_nothing_is_lost(course):
    with course() as notebook:
        found = panel(notebook)
        notebook.page.evaluate(
            "() => { Storage.prototype.setItem = () => { throw new DOMException('', 'QuotaExceededError'); }; }"
        )
        write(notebook, "sol3", "answer_3 = 'kept'")
        found.get_by_text("its storage is full or closed").wait_for()
        with notebook.page.expect_download() as waiting:
            found.get_by_role("button", name="Download", exact=True).press("Enter")
        progress = json.loads(Path(waiting.value.path()).read_text())
        assert progress["answers"]["02"]["sol3"]["source"] == "answer_3 = 'kept'"


def test_two_tabs_lose_nothing(course):
    with course() as notebook:
        first = notebook.page
        second = first.context.new_page()
        second.goto(first.url.replace("/workspaces/", "/workspaces/second-"))
        other = type(notebook)(second, notebook.traffic)
        bar(other).wait_for()
        write(notebook, "sol1", "answer_1 = 'first tab'")
        write(other, "sol3", "answer_3 = 'second tab'")
        until_kept(notebook, lambda found: set(found.get("answers", {}).get("02", {})) == {"sol1", "sol3"})
        bar(notebook).get_by_role("button", name="Put back your answer (just now)").wait_for()
        write(notebook, "sol3", "answer_3 = 'first again'")
        until_kept(notebook, lambda found: found["answers"]["02"]["sol3"]["older"] == ["answer_3 = 'second tab'"])


def test_a_temporary_server_asks_for_a_download(course, jupyter):
    _, _, served = jupyter
    config = served.parent / "config" / "labconfig" / "page_config.json"
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text('{"frozenkitTemporary": "true"}')  # as Binder's image has it
    try:
        with course() as notebook:
            found = panel(notebook)
            found.get_by_text("This server is temporary").wait_for()
            found.get_by_text("You have not downloaded your progress yet").wait_for()
            with notebook.page.expect_download():
                found.get_by_role("button", name="Download", exact=True).press("Enter")
            found.get_by_text("Last download: just now").wait_for()
    finally:
        config.unlink()


def test_without_solutions_or_metadata_it_says_so_and_goes_on(course):
    shutil.rmtree(course.folder / "solutions")
    notebook = nbformat.read(course.folder / EXERCISES, as_version=4)
    notebook.metadata.pop("frozenkit")
    notebook.cells[3].metadata = {}  # the cell of exercise 1
    nbformat.write(notebook, course.folder / EXERCISES)
    with course() as notebook:
        bar(notebook).get_by_role("button", name="Insert the solution below").press("Enter")
        notebook.page.get_by_text("The solution of 02.3 could not be read").first.wait_for()
        assert bar(notebook, "02.1").count() == 0
        panel(notebook)


@pytest.mark.parametrize("theme", ["JupyterLab Light", "JupyterLab Dark"])
def test_axe_finds_nothing_in_panel_bars_and_lecture(course, screenshots, theme):
    from axe_playwright_python.sync_playwright import Axe

    storage = {
        STORED: json.dumps({"frozenkit": 1, "checks": {"02.3": 1, "00.1": 1}, "run": {"00": ["a"]}, "cells": {"00": 2}})
    }
    with course(storage=storage) as notebook:
        notebook.theme(theme)
        panel(notebook)
        write(notebook, "sol1", "answer_1 = 2")
        bar(notebook, "02.1").get_by_role("button", name="Start this one again").wait_for()
        found = []
        for selector in (".fk-panel", ".fk-bar", ".fk-steps"):
            found += Axe().run(notebook.page, context=selector).response["violations"]
        name = theme.split()[-1].lower()
        notebook.page.screenshot(path=screenshots / f"course-{name}.png")
        notebook.page.get_by_role("button", name="▷ Lecture").press("Enter")
        notebook.page.get_by_role("toolbar", name="Lecture").wait_for()
        found += Axe().run(notebook.page, context=".fk-lecture-bar").response["violations"]
        assert [(v["id"], [n["html"][:120] for n in v["nodes"]]) for v in found] == []


# --- lecture mode ---


@APPS
def test_a_lecture_with_a_live_lab(course, screenshots, tmp_path, app):
    cells = [
        nbformat.v4.new_markdown_cell("# One", metadata={"slideshow": {"slide_type": "slide"}}),
        nbformat.v4.new_markdown_cell("A note", metadata={"slideshow": {"slide_type": "notes"}}),
        nbformat.v4.new_markdown_cell("And then", metadata={"slideshow": {"slide_type": "fragment"}}),
        nbformat.v4.new_markdown_cell("Skipped", metadata={"slideshow": {"slide_type": "skip"}}),
        nbformat.v4.new_markdown_cell("# Two", metadata={"slideshow": {"slide_type": "slide"}}),
        nbformat.v4.new_code_cell(
            "from frozenkit import HeadLab\nlab = HeadLab()\nlab", metadata={"slideshow": {"slide_type": "-"}}
        ),
    ]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), course.folder / "03_heads.ipynb")
    with course("03_heads.ipynb", app=app, width=1600, height=900) as notebook:
        page = notebook.page
        notebook.run_all()
        page.evaluate("() => (jupyterapp.shell.currentWidget.content.activeCellIndex = 0)")
        before = page.locator(".fk-lab").bounding_box()
        heading = page.locator(".jp-MarkdownOutput h1").last
        type_before = heading.evaluate(size := "(node) => parseFloat(getComputedStyle(node).fontSize)")
        page.get_by_role("button", name="▷ Lecture").press("Enter")
        place = page.get_by_role("toolbar", name="Lecture").get_by_role("status")

        def shows(*texts):
            for text in ("One", "A note", "And then", "Skipped", "Two"):
                node = page.locator(".jp-MarkdownOutput").get_by_text(text, exact=False)
                assert node.is_visible() == (text in texts), (text, texts)

        shows("One")
        page.keyboard.press("PageDown")
        shows("One", "And then")
        page.keyboard.press("n")
        shows("One", "A note", "And then")
        page.keyboard.press("n")
        page.keyboard.press("ArrowRight")
        shows("Two")
        assert place.text_content() == "Slide 2 of 2"
        page.keyboard.press("t")
        assert page.locator(".fk-clock").text_content().startswith(("0:00 of 25 min", "0:01 of 25 min"))
        page.keyboard.press("Home")
        shows("One")
        page.keyboard.press("End")
        shows("Two")
        lab = page.locator(".fk-lab")
        assert lab.bounding_box()["width"] > before["width"]
        assert heading.evaluate(size) > 1.3 * type_before
        slider = page.get_by_label("Labels per class", exact=True)
        slider.focus()
        slider.press("Home")
        notebook.until("print(lab.shots)", "2")
        slider.press("ArrowRight")  # the lab's, not the lecture's
        notebook.until("print(lab.shots)", "3")
        page.wait_for_timeout(400)
        page.screenshot(path=screenshots / f"lecture-{app}.png")
        page.keyboard.press("PageUp")  # the remote's, wherever the focus is
        page.wait_for_timeout(200)
        if place.text_content() != "Slide 1 of 2":  # the lab was longer than the screen
            page.keyboard.press("PageUp")
        shows("One", "And then")
        page.locator(".fk-lecture-bar").get_by_role("button", name="End").press("Enter")
        page.locator(".fk-lecture-bar").wait_for(state="detached")
        shows("One", "A note", "And then", "Skipped", "Two")
        assert abs(page.locator(".fk-lab").bounding_box()["width"] - before["width"]) < 2
        if app == "lab":
            assert notebook.traffic.errors == []


def test_exercises_are_slides_as_well_and_hide_their_solutions(course):
    with course("solutions/02_layers.ipynb") as notebook:
        page = notebook.page
        page.get_by_role("button", name="▷ Lecture").wait_for()
        page.locator(".jp-Notebook .jp-Cell").first.click()
        page.keyboard.press("Alt+Shift+L")
        page.get_by_role("toolbar", name="Lecture").wait_for()
        for _ in range(12):
            page.keyboard.press("ArrowRight")
        assert page.get_by_role("toolbar", name="Lecture").get_by_role("status").text_content() == "Slide 4 of 4"
        answer = page.locator(".jp-CodeCell", has_text="begin solution").last
        assert answer.is_hidden()
        page.get_by_role("button", name="Notes and solutions").press("Enter")
        assert answer.is_visible()
