"""The other labs in a real JupyterLab and in Notebook 7: what a hand does reaches the kernel and the screen."""

import io
from pathlib import Path
from xml.etree import ElementTree

import pytest
from PIL import Image

from frozenkit import widgets

LABS = {
    "layerlab": "from frozenkit import LayerLab\nlab = LayerLab()\nlab",
    "shiftlab": "from frozenkit import ShiftLab\nlab = ShiftLab()\nlab",
    "cachelab": "from frozenkit import CacheLab\nlab = CacheLab(n=64)\nlab",
    "teachlab": "from frozenkit import TeachLab\nlab = TeachLab(['animals', 'food'])\nlab",
    "quiz": "from frozenkit import course\nlab = course.quiz('03')\nlab",
}


APPS = ["lab", "notebook"]
IN_JUPYTERLAB = pytest.mark.parametrize("labs", ["lab"], indirect=True)  # for what looks the same in both


@pytest.fixture(scope="module", params=APPS)
def labs(open_notebook, request):
    """Every lab in a notebook of its own, opened once."""
    opened, stack = {}, []

    def get(name):
        if name not in opened:
            manager = open_notebook(f"{name}-{request.param}", [LABS[name]], app=request.param)
            opened[name] = manager.__enter__()
            stack.append(manager)
            opened[name].run_all(timeout=180)
            opened[name].page.locator(".fk-lab").wait_for()
        return opened[name]

    yield get
    for manager in reversed(stack):
        manager.__exit__(None, None, None)


def says(notebook, words, seconds=60):
    """Wait until the lab's result line holds these words."""
    notebook.page.wait_for_function(
        "(words) => document.querySelector('.fk-lab .fk-result').textContent.includes(words)",
        arg=words,
        timeout=1000 * seconds,
    )


@pytest.mark.parametrize("name", LABS)
def test_a_lab_opens_without_an_error(labs, name):
    notebook = labs(name)
    assert notebook.page.locator(".jp-OutputArea-output[data-mime-type*=error]").count() == 0
    assert notebook.page.locator(".fk-lab [role=alert]").first.is_hidden()


def test_layerlab_by_arrow_keys(labs):
    notebook = labs("layerlab")
    page = notebook.page
    best = notebook.ask("print(lab.best)")
    says(notebook, "which leave-one-out chooses")
    page.locator(".fk-strip button[aria-pressed=true]").focus()
    page.keyboard.press("Home")
    notebook.until("print(lab.chosen[0])", "conv_stem")
    page.keyboard.press("ArrowRight")
    notebook.until("print(lab.chosen[0])", "blocks.0")
    says(notebook, "blocks.0")
    page.get_by_label("put several side by side").check()
    page.locator(f".fk-strip button[title^='{best}:']").click()
    notebook.until("print(len(lab.chosen))", "2")
    says(notebook, "side by side")
    page.get_by_label("put several side by side").uncheck()
    page.locator(f".fk-strip button[title^='{best}:']").click()
    notebook.until("print(lab.result.layer)", best)


def test_layerlab_shows_the_image_under_the_pointer(labs):
    page = labs("layerlab").page
    peek = page.locator(".fk-peek")
    page.mouse.move(2, 2)
    assert "Point at a mark" in peek.text_content()
    page.locator(".fk-mark").last.hover(force=True)  # drawn last: no other lies over it
    peek.locator("span").first.wait_for()
    assert peek.text_content() == labs("layerlab").ask("print(lab.answer['classes'][lab.answer['labels'][-1]])")
    tile = peek.locator("> *").first.bounding_box()
    assert (tile["width"], tile["height"]) == (64, 64)


@IN_JUPYTERLAB
def test_layerlab_keeps_its_marks_inside_the_frame(labs):
    page = labs("layerlab").page
    frame = page.locator("rect.fk-map").bounding_box()
    for mark in page.locator(".fk-mark").all()[:400]:
        box = mark.bounding_box()
        assert box["x"] >= frame["x"]
        assert box["y"] >= frame["y"]
        assert box["x"] + box["width"] <= frame["x"] + frame["width"]
        assert box["y"] + box["height"] <= frame["y"] + frame["height"]


