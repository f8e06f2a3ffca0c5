"""Checks of lesson 01."""

from typing import Any

from frozenkit.course.checks import choice, exercise, number
from frozenkit.theory.bounds import holdout_bound


@exercise("01.1")
def certificate(answer: Any) -> str | None:
    """The hold-out bound for 30 mistakes of 400 at δ = 0.01."""
    value, truth = number(answer, "a bound, such as 0.1"), holdout_bound(30, 400, delta=0.01).value
    if abs(value - truth) < 5e-4:
        return None
    if abs(value - holdout_bound(30, 400).value) < 5e-4:
        return "this is the bound at δ = 0.05; the exercise asks for 0.01."
    if abs(value - 30 / 400) < 1e-6:
        return "this is the share of mistakes; the bound lies above it, by what chance may hide."
    return f"{value:g} is not it: give `holdout_bound` the mistakes, the images and `delta`, and take its value."


@exercise("01.2")
def distance(answer: Any) -> str | None:
    """The proxy A-distance of a domain classifier that errs on one image in five."""
    value = number(answer)
    if abs(value - 1.2) < 1e-9:
        return None
    if abs(value - 0.6) < 1e-9:
        return "this is half of it, the term that stands in the bound."
    if value > 2 or value < 0:
        return f"{value:g} cannot be: the distance lies between 0 (cannot be told apart) and 2 (always told apart)."
    return f"{value:g} is not it: the distance is 2·(1 − 2ε), with ε the share of mistakes."


@exercise("01.3")
def promise(answer: Any) -> str | None:
    """Which of three numbers may be promised to a customer?"""
    return choice(
        answer,
        {
            "domain bound": "it is an estimate: one term is too small and one too large.",
            "linear-probe bound": "its constants are unknown, so its value bounds nothing.",
            "hold-out bound": None,
        },
    )
