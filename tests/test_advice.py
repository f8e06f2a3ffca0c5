"""Advice: each published criterion counts, and data that bear no judgement are not judged."""

import pytest

from frozenkit import advise
from frozenkit.advice import CHOICES, CRITERIA
from frozenkit.errors import InputError, UnknownNameError

FROZEN = {
    "n": 500,
    "similarity": "near",
    "gpu": False,
    "rapid": True,
    "probe_accuracy": 0.85,
    "target_accuracy": 1.0,
    "fine_grained": False,
    "memory_for_backprop": False,
}
TUNING = {
    "n": 8_000,
    "similarity": "far",
    "gpu": True,
    "rapid": False,
    "probe_accuracy": 0.4,
    "target_accuracy": 0.9,
    "fine_grained": True,
    "memory_for_backprop": True,
}


def test_every_published_criterion_is_applied_once_and_in_order():
    for case, side, choice in ((FROZEN, "frozen", "freeze"), (TUNING, "fine-tuning", "fine-tune")):
        advice = advise(**case)
        assert [reason.criterion for reason in advice.reasons] == [c.name for c in CRITERIA]
        assert {reason.favours for reason in advice.reasons} == {side}
        assert advice.choice == choice


@pytest.mark.parametrize("name", [name for name in FROZEN if name not in ("probe_accuracy", "target_accuracy")])
def test_one_criterion_turned_round_moves_exactly_its_own_reason(name):
    before, after = advise(**FROZEN), advise(**FROZEN | {name: TUNING[name]})
    assert sum(a != b for a, b in zip(before.reasons, after.reasons, strict=True)) == 1
    assert after.count("fine-tuning") == 1


def test_what_is_not_known_does_not_count():
    assert [r.criterion for r in advise(n=500, probe_accuracy=0.8).reasons] == ["target examples"]


@pytest.mark.parametrize(("n", "favours"), [(999, "frozen"), (1_000, ""), (5_000, ""), (5_001, "fine-tuning")], ids=str)
def test_the_limits_of_the_published_sizes(n, favours):
    assert advise(n=n, probe_accuracy=0.8).reasons[0].favours == favours


@pytest.mark.parametrize(("accuracy", "favours"), [(0.81, "frozen"), (0.8, ""), (0.6, ""), (0.59, "fine-tuning")])
def test_the_limits_against_the_target(accuracy, favours):
    assert advise(n=2_000, probe_accuracy=accuracy, target_accuracy=1.0).reasons[-1].favours == favours


def test_at_ninety_per_cent_of_the_target_the_step_is_to_weigh_the_cost():
    advice = advise(n=6_000, probe_accuracy=0.9, target_accuracy=1.0)
    assert advice.choice == "freeze"
    assert "weigh the cost" in advice.next_step
    far = advise(n=6_000, probe_accuracy=0.9, target_accuracy=1.0, similarity="far")
    assert far.choice == "measure the gap"


def test_even_criteria_ask_for_a_measurement():
    assert advise(n=6_000, probe_accuracy=0.7, similarity="near").choice == "measure the gap"


def test_few_images_and_fine_tuning_come_with_a_warning():
    advice = advise(n=900, probe_accuracy=0.3, target_accuracy=0.9, similarity="far")
    assert advice.choice == "fine-tune"
    assert "overfit" in advice.next_step


def test_data_that_bear_no_judgement_come_first():
    shuffled = advise(**FROZEN | {"probe_accuracy": 0.12}, interval=(0.08, 0.17), chance=0.1, n_classes=10)
    assert shuffled.choice == "look at the data first"
    assert "labels belong" in shuffled.next_step
    scarce = advise(**FROZEN | {"n": 50}, n_classes=10)
    assert scarce.choice == "look at the data first"
    assert "ten pictures of each class" in scarce.next_step
    beaten = advise(**FROZEN, n_classes=10, best_control=("raw pixels", 0.9))
    assert beaten.choice == "look at the data first"
    assert "do not beat raw pixels" in beaten.next_step
    sound = advise(**FROZEN, n_classes=10, best_control=("raw pixels", 0.6), chance=0.1, interval=(0.8, 0.9))
    assert sound.choice == "freeze"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n": 0}, "`n` must be at least 1, got 0"),
        ({"probe_accuracy": 85}, "`probe_accuracy` must lie in .0, 1., got 85. Per cent. Divide by 100"),
        ({"target_accuracy": 0.0}, "`target_accuracy` must be above 0"),
        ({"interval": (0.9, 0.8)}, r"`interval` must be \(low, high\)"),
        ({"best_control": ("pixels", 1.5)}, "`best_control` must lie in"),
    ],
)
def test_numbers_out_of_range(change, message):
    with pytest.raises(InputError, match=message):
        advise(**FROZEN | change)


def test_an_unknown_similarity():
    with pytest.raises(UnknownNameError, match="Did you mean 'near'"):
        advise(n=1, probe_accuracy=0.5, similarity="neer")


def test_how_it_reads():
    advice = advise(**TUNING)
    assert repr(advice).startswith("Advice: fine-tune. Keep the frozen probe")
    assert "<b>Fine-tune.</b>" in advice._repr_html_()
    assert list(advice.to_frame().columns) == ["found", "favours"]
    assert advice.choice in CHOICES
