"""Checks of lesson 04."""

from typing import Any

from frozenkit.course.checks import choice, exercise, number


@exercise("04.1")
def megabytes(answer: Any) -> str | None:
    """10,000 × 512 features in float16, in MB."""
    value = number(answer, "a number of megabytes")
    if abs(value - 10.24) < 0.01 or abs(value - 9.765625) < 0.01:  # 10⁶ or 2²⁰ bytes
        return None
    if abs(value - 20.48) < 0.01:
        return "this is float32, four bytes a number; half precision takes two."
    if abs(value - 10_240_000) < 1:
        return "these are bytes; a megabyte is a million of them."
    return (
        f"{value:g} is not it: how many bytes does one number take in half precision, and how many numbers are there?"
    )


@exercise("04.2")
def pays_from(answer: Any) -> str | None:
    """The first epoch after which extracting once was the quicker way."""
    value = number(answer, "a number of epochs")
    if value == 2:
        return None
    if value == 1:
        return "after one epoch: 11.8 + 1 + 0.2 = 13 s with the cache, 12 s without. Not yet."
    return (
        f"{value:g} is not it: extraction takes 11.8 s and the file 1 s; then compare both ways for 1, 2, 3 … epochs."
    )


@exercise("04.3")
def ingredient(answer: Any) -> str | None:
    """Which change must *not* make a cache miss?"""
    return choice(
        answer,
        {
            "another image size": "the features change with it, so it belongs in the key.",
            "one flipped weight": "the features change with it, so it belongs in the key.",
            "another batch size": None,  # it changes a last digit at most
            "another order of the images": "rows are stored in that order, so it belongs in the key.",
        },
    )
