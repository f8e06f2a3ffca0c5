"""Text from elsewhere, as a terminal may show it."""

import sys
import unicodedata

import pytest

from frozenkit.errors import printable


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
