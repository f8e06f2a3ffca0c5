"""Average precision by hand, against scikit-learn, and its intervals against simulated truth."""

from itertools import permutations

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy.integrate import quad
from scipy.stats import norm
from sklearn import metrics
from torch.testing import assert_close

from frozenkit import compare_multilabel, multilabel_score
from frozenkit.errors import DataError, InputError
from frozenkit.probes.multilabel import _Precision, mean_average_precision


def column(values):
    return np.asarray(values)[:, None]


def drawn(rng, n, prevalence, apart, k=1):
    """Scores of k labels: unit Gaussians, `apart` from each other."""
    y = rng.random((n, k)) < prevalence
    return rng.normal(size=(n, k)) + apart * y, y


def true_precision(prevalence, apart):
    """Average precision in infinitely many such images."""

    def integrand(s):
        have, others = prevalence * norm.sf(s - apart), (1 - prevalence) * norm.sf(s)
        return norm.pdf(s - apart) * have / (have + others)

    return quad(integrand, -8, 8 + apart, limit=200)[0]


@pytest.mark.parametrize(
    ("scores", "labels", "expected"),
    [
        ([4, 3, 2, 1], [1, 0, 1, 0], (1 / 1 + 2 / 3) / 2),
        ([4, 3, 2, 1], [0, 0, 0, 1], 1 / 4),
        ([4, 3, 2, 1], [1, 1, 0, 0], 1.0),
        ([4, 3, 2, 1], [1, 1, 1, 1], 1.0),
        ([1, 1, 1, 1], [1, 0, 0, 0], 1 / 4),  # all at once: the prevalence
        ([2, 2, 1, 1], [1, 0, 1, 0], (1 / 2 + 2 / 4) / 2),
        ([-1.0, -2.0], [0, 1], 1 / 2),
    ],
)
def test_average_precision_by_hand(scores, labels, expected):
    found = multilabel_score(column(scores), column(labels), threshold=0)
    assert_allclose(found.average_precision, [expected])
    assert_allclose(found.value, expected)


@pytest.mark.parametrize("levels", [2, 5, 10_000])
@pytest.mark.parametrize("prevalence", [0.01, 0.3, 0.99])
def test_average_precision_and_f1_are_those_of_scikit_learn(levels, prevalence):
    rng = np.random.default_rng(levels)
    s, y = drawn(rng, 400, prevalence, 1.0, k=6)
    s = np.round(s * levels / 10)  # ties
    y[:, 2] = False
    found = multilabel_score(torch.tensor(s), y, threshold=0.5)
    there = np.flatnonzero(y.any(0))
    expected = [metrics.average_precision_score(y[:, j], s[:, j]) for j in there]
    assert_allclose(found.average_precision[there], expected)
    assert_allclose(found.value, np.mean(expected))
    assert_allclose(mean_average_precision(torch.tensor(s), torch.tensor(y)), np.mean(expected))
    assert bool(found.average_precision[2].isnan() & found.lows[2].isnan() & found.highs[2].isnan())
    named = s > 0.5
    assert_allclose(found.micro_f1, metrics.f1_score(y, named, average="micro"))
    each = metrics.f1_score(y, named, average=None, zero_division=np.nan)
    assert_allclose(found.f1, each)
    assert_allclose(found.macro_f1, np.nanmean(each))
    assert_allclose(found.exact, metrics.accuracy_score(y, named))
    assert_allclose(found.prevalence, y.mean(0))


@pytest.mark.parametrize("levels", [3, 10_000])
def test_derivatives_are_those_of_the_average_precision(levels):
    rng = np.random.default_rng(0)
    s, y = drawn(rng, 25, 0.4, 1.0)
    s, y = np.round(s[:, 0] * levels / 3), y[:, 0]
    influence = _Precision.of(s, y).influence
    for i in range(25):
        ends = []
        for sign in (1, -1):
            w = np.ones(25)
            w[i] += sign * 1e-5
            ends.append(metrics.average_precision_score(y, s, sample_weight=w))
        assert_allclose(influence[i], (ends[0] - ends[1]) / 2e-5, atol=1e-8)
    assert_allclose(influence.sum(), 0, atol=1e-12)


# 1,500 draws of nominal 95 %: ±1.1 points of simulation error at two standard deviations.
@pytest.mark.parametrize(
    ("n", "prevalence", "apart"),
    [(100, 0.5, 1.0), (300, 0.1, 1.0), (300, 0.5, 2.5), (1000, 0.1, 0.0), (1000, 0.05, 2.5)],
)
def test_intervals_cover_the_true_average_precision(n, prevalence, apart):
    rng, truth, hits, draws = np.random.default_rng(1), true_precision(prevalence, apart), 0, 1500
    for _ in range(draws):
        found = multilabel_score(*drawn(rng, n, prevalence, apart), threshold=0)
        hits += found.low <= truth <= found.high
    print(f"n={n}, prevalence {prevalence}, {apart} apart: covers in {hits / draws:.3f} of draws")
    assert 0.93 <= hits / draws <= 0.97


