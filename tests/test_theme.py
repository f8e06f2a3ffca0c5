"""One theme: plots, pages, widgets and panel have the same colours, each legible on its ground."""

import re
from pathlib import Path

import pytest

from frozenkit.plots import style

ROOT = Path(__file__).parents[1]
THEME = (ROOT / "frozenkit" / "theme" / "theme.css").read_text(encoding="utf-8")
STYLES = [
    path
    for folder in (ROOT / "frozenkit", ROOT / "labextension" / "style")
    for kind in ("css", "html")
    for path in folder.rglob(f"*.{kind}")
    if path.name != "theme.css"
]
PALETTE = ("ORANGE", "SKY", "GREEN", "YELLOW", "BLUE", "VERMILION", "PURPLE", "GREY")


def declared(text):
    return dict(re.findall(r"(--fk-[\w-]+):\s*([^;]+);", text))


def value(name, dark):
    """The colour that a name has on a light or a dark ground."""
    said = declared(THEME)[name]
    if pair := re.fullmatch(r"light-dark\((.+), (.+)\)", said):
        said = pair[1 + dark]
    return value(said[4:-1], dark) if said.startswith("var(") else said


def luminance(colour):
    """As the Web Content Accessibility Guidelines define it."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear))


def contrast(a, b):
    low, high = sorted([luminance(a), luminance(b)])
    return (high + 0.05) / (low + 0.05)


def test_contrast_is_that_of_the_guidelines():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)


def test_plots_have_the_palette_of_the_theme():
    assert {name: getattr(style, name).lower() for name in PALETTE} == {
        name: value(f"--fk-{name.lower()}", dark=False) for name in PALETTE
    }
    assert style.INK.lower() == value("--fk-ink", dark=False)
    assert style.PAPER.lower() == value("--fk-page", dark=False)


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("name", ["ink", "soft", "mark", "cool", "odd", "right", "late"])
def test_text_is_legible_on_page_and_card(name, dark):
    for ground in ("--fk-page", "--fk-card"):
        assert contrast(value(f"--fk-{name}", dark), value(ground, dark)) >= 4.5


@pytest.mark.parametrize("dark", [False, True])
def test_errors_and_buttons_are_legible(dark):
    assert contrast(value("--fk-wrong", dark), value("--fk-wrong-ground", dark)) >= 4.5
    for ground in ("--fk-call", "--fk-call-hover"):
        assert contrast("#ffffff", value(ground, dark)) >= 4.5


def colours(text):
    """Hexadecimal colours that are no grey."""
    found = [c * 2 if len(c) == 3 else c for c in re.findall(r"[:\s(]#([0-9a-fA-F]{6}|[0-9a-fA-F]{3})\b", text)]
    return [c for c in found if not c[:2] == c[2:4] == c[4:]]


@pytest.mark.parametrize("path", STYLES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_style_has_colours_of_its_own_or_names_one_that_is_not_there(path):
    text = path.read_text(encoding="utf-8")
    assert colours(text) == []
    beside = [text, *(other.read_text(encoding="utf-8") for other in path.parent.glob("base.css"))]
    names = {name for there in (THEME, *beside) for name in declared(there)} | {
        "--fk-class",
        "--fk-filled",
    }  # by scripts
    assert set(re.findall(r"var\((--fk-[\w-]+)", text)) - names == set()


def test_a_colour_of_its_own_would_be_seen():
    assert len(STYLES) > 10
    assert colours("a { color: #fff; fill: #0072b2; }") == ["0072b2"]


def test_verdicts_have_colours_of_the_palette():
    text = (ROOT / "frozenkit" / "course" / "checks.py").read_text(encoding="utf-8")
    assert {colour.lower() for colour in re.findall(r"#[0-9A-Fa-f]{6}", text)} <= {
        getattr(style, name).lower() for name in PALETTE
    }
