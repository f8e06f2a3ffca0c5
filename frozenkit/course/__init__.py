"""What the lessons stand on: numbers marked as measured here, tables that render alike everywhere, and expectations.

A lesson is tested by running it again and comparing every output exactly. Values that differ between machines
(accuracies, seconds, versions) therefore pass through `measured` or `table(…, measured=…)`, which mark them, and the
test blanks just the marks; `expect` checks such a value, with its tolerance, where it arises. `check` is for learners:
right, or the first reason why not; `quiz` asks what a lesson wanted to leave behind.
"""

from typing import Any

from frozenkit._outputs import Measured, Table, measured, show, table
from frozenkit.course.checks import Checked, check
from frozenkit.errors import FrozenkitError, InputError, UnknownNameError

__all__ = ["Checked", "ExpectationError", "Measured", "Table", "check", "expect", "measured", "quiz", "show", "table"]


class ExpectationError(FrozenkitError, AssertionError):
    """A lesson's value lies outside what the lesson says."""


def expect(value: Any, expected: float, *, within: float) -> None:
    """Check a value of a lesson against what the lesson says; silent where it is as expected.

    Args:
        value: A number, or a `Score` (its accuracy).
        expected: What the lesson's prose says.
        within: Largest allowed distance, wide enough for other CPUs and GPUs.

    Raises:
        ExpectationError: If `value` lies further away, or is no number.

    Example:
        >>> expect(0.8431, 0.84, within=0.02)
        >>> expect(0.79, 0.84, within=0.02)
        Traceback (most recent call last):
            ...
        frozenkit.course.ExpectationError: the value must lie within 0.84 ± 0.02, got 0.79. Restart the kernel
        and run all cells from the top; if it stays, run `frozenkit doctor`, and report the difference with its output.
    """
    if not within >= 0:
        raise InputError(f"`within` must be 0 or more, got {within!r}.")
    number = float(getattr(value, "accuracy", value))
    if not abs(number - expected) <= within + 1e-12:  # the slack only forgives rounding; NaN fails
        raise ExpectationError(
            f"the value must lie within {expected:g} ± {within:g}, got {number:.4g}. Restart the kernel and run all "
            "cells from the top; if it stays, run `frozenkit doctor`, and report the difference with its output."
        )


def quiz(lesson: str) -> Any:
    """The questions of one lesson, as a widget.

    Args:
        lesson: Its number, such as ``"02"``.

    Returns:
        A `frozenkit.widgets.Quiz`.

    Raises:
        UnknownNameError: If there is no such lesson.
    """
    from frozenkit.course.quizzes import QUIZZES
    from frozenkit.widgets import Quiz

    if lesson not in QUIZZES:
        raise UnknownNameError("lesson", lesson, QUIZZES)
    return Quiz(QUIZZES[lesson], title="Before you go on")