def test_layerlab_by_mouse_and_with_fewer_labels(labs):
    notebook = labs("layerlab")
    page = notebook.page
    page.locator(".fk-pick-layer").nth(2).click(force=True)
    notebook.until("print(lab.chosen[0])", "blocks.1")
    slider = page.get_by_label("Labels per class", exact=True)
    slider.focus()
    slider.press("Home")
    notebook.until("print(lab.shots, lab.work)", "2 {}")
    slider.press("End")
    notebook.until("print(lab.shots, lab.work)", "None {}")


def test_layerlab_hides_the_test_score_until_it_is_asked_for(labs):
    notebook = labs("layerlab")
    assert notebook.ask("print(lab.answer['test'])") == "None"
    notebook.page.get_by_role("button", name="Reveal the test score").press("Enter")
    says(notebook, "test images")
    assert notebook.ask("print(lab.answer['test'] is None)") == "False"
    assert notebook.page.get_by_role("button", name="Test score revealed").is_disabled()


def test_layerlab_pools_anew_beside_the_kernel(labs):
    notebook = labs("layerlab")
    notebook.page.get_by_label("Pooling", exact=True).select_option("max")
    assert notebook.ask("print('free')") == "free"  # the kernel answers while it extracts
    notebook.until("print(lab.work, ('max', None, (lab.chosen[0],)) in lab._probes)", "{} True", 90)
    notebook.page.get_by_label("Map", exact=True).select_option("PCA")
    notebook.until("print(lab.answer['view'])", "PCA")


def test_shiftlab_by_slider(labs):
    notebook = labs("shiftlab")
    slider = notebook.page.get_by_label("Severity", exact=True)
    slider.focus()
    slider.press("ArrowRight")
    slider.press("ArrowRight")
    notebook.until("print(lab.severity)", "2")
    says(notebook, "severity 2: the head errs on")
    notebook.page.get_by_label("Shift", exact=True).select_option("blur")
    notebook.until("print(lab.kind, lab.work)", "blur {}")
    says(notebook, "blur, severity 2: the head errs on")
    assert notebook.page.locator(".fk-measured").count() >= 3  # severities 0 and 2, and the key


def test_cachelab_by_slider(labs):
    notebook = labs("cachelab")
    n = int(notebook.ask("print(lab.n)"))
    for name, trait, before in (("Images", "n", n), ("Epochs", "epochs", 2)):
        slider = notebook.page.get_by_label(name, exact=True)
        slider.focus()
        slider.press("ArrowRight")
        notebook.until(f"print(lab.{trait} > {before})", "True")
        slider.press("ArrowLeft")
        notebook.until(f"print(lab.{trait})", str(before))


def test_cachelab_races_and_can_be_stopped(labs):
    notebook = labs("cachelab")
    page = notebook.page
    start = page.get_by_role("button", name="Start the race")
    start.press("Enter")
    page.get_by_role("button", name="Stop").click()
    notebook.until("print(lab.work, lab.result)", "{} None", 30)
    start.press("Enter")
    says(notebook, "A cached epoch takes", 120)
    assert float(notebook.ask("print(lab.result.ratio())")) > 3
    assert "s" in page.locator("[data-role=lane-0]").text_content()


def image(color):
    out = io.BytesIO()
    Image.new("RGB", (60, 40), color).save(out, "PNG")
    return out.getvalue()


def test_teachlab_learns_from_samples_files_and_drawings(labs):
    notebook = labs("teachlab")
    page = notebook.page
    for k in range(2):
        page.locator(f"[data-key=sample-{k}]").press("Enter")
        notebook.until(f"print(lab.answer['counts'][{k}])", "10")
    says(notebook, "Leave-one-out")
    files = [{"name": "a.png", "mimeType": "image/png", "buffer": image("red")}]
    files.append({"name": "b.png", "mimeType": "image/png", "buffer": b"no image"})
    page.locator("[data-key=files-0]").set_input_files(files)
    notebook.until("print(lab.answer['counts'][0])", "11")
    alert = page.locator(".fk-lab > [role=alert]")
    alert.wait_for(state="visible")
    assert "image 2: it could not be read" in alert.text_content()
    box = page.locator(".fk-canvas").bounding_box()
    page.mouse.move(box["x"] + 40, box["y"] + 40)
    page.mouse.down()
    page.mouse.move(box["x"] + 160, box["y"] + 150, steps=6)
    page.mouse.up()
    page.locator(".fk-bar-row").first.wait_for()
    assert notebook.ask("print(len(lab.live['shares']))") == "2"
    page.locator(".fk-image").first.click()
    notebook.until("print(sum(lab.answer['counts']))", "20")


