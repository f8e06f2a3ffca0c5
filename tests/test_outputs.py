"""Marked values and tables, and that the sanitize file blanks the marks and nothing else."""

import math
import re
import sys
import unicodedata
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from jinja2 import UndefinedError
from nbval.plugin import get_sanitize_patterns

from frozenkit import course
from frozenkit._outputs import Line, Shown, Table, printable, render, with_code
from frozenkit.errors import InputError, UnknownNameError

PATTERNS = get_sanitize_patterns((Path(__file__).parent / "nbval_sanitize.cfg").read_text())
SCORE = SimpleNamespace(accuracy=0.8431, low=0.8, high=0.88)


def sanitize(text):
    for pattern, replacement in PATTERNS:
        text = re.sub(pattern, replacement, text)
    return text


@pytest.mark.parametrize("show", [repr, str, lambda m: m._repr_html_(), lambda m: f"took {m} s"])
def test_measured_values_compare_equal_and_nothing_else_does(show):
    a, b = course.measured(0.8431), course.measured(123.4)
    assert show(a) != show(b)
    assert sanitize(show(a)) == sanitize(show(b))
    assert sanitize(show(a) + "0.1") != sanitize(show(b) + "0.2")


def test_a_line_shows_measured_values_without_their_marks(capsys):
    assert (course.show(f"a < b in {course.measured(1.5)} s"), capsys.readouterr().out) == (
        None,
        "a < b in ⟦1.500⟧ s\n",
    )
    line = Line(f"a < b in {course.measured(1.5)} s")
    assert line._repr_html_() == '<p>a &lt; b in <span class="fk-measured">1.500</span> s</p>'


def test_two_marks_on_one_line_are_blanked_separately():
    assert sanitize("⟦1⟧ of ⟦2⟧") == "(measured) of (measured)"
    assert sanitize("⟦1⟧ of ⟦2⟧") != sanitize("⟦1⟧ in ⟦2⟧")


def test_plain_markup_is_not_blanked():
    assert sanitize("<span>0.84</span> [0.84]") == "<span>0.84</span> [0.84]"


@pytest.mark.parametrize(
    ("value", "fmt", "text"),
    [
        (0.84312, None, "0.843"),
        (3, None, "3"),
        (1234.5, ",.0f", "1,234"),
        (torch.tensor(0.5), ".1f", "0.5"),
        (np.float32(0.5), None, "0.500"),
        (SCORE, None, "0.843 [0.800, 0.880]"),
        (SCORE, ".2f", "0.84 [0.80, 0.88]"),
        (None, None, "–"),
        (math.nan, None, "–"),
        ("<b>⟧", None, "<b>]"),
    ],
)
def test_measured_text(value, fmt, text):
    assert course.measured(value, fmt).text == text


def test_text_of_data_is_escaped_in_html():
    hostile = "<img src=x onerror=alert(1)>"
    for page in (course.measured(hostile)._repr_html_(), course.table([{hostile: hostile}])._repr_html_()):
        assert "<img" not in page
        assert "&lt;img" in page


def test_table_renders_the_same_whatever_was_measured():
    def shown(values):
        frame = pd.DataFrame({"layer": ["a", "bcd"], "accuracy": values, "n": [10, 2000]})
        result = course.table(frame, measured=["accuracy"])
        return sanitize(repr(result)), sanitize(result._repr_html_())

    assert shown([0.1, 0.2]) == shown([123456.789, -1e9])


def test_table_shows_an_unmarked_difference():
    a = course.table([{"x": 1, "t": 0.5}], measured=["t"])
    b = course.table([{"x": 2, "t": 0.5}], measured=["t"])
    assert sanitize(repr(a)) != sanitize(repr(b))
    assert sanitize(a._repr_html_()) != sanitize(b._repr_html_())


def test_table_takes_frames_results_and_rows_alike():
    rows = [{"layer": "a", "accuracy": 0.5}, {"layer": "b", "accuracy": 0.25}]
    frame = pd.DataFrame(rows)
    assert course.table(rows) == course.table(frame) == course.table(SimpleNamespace(to_frame=lambda: frame))
    assert course.table(frame.set_index("layer")) == course.table(rows)
    assert repr(course.table(rows, formats={"accuracy": ".1%"})).splitlines()[1] == "a         50.0%"


@pytest.mark.parametrize("argument", [{"measured": ["acuracy"]}, {"formats": {"acuracy": ".1f"}}])
def test_table_names_the_nearest_column(argument):
    with pytest.raises(UnknownNameError, match="Did you mean 'accuracy'"):
        course.table([{"accuracy": 0.5}], **argument)


def test_table_refuses_nothing_and_ragged_rows():
    with pytest.raises(InputError, match="at least one row"):
        course.table([])
    with pytest.raises(InputError, match=r"row 1 has \['b'\]"):
        course.table([{"a": 1}, {"b": 2}])


class Result(Shown):
    def __init__(self, text, table=""):
        self.text, self.table = text, table

    def __repr__(self):
        return self.text

    def _table_html(self):
        return self.table


@pytest.mark.parametrize(
    ("result", "html"),
    [
        (Result("a < b"), "<p>a &lt; b</p>"),
        (Result("a\n  b"), "<pre>a\n  b</pre>"),
        (Result("a", "<table></table>"), "<p>a</p><table></table>"),
    ],
)
def test_a_result_is_shown_as_its_text_and_table(result, html):
    assert result._repr_html_() == html


def test_what_goes_into_a_template_is_text_unless_it_says_otherwise():
    hostile = '<script>"&\u202e\x1b\n'
    shown = Table((hostile,), [(hostile,), (course.measured(hostile),)])._repr_html_()
    assert "<script" not in shown
    assert shown.count("&lt;script&gt;&quot;&amp;") == 3
    assert shown.count(r"&lt;script&gt;&quot;&amp;\u202e\x1b\n<") == 2
    assert with_code("a `<b>` c") == "a <code>&lt;b&gt;</code> c"


def test_a_template_that_lacks_a_value_says_so():
    with pytest.raises(UndefinedError, match="'title' is undefined"):
        render("course/glossary.html", names=())


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("a\nb\tc\r", r"a\nb\tc\r"),
        ("\x9b2J", r"\x9b2J"),  # one byte that starts a sequence as well
        ("\u202etxt.exe", r"\u202etxt.exe"),  # turns what follows around
        ("\udcff\udc80", r"\xff\x80"),
        ("\ud800", r"\ud800"),
        ("Äpfel 👩‍🚀 日本 é", "Äpfel 👩‍🚀 日本 é"),
        (3, "3"),
    ],
)
def test_what_steers_a_terminal_is_written_out(text, shown):
    assert printable(text) == shown


def test_nothing_that_is_left_steers_a_terminal_or_fails_to_encode():
    made = printable("".join(map(chr, range(sys.maxunicode + 1))))
    made.encode("utf-8")
    assert {unicodedata.category(c) for c in made} & {"Cc", "Cs", "Zl", "Zp"} == set()
