"""Questions of the course: every answer has feedback, exactly one is right."""

from frozenkit.course.checks import LESSONS
from frozenkit.course.quizzes import QUIZZES


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
