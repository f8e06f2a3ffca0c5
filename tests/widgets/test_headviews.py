"""What HeadLab shows besides: reliability, boundary, learning curve."""

import pytest

from frozenkit import HeadLab
from frozenkit.errors import InputError
from tests.toy import overlapping


def test_the_temperature_changes_confidence_and_no_prediction(lab):
    lab.also = "reliability"
    before = lab.answer
    lab.temperature = 0.1
    assert lab.answer["test"] == before["test"]
    assert lab.answer["extra"]["error"] != before["extra"]["error"]
    assert max(lab.answer["extra"]["bins"]["confidence"]) > max(before["extra"]["bins"]["confidence"])
    with pytest.raises(InputError, match="`temperature` must be a finite number above 0"):
        lab.temperature = 0.0


def test_the_boundary_is_that_of_the_head_in_a_plane(lab):
    lab.also = "boundary"
    lab.wait(60)
    found = lab.answer["extra"]
    assert len(found["cells"]) == found["side"] ** 2
    assert set(found["cells"]) == {0, 1, 2}
    assert found["on"] == "test"


def test_the_learning_curve_fills_in_and_ends_with_all_labels(lab):
    lab.also = "learning curve"
    lab.wait(60)
    points = lab.answer["extra"]
    assert [p["shots"] for p in points] == lab.shots_choices
    assert points[-1]["value"] == lab.answer["test"]["accuracy"]


def test_two_classes_need_no_plane():
    lab = HeadLab(overlapping(classes="ab"), overlapping(60, classes="ab", seed=1))
    lab.also = "boundary"
    lab.wait(60)
    assert "a plane needs a third" in lab.error


@pytest.mark.parametrize("also", ["nothing", "reliability", "boundary", "learning curve"])
@pytest.mark.parametrize("shots", [2, 3, 4, 5])
def test_each_view_answers_at_each_small_number_of_labels(lab, shots, also):
    """Two labels per class and the boundary used to end in LinAlgError."""
    lab.shots, lab.also = shots, also
    lab.wait(60)
    assert lab.error == ""
    assert (lab.answer["extra"] is None) == (also == "nothing")
