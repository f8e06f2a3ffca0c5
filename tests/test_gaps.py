"""Gaps and break-even: signs, the published table, crossings known by hand, and honest ends of intervals."""

import math

import numpy as np
import pytest
import torch

from frozenkit import PUBLISHED_GAPS, break_even, compare, representation_gap, score
from frozenkit.errors import InputError
from frozenkit.gaps import published_gaps_table
from frozenkit.studies import LearningCurve, Run


def curve(accuracies: dict[int, list[float]], head: str = "ridge", images: int = 1000) -> LearningCurve:
    runs = []
    for n, repeats in accuracies.items():
        for repeat, accuracy in enumerate(repeats):
            right = round(accuracy * images)
            found = score([0] * right + [1] * (images - right), [0] * images, n_classes=2)
            runs.append(Run(head, n, n, repeat, found, None))
    return LearningCurve(tuple(runs))


def test_a_gap_is_positive_when_tuning_helps_and_turns_its_sign_with_the_arms():
    labels = torch.zeros(200, dtype=torch.int64)
    frozen, tuned = (torch.arange(200) >= 150).long(), (torch.arange(200) >= 170).long()
    gap, back = representation_gap(frozen, tuned, labels), representation_gap(tuned, frozen, labels)
    assert gap.value == pytest.approx(0.1)
    assert gap.n == 200
    assert gap.low > 0
    assert (back.value, back.low, back.high) == pytest.approx((-gap.value, -gap.high, -gap.low))
    test = compare(tuned, frozen, labels)
    assert (gap.low, gap.high, gap.p_value) == (test.low, test.high, test.p_value)
    assert repr(gap).startswith("+10.0 points [")
    assert "+10.0 points" in gap._repr_html_()


def test_the_published_gaps():
    points = {name: round(100 * published.gap, 1) for name, published in PUBLISHED_GAPS.items()}
    assert points == {"cifar10": 4.2, "cifar100": 8.4, "flowers102": 4.1, "dtd": 5.6, "retinal-oct": 21.3}
    assert published_gaps_table().loc["retinal-oct", "frozen"] == 0.682


def test_the_crossing_is_interpolated_in_log_n():
    # The difference is −0.1 at 100 and +0.1 at 10,000: zero half way in log n, at 1,000.
    found = break_even(curve({100: [0.8], 10_000: [0.8]}), curve({100: [0.7], 10_000: [0.9]}, "tuned"))
    assert found.n == pytest.approx(1000)
    assert found.leads == ""
    assert found.low < 1000 < found.high
    assert found.measured == (100, 10_000)
    assert repr(found).startswith("at 1000 images; 95 % interval: ")


def test_the_interval_covers_a_known_crossing():
    generator, hits, trials = np.random.default_rng(0), 0, 200
    sizes = [100, 300, 1_000, 3_000, 10_000]
    slope = {n: 0.1 * (math.log10(n) - 3) for n in sizes}  # zero at 1,000
    for _ in range(trials):
        frozen = {n: [generator.binomial(1000, 0.8) / 1000] for n in sizes}
        tuned = {n: [generator.binomial(1000, 0.8 + slope[n]) / 1000] for n in sizes}
        found = break_even(curve(frozen), curve(tuned, "tuned"), draws=300)
        hits += found.low <= 1000 <= found.high
    assert hits >= 0.88 * trials  # the first of several crossings pulls it down a little


@pytest.mark.parametrize(("tuned", "leads"), [(0.6, "frozen"), (0.9, "tuned")])
def test_no_crossing_is_said_and_not_extrapolated(tuned, leads):
    found = break_even(curve({100: [0.8], 1_000: [0.8]}), curve({100: [tuned], 1_000: [tuned]}, "tuned"))
    assert found.n is None
    assert found.leads == leads
    assert (found.low, found.high) == ((math.inf, math.inf) if leads == "frozen" else (0.0, 0.0))
    assert repr(found).startswith("not within the range measured (100 to 1000 images: " + leads)


def test_a_wider_spread_of_draws_widens_the_interval():
    tight = break_even(curve({100: [0.8] * 2, 10_000: [0.8] * 2}), curve({100: [0.7] * 2, 10_000: [0.9] * 2}, "t"))
    wide = break_even(
        curve({100: [0.78, 0.82], 10_000: [0.78, 0.82]}), curve({100: [0.68, 0.72], 10_000: [0.88, 0.92]}, "t")
    )
    assert wide.n == pytest.approx(tight.n)
    assert wide.high / wide.low > tight.high / tight.low


def test_curves_that_cannot_be_compared():
    one = curve({100: [0.8], 1_000: [0.8]})
    with pytest.raises(InputError, match="at least two sizes in common, got .100, 1000. and .100, 500."):
        break_even(one, curve({100: [0.8], 500: [0.8]}))
    with pytest.raises(InputError, match="`tuned_curve` must hold one head, got .'ridge', 'knn'."):
        break_even(one, LearningCurve((*one.runs, *curve({100: [0.8]}, "knn").runs)))
    with pytest.raises(InputError, match="equally long"):
        representation_gap([0, 1], [0], [0, 1])


def test_what_was_recorded_of_a_curve_is_as_good_as_the_curve():
    recorded = break_even({100: (0.8, 1000), 10_000: (0.8, 1000)}, {100: (0.7, 1000), 10_000: (0.9, 1000)})
    assert recorded == break_even(curve({100: [0.8], 10_000: [0.8]}), curve({100: [0.7], 10_000: [0.9]}, "tuned"))
