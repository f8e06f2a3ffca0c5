"""Checks of lesson 06."""

from typing import Any

from frozenkit.advice import Advice
from frozenkit.course.checks import choice, exercise, of_kind


@exercise("06.1")
def advised(answer: Any) -> str | None:
    """Advice for 300 labelled x-rays, on a laptop."""
    advice = of_kind(answer, Advice, "`advise` gives one.")
    findings = {reason.criterion: reason for reason in advice.reasons}
    for criterion, favours in (
        ("target examples", "frozen"),
        ("domain similarity", "fine-tuning"),
        ("compute", "frozen"),
        ("probe accuracy against the target", ""),
    ):
        if criterion not in findings:
            return f"the case says something about {criterion!r}, your advice does not."
        if findings[criterion].favours != favours:
            return f"{criterion!r} was given as {findings[criterion].finding!r}; read the case again."
    return None


@exercise("06.2")
def turned(answer: Any) -> str | None:
    """The same case with one thing changed, so that the advice turns to fine-tuning."""
    advice = of_kind(answer, Advice, "`advise` gives one.")
    if advice.choice != "fine-tune":
        return (
            f"the advice is still {advice.choice!r}: which criterion weighs on the side of freezing and could change?"
        )
    return None


@exercise("06.3")
def lower(answer: Any) -> str | None:
    """What is a frozen baseline?"""
    return choice(
        answer,
        {
            "a lower bound on what transfer can reach": None,
            "an upper bound on what transfer can reach": "fine-tuning starts from it and may end above it.",
            "the expected result of fine-tuning": "it says nothing of what tuning would add; measure the gap.",
        },
    )
