"""Advice: outcome before circumstances, on a grid of them; the published criteria beside it, as published."""

import itertools

import pytest

from frozenkit import advise
from frozenkit.comparison.advice import CHOICES, CRITERIA, Reason
from frozenkit.errors import InputError, UnknownNameError
from frozenkit.probes.scores import Gap

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


NAMES = [criterion.name for criterion in CRITERIA]


def published(advice):
    return [reason for reason in advice.reasons if reason.criterion in NAMES]


def asked(advice):
    return {reason.criterion: reason.finding for reason in advice.reasons if reason.criterion not in NAMES}


def test_every_published_criterion_is_applied_once_and_in_order():
    for case, side, choice in ((FROZEN, "frozen", "improve the probe"), (TUNING, "fine-tuning", "fine-tune")):
        advice = advise(**case)
        assert [reason.criterion for reason in published(advice)] == NAMES
        assert {reason.favours for reason in published(advice)} == {side}
        assert advice.choice == choice


@pytest.mark.parametrize("name", [name for name in FROZEN if name not in ("probe_accuracy", "target_accuracy")])
def test_one_criterion_turned_round_moves_exactly_its_own_reason(name):
    before, after = advise(**FROZEN), advise(**FROZEN | {name: TUNING[name]})
    assert sum(a != b for a, b in zip(published(before), published(after), strict=True)) == 1
    assert after.count("fine-tuning") == 1


def test_what_is_not_known_does_not_count():
    assert [r.criterion for r in published(advise(n=500, probe_accuracy=0.8))] == ["target examples"]


@pytest.mark.parametrize(("n", "favours"), [(999, "frozen"), (1_000, ""), (5_000, ""), (5_001, "fine-tuning")], ids=str)
def test_the_limits_of_the_published_sizes(n, favours):
    assert published(advise(n=n, probe_accuracy=0.8))[0].favours == favours


@pytest.mark.parametrize(("accuracy", "favours"), [(0.81, "frozen"), (0.8, ""), (0.6, ""), (0.59, "fine-tuning")])
def test_the_limits_against_the_target(accuracy, favours):
    assert published(advise(n=2_000, probe_accuracy=accuracy, target_accuracy=1.0))[-1].favours == favours


# the tree: outcome before circumstances

CIRCUMSTANCES = [
    dict(zip(("n", "similarity", "gpu", "rapid", "fine_grained", "memory_for_backprop"), values, strict=True))
    for values in itertools.product(
        (50, 500, 3_000, 100_000),
        (None, "near", "far"),
        (None, True, False),
        (None, True, False),
        (None, True, False),
        (None, True, False),
    )
]


def test_a_target_that_is_reached_leaves_nothing_to_do_whatever_the_circumstances():
    for circumstances in CIRCUMSTANCES:
        advice = advise(probe_accuracy=0.99, target_accuracy=0.9, n_classes=10, interval=(0.98, 1.0), **circumstances)
        assert advice.choice == "freeze"
        assert advice.next_step == "The probe reaches the target: nothing is left to do."
    unsure = advise(n=100, probe_accuracy=0.9, target_accuracy=0.88, interval=(0.85, 0.94))
    assert "reaches down to 0.850: score more test images" in unsure.next_step
    rival = advise(n=100, probe_accuracy=0.9, target_accuracy=0.88, best_control=("raw pixels", 0.95))
    assert "raw pixels does as well without pretraining" in rival.next_step


@pytest.mark.parametrize(("accuracy", "target"), [(0.50, 0.9), (0.59, 0.95), (0.85, 1.0)])
def test_no_circumstance_makes_a_missed_target_good_enough(accuracy, target):
    for circumstances in CIRCUMSTANCES:
        assert advise(probe_accuracy=accuracy, target_accuracy=target, **circumstances).choice != "freeze"


def test_without_memory_for_backprop_nothing_is_fine_tuned():
    gap = Gap(0.1, 0.05, 0.15, 0.001, 1000)
    for circumstances in CIRCUMSTANCES:
        if circumstances["memory_for_backprop"] is False:
            for outcome in ({}, {"target_accuracy": 0.9}, {"gap": gap}, {"target_accuracy": 0.9, "gap": gap}):
                assert advise(probe_accuracy=0.4, **outcome, **circumstances).choice not in (
                    "fine-tune",
                    "measure the gap",
                )


def test_a_measured_gap_decides():
    case = {"n": 3_000, "probe_accuracy": 0.8, "target_accuracy": 0.95, "gpu": False, "rapid": True}
    worth = advise(**case, gap=Gap(0.032, 0.01, 0.05, 0.002, 1000))
    assert worth.choice == "fine-tune"
    assert "brings 3.2 points" in worth.next_step
    assert "does not reach the target either" in worth.next_step
    assert "either" not in advise(**case | {"target_accuracy": 0.82}, gap=Gap(0.032, 0.01, 0.05, 0.002, 1000)).next_step
    for gap in (Gap(0.01, -0.01, 0.03, 0.4, 1000), Gap(-0.04, -0.06, -0.02, 0.001, 1000)):
        assert advise(**case, gap=gap).choice == "improve the probe"
        assert advise(**case | {"target_accuracy": None}, gap=gap).choice == "freeze"
    assert asked(worth)["is the gap worth it?"] == "+3.2 points [+1.0, +5.0], above zero"


