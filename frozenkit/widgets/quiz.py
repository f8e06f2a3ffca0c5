"""Quiz: questions with a few answers each, and feedback on whichever is chosen."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import traitlets

from frozenkit.errors import InputError
from frozenkit.widgets.base import InputTraitError, Lab, assets


@dataclass(frozen=True)
class Option:
    """One answer to a question.

    Attributes:
        text: What stands beside the button.
        feedback: What is said once it is chosen: why it is right, or why not.
        right: Whether it is.
    """

    text: str
    feedback: str
    right: bool = False


@dataclass(frozen=True)
class Question:
    """A question with its options, of which exactly one is right."""

    text: str
    options: tuple[Option, ...]

    def __post_init__(self) -> None:
        if sum(option.right for option in self.options) != 1 or len(self.options) < 2:
            raise InputError(f"a question needs two options or more, one of them right: {self.text!r}.")


class Quiz(Lab):
    """Questions to answer by mouse or keyboard; each answer gets its feedback, and may be changed.

    Args:
        questions: What is asked, in order.
        title: Over it all.

    Attributes:
        chosen: For each question the index of the option chosen, or None.

    Example:
        >>> quiz = Quiz([Question("1 + 1?", (Option("2", "yes.", right=True), Option("11", "that is joining."))),])
        >>> quiz
        Quiz(title=Quiz, 1=1 + 1? not answered yet)
        >>> quiz.chosen = [1]
        >>> quiz.answer["feedback"], quiz.result
        (['that is joining.'], (0, 1))
    """

    _esm, _css = assets("quiz")

    title = traitlets.Unicode("Quiz").tag(sync=True)
    questions: Any = traitlets.List().tag(sync=True)
    chosen: Any = traitlets.List().tag(sync=True)

    def __init__(self, questions: Sequence[Question], *, title: str = "Quiz") -> None:
        if not questions:
            raise InputError("`questions` must hold at least one question.")
        self._questions = tuple(questions)
        asked = [{"text": q.text, "options": [option.text for option in q.options]} for q in questions]
        super().__init__(title=title, questions=asked, chosen=[None] * len(asked))
        self._update_answer()

    @property
    def result(self) -> tuple[int, int]:
        """Questions answered rightly, and questions in all."""
        return sum(self.answer["right"]), len(self._questions)

    @traitlets.validate("chosen")
    def _validate_chosen(self, proposal: Any) -> list[int | None]:
        chosen = list(proposal["value"])
        if len(chosen) != len(self._questions):
            raise InputTraitError(f"`chosen` needs one entry for each of {len(self._questions)} questions.")
        for entry, question in zip(chosen, self._questions):
            if entry is not None and entry not in range(len(question.options)):
                raise InputTraitError(f"an answer is a number from 0 to {len(question.options) - 1}, got {entry!r}.")
        return chosen

    @traitlets.observe("chosen")
    def _on_chosen(self, _change: Any) -> None:
        if self.chosen:
            self._update_answer()

    def _compute(self) -> dict[str, Any]:
        picked = [None if i is None else q.options[i] for i, q in zip(self.chosen, self._questions)]
        return {
            "feedback": [option.feedback if option else "" for option in picked],
            "right": [bool(option and option.right) for option in picked],
        }

    def _summary(self) -> dict[str, Any]:
        facts = {"title": self.title}
        for i, question in enumerate(self._questions):
            said = self.answer["feedback"][i] or "not answered yet"
            facts[str(i + 1)] = f"{question.text} {said}"
        return facts
