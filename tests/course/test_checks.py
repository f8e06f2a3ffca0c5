"""Checking answers: odd ones get a sentence, wrong ones a reason."""

import numpy as np
import pytest
import torch

from frozenkit import advise, course
from frozenkit.course.checks import exercises
from frozenkit.errors import UnknownNameError
from frozenkit.probes.scores import Gap

NUMBERS = exercises()
ODD = [None, "", "no", b"x", -1, 0, 1e30, float("nan"), float("inf"), True, [], {}, object(), int, lambda: 1,
       np.zeros(3), torch.zeros(2, 2), torch.tensor(-5.0), ValueError("x"), "raw pixels "]  # fmt: skip


@pytest.mark.parametrize("number", NUMBERS)
def test_a_wrong_answer_of_any_kind_gets_a_sentence(number):
    for answer in ODD:
        found = course.check(number, answer)
        assert found.state == "wrong", (number, answer)
        assert len(found.message) > 10
        assert "Traceback" not in found.message
        assert not found
    assert course.check(number).state == "open"
    assert course.check(number)._repr_html_().startswith('<div role="status"')


def test_the_first_thing_wrong_is_said_and_not_the_answer():
    assert "multiplied" in repr(course.check("03.2", 0.62246))
    assert "the sign is turned" in repr(
        course.check("05.1", __import__("frozenkit").representation_gap([0] * 8 + [1] * 2, [0] * 7 + [1] * 3, [0] * 10))
    )
    with pytest.raises(UnknownNameError, match="Did you mean '02.3'"):
        course.check("02.33", 1)


def test_advice_is_asked_for_its_evidence():
    case = {"n": 300, "similarity": "far", "gpu": False, "probe_accuracy": 0.63, "target_accuracy": 0.9}
    sure = {"interval": (0.57, 0.68)}
    assert "says little without two more numbers" in repr(course.check("06.1", advise(**case)))
    assert "says little without two more numbers" in repr(course.check("06.1", advise(**case, chance=0.6)))
    assert "'domain similarity'" in repr(course.check("06.1", advise(n=300, probe_accuracy=0.63)))
    assert course.check("06.1", advise(**case, **sure, chance=0.6))

    gap = Gap(0.06, 0.02, 0.1, 0.004, 300)
    rented = advise(**{**case, "gpu": True}, **sure, chance=0.5)
    assert rented.choice == "fine-tune"  # and yet no reason to
    assert "no evidence that it helps" in repr(course.check("06.2", rented))
    assert "half of the x-rays" in repr(course.check("06.2", advise(**case, **sure, chance=0.6, gap=gap)))
    assert "still 'measure the gap'" in repr(course.check("06.2", advise(**case, **sure, chance=0.5)))
    assert "still 'improve the probe'" in repr(
        course.check("06.2", advise(**case, chance=0.5, gap=Gap(0.02, -0.02, 0.06, 0.4, 300)))
    )
    assert course.check("06.2", advise(**case, **sure, chance=0.5, gap=gap))
    assert "can end below" in repr(course.check("06.3", "every fine-tuning run from below"))


@pytest.mark.parametrize("thrown", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
def test_an_answer_that_ends_the_program_is_wrong(thrown):
    class Answer:
        def __float__(self):
            raise thrown

    found = course.check("03.2", Answer())
    assert found.state == "wrong"
    assert type(thrown).__name__ in found.message
