"""Checking an answer to an exercise: right, or the first reason why not, and never the answer itself."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from importlib import import_module
from typing import Any

from frozenkit.errors import UnknownNameError

# Exercise → its check: None where the answer is right, else a sentence that helps.
Check = Callable[[Any], str | None]
_CHECKS: dict[str, Check] = {}

LESSONS = ("00", "01", "02", "03", "04", "05", "06")


class WrongKind(Exception):
    """The answer is of a kind that the exercise cannot use; the text says which it needs."""


@dataclass(frozen=True)
class Checked:
    """What a check found.

    Attributes:
        exercise: Such as ``"02.3"``.
        state: ``"right"``, ``"wrong"`` or ``"open"``, while there is no answer yet.
        message: A sentence.
    """

    exercise: str
    state: str
    message: str

    def __bool__(self) -> bool:
        return self.state == "right"

    def __repr__(self) -> str:
        mark = {"right": "✓", "wrong": "✗", "open": "…"}[self.state]
        return f"{mark} {self.exercise}  {self.message}"

    def _repr_html_(self) -> str:
        colour = {"right": "#009E73", "wrong": "#D55E00", "open": "#7F7F7F"}[self.state]
        style = f"border-left: 5px solid {colour}; padding: 0.3em 0.9em; margin: 0.2em 0"
        return f'<div role="status" style="{style}" class="fk-check-{self.state}">{escape(repr(self))}</div>'


def check(exercise: str, answer: Any = ...) -> Checked:
    """Is this answer right? If not: the first thing that is wrong with it.

    Args:
        exercise: Its number, such as ``"02.3"``.
        answer: Yours; ``...`` means that there is none yet.

    Returns:
        A `Checked`. It is true where the answer is right, and never raises because of an answer.

    Raises:
        UnknownNameError: If there is no such exercise.

    Example:
        >>> check("04.1", 4.1)
        ✗ 04.1  4.1 is not it: how many bytes does one number take in half precision, and how many numbers are there?
        >>> check("04.1", ...)
        … 04.1  no answer yet: put yours in the place of the three dots, and run the cell again.
    """
    found = _find(exercise)
    if answer is ...:
        return Checked(
            exercise, "open", "no answer yet: put yours in the place of the three dots, and run the cell again."
        )
    try:
        wrong = found(answer)
    except WrongKind as kind:
        wrong = str(kind)
    except BaseException as error:  # whatever an answer sets off, an end of the program included, is said, not thrown
        wrong = f"this answer, a {type(answer).__name__}, could not be checked ({type(error).__name__}: {error})."
    return Checked(exercise, "wrong", wrong) if wrong else Checked(exercise, "right", "right.")


def exercise(number: str) -> Callable[[Check], Check]:
    """Registers the check of one exercise."""

    def register(function: Check) -> Check:
        _CHECKS[number] = function
        return function

    return register


def exercises() -> tuple[str, ...]:
    """The numbers of all exercises that can be checked, in order."""
    for lesson in LESSONS:
        import_module(f"frozenkit.course.exercises.lesson{lesson}")
    return tuple(sorted(_CHECKS))


def number(answer: Any, what: str = "a number") -> float:
    """The answer as a finite float; numbers of NumPy and torch are numbers."""
    if isinstance(answer, bool) or not hasattr(answer, "__float__"):
        raise WrongKind(f"the answer must be {what}, got a {type(answer).__name__}.")
    value = float(answer)
    if not math.isfinite(value):
        raise WrongKind(f"the answer must be {what}, got {value}.")
    return value


def of_kind(answer: Any, kind: type, hint: str) -> Any:
    """The answer itself, if it is of this kind."""
    if not isinstance(answer, kind):
        raise WrongKind(f"the answer must be a {kind.__name__}, got a {type(answer).__name__}. {hint}")
    return answer


def choice(answer: Any, options: dict[str, str | None]) -> str | None:
    """Feedback for one of several options; None is the right one."""
    if not isinstance(answer, str):
        raise WrongKind(f"the answer must be one of {', '.join(map(repr, options))}, got a {type(answer).__name__}.")
    if answer not in options:
        raise WrongKind(f"the answer must be one of {', '.join(map(repr, options))}, got {answer!r}.")
    return options[answer]


def _find(number: str) -> Check:
    lesson = str(number)[:2]
    if lesson in LESSONS:
        import_module(f"frozenkit.course.exercises.lesson{lesson}")
    if number not in _CHECKS:
        raise UnknownNameError("exercise", number, exercises())
    return _CHECKS[number]
