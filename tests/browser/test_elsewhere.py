"""The labs in Notebook 7, in a notebook opened again, in one that is not trusted, before a camera, and under axe."""

import nbformat
import pytest
from axe_playwright_python.sync_playwright import Axe

LABS = ["HeadLab()", "LayerLab()", "ShiftLab()", "CacheLab()", "TeachLab()"]
HEADLAB = "from frozenkit import HeadLab\nlab = HeadLab()\nlab"


def test_headlab_in_notebook_7(open_notebook):
    with open_notebook("classic", [HEADLAB], app="notebook") as notebook:
        page = notebook.page
        notebook.run_all()
        accuracy = page.locator(".fk-lab [data-role=test-accuracy]")
        before = accuracy.text_content()
        slider = page.get_by_label("Labels per class", exact=True)
        slider.focus()
        slider.press("Home")
        page.wait_for_function(
            "(before) => document.querySelector('.fk-lab [data-role=test-accuracy]').textContent !== before", arg=before
        )
        assert notebook.ask("print(lab.shots)") == "2"
        assert notebook.traffic.hosts == {"127.0.0.1"}


def test_every_lab_in_notebook_7(open_notebook):
    imports = "from frozenkit import CacheLab, HeadLab, LayerLab, ShiftLab, TeachLab, course"
    with open_notebook("classic-plain", ["1"], app="notebook") as plain:
        plain.run_all()
        its_own = set(plain.traffic.errors)  # what the page logs without us
    with open_notebook("classic-all", [imports, *LABS, "course.quiz('01')"], app="notebook") as notebook:
        notebook.run_all()
        for title in ("HeadLab", "LayerLab", "ShiftLab", "CacheLab", "TeachLab", "Before you go on"):
            notebook.page.get_by_role("region", name=title).wait_for()
        assert notebook.page.locator(".jp-OutputArea-output[data-mime-type*=error]").count() == 0
        assert notebook.traffic.hosts == {"127.0.0.1"}
        assert set(notebook.traffic.errors) <= its_own


def test_a_notebook_opened_again_shows_its_widgets_without_a_kernel(open_notebook):
    with open_notebook("again", [HEADLAB]) as notebook:
        page = notebook.page
        notebook.run_all()
        page.locator(".fk-lab svg").first.wait_for()
        shown = page.locator("[data-role=test-accuracy]").text_content()
        page.evaluate("jupyterapp.commands.execute('docmanager:save')")
        page.wait_for_function("() => !jupyterapp.shell.currentWidget.context.model.dirty")
        page.evaluate("jupyterapp.shell.currentWidget.sessionContext.shutdown()")
        page.reload()
        page.locator(".fk-lab svg").first.wait_for()
        assert page.locator("[data-role=test-accuracy]").text_content() == shown


def test_an_untrusted_copy_says_in_words_what_it_showed(open_notebook, tmp_path):
    output = nbformat.v4.new_output(
        "execute_result",
        {
            "text/plain": "HeadLab(data=emoji, test accuracy=0.654)",
            "text/html": "<p><b>HeadLab</b> (run the notebook to make it live)</p>"
            "<script>document.title='ran'</script>",
            "application/vnd.jupyter.widget-view+json": {"model_id": "0" * 32, "version_major": 2, "version_minor": 1},
        },
        execution_count=1,
    )
    cell = nbformat.v4.new_code_cell("HeadLab()", outputs=[output], execution_count=1)
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=[cell], metadata=kernel), tmp_path / "copy.ipynb")
    with open_notebook("untrusted", tmp_path / "copy.ipynb") as notebook:
        notebook.page.get_by_text("run the notebook to make it live").wait_for()
        assert notebook.page.title() != "ran"


