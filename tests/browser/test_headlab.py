"""HeadLab in a real JupyterLab and in Notebook 7: what a hand does, the kernel follows and the screen shows."""

import re

import pytest

HOSTILE = "<img src=x onerror=\"document.title='broken in'\">"


IN_JUPYTERLAB = pytest.mark.parametrize("emoji", ["lab"], indirect=True)  # for what looks the same in both


@pytest.fixture(scope="module", params=["lab", "notebook"])
def emoji(open_notebook, request):
    source = "from frozenkit import HeadLab\nlab = HeadLab()\nlab"
    with open_notebook(f"headlab-{request.param}", [source], app=request.param) as notebook:
        notebook.run_all()
        notebook.page.locator(".fk-lab svg").wait_for()
        yield notebook


def shown(notebook, name="test-accuracy"):
    return notebook.page.locator(f".fk-lab [data-role={name}]").text_content()


def move(notebook, label, key):
    """Press a key on a slider found by its label, and wait until the kernel's answer is drawn."""
    slider = notebook.page.get_by_label(label, exact=True)
    slider.focus()
    before = notebook.page.locator(".fk-lab svg").get_attribute("aria-label")
    slider.press(key)
    notebook.page.wait_for_function(
        "(before) => document.querySelector('.fk-lab svg').getAttribute('aria-label') !== before", arg=before
    )


def test_run_all_shows_the_widget_without_an_error(emoji):
    assert emoji.page.locator(".jp-OutputArea-output[data-mime-type*=error]").count() == 0
    assert emoji.page.locator(".fk-lab").count() == 1
    assert shown(emoji) == emoji.ask("print(f\"{100 * lab.answer['test']['accuracy']:.1f} %\")")


def test_arrow_keys_move_labels_per_class_in_the_kernel(emoji):
    emoji.ask("lab.shots = 5")
    before, cell = shown(emoji), emoji.page.evaluate("jupyterapp.shell.currentWidget.content.activeCellIndex")
    move(emoji, "Labels per class", "ArrowRight")
    assert emoji.ask("print(lab.shots)") == "10"
    assert shown(emoji) != before
    assert shown(emoji) == emoji.ask('print(f"{100 * lab.result.score(lab._test).accuracy:.1f} %")')
    assert emoji.page.evaluate("jupyterapp.shell.currentWidget.content.activeCellIndex") == cell


def test_arrow_keys_move_strength_in_the_kernel(emoji):
    emoji.ask("lab.shots = 20; lab.follow_best = True")
    before = float(emoji.ask("print(lab.strength)"))
    move(emoji, "Strength λ", "ArrowRight")
    after = float(emoji.ask("print(lab.strength)"))
    assert after > before
    assert emoji.ask("print(lab.follow_best)") == "False"
    assert not emoji.page.get_by_label("let leave-one-out choose").is_checked()
    loo = float(emoji.ask("print(lab.answer['loo'])"))
    assert f"{100 * loo:.1f} %" in shown(emoji, "loo-accuracy")


def test_the_result_is_announced(emoji):
    emoji.ask("lab.shots = 10")
    move(emoji, "Labels per class", "ArrowRight")
    status = emoji.page.locator(".fk-lab .fk-result")
    emoji.page.wait_for_function("() => document.querySelector('.fk-lab .fk-result').textContent.includes('20 labels')")
    assert status.get_attribute("aria-live") == "polite"
    assert shown(emoji) in status.text_content()


def test_a_mouse_may_point_at_the_path(emoji):
    box = emoji.page.locator(".fk-pick").bounding_box()
    emoji.page.mouse.click(box["x"] + 0.95 * box["width"], box["y"] + 0.5 * box["height"])
    emoji.page.wait_for_timeout(500)
    strengths = [float(value) for value in emoji.ask("print(*lab.answer['strengths'])").split()]
    assert float(emoji.ask("print(lab.strength)")) in strengths[-4:]


