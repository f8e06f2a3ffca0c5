"""Gaps and break-even: signs, the published table, crossings known by hand, and honest ends of intervals."""

import math
from statistics import NormalDist

import numpy as np
import pytest
import torch

from frozenkit import PUBLISHED_GAPS, break_even, compare, representation_gap, score
from frozenkit.comparison.gaps import published_gaps_table
from frozenkit.errors import InputError
from frozenkit.probes.reports import LearningCurve, Run
from frozenkit.probes.scores import Gap


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
    assert repr(found) == "Fine-tuning overtakes at about 1,000 labelled images; 95 % interval: 451 to 2,158"


def predictions(sizes: np.ndarray, images: int, generator: np.random.Generator) -> list[dict[int, np.ndarray]]:
    """0 where right, of two arms that cross at 600: hard images are hard for both arms and at every size."""
    share = 0.7 + np.stack([0.06 * np.log10(sizes / 600), 0.16 * np.log10(sizes / 600)])
    shared, arm, own = (generator.standard_normal((a, b, images)) for a, b in ((1, 1), (2, 1), (2, len(sizes))))
    hardness = math.sqrt(0.6) * shared + math.sqrt(0.15) * arm + math.sqrt(0.25) * own
    threshold = np.vectorize(NormalDist().inv_cdf)(share)
    return [dict(zip(sizes.tolist(), (h > t[:, None]).astype(int))) for h, t in zip(hardness, threshold)]


def measured(curve_of: dict[int, np.ndarray]) -> dict[int, tuple[float, int]]:
    return {n: (1 - float(wrong.mean()), len(wrong)) for n, wrong in curve_of.items()}


@pytest.mark.parametrize("n_sizes", [3, 12])
@pytest.mark.parametrize("images", [300, 2000])
def test_the_interval_covers_a_known_crossing_at_any_number_of_sizes(n_sizes, images):
    generator, trials = np.random.default_rng(0), 300
    sizes = np.geomspace(50, 5000, n_sizes).round().astype(int)
    labels, found, wide = np.zeros(images, dtype=int), [], []
    for _ in range(trials):
        arms = predictions(sizes, images, generator)
        found.append(break_even(*arms, labels=labels, draws=500))
        wide.append(break_even(*map(measured, arms), draws=500))
    covered, generous = (np.mean([f.low <= 600 <= f.high for f in results]) for results in (found, wide))
    assert 0.91 <= covered <= 0.98  # 95 %, three standard errors either way
    assert generous >= covered  # without the predictions the noise is an upper limit
    assert np.median([f.n for f in found if f.n]) == pytest.approx(600, rel=0.15)  # not pulled down by many sizes


def test_what_is_paired_narrows_the_interval():
    arms = predictions(np.array([50, 600, 5000]), 1000, np.random.default_rng(0))
    labels = np.zeros(1000, dtype=int)
    gaps = {n: representation_gap(arms[0][n], arms[1][n], labels) for n in arms[0]}
    exact = break_even(*arms, labels=labels)
    paired = break_even(*map(measured, arms), gaps=gaps)
    alone = break_even(*map(measured, arms))
    assert exact.n == pytest.approx(paired.n)
    width = [math.log(f.high / f.low) for f in (exact, paired, alone)]
    assert width[0] < 1.1 * width[1] < width[2]


def test_draws_of_train_images_are_noise_too():
    generator = np.random.default_rng(0)
    arms = predictions(np.array([50, 600, 5000]), 1000, generator)
    labels = np.zeros(1000, dtype=int)
    twice = [{n: np.stack([wrong, wrong]) for n, wrong in arm.items()} for arm in arms]
    one, two = break_even(*arms, labels=labels), break_even(*twice, labels=labels)
    assert two == one
    unlike = [twice[0], {n: np.stack([wrong, wrong | (generator.random(1000) < 0.1)]) for n, wrong in arms[1].items()}]
    spread = break_even(*unlike, labels=labels)
    assert math.log(spread.high / spread.low) > 1.2 * math.log(one.high / one.low)


