"""The quiz: feedback for each choice, and a sentence for what cannot be chosen."""

import pytest

from frozenkit import course
from frozenkit.course.quizzes import QUIZZES
from frozenkit.errors import InputError, UnknownNameError
from frozenkit.widgets import Option, Question, Quiz


def test_each_choice_gets_its_own_feedback_and_may_be_changed():
    quiz = course.quiz("02")
    assert quiz.result == (0, 2)
    for i, option in enumerate(QUIZZES["02"][0].options):
        quiz.chosen = [i, None]
        assert quiz.answer["feedback"] == [option.feedback, ""]
        assert quiz.result == (int(option.right), 2)
    quiz.close()


def test_the_browser_is_not_told_what_is_right_before_it_asks():
    state = str(course.quiz("03").get_state())
    assert not any(option.feedback in state for question in QUIZZES["03"] for option in question.options)


def test_what_cannot_be_chosen_gets_a_sentence():
    quiz = course.quiz("00")
    with pytest.raises(InputError, match="from 0 to 2, got 7"):
        quiz.chosen = [7, None]
    with pytest.raises(InputError, match="each of 2 questions"):
        quiz.chosen = [0]
    quiz.set_state({"chosen": [9, 9]})
    assert "from 0 to 2" in quiz.error
    assert quiz.chosen == [None, None]
    with pytest.raises(UnknownNameError, match="Did you mean"):
        course.quiz("07")
    with pytest.raises(InputError, match="one of them right"):
        Question("?", (Option("a", "b"), Option("c", "d")))
    with pytest.raises(InputError, match="at least one"):
        Quiz([])
