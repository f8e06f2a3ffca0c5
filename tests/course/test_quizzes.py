"""Quizzes: every answer has feedback, exactly one is right, and odd choices get a sentence."""

import pytest

from frozenkit import course
from frozenkit.course.checks import LESSONS
from frozenkit.course.quizzes import QUIZZES
from frozenkit.errors import InputError, UnknownNameError
from frozenkit.widgets import Option, Question, Quiz


def test_every_lesson_asks_and_every_answer_is_answered():
    assert tuple(QUIZZES) == LESSONS
    for questions in QUIZZES.values():
        for question in questions:
            assert len({option.text for option in question.options}) == len(question.options) >= 3
            assert all(option.feedback.endswith((".", "?")) for option in question.options)


def test_the_right_answer_does_not_stand_in_one_place():
    places = [[o.right for o in question.options].index(True) for asked in QUIZZES.values() for question in asked]
    assert len(set(places)) == 3
    assert max(places.count(place) for place in set(places)) <= 0.7 * len(places)


def test_the_right_answer_is_not_always_the_longest():
    longest = [max(q.options, key=lambda o: len(o.text)).right for asked in QUIZZES.values() for q in asked]
    assert sum(longest) < 0.6 * len(longest)


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