@pytest.mark.parametrize(("positives", "apart"), [(3, 1.0), (5, 4.0), (10, 0.0), (20, 2.5)])
def test_intervals_of_a_label_that_few_images_have_cover_at_least_as_often(positives, apart):
    n, rng, hits, draws, prevalence = 300, np.random.default_rng(2), 0, 600, positives / 300
    truth = true_precision(prevalence, apart)
    for _ in range(draws):
        s, y = drawn(rng, n, prevalence, apart)
        if not y.any():
            hits += 1
            continue
        found = multilabel_score(s, y, threshold=0)
        hits += found.low <= truth <= found.high
    assert hits / draws >= 0.93


def test_an_interval_by_hand():
    # Have: ranks 1 and 3 of 4. AP = (1 + 2/3)/2 = 5/6; derivatives by the formula of the module:
    # rank 1: ½·(1 − 5/6) + ½·((1 − 1)/1 + (1 − 2/3)/3), rank 2: ½·(0 − 2/3)/3, rank 3: ½·(2/3 − 5/6) + ½·(1 − 2/3)/3.
    derivatives = np.array([1 / 12 + 1 / 18, -1 / 9, -1 / 12 + 1 / 18, 0])
    found = multilabel_score(column([4, 3, 2, 1]), column([1, 0, 1, 0]), threshold=0, confidence=0.5)
    variance = (derivatives**2).sum() * 2 / (2 - 1)
    half = 1.0 * np.sqrt(variance) / (5 / 6 * 1 / 6)  # the quartile of Student's t with one degree of freedom is 1
    assert_allclose([np.log(p / (1 - p)) for p in (found.low, found.high)], [np.log(5) - half, np.log(5) + half])


@pytest.mark.parametrize("k", [5, 20])
def test_the_interval_of_the_mean_covers_what_such_test_sets_have_in_the_mean(k):
    rng, draws = np.random.default_rng(3), 1500 if k == 5 else 800
    prevalence, apart = np.geomspace(0.05, 0.5, k), rng.permutation(np.linspace(0.5, 2.5, k))
    found = [multilabel_score(*drawn(rng, 400, prevalence, apart, k=k), threshold=0) for _ in range(draws)]
    values, lows, highs = np.array([(s.value, s.low, s.high) for s in found]).T
    hits = (lows <= values.mean()) & (values.mean() <= highs)
    print(f"mean of {k} labels: covers in {hits.mean():.3f} of draws")
    assert 0.93 <= hits.mean() <= 0.97


def test_the_interval_of_the_mean_knows_what_labels_share():
    s, y = drawn(np.random.default_rng(0), 400, 0.2, 1.0, k=5)
    once = multilabel_score(s, y, threshold=0)
    twice = multilabel_score(np.tile(s, 2), np.tile(y, 2), threshold=0)  # is as uncertain
    assert_allclose((twice.low, twice.high), (once.low, once.high), atol=2e-3)


@pytest.mark.parametrize(("n", "m"), [(6, 2), (5, 1), (4, 4), (1, 1)])
def test_chance_is_the_mean_over_all_orders(n, m):
    y = np.arange(n) < m
    orders = [multilabel_score(column(order), column(y), threshold=0) for order in permutations(range(n))]
    assert_allclose(orders[0].chances, [np.mean([s.value for s in orders])])


@pytest.mark.parametrize("apart", [(1.0, 1.0), (1.5, 0.8)])
def test_compared_scores_differ_by_as_much_as_they_do(apart):
    rng, hits, rejected, draws = np.random.default_rng(4), 0, 0, 800
    truth = true_precision(0.2, apart[0]) - true_precision(0.2, apart[1])
    for _ in range(draws):
        y = rng.random((300, 3)) < 0.2
        shared = rng.normal(size=y.shape)  # what is hard for one is hard for the other
        a, b = (0.8 * shared + 0.6 * rng.normal(size=y.shape) + d * y for d in apart)
        found = compare_multilabel(a, 3 * b - 7, y)
        hits += found.low <= truth <= found.high
        rejected += found.p_value < 0.05
    assert 0.93 <= hits / draws <= 0.97
    assert rejected / draws > 0.9 if truth else rejected / draws < 0.07


def test_comparing_is_antisymmetric_and_nothing_beside_itself():
    s, y = drawn(np.random.default_rng(0), 50, 0.3, 1.0, k=2)
    t = s + np.random.default_rng(1).normal(size=s.shape)
    one, other, same = compare_multilabel(s, t, y), compare_multilabel(t, s, y), compare_multilabel(s, 2 * s, y)
    assert_allclose((one.value, one.low, one.p_value), (-other.value, -other.high, other.p_value))
    assert (same.value, same.low, same.high, same.p_value) == (0, 0, 0, 1)
    assert_allclose(one.value, multilabel_score(s, y, threshold=0).value - multilabel_score(t, y, threshold=0).value)
    assert repr(one).startswith("mAP +0.")


