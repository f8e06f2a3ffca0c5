"""Selectivity: zero where the labels say nothing, all of the accuracy above chance where they say everything."""

import pytest
import torch

from frozenkit import FeatureSet, fit_probe, selectivity
from frozenkit.errors import InputError
from frozenkit.shuffling import shuffled

CLASSES = ("a", "b", "c", "d")


def make(n, d, *, signal, seed):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 4
    x = torch.randn(n, d, generator=generator)
    x[:, :4] += signal * torch.nn.functional.one_hot(labels, 4)
    return FeatureSet(x, labels, CLASSES, tuple(f"{seed}-{i}" for i in range(n)), "pool", "")


def test_it_is_the_real_score_less_the_median_of_shuffled_ones():
    train, test = make(80, 6, signal=3, seed=0), make(400, 6, signal=3, seed=1)
    found = selectivity(train, test, permutations=3, seed=5, strengths=[0.1])
    real = fit_probe(train, strengths=[0.1]).score(test)
    controls = sorted(fit_probe(shuffled(train, seed=s), strengths=[0.1]).score(test).accuracy for s in (5, 6, 7))
    assert found.score.accuracy == real.accuracy
    assert [c.accuracy for c in found.controls] == controls
    assert found.value == real.accuracy - controls[1]
    assert found.p_value == 1 / 4  # better than all three, itself counted in
    assert "Selectivity" in repr(found)


def test_noise_has_none_even_where_any_labels_can_be_learnt_by_heart():
    train, test = make(80, 300, signal=0, seed=0), make(400, 300, signal=0, seed=1)
    found = selectivity(train, test, permutations=11, strengths=[1e-3])
    assert found.memorised > 0.99
    assert abs(found.value) < 0.08
    assert found.p_value > 0.05


@pytest.mark.parametrize("permutations", [0, 2])
def test_there_must_be_a_median(permutations):
    train = make(8, 6, signal=1, seed=0)
    with pytest.raises(InputError, match="`permutations` must be an odd number"):
        selectivity(train, train, permutations=permutations)
