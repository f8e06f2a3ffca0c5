"""Fewer features: all of them by PCA change nothing, and the reduction knows train alone."""

import warnings
from dataclasses import replace

import pytest
import torch

from frozenkit.errors import FrozenkitWarning, InputError
from frozenkit.probes.reports import backbone_report, layer_report, learning_curve, width_curve
from tests.toy import blobs, clouds


def test_points_come_by_way_and_width():
    curve = width_curve(clouds(120, 0, d=12), clouds(150, 1, d=12), widths=[6, 2, 6])
    assert [(p.how, p.n_features) for p in curve.points] == [("pca", 2), ("pca", 6), ("random", 2), ("random", 6)]
    assert curve.to_frame().loc[("pca", 6), "share"] == 0.5
    assert "with all 12 features" in repr(curve)


@pytest.mark.parametrize("head", ["knn", "prototype"])
def test_all_principal_directions_together_change_nothing_for_a_head_that_knows_only_angles(head):
    curve = width_curve(
        clouds(120, 0, d=12, apart=1.0), clouds(150, 1, d=12, apart=1.0), widths=[12], how="pca", head=head
    )
    torch.testing.assert_close(curve.points[0].score.confusion, curve.full.confusion)
    assert 0.3 < curve.full.accuracy < 0.9


def test_two_principal_directions_hold_three_classes_and_one_does_not():
    curve = width_curve(clouds(600, 0, d=12), clouds(600, 1, d=12), widths=[1, 2], how=["pca"])
    one, two = (p.score.accuracy for p in curve.points)
    assert two > 0.9 * curve.full.accuracy
    assert one < two


def test_widths_out_of_range():
    train = clouds(30, 0, d=12)
    with pytest.raises(InputError, match="`widths` must hold at least one"):
        width_curve(train, train, widths=[])
    with pytest.raises(InputError, match="n_features"):
        width_curve(train, train, widths=[13])


TRAIN, VAL, TEST = blobs(200), blobs(100, seed=1), blobs(400, seed=2)


def layers(*, seed, n=200):
    return {name: blobs(n, seed=seed, noise=noise) for name, noise in (("early", 6.0), ("late", 1.5), ("last", 3.0))}


def test_a_layer_report_chooses_the_layer_without_test():
    train, test = layers(seed=0), layers(seed=2, n=400)
    report = layer_report(train, test)
    assert report.chosen == layer_report(train).chosen == "late"
    # Test features of noise would change every test score; the choice does not move.
    spoilt = {n: replace(t, features=torch.randn_like(t.features)) for n, t in test.items()}
    assert layer_report(train, spoilt).chosen == "late"
    assert list(report.tests) == ["early", "last"]
    assert all(report.p_values[n] >= report.tests[n].p_value for n in report.tests)
    frame = report.to_frame()
    assert list(frame.index) == ["early", "late", "last"]
    assert "LayerReport: 'late' of 3" in repr(report)
    assert "<table" in report._repr_html_()


def test_choosing_on_test_flatters_and_leave_one_out_does_not():
    # Thirty layers of pure noise: the best on test looks better than chance, the one chosen without test does not.
    def noise(seed):
        base, g = blobs(200, seed=seed), torch.Generator().manual_seed(seed)
        return {str(i): replace(base, features=torch.randn(200, 5, generator=g)) for i in range(30)}

    with warnings.catch_warnings(action="ignore", category=FrozenkitWarning):
        report = layer_report(noise(1), noise(2))
    assert max(s.accuracy for s in report.scores.values()) > 0.3
    assert report.score.low < 0.25 < report.score.high


def test_a_backbone_report_is_the_same_by_another_name():
    report = backbone_report({"big": blobs(200), "small": blobs(200, noise=5)}, head="prototype")
    assert (report.chosen, report.kind) == ("big", "backbone")
    assert report.score is None


def test_warnings_of_a_report_name_the_layer():
    with pytest.warns(FrozenkitWarning, match="layer 'noisy': the best strength"):
        layer_report({"noisy": blobs(60, d=200, noise=4)}, strengths=[1e-6, 1e-5, 3.0])


def test_a_learning_curve_rises_over_distinct_draws():
    curve = learning_curve(TRAIN, TEST, sizes=[2, 20, 50, 80], repeats=3, heads=("ridge", "knn"))
    frame = curve.to_frame()
    assert curve.heads == ("ridge", "knn")
    assert frame.loc[("ridge", 20), "mean"] > frame.loc[("ridge", 2), "mean"]
    assert frame.loc[("ridge", 2), "draws"] == 3
    assert frame.loc[("ridge", 2), "lowest"] < frame.loc[("ridge", 2), "highest"]
    assert frame.loc[("ridge", 50), "draws"] == 1  # all there are: one draw, not three copies of it
    assert frame.loc[("ridge", 80), "n"] == 200
