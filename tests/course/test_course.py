"""Expectations: silent where met, and one sentence where not."""

import math
from types import SimpleNamespace

import pytest
import torch

from frozenkit import FrozenkitError, course
from frozenkit.errors import InputError

SCORE = SimpleNamespace(accuracy=0.8431, low=0.8, high=0.88)


@pytest.mark.parametrize("value", [0.82, 0.84, 0.86, SCORE, torch.tensor(0.85)])
def test_expect_prints_one_text_for_all_that_fit(value, capsys):
    course.expect(value, 0.84, within=0.02)
    assert capsys.readouterr().out == ""  # what is as expected is no news to a learner


@pytest.mark.parametrize("value", [0.8199, 0.79, 0.89, math.nan, math.inf])
def test_expect_raises_for_all_that_do_not(value, capsys):
    with pytest.raises(course.ExpectationError, match=r"must lie within 0\.84 ± 0\.02, got .*Restart the kernel"):
        course.expect(value, 0.84, within=0.02)
    assert capsys.readouterr().out == ""
    assert issubclass(course.ExpectationError, (FrozenkitError, AssertionError))


def test_expect_refuses_a_negative_tolerance():
    with pytest.raises(InputError, match="`within` must be 0 or more"):
        course.expect(0.5, 0.5, within=-1)
