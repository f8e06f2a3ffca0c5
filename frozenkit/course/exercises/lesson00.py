"""Checks of lesson 00."""

from typing import Any

from frozenkit.course.checks import choice, exercise, number, of_kind
from frozenkit.probes.scores import Score


@exercise("00.1")
def twitter(answer: Any) -> str | None:
    """The score of a probe on Twitter's emoji."""
    score = of_kind(answer, Score, "`probe.score(test_features)` gives one.")
    if score.n != 257:
        return f"the test set has 257 images, your score counts {score.n}: report on all of split='test'."
    if abs(score.accuracy - 0.603) > 0.03:
        return (
            f"{score.accuracy:.3f} is not what this probe scores: load 'emoji-twitter' for train "
            "and for test, at 96 px, and take the backbone's default layer."
        )
    return None


@exercise("00.2")
def fewer(answer: Any) -> str | None:
    """Points lost with twenty labels a class instead of all."""
    points = number(answer, "a number of points")
    if -0.3 < points < 0.3:
        return f"{points:g} looks like a share of 1: in points it is a hundred times as much."
    if points < 0:
        return "with fewer labels the score falls; take the full score less the small one."
    if not 4 <= points <= 20:
        return f"{points:.1f} is not it: draw twenty of each class with `few_shot`, and keep the same test set."
    return None


@exercise("00.3")
def background(answer: Any) -> str | None:
    """Which control notices a background colour that gives the class away?"""
    return choice(
        answer,
        {
            "majority": "it looks at no image at all, so no colour can lift it.",
            "shuffled labels": "its labels say nothing about the image, so neither does the colour.",
            "random weights": "it would rise as well, but another control sees the colour with no network at all.",
            "raw pixels": None,
        },
    )
