"""Selectivity: zero where the labels say nothing, all of the accuracy above chance where they say everything."""

import numpy as np
import pytest
import torch
from scipy import stats

from frozenkit import CachedFeatures, FeatureSet, save_features, selectivity
from frozenkit.errors import InputError
from frozenkit.probes.scores import score
from frozenkit.probes.selectivity import Selectivity, shuffled
from tests.toy import CLASSES, clouds


def test_it_is_the_real_score_less_the_median_of_shuffled_ones():
    def of(right):
        return score([0] * right + [1] * (10 - right), [0] * 10, n_classes=2)

    found = Selectivity(of(9), (of(2), of(3), of(5)), 1.0)
    assert found.value == pytest.approx(0.9 - 0.3)
    assert found.rank_p_value == 1 / 4  # better than all three, itself counted in
    assert Selectivity(of(3), found.controls, 1.0).rank_p_value == 3 / 4


def test_each_shuffle_has_a_seed_of_its_own_and_the_next_call_may_share_them():
    train, test = clouds(80, 0, classes=CLASSES), clouds(400, 1, classes=CLASSES)
    one, next_one = (selectivity(train, test, permutations=3, seed=s, strengths=[0.1]) for s in (5, 6))
    of_one, of_next = ({c.accuracy for c in found.controls} for found in (one, next_one))
    assert len(of_one) == len(of_next) == 3
    assert len(of_one & of_next) == 2
    assert one.score.accuracy == next_one.score.accuracy > 0.9


def test_the_p_value_is_students_and_can_be_small():
    train, test = clouds(80, 0, d=6, apart=3, classes=CLASSES), clouds(400, 1, d=6, apart=3, classes=CLASSES)
    found = selectivity(train, test, strengths=[0.1])
    values = [c.accuracy for c in found.controls]
    # A two-sample t-test of one value against eleven, with the spread of the eleven, is the same.
    expected = stats.ttest_ind([found.score.accuracy], values, alternative="greater").pvalue
    assert found.p_value == pytest.approx(expected)
    assert found.p_value < 1e-4
    assert found.rank_p_value == 1 / 12
    assert selectivity(train, test, permutations=1, strengths=[0.1]).p_value == 1 / 2


def test_p_values_of_labels_that_say_nothing_are_valid():
    """With nearest class means, which are quick, in the place of the probe: the real labels are one shuffle more."""
    p = []
    for seed in range(400):
        train, test = (
            clouds(40, seed, d=5, apart=0, classes=CLASSES),
            clouds(100, seed + 1000, d=5, apart=0, classes=CLASSES),
        )
        scores = []
        for i in range(12):
            mixed = shuffled(train, seed=100 * seed + i)
            means = torch.stack([mixed.features[mixed.labels == k].mean(0) for k in range(4)])
            scores.append(score(torch.cdist(test.features, means).argmin(1), test.labels, n_classes=4))
        p.append(Selectivity(scores[0], tuple(sorted(scores[1:], key=lambda s: s.accuracy)), 1.0).p_value)
    for alpha in (0.01, 0.05, 0.2):
        assert np.mean(np.array(p) <= alpha) <= alpha + 3 * np.sqrt(alpha * (1 - alpha) / 400)
    assert np.mean(np.array(p) <= 0.5) > 0.4


def test_a_set_on_disk_is_loaded(tmp_path):
    train, test = clouds(80, 0, d=6, apart=1, classes=CLASSES), clouds(100, 1, d=6, apart=1, classes=CLASSES)
    for name, data in (("train", train), ("test", test)):
        save_features(data, tmp_path / f"{name}.safetensors")
    left = [CachedFeatures(tmp_path / f"{name}.safetensors") for name in ("train", "test")]
    found, expected = (selectivity(*sets, permutations=np.int64(3)) for sets in (left, (train, test)))
    assert [c.accuracy for c in found.controls] == [c.accuracy for c in expected.controls]
    assert found.p_value == expected.p_value


def test_noise_has_none_even_where_any_labels_can_be_learnt_by_heart():
    train, test = clouds(80, 0, d=300, apart=0, classes=CLASSES), clouds(400, 1, d=300, apart=0, classes=CLASSES)
    found = selectivity(train, test, permutations=11, strengths=[1e-3])
    assert found.memorised > 0.99
    assert abs(found.value) < 0.08
    assert found.p_value > 0.05


@pytest.mark.parametrize("permutations", [0, 2])
def test_there_must_be_a_median(permutations):
    train = clouds(8, 0, d=6, apart=1, classes=CLASSES)
    with pytest.raises(InputError, match="`permutations` must be an odd number"):
        selectivity(train, train, permutations=permutations)


def test_shuffling_permutes_labels_only():
    features = FeatureSet.from_arrays(torch.eye(6), [0, 0, 0, 1, 1, 1])
    mixed = shuffled(features, seed=1)
    torch.testing.assert_close(mixed.features, features.features)
    torch.testing.assert_close(mixed.labels.sort().values, features.labels)
    assert mixed.fingerprint != features.fingerprint
