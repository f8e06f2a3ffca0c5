"""Fewer features: all of them by PCA change nothing, and the reduction knows train alone."""

import pytest
import torch

from frozenkit import FeatureSet, fit_probe, reduce
from frozenkit.errors import InputError
from frozenkit.probes.reports import width_curve


def clouds(n, seed):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 3
    x = torch.randn(n, 12, generator=generator)
    x[torch.arange(n), labels] += 3
    return FeatureSet(x, labels, ("a", "b", "c"), tuple(f"{seed}-{i}" for i in range(n)), "pool", "")


def test_each_point_is_a_probe_on_reduced_features():
    train, test = clouds(120, 0), clouds(150, 1)
    curve = width_curve(train, test, widths=[2, 6], seed=3)
    assert [(p.how, p.n_features) for p in curve.points] == [("pca", 2), ("pca", 6), ("random", 2), ("random", 6)]
    small, held = reduce(train, test, n_features=6, how="random", seed=3)
    assert curve.points[3].score.accuracy == fit_probe(small).score(held).accuracy
    assert curve.full.accuracy == fit_probe(train).score(test).accuracy
    assert curve.to_frame().loc[("pca", 6), "share"] == 0.5
    assert "with all 12 features" in repr(curve)


def test_two_principal_directions_hold_three_classes_and_one_does_not():
    curve = width_curve(clouds(600, 0), clouds(600, 1), widths=[1, 2], how=["pca"])
    one, two = (p.score.accuracy for p in curve.points)
    assert two > 0.9 * curve.full.accuracy
    assert one < two


def test_widths_out_of_range():
    train = clouds(30, 0)
    with pytest.raises(InputError, match="`widths` must hold at least one"):
        width_curve(train, train, widths=[])
    with pytest.raises(InputError, match="n_features"):
        width_curve(train, train, widths=[13])