def test_teachlab_asks_about_a_file_takes_a_drawing_and_what_is_dropped(labs):
    notebook = labs("teachlab")
    page = notebook.page
    first = notebook.ask("print(lab.live.get('shares'))")
    page.locator("[data-key=ask]").set_input_files(
        [{"name": "a.png", "mimeType": "image/png", "buffer": image("lime")}]
    )
    notebook.until(f"print(str(lab.live.get('shares')) != {first!r})", "True")
    asked = notebook.ask("print(lab.live['shares'])")
    page.get_by_role("button", name="Clear").press("Enter")
    notebook.until(f"print(str(lab.live['shares']) != {asked!r})", "True")
    page.locator("[data-key=hold-1]").press("Enter")
    notebook.until("print(lab.answer['counts'])", "[10, 11]")
    page.evaluate(
        """async (text) => {
            const data = new DataTransfer();
            data.items.add(new File([Uint8Array.from(text, (c) => c.charCodeAt(0))], "a.png", { type: "image/png" }));
            document.querySelectorAll(".fk-card")[0].dispatchEvent(new DragEvent("drop", { dataTransfer: data }));
        }""",
        image("navy").decode("latin-1"),
    )
    notebook.until("print(lab.answer['counts'])", "[11, 11]")
    for row in (21, 20):  # as it was before
        page.get_by_role("button", name=f"Forget image {row + 1} of").click()
        notebook.until("print(sum(lab.answer['counts']))", str(row))


def test_teachlab_keeps_names_as_text_and_adds_classes(labs):
    notebook = labs("teachlab")
    page = notebook.page
    page.get_by_role("button", name="Add a class").click()
    notebook.until("print(lab.classes[2])", "class 3")
    name = page.locator("[data-key=name-2]")
    name.fill("<img src=x onerror=\"document.title='broken in'\">")
    name.press("Enter")
    notebook.until("print(lab.classes[2][:4])", "<img")
    assert page.locator(".jp-OutputArea img").count() == 0
    assert page.title() != "broken in"


def test_teachlab_keeps_a_name_that_is_being_typed(labs):
    """Images that arrive before the field is left used to put the old name back."""
    notebook = labs("teachlab")
    page = notebook.page
    before = notebook.ask("print(lab.classes[1], lab.answer['counts'][1])").split()
    name = page.locator("[data-key=name-1]")
    name.focus()
    name.fill("meals")
    page.locator("[data-key=files-1]").set_input_files(
        [{"name": "a.png", "mimeType": "image/png", "buffer": image("brown")}]
    )
    notebook.until("print(lab.answer['counts'][1])", str(int(before[1]) + 1))
    assert name.input_value() == "meals"
    name.press("Enter")
    notebook.until("print(lab.classes[1])", "meals")
    name.fill("animals")  # taken by the first class: refused, and the field shows what holds
    name.press("Enter")
    page.locator(".fk-lab > [role=alert]").get_by_text("different names").wait_for()
    page.wait_for_function("() => document.querySelector('[data-key=name-1]').value === 'meals'")
    name.fill(before[0])
    name.press("Enter")
    notebook.until("print(lab.classes[1])", before[0])
    notebook.ask("lab.remove(len(lab.answer['labels']) - 1)")


def test_teachlab_says_when_a_name_names_no_file(labs):
    notebook = labs("teachlab")
    page = notebook.page
    path = page.get_by_label("File", exact=True)
    path.fill("~nobody-by-that-name/x")
    page.get_by_role("button", name="Save", exact=True).click()
    page.locator(".fk-lab > [role=alert]").get_by_text("must name a file").wait_for()
    path.fill("taught.safetensors")


def test_teachlab_saves_and_loads(labs):
    notebook = labs("teachlab")
    page = notebook.page
    page.get_by_role("button", name="Save", exact=True).click()
    page.get_by_text("saved 20 images' features to").wait_for()
    notebook.ask("lab.remove(0)")
    page.get_by_role("button", name="Load", exact=True).click()
    notebook.until("print(sum(lab.answer['counts']))", "20")