def test_the_camera_teaches_and_asks(open_notebook):
    source = "from frozenkit import TeachLab\nlab = TeachLab(['animals', 'food'])\nlab"
    with open_notebook("camera", [source], camera=True) as notebook:
        page = notebook.page
        notebook.run_all()
        for k in range(2):
            page.locator(f"[data-key=sample-{k}]").press("Enter")
        page.get_by_text("Leave-one-out:").wait_for()
        page.get_by_role("button", name="Camera", exact=True).press("Enter")
        page.locator(".fk-bar-row").first.wait_for()
        first = notebook.ask("print(lab.live['shares'])")
        page.wait_for_timeout(1500)
        assert notebook.ask("print(lab.live['shares'])") != first  # the picture moves, and so do the bars
        page.locator("[data-key=hold-0]").press("Enter")
        for _ in range(40):
            if notebook.ask("print(lab.answer['counts'][0])") == "11":
                break
            page.wait_for_timeout(250)
        assert notebook.ask("print(lab.answer['counts'][0])") == "11"
        page.get_by_role("button", name="Stop the camera").press("Enter")
        page.get_by_role("button", name="Camera", exact=True).wait_for()
        assert notebook.traffic.errors == []


@pytest.mark.parametrize("code", [*LABS, "course.quiz('00')"])
def test_axe_finds_nothing_inside_a_lab(open_notebook, code):
    name = "axe-" + "".join(filter(str.isalpha, code))
    imports = "from frozenkit import CacheLab, HeadLab, LayerLab, ShiftLab, TeachLab, course"
    with open_notebook(name, [f"{imports}\nlab = {code}\nlab"]) as notebook:
        notebook.run_all()
        notebook.page.locator(".fk-lab").wait_for()
        notebook.page.wait_for_timeout(500)
        for theme in ("JupyterLab Light", "JupyterLab Dark"):
            notebook.theme(theme)
            found = Axe().run(notebook.page, context=".fk-lab").response["violations"]
            assert [(v["id"], [n["html"][:120] for n in v["nodes"]]) for v in found] == []


def test_headlab_shows_other_heads_and_more(open_notebook, screenshots):
    with open_notebook("heads", [HEADLAB]) as notebook:
        page = notebook.page
        notebook.run_all()
        page.get_by_label("Also show", exact=True).select_option("learning curve")
        page.locator(".fk-second svg").wait_for()
        page.wait_for_function("() => jupyterapp && !document.querySelector('.fk-work:not([hidden])')")
        page.get_by_label("Also show", exact=True).select_option("reliability")
        page.wait_for_function("() => document.querySelector('.fk-second text')?.textContent.includes('Calibration')")
        slider = page.get_by_label("Temperature", exact=True)
        slider.focus()
        before = page.locator(".fk-second text").first.text_content()
        slider.press("Home")
        page.wait_for_function(
            "(before) => document.querySelector('.fk-second text').textContent !== before", arg=before
        )
        page.get_by_label("Also show", exact=True).select_option("boundary")
        page.wait_for_function("() => document.querySelector('.fk-second text')?.textContent.includes('plane')")
        page.get_by_label("Head", exact=True).select_option("prototype")
        page.get_by_label("scale features to length 1").check()
        page.wait_for_function(
            "() => document.querySelector('.fk-lab .fk-result').textContent.includes('no strength to choose')"
        )
        assert notebook.ask("print(lab.head, lab.normalize)") == "prototype True"
        page.wait_for_function("() => document.querySelector('.fk-second text')?.textContent.includes('plane')")
        page.set_viewport_size({"width": 1400, "height": 2000})
        page.locator(".fk-lab").screenshot(path=screenshots / "headlab-boundary.png")
        assert notebook.traffic.errors == []


def test_a_dead_kernel_is_said(open_notebook):
    with open_notebook("dead", [HEADLAB]) as notebook:
        page = notebook.page
        notebook.run_all()
        page.locator(".fk-lab svg").first.wait_for()
        page.evaluate("jupyterapp.shell.currentWidget.sessionContext.shutdown()")
        slider = page.get_by_label("Labels per class", exact=True)
        slider.focus()
        slider.press("Home")
        page.wait_for_function(
            "() => document.querySelector('.fk-lab .fk-status').textContent.includes('the kernel is busy or stopped')"
        )