@pytest.mark.parametrize(("tuned", "leads"), [(0.6, "frozen"), (0.9, "tuned")])
def test_no_crossing_is_said_and_not_extrapolated(tuned, leads):
    found = break_even(curve({100: [0.8], 1_000: [0.8]}), curve({100: [tuned], 1_000: [tuned]}, "tuned"))
    assert found.n is None
    assert found.leads == leads
    assert (found.low, found.high) == ((math.inf, math.inf) if leads == "frozen" else (0.0, 0.0))
    who = {"frozen": "the frozen probe", "tuned": "fine-tuning"}[leads]
    end = {"frozen": "more than 1,000", "tuned": "fewer than 100"}[leads]
    expected = f"As measured, no break-even between 100 and 1,000 labelled images: {who} is ahead; 95 % interval: {end}"
    assert repr(found) == expected


@pytest.mark.parametrize(
    ("frozen", "tuned", "leads", "said"),
    [
        ((0.5, 0.7), (0.6, 0.6), "tuned, then frozen", "fine-tuning is ahead at first, the frozen probe at the end; "),
        (
            (0.6, 0.7),
            (0.6, 0.7),
            "level",
            "nothing tells the two apart; 95 % interval: fewer than 10 to more than",
        ),
        ((0.601, 0.7), (0.6, 0.701), "level", "nothing tells the two apart; 95 % interval: fewer than 10 to more than"),
        (
            (0.6, 0.7),
            (0.6, 0.8),
            "tuned",
            "fine-tuning is ahead, level with it at 10; 95 % interval: fewer than 10 to",
        ),
        ((0.6, 0.7), (0.5, 0.7), "frozen", "the frozen probe is ahead, level with it at 1,000; 95 % interval: "),
    ],
)
def test_who_leads_and_where_the_curves_meet(frozen, tuned, leads, said):
    found = break_even(*({10: (a, 1000), 1000: (b, 1000)} for a, b in (frozen, tuned)))
    assert (found.n, found.leads) == (None, leads)
    assert said in repr(found)
    assert "to 0" not in repr(found)
    assert "inf" not in repr(found)


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
    pairs = {100: (0.8, 1000), 1_000: (0.8, 1000)}
    with pytest.raises(InputError, match="at 100 images their difference is .0.0000, got None"):
        break_even(pairs, pairs, gaps={})
    with pytest.raises(InputError, match="at 100 images their difference is .0.0000, got .10.0 points"):
        break_even(pairs, pairs, gaps=dict.fromkeys(pairs, Gap(0.1, 0.0, 0.2, 0.1, 1000)))
    with pytest.raises(InputError, match=r"accuracy in .0, 1., test images., got .80, 1000. at 100"):
        break_even(pairs, {100: (80, 1000), 1_000: (80, 1000)})
    for wrong in (one, pairs, {100: [0, 1, 1], 1_000: [0, 1, 1]}):
        with pytest.raises(InputError, match="`tuned_curve` must map labelled images to 2 predicted classes"):
            break_even({100: [0, 1], 1_000: [0, 1]}, wrong, labels=[0, 1])


def test_what_was_recorded_of_a_curve_is_as_good_as_the_curve():
    recorded = break_even({100: (0.8, 1000), 10_000: (0.8, 1000)}, {100: (0.7, 1000), 10_000: (0.9, 1000)})
    assert recorded == break_even(curve({100: [0.8], 10_000: [0.8]}), curve({100: [0.7], 10_000: [0.9]}, "tuned"))


@pytest.mark.parametrize("confidence", ["0.95", None])
def test_a_confidence_that_is_no_number(confidence):
    with pytest.raises(InputError, match="`confidence` must be a number, got"):
        representation_gap([1, 0], [1, 1], [1, 1], confidence=confidence)