def test_quiz_replies_to_each_answer(labs):
    notebook = labs("quiz")
    page = notebook.page
    first = page.locator(".fk-question").first
    first.locator("input").first.focus()
    page.keyboard.press("Space")
    first.locator(".fk-feedback.fk-right").wait_for()
    page.keyboard.press("ArrowDown")
    page.wait_for_function("() => document.querySelector('.fk-feedback').textContent.startsWith('✗')")
    assert notebook.ask("print(lab.chosen)") == "[1, None]"


def test_a_camera_that_is_refused_is_said(labs):
    notebook = labs("teachlab")
    notebook.page.get_by_role("button", name="Camera", exact=True).click()
    notebook.page.get_by_text("The camera did not open").wait_for()


@IN_JUPYTERLAB
@pytest.mark.parametrize("name", ["layerlab", "shiftlab", "cachelab"])
def test_images_and_numbers_can_be_kept(labs, name):
    notebook = labs(name)
    kept = {}
    for kind in ("PNG", "SVG", "CSV"):
        with notebook.page.expect_download() as waiting:
            notebook.page.get_by_role("button", name=kind, exact=True).press("Enter")
        kept[kind] = Path(waiting.value.path()).read_bytes()
        assert waiting.value.suggested_filename == f"{name}.{kind.lower()}"
    image = Image.open(io.BytesIO(kept["PNG"])).convert("RGB")
    assert image.width > 1000
    assert len(image.getcolors(1_000_000)) > 20  # something is drawn
    assert ElementTree.fromstring(kept["SVG"]).tag.endswith("svg")
    lines = kept["CSV"].decode().splitlines()
    assert len(lines) >= 2
    assert len({line.count(",") for line in lines}) <= 2


def test_a_name_in_a_csv_is_never_a_formula(chromium):
    script = (Path(widgets.__file__).parent / "base.js").read_text(encoding="utf-8")
    page = chromium.new_page()
    rows = [["=1+1", "+a", "-b", "@c", "\t=d", 'say "hi"', -0.5, "-3e-4", "plain", None]]
    made = page.evaluate("([script, rows]) => new Function(`${script}; return csvOf`)()(rows)", [script, rows])
    page.close()
    assert made == '"\'=1+1","\'+a","\'-b","\'@c","\'\t=d","say ""hi""","-0.5","-3e-4","plain",""'


@IN_JUPYTERLAB
@pytest.mark.parametrize("name", LABS)
def test_larger_type_for_a_projector(labs, screenshots, name):
    notebook = labs(name)
    button = notebook.page.get_by_role("button", name="Larger type")
    title = notebook.page.locator(".fk-lab header strong")
    before = title.bounding_box()["height"]
    button.press("Enter")
    assert title.bounding_box()["height"] > 1.25 * before
    assert button.get_attribute("aria-pressed") == "true"
    notebook.page.locator(".fk-lab").screenshot(path=screenshots / f"{name}-large.png")
    button.press("Enter")
    assert title.bounding_box()["height"] == before


@IN_JUPYTERLAB
@pytest.mark.parametrize("theme", ["JupyterLab Light", "JupyterLab Dark"])
@pytest.mark.parametrize("name", LABS)
@pytest.mark.parametrize("width", [760, 1400])
def test_screenshots(labs, screenshots, name, theme, width):
    notebook = labs(name)
    notebook.page.set_viewport_size({"width": width, "height": 1400})
    notebook.theme(theme)
    widget = notebook.page.locator(".fk-lab")
    box = widget.locator("svg").first.bounding_box() if widget.locator("svg").count() else widget.bounding_box()
    for text in widget.locator("svg text").all():  # nothing is cut off
        part = text.bounding_box()
        assert part["x"] >= box["x"] - 1
        assert part["x"] + part["width"] <= box["x"] + box["width"] + 1
    widget.screenshot(path=screenshots / f"{name}-{theme.split()[-1].lower()}-{width}.png")


@IN_JUPYTERLAB
@pytest.mark.parametrize("name", LABS)
def test_axe_finds_nothing_inside_a_lab(labs, name):
    assert labs(name).axe(".fk-lab") == []


@IN_JUPYTERLAB
@pytest.mark.parametrize("name", LABS)
def test_nothing_left_loopback_and_nothing_was_logged(labs, name):
    notebook = labs(name)
    assert notebook.traffic.hosts == {"127.0.0.1"}
    assert notebook.traffic.errors == []
