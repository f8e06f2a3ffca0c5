"""The README's moving image: two labs under a hand on the arrow keys.

    pytest tests/browser/film_labs.py

Not collected with the tests: it writes docs/labs.gif, to be looked at and committed when the labs look different.
"""

import io
from pathlib import Path

from PIL import Image

FILM = Path(__file__).parents[2] / "docs" / "labs.gif"
SIZE = (900, 700)


def frame(notebook):
    image = Image.open(io.BytesIO(notebook.page.locator(".fk-lab").screenshot())).convert("RGB")
    image.thumbnail(SIZE, Image.Resampling.LANCZOS)
    sheet = Image.new("RGB", SIZE, "white")
    sheet.paste(image, ((SIZE[0] - image.width) // 2, 0))
    return sheet


def test_film(open_notebook):
    frames, times = [], []

    def shoot(notebook, milliseconds):
        notebook.page.wait_for_timeout(700)
        frames.append(frame(notebook))
        times.append(milliseconds)

    with open_notebook("film-head", ["from frozenkit import HeadLab\nlab = HeadLab()\nlab"], height=1300) as notebook:
        notebook.run_all()
        slider = notebook.page.get_by_label("Labels per class", exact=True)
        slider.press("Home")
        steps = int(notebook.ask("print(len(lab.shots_choices))"))
        for step in range(steps):
            shoot(notebook, 1500 if step in (0, steps - 1) else 600)
            slider.press("ArrowRight")
    with open_notebook(
        "film-layer", ["from frozenkit import LayerLab\nlab = LayerLab()\nlab"], height=1300
    ) as notebook:
        notebook.run_all(timeout=180)
        page = notebook.page
        page.locator(".fk-strip button[aria-pressed=true]").focus()
        page.keyboard.press("Home")
        steps = page.locator(".fk-strip button").count()
        for step in range(steps):
            shoot(notebook, 2000 if step == steps - 1 else 700)
            page.keyboard.press("ArrowRight")
    both = Image.new("RGB", (SIZE[0], 2 * SIZE[1]))
    both.paste(frames[0])
    both.paste(frames[-1], (0, SIZE[1]))
    palette = both.quantize(128)  # one for all, or the colours would jump
    small = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in frames]
    small[0].save(FILM, save_all=True, append_images=small[1:], duration=times, loop=0, optimize=True)
    print(f"\n{FILM}: {len(frames)} frames, {FILM.stat().st_size / 1e6:.2f} MB")
