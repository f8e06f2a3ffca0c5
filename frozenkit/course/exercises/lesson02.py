"""Checks of lesson 02."""

from typing import Any

from frozenkit.course.checks import choice, exercise, number, of_kind
from frozenkit.features import FeatureSet


@exercise("02.1")
def pooled(answer: Any) -> str | None:
    """Numbers per image of ResNet-50's layer3, after pooling."""
    value = number(answer)
    if value == 200_704:
        return "these are the activations before pooling; afterwards there is one number for each channel."
    return None if value == 1024 else f"{value:g} is not it: look up `n_pooled` of layer3 in the table."


@exercise("02.2")
def side_by_side(answer: Any) -> str | None:
    """Two layers combined."""
    features = of_kind(answer, FeatureSet, "`combine` gives one.")
    if features.n_features in (40, 192):
        return f"this is one layer, with its {features.n_features} features; the other one is missing."
    if features.n_features != 232:
        return f"{features.n_features} features are not blocks.2 (40) and blocks.5 (192) side by side."
    return None


@exercise("02.3")
def chosen_by(answer: Any) -> str | None:
    """What may choose the layer?"""
    return choice(
        answer,
        {
            "the test score": "then it is a training score: the number that you report was picked for being high.",
            "the train score": "a wide layer gets every training image right, whatever it knows.",
            "leave-one-out": None,
        },
    )