def test_numbers_are_behind_a_button(emoji):
    button = emoji.page.get_by_role("button", name="Show the numbers")
    button.focus()
    button.press("Enter")
    tables = emoji.page.locator(".fk-lab .fk-numbers table")
    assert tables.count() == 2
    assert tables.nth(1).locator("tbody tr").count() == int(emoji.ask("print(len(lab.answer['strengths']))"))
    emoji.page.get_by_role("button", name="Hide the numbers").press("Enter")
    assert tables.first.is_hidden()


def test_a_fast_hand_ends_where_it_stopped(emoji):
    emoji.ask("lab.shots = None; lab.strength = lab.answer['strengths'][0]")
    slider = emoji.page.get_by_label("Strength λ", exact=True)
    slider.focus()
    for _ in range(30):
        slider.press("ArrowRight", no_wait_after=True)
    emoji.page.wait_for_timeout(1500)
    step = int(slider.input_value())
    assert step == 30
    assert emoji.ask(f"print(lab.strength == lab.answer['strengths'][{step}])") == "True"
    assert emoji.page.locator(".fk-lab").get_attribute("aria-busy") is None


def test_errors_show_in_the_widget(emoji):
    alert = emoji.page.locator(".fk-lab [role=alert]")
    assert alert.is_hidden()
    emoji.ask("lab.shots = 10")
    emoji.ask("lab.set_state({'shots': 100000})")
    alert.wait_for(state="visible")
    assert "`shots` must lie in 2.." in alert.text_content()
    slider = emoji.page.get_by_label("Labels per class", exact=True)
    assert slider.get_attribute("aria-valuetext") == emoji.ask("print(lab.shots)")  # what was refused is not shown
    emoji.ask("lab.shots = 5")
    alert.wait_for(state="hidden")


def test_names_from_data_stay_text(open_notebook):
    source = f"""
import torch
from frozenkit import FeatureSet, HeadLab
x = torch.cat([torch.randn(20, 4, generator=torch.manual_seed(0)) + c for c in (0, 1)])
name = {HOSTILE!r}
HeadLab(FeatureSet.from_arrays(x, torch.arange(2).repeat_interleave(20), classes=(name, "b"), layer=name))
"""
    with open_notebook("hostile", [source.strip()], width=700) as notebook:
        notebook.run_all()
        notebook.page.locator(".fk-lab svg").wait_for()
        assert HOSTILE in notebook.page.locator(".fk-lab .fk-about").text_content()
        assert notebook.page.locator(".jp-OutputArea img").count() == 0
        assert notebook.page.title() != "broken in"
        assert notebook.traffic.errors == []


@IN_JUPYTERLAB
@pytest.mark.parametrize("theme", ["JupyterLab Light", "JupyterLab Dark"])
@pytest.mark.parametrize("width", [760, 1400, 2000])
def test_screenshots(emoji, screenshots, theme, width):
    emoji.page.set_viewport_size({"width": width, "height": 1300})
    emoji.ask("lab.shots = 20; lab.strength = 0.01" if width == 1400 else "lab.shots = None; lab.follow_best = True")
    emoji.theme(theme)
    widget = emoji.page.locator(".fk-lab")
    box = widget.bounding_box()
    for text in widget.locator("svg text").all():  # nothing is cut off
        part = text.bounding_box()
        assert part["x"] >= box["x"] - 1
        assert part["x"] + part["width"] <= box["x"] + box["width"] + 1
    widget.screenshot(path=screenshots / f"headlab-{theme.split()[-1].lower()}-{width}.png")


@IN_JUPYTERLAB
def test_axe_finds_nothing_inside_the_lab(emoji):
    assert emoji.axe(".fk-lab") == []


@IN_JUPYTERLAB
def test_nothing_left_loopback_and_nothing_was_logged(emoji):
    assert emoji.traffic.hosts == {"127.0.0.1"}
    assert emoji.traffic.errors == []
    assert re.fullmatch(r"\d+\.\d %", shown(emoji))
