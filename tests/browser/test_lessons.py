"""The lessons in a real JupyterLab, run as a learner runs them."""

from pathlib import Path

import pytest

LESSON = Path(__file__).parents[2] / "notebooks" / "00_start_here.ipynb"


@pytest.fixture(scope="module")
def lesson(open_notebook):
    with open_notebook("lesson", LESSON) as notebook:
        notebook.run_all(timeout=240)
        yield notebook


def test_run_all_ends_without_an_error(lesson):
    assert lesson.page.locator(".jp-OutputArea-output[data-mime-type*=error]").count() == 0
    assert lesson.ask("print(lab.result.n_train)") == "600"


def test_the_slider_moved_by_keyboard_changes_kernel_and_accuracy(lesson):
    lab = lesson.page.get_by_role("region", name="HeadLab")
    lab.scroll_into_view_if_needed()
    accuracy = lab.locator("[data-role=test-accuracy]")
    before = accuracy.text_content()
    slider = lab.get_by_label("Labels per class", exact=True)
    slider.focus()
    slider.press("Home")
    lesson.page.wait_for_function(
        "(before) => document.querySelector('.fk-lab [data-role=test-accuracy]').textContent !== before", arg=before
    )
    assert lesson.ask("print(lab.shots)") == "2"
    assert accuracy.text_content() == lesson.ask("print(f\"{100 * lab.answer['test']['accuracy']:.1f} %\")")


@pytest.mark.parametrize("theme", ["JupyterLab Light", "JupyterLab Dark"])
def test_screenshots(lesson, screenshots, theme):
    lesson.theme(theme)
    cells = lesson.page.locator(".jp-Notebook .jp-Cell")
    for place in range(0, cells.count(), 6):
        cells.nth(place).scroll_into_view_if_needed()
        lesson.page.wait_for_timeout(200)
        path = screenshots / f"lesson-00-{theme.split()[-1].lower()}-{place:02}.png"
        lesson.page.screenshot(path=path)
        assert path.stat().st_size > 10_000


def test_nothing_left_loopback_and_nothing_was_logged(lesson):
    assert lesson.traffic.hosts == {"127.0.0.1"}
    assert lesson.traffic.errors == []