def test_labels_of_one_image_tell_equally_good_scores_apart_no_more_than_they_may():
    """Seen wrong once: the derivatives of a single image say too little, and a third of equal pairs came out apart."""
    random, rejected = np.random.default_rng(0), 0
    for _ in range(100):
        y = np.zeros((100, 20), dtype=bool)
        y[random.integers(100, size=20), np.arange(20)] = True
        rejected += compare_multilabel(random.normal(size=y.shape), random.normal(size=y.shape), y).p_value < 0.05
    assert rejected <= 5
    better = compare_multilabel(random.normal(size=y.shape) + 6 * y, random.normal(size=y.shape), y)
    assert better.p_value < 1e-3
    alone = compare_multilabel(column(np.arange(40)), column(-np.arange(40)), column(np.arange(40) == 39))
    assert (alone.low, alone.high, alone.p_value) == (-1, 1, 1)
    assert alone.value == pytest.approx(1 - 1 / 40)


@pytest.mark.parametrize("n", [2, 3, 50])
def test_perfect_and_single_images_have_honest_intervals(n):
    single = multilabel_score(column(np.arange(n)[::-1]), column(np.arange(n) == 0), threshold=0)
    assert (single.value, single.low, single.high) == (1, 0, 1)
    if n > 3:
        y = column(np.arange(n) < n // 2)
        perfect = multilabel_score(column(-np.arange(n)), y, threshold=0)
        assert (perfect.value, perfect.high) == (1, 1)
        assert 0.7 < perfect.low < 0.95
        several = multilabel_score(np.tile(column(-np.arange(n)), 4), np.tile(y, 4), threshold=0)
        assert perfect.low < several.low < 1  # four labels, perfectly told apart


def test_order_and_other_scales_change_nothing():
    s, y = drawn(np.random.default_rng(0), 60, 0.3, 1.0, k=3)
    wanted = multilabel_score(s, y, threshold=0)
    mixed = np.random.default_rng(1).permutation(60)
    for other in (
        multilabel_score(s[mixed], y[mixed], threshold=0),
        multilabel_score(np.exp(s), y.astype(int), threshold=1),
    ):
        assert_allclose((other.value, other.low, other.high), (wanted.value, wanted.low, wanted.high))
        assert_close(other.counts, wanted.counts)


def test_it_shows_chance_beside_the_score():
    s, y = drawn(np.random.default_rng(0), 60, 0.3, 1.0, k=3)
    y[:, 1] = False
    found = multilabel_score(s, y, threshold=0, classes=["<b>", "dog", "cat"])
    assert repr(found).startswith("mAP 0.")
    assert "over 2 labels of 3 on 60 images, chance 0." in repr(found)
    assert_allclose(found.chance, np.nanmean(found.chances))
    frame = found.to_frame()
    assert frame.index.tolist() == ["<b>", "dog", "cat"]
    assert_allclose(frame["prevalence"], y.mean(0))
    assert_allclose(frame["average precision"], found.average_precision)
    html = found._repr_html_()
    assert "&lt;b&gt;" in html
    assert "<b>" not in html
    assert "average precision" in html
    assert "1 image," in repr(multilabel_score([[1.0]], [[1]], threshold=0))


@pytest.mark.parametrize(
    ("kind", "message", "change"),
    [
        (InputError, r"\(n, k\) for n ≥ 1 images and k ≥ 1 labels, got \(4,\) and \(4, 2\)", {"scores": np.zeros(4)}),
        (InputError, r"got \(4, 2\) and \(4, 3\)", {"labels": np.ones((4, 3))}),
        (InputError, r"got \(0, 2\) and \(0, 2\)", {"scores": np.zeros((0, 2)), "labels": np.zeros((0, 2))}),
        (InputError, "booleans, or 0 and 1", {"labels": np.full((4, 2), 2)}),
        (InputError, "none of 4 has any", {"labels": np.zeros((4, 2))}),
        (InputError, "`scores` must be an array of numbers, got None", {"scores": None}),
        (InputError, "`labels` must be an array of numbers", {"labels": "ab"}),
        (InputError, "`classes` must hold 2 names, got 1", {"classes": ["a"]}),
        (InputError, "`confidence` must lie between 0 and 1", {"confidence": 1.0}),
        (InputError, "`threshold` must be a number", {"threshold": None}),
        (DataError, "`scores` must be finite, but row 1 has NaN", {"scores": np.where(np.eye(4, 2, -1), np.nan, 0.0)}),
    ],
)
def test_bad_input_is_named(kind, message, change):
    given = {"scores": np.arange(8.0).reshape(4, 2), "labels": np.eye(4, 2), "threshold": 0, **change}
    with pytest.raises(kind, match=message):
        multilabel_score(given.pop("scores"), given.pop("labels"), **given)
