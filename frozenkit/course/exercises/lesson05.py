"""Checks of lesson 05."""

from typing import Any

from frozenkit.course.checks import choice, exercise, number, of_kind
from frozenkit.probes.scores import Gap


@exercise("05.1")
def signed(answer: Any) -> str | None:
    """A gap between two sets of predictions."""
    gap = of_kind(answer, Gap, "`representation_gap` gives one.")
    if abs(gap.value - 0.1) < 1e-9:
        return None
    if abs(gap.value + 0.1) < 1e-9:
        return "the sign is turned: the frozen predictions come first, the tuned ones second."
    return f"{gap.value:+.3f} is not it: give the frozen predictions, the tuned ones, and the labels."


@exercise("05.2")
def blurred(answer: Any) -> str | None:
    """Points that the same head loses on images blurred as far as the dial goes."""
    points = number(answer, "a number of points")
    if -1 < points < 1:
        return f"{points:g} looks like a share of 1: in points it is a hundred times as much."
    if points < 0:
        return "the score falls; take the score before less the score on blurred images."
    if not 35 <= points <= 75:
        return f"{points:.1f} is not it: shift the *test* images alone, kind 'blur', severity 5, and keep the head."
    return None


@exercise("05.3")
def still_changing(answer: Any) -> str | None:
    """What changes in a backbone in train mode without an optimiser?"""
    return choice(
        answer,
        {
            "the weights": "without an optimiser's step no weight changes.",
            "batch norm's buffers": None,
            "nothing": "the features of one image then depended on its neighbours: something was written down.",
        },
    )
