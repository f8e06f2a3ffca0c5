"""Checks of lesson 06."""

from typing import Any

from frozenkit.comparison.advice import Advice, Reason
from frozenkit.course.checks import choice, exercise, of_kind

_CASE = (
    ("target examples", "frozen"),
    ("domain similarity", "fine-tuning"),
    ("compute", "frozen"),
    ("probe accuracy against the target", ""),
)


def _differs(findings: dict[str, Reason]) -> str | None:
    """The first circumstance of the hospital that the advice does not know, or knows otherwise."""
    for criterion, favours in _CASE:
        if criterion not in findings:
            return f"the case says something about {criterion!r}, your advice does not."
        if findings[criterion].favours != favours:
            return f"{criterion!r} was given as {findings[criterion].finding!r}; read the case again."
    return None


@exercise("06.1")
def advised(answer: Any) -> str | None:
    """Advice for 300 labelled x-rays, on a laptop, where most are healthy."""
    advice = of_kind(answer, Advice, "`advise` gives one.")
    findings = {reason.criterion: reason for reason in advice.reasons}
    if wrong := _differs(findings):
        return wrong
    if "above chance?" not in findings:
        return (
            "63 % says little without two more numbers of the case: how often guessing is right, and how far the 63 % "
            "can be trusted. Your advice does not know both."
        )
    return None


@exercise("06.2")
def turned(answer: Any) -> str | None:
    """A second hospital, where one more finding turns the advice to fine-tuning."""
    advice = of_kind(answer, Advice, "`advise` gives one.")
    findings = {reason.criterion: reason for reason in advice.reasons}
    if "above chance?" in findings:
        return "at the second hospital half of the x-rays are healthy: the probe is above chance there."
    if findings.get("compute", Reason("", "", "")).favours == "fine-tuning":
        return "a GPU makes fine-tuning possible; it is no evidence that it helps. What does the last question ask for?"
    if wrong := _differs(findings):
        return wrong
    if advice.choice != "fine-tune":
        return f"the advice is still {advice.choice!r}: which of the three questions has no answer yet, or another one?"
    return None


@exercise("06.3")
def lower(answer: Any) -> str | None:
    """What does a frozen baseline bound?"""
    return choice(
        answer,
        {
            "the better of the two from below": None,
            "every fine-tuning run from below": "a run can end below it. Look at the recorded gaps once more.",
            "every fine-tuning run from above": "a run can end above it. Look at the recorded gaps once more.",
        },
    )
