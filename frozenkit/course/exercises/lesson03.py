"""Checks of lesson 03."""

import math
from typing import Any

from frozenkit.course.checks import choice, exercise, number, of_kind
from frozenkit.probes.probe import Probe


@exercise("03.1")
def prototypes(answer: Any) -> str | None:
    """A probe of class means."""
    probe = of_kind(answer, Probe, "`fit_probe` gives one.")
    if probe.kind != "prototype":
        return f"this probe has the head {probe.kind!r}; class means are called 'prototype'."
    if probe.settings.get("normalize", True):
        return "it still scales each image's features to length one: switch `normalize` off."
    return None


@exercise("03.2")
def temperature(answer: Any) -> str | None:
    """The first probability of softmax([2, 1]/0.5)."""
    value = number(answer, "a probability")
    if abs(value - 1 / (1 + math.exp(-2))) < 2e-3:
        return None
    if abs(value - 1 / (1 + math.exp(-1))) < 2e-3:
        return "this is the answer at temperature 1; divide the logits by 0.5 first."
    if abs(value - 1 / (1 + math.exp(-0.5))) < 2e-3:
        return "here the logits were multiplied by the temperature; they are divided by it."
    return f"{value:g} is not it: divide both logits by the temperature, then take the softmax."


@exercise("03.3")
def flattered(answer: Any) -> str | None:
    """Whose score can be believed?"""
    return choice(
        answer,
        {
            "the best of 52 on the test set": "it was picked for its score on these images; part of that is luck.",
            "the one that leave-one-out chose, on the test set": None,
            "the best of 52 on the training set": "the training images flatter whatever can remember them.",
        },
    )
