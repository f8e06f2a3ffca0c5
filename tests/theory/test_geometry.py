"""Geometry: values by hand, invariances, and a note where there are too few images to mean anything."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from frozenkit import (
    CachedFeatures,
    FeatureSet,
    class_separation,
    effective_rank,
    explained_variance,
    imbalance,
    save_features,
)
from frozenkit.errors import DataError, InputError


def feature_set(x: Tensor, labels: list[int] | Tensor, classes: int) -> FeatureSet:
    return FeatureSet.from_arrays(x, labels, classes=[f"c{i}" for i in range(classes)], ids=range(len(x)))


def gaussian(n: int, d: int, seed: int = 0) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_separation_by_hand():
    # Two classes at ±3, each at ±1 around it: within² = 4·1/(4 − 2) = 2, S_b = 4·9 = 36, less 1·2, over 4.
    found = class_separation(feature_set(torch.tensor([[-4.0], [-2.0], [2.0], [4.0]]), [0, 0, 1, 1], 2))
    assert found.within == pytest.approx(math.sqrt(2))
    assert found.between == pytest.approx(math.sqrt((36 - 2) / 4))
    assert found.ratio == pytest.approx(found.between / found.within)
    assert found.explained == pytest.approx(1 - (4 / 2) / (40 / 3))  # adjusted like R²: unbiased variances
    # One standardised direction: S_t = 1, so the plug-in share is .9/1.01, of which 1/1.01 · 1/3 is chance.
    chance = 1 / 1.01 / 3
    assert found.linear == pytest.approx((0.9 / 1.01 - chance) / (1 - chance))
    assert found.note == ""


def test_separation_of_random_labels_is_about_nothing_however_wide():
    # The plug-in ratio would be √((k − 1)/(n − k)·…) above 0 for any labels; the corrected one is not.
    x = gaussian(400, 200)
    labels = torch.randint(4, (400,), generator=torch.Generator().manual_seed(1))
    assert class_separation(feature_set(x, labels, 4)).ratio < 0.05


@pytest.mark.parametrize(("n", "d", "k"), [(12, 3, 6), (40, 10, 4), (30, 60, 3)])
def test_no_share_is_explained_by_random_labels(n, d, k):
    x, labels = gaussian(n, d), torch.arange(n) % k
    generator, found = torch.Generator().manual_seed(0), []
    for _ in range(400):
        mixed = labels[torch.randperm(n, generator=generator)]
        separation = class_separation(feature_set(x, mixed, k))
        found.append((separation.explained, separation.linear))
    shares = torch.tensor(found)
    assert (
        shares.mean(0).abs() < 4 * shares.std(0) / 20
    ).all()  # four standard errors; a plug-in share is .46 for k = 6


def test_what_a_linear_probe_sees_is_not_what_is_far_apart():
    # A long direction tells class 0 from the rest; three short ones tell all classes apart.
    labels = torch.arange(400) % 4
    one_hot = torch.nn.functional.one_hot(labels, 4).double()
    far = torch.cat([50 * one_hot[:, :1] + gaussian(400, 1), gaussian(400, 5, 1)], 1)
    short = torch.cat([20 * gaussian(400, 2, 2), 4 * one_hot + gaussian(400, 4, 3)], 1)
    one, all_of_them = (class_separation(feature_set(x, labels, 4)) for x in (far, short))
    assert one.ratio > 2 * all_of_them.ratio
    assert one.explained > all_of_them.explained
    assert one.linear < 0.4 < 0.7 < all_of_them.linear
    assert f"whitened {one.linear:.3f}" in repr(one)


def test_a_set_on_disk_has_the_geometry_of_one_in_memory(tmp_path):
    data = feature_set(gaussian(30, 4), torch.arange(30) % 3, 3)
    save_features(data, tmp_path / "set.safetensors")
    left = CachedFeatures(tmp_path / "set.safetensors")
    assert class_separation(left) == class_separation(data)
    assert effective_rank(left) == effective_rank(data) == effective_rank(data.features.numpy())
    torch.testing.assert_close(explained_variance(left).ratios, explained_variance(data).ratios)
    for same in (left, data.labels.numpy(), data.labels.tolist()):
        torch.testing.assert_close(imbalance(same).counts, torch.tensor([10, 10, 10]))
    assert len(imbalance(data.labels, n_classes=np.int64(5)).counts) == 5
    bad = feature_set(data.features.index_fill(0, torch.tensor([2]), math.nan), data.labels, 3)
    for measure in (class_separation, effective_rank, explained_variance):
        with pytest.raises(DataError, match=r"must be finite, but row 2 \('2'\)"):
            measure(bad)


def test_separation_does_not_depend_on_units_or_rotation():
    x = gaussian(60, 5) + 2 * torch.arange(60)[:, None].remainder(3)
    labels = torch.arange(60) % 3
    turned = x @ torch.linalg.qr(gaussian(5, 5, 1)).Q * 10 + 4
    assert class_separation(feature_set(turned, labels, 3)).ratio == pytest.approx(
        class_separation(feature_set(x, labels, 3)).ratio, rel=1e-4
    )


def test_effective_rank_of_equal_and_single_directions():
    every = torch.cat([torch.eye(4), -torch.eye(4)])
    assert float(effective_rank(every)) == pytest.approx(4)
    assert effective_rank(every).participation_ratio == pytest.approx(4)
    line = torch.arange(10.0)[:, None] * torch.tensor([[1.0, 2.0, 3.0]])
    assert float(effective_rank(line)) == pytest.approx(1, abs=1e-5)
    assert effective_rank(line).participation_ratio == pytest.approx(1)


def test_effective_rank_by_hand():
    # Singular values 3:1 → p = ¾, ¼; eigenvalues 9:1 → (10)²/82.
    x = torch.tensor([[3.0, 1.0], [3.0, -1.0], [-3.0, 1.0], [-3.0, -1.0]])
    assert float(effective_rank(x)) == pytest.approx(math.exp(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25))))
    assert effective_rank(x).participation_ratio == pytest.approx(100 / 82)


def test_explained_variance_equals_scikit_learn():
    from sklearn.decomposition import PCA

    for n, d in ((50, 7), (7, 50)):
        x = gaussian(n, d) * torch.linspace(1, 5, d)
        found = explained_variance(x)
        r = min(n - 1, d)
        expected = torch.from_numpy(PCA(r).fit(x.numpy()).explained_variance_ratio_)
        torch.testing.assert_close(found.ratios, expected, rtol=1e-9, atol=1e-12)
        assert len(found.ratios) == r
        assert found.n_for(1.0) == r
        assert found.n_for(float(found.ratios[0])) == 1


def test_few_images_are_noted_and_many_are_not():
    few, many = gaussian(20, 20), gaussian(21, 20)
    labels = [i % 2 for i in range(21)]
    for measure in (effective_rank, explained_variance):
        assert "20 images are not more than 20 features" in measure(few).note
        assert measure(few).note in repr(measure(few))
        assert measure(many).note == ""
    assert "any labels separate" in class_separation(feature_set(few, labels[:20], 2)).note
    assert class_separation(feature_set(many, labels, 2)).note == ""


def test_imbalance_by_hand():
    found = imbalance(torch.tensor([0] * 6 + [1] * 3 + [2] * 3))
    assert (found.ratio, found.majority) == (2.0, 0.5)
    entropy = 1.5 * math.log(2)
    assert found.balance == pytest.approx(entropy / math.log(3))
    assert found.effective_classes == pytest.approx(2**1.5)
    balanced = imbalance(torch.arange(30) % 5)
    assert (balanced.ratio, balanced.balance) == (1.0, pytest.approx(1.0))
    assert balanced.effective_classes == pytest.approx(5)


def test_imbalance_with_an_empty_class_and_names():
    found = imbalance(feature_set(torch.zeros(3, 1), [0, 0, 1], 3))
    assert found.ratio == math.inf
    assert list(found.to_frame().index) == ["c0", "c1", "c2"]
    assert "<td>0.667</td>" in found._repr_html_()
    assert imbalance(torch.zeros(4, dtype=torch.int64)).balance == 0.0


def test_what_has_no_geometry():
    x = gaussian(6, 2)
    with pytest.raises(DataError, match="at least two images, got 1"):
        effective_rank(x[:1])
    with pytest.raises(DataError, match="vary from image to image"):
        explained_variance(torch.ones(5, 3))
    with pytest.raises(InputError, match="Average tokens first"):
        effective_rank(x[None])
    with pytest.raises(DataError, match="two classes and more images than classes"):
        class_separation(feature_set(x, [0] * 6, 2))
    with pytest.raises(InputError, match="nothing to separate in regression"):
        class_separation(FeatureSet.from_arrays(x, x[:, 0]))
    with pytest.raises(InputError, match=r"`share` must lie in \(0, 1\], got 0"):
        explained_variance(x).n_for(0)
    with pytest.raises(DataError, match="at least one label"):
        imbalance(torch.empty(0, dtype=torch.int64))
    with pytest.raises(InputError, match=r"must lie in 0\.\.1, got 0\.\.2"):
        imbalance(torch.tensor([0, 2]), n_classes=2)
    with pytest.raises(InputError, match="class indices"):
        imbalance(torch.tensor([0.5]))
    for odd in (None, 3, FeatureSet):
        with pytest.raises(InputError, match="`labels` must be"):
            imbalance(odd)
    assert imbalance([True, False, True, True]).counts.tolist() == [1, 3]
    for share in ("a", None):
        with pytest.raises(InputError, match="`share` must be a number"):
            explained_variance(x).n_for(share)
    with pytest.raises(InputError, match="`features` must be a FeatureSet, or features left on disk"):
        class_separation(x)
    with pytest.raises(InputError, match="a set that has classes; this one has none"):
        imbalance(FeatureSet.from_arrays(x, x[:, 0]))
