"""The labs in a notebook opened again, in one that is not trusted, before a camera, and without a kernel."""

import nbformat

HEADLAB = "from frozenkit import HeadLab\nlab = HeadLab()\nlab"


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
        assert notebook.ask("print(lab.live['shares'])") != first  # the image moves, and so do the bars
        page.locator("[data-key=hold-0]").press("Enter")
        notebook.until("print(lab.answer['counts'][0])", "11", 10)
        page.get_by_role("button", name="Stop the camera").press("Enter")
        page.get_by_role("button", name="Camera", exact=True).wait_for()
        assert notebook.traffic.errors == []


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
        page.get_by_label("Head", exact=True).select_option("softmax")
        page.get_by_text("5-fold cross-validation").wait_for()
        page.get_by_label("Head", exact=True).select_option("mlp")
        page.get_by_text("the fifth of train set aside").wait_for()
        page.locator(".fk-lab").screenshot(path=screenshots / "headlab-mlp.png")
        page.get_by_label("Head", exact=True).select_option("prototype")
        page.get_by_text("this head has no strength to choose").wait_for()
        page.get_by_label("scale features to length 1").check()
        notebook.until("print(lab.head, lab.normalize)", "prototype True")
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