def test_a_gap_that_was_not_measured_is_to_be_measured():
    near = advise(n=6_000, probe_accuracy=0.9, target_accuracy=1.0, gpu=True)
    assert near.choice == "measure the gap"
    assert "at 90 % of the target: weigh the cost" in near.next_step
    cpu = advise(n=900, probe_accuracy=0.3, target_accuracy=0.9, similarity="far", gpu=False)
    assert cpu.choice == "measure the gap"
    assert "time one epoch first" in cpu.next_step
    assert "overfit" in cpu.next_step
    assert advise(n=900, probe_accuracy=0.3, target_accuracy=0.9, gpu=True).choice == "fine-tune"


def test_a_test_set_that_cannot_tell_whether_the_target_is_reached():
    advice = advise(n=3_000, probe_accuracy=0.88, interval=(0.84, 0.91), target_accuracy=0.9)
    assert advice.choice == "look at the data first"
    assert "Score more test images" in advice.next_step
    assert asked(advice)["misses the target?"] == "0.900 lies in [0.840, 0.910]"


def test_a_probe_at_chance_is_good_enough_for_nothing():
    advice = advise(n=3_000, probe_accuracy=0.95, interval=(0.93, 0.97), chance=0.95, target_accuracy=0.9)
    assert advice.choice == "look at the data first"
    assert asked(advice)["good enough already?"] == "not above chance, 0.950 where 0.900 is needed"


def test_without_a_target_the_published_criteria_decide_and_never_for_fine_tuning():
    for circumstances in CIRCUMSTANCES:
        advice = advise(probe_accuracy=0.7, **circumstances)
        assert advice.choice in ("freeze", "measure the gap")
        if circumstances["memory_for_backprop"] is not False:
            assert (advice.choice == "freeze") == (advice.count("frozen") > advice.count("fine-tuning"))
    assert advise(n=6_000, probe_accuracy=0.7, similarity="near").choice == "measure the gap"


def test_where_the_published_criteria_lean_the_other_way_it_is_said():
    against = advise(n=500, probe_accuracy=0.5, target_accuracy=0.9, similarity="near", gpu=False)
    assert against.reasons[-1] == Reason(
        "published criteria together", "3 to 1 for frozen, against this advice", "frozen"
    )
    along = advise(**TUNING)
    assert along.reasons[-1] == Reason("published criteria together", "7 to 0 for fine-tuning", "fine-tuning")
    even = advise(n=6_000, probe_accuracy=0.7, similarity="near")
    assert even.reasons[-1].finding == "even, 1 to 1"
    assert "published criteria together" not in asked(advise(n=2_000, probe_accuracy=0.7))


def test_data_that_bear_no_judgement_come_first():
    shuffled = advise(**FROZEN | {"probe_accuracy": 0.12}, interval=(0.08, 0.17), chance=0.1, n_classes=10)
    assert shuffled.choice == "look at the data first"
    assert "labels belong" in shuffled.next_step
    scarce = advise(**FROZEN | {"n": 50}, n_classes=10)
    assert scarce.choice == "look at the data first"
    assert "ten images of each class" in scarce.next_step
    beaten = advise(**FROZEN, n_classes=10, best_control=("raw pixels", 0.9))
    assert beaten.choice == "look at the data first"
    assert "do not beat raw pixels" in beaten.next_step
    sound = advise(**FROZEN, n_classes=10, best_control=("raw pixels", 0.6), chance=0.1, interval=(0.8, 0.9))
    assert sound.choice == "improve the probe"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n": 0}, "`n` must be a whole number of at least 1, got 0"),
        ({"n": float("nan")}, "`n` must be a whole number of at least 1, got nan"),
        ({"n": "600"}, "`n` must be a whole number"),
        ({"n_classes": -3}, "`n_classes` must be a whole number of at least 1, got -3"),
        ({"n_classes": "3"}, "`n_classes` must be a whole number"),
        ({"probe_accuracy": "0.9"}, "`probe_accuracy` must be a number, got str '0.9'"),
        ({"probe_accuracy": None}, "`probe_accuracy` must be a number, got None"),
        ({"probe_accuracy": True}, "`probe_accuracy` must be a number, got bool True"),
        ({"target_accuracy": "0.9"}, "`target_accuracy` must be a number, got str"),
        ({"interval": 0.5}, r"`interval` must be \(low, high\) in .0, 1., got float 0.5"),
        ({"interval": (0.8,)}, r"`interval` must be \(low, high\) in .0, 1., got tuple of length 1"),
        ({"interval": ("a", "b")}, "`interval` must be a number, got str 'a'"),
        (
            {"interval": (0.1, 0.2)},
            r"must hold `probe_accuracy`, got 0\.\d+ outside \[0.1, 0.2\]. Give both of the same",
        ),
        ({"best_control": 0.5}, r"`best_control` must be \(name, accuracy\), got float 0.5"),
        ({"best_control": ("pixels", None)}, "`best_control` must be a number, got None"),
        ({"gap": 0.05}, "`gap` must be a Gap, got float 0.05. Measure one with representation_gap"),
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
    questions = ["good enough already?", "can these data tell?", "is the gap worth it?"]
    assert [reason.criterion for reason in advice.reasons[:3]] == questions
    assert "<b>Fine-tune.</b>" in advice._repr_html_()
    assert list(advice.to_frame().columns) == ["found", "favours"]
    assert advice.choice in CHOICES
