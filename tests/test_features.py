"""FeatureSet, combine and reduce."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from frozenkit.errors import DataError, InputError
from frozenkit.features import FeatureSet, combine, reduce


def a_set(n=6, d=4, layer="a", seed=0, **changes):
    x = torch.randn(n, d, generator=torch.Generator().manual_seed(seed))
    fields = {
        "features": x,
        "labels": torch.arange(n) % 2,
        "classes": ("cat", "dog"),
        "ids": tuple(f"image-{i}" for i in range(n)),
        "layer": layer,
        "fingerprint": f"{seed}{layer}",
    }
    return FeatureSet(**{**fields, **changes})


def test_subset_takes_rows_in_order_and_a_new_fingerprint():
    fs = a_set()
    part = fs.subset([4, 1])
    assert_close(part.features, fs.features[[4, 1]], rtol=0, atol=0)
    assert part.ids == ("image-4", "image-1")
    assert part.labels.tolist() == [0, 1]
    assert len({fs.fingerprint, part.fingerprint, fs.subset([1, 4]).fingerprint}) == 3


def test_subset_accepts_a_mask():
    fs = a_set()
    assert fs.subset(fs.labels == 1).ids == ("image-1", "image-3", "image-5")


def test_relabel_is_a_second_task_on_the_same_features():
    fs = a_set()
    other = fs.relabel(torch.tensor([0, 1, 2, 0, 1, 2]), ["x", "y", "z"])
    assert (other.n_classes, fs.n_classes) == (3, 2)
    assert other.features is fs.features
    assert other.fingerprint != fs.fingerprint


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"features": torch.zeros(6)}, r"must be \(n, d\) or \(n, t, d\)"),
        ({"labels": torch.zeros(5, dtype=torch.int64)}, "one row per image, got 6, 5 and 6"),
        ({"ids": ("same",) * 6}, "must be unique"),
        ({"labels": torch.full((6,), 2)}, r"must lie in 0\.\.1 for 2 classes, got 2\.\.2"),
        ({"labels": torch.full((6,), -1)}, r"got -1\.\.-1"),
        ({"labels": torch.zeros(6)}, "must be .* integers"),
        ({"classes": ()}, "leave it empty only for regression"),
    ],
)
def test_parts_that_do_not_fit_are_named(changes, message):
    with pytest.raises(DataError, match=message):
        a_set(**changes)


def test_combine_concat_and_mean_by_hand():
    a, b = a_set(layer="a", seed=0), a_set(layer="b", seed=1)
    assert_close(combine({"a": a, "b": b}).features, torch.cat([a.features, b.features], 1))
    mean = combine({"a": a, "b": b}, how="mean")
    assert_close(mean.features, (a.features + b.features) / 2)
    assert mean.layer == "a+b"


@pytest.mark.parametrize(
    ("other", "how", "message"),
    [
        (a_set(ids=tuple("bacdef")), "concat", "same images in the same order; 'b' differs"),
        (a_set(labels=torch.zeros(6, dtype=torch.int64)), "concat", "same labels; 'b' differs"),
        (a_set(d=3), "mean", "one width, got {'a': 4, 'b': 3}"),
        (a_set(), "learned", "A learned mix is `LayerMix`"),
    ],
)
def test_combine_refuses_what_does_not_belong_together(other, how, message):
    with pytest.raises(InputError, match=message):
        combine({"a": a_set(), "b": other}, how=how)


def test_pca_agrees_with_scikit_learn():
    from sklearn.decomposition import PCA

    train, test = a_set(n=40, d=7), a_set(n=10, d=7, seed=1)
    ours = reduce(train, test, n_features=3)
    pca = PCA(3, svd_solver="full").fit(train.features.double().numpy())
    for mine, theirs in zip(ours, (train, test), strict=True):
        expected = pca.transform(theirs.features.double().numpy())
        np.testing.assert_allclose(np.abs(mine.features.numpy()), np.abs(expected), atol=1e-5)


def test_pca_does_not_look_at_the_others():
    train, test = a_set(n=40, d=7), a_set(n=10, d=7, seed=1)
    alone = reduce(train, n_features=3)[0]
    assert_close(reduce(train, test, n_features=3)[0].features, alone.features, rtol=0, atol=0)


def test_random_projection_keeps_distances_on_average():
    train = a_set(n=30, d=500)
    (small,) = reduce(train, n_features=400, how="random")
    ratio = torch.pdist(small.features).mean() / torch.pdist(train.features).mean()
    assert abs(ratio.item() - 1) < 0.05


@pytest.mark.parametrize(("n_features", "how"), [(0, "pca"), (5, "pca"), (8, "random"), (2, "tsne"), (2, "lda")])
def test_reduce_refuses_impossible_requests(n_features, how):
    with pytest.raises(InputError, match="must"):
        reduce(a_set(n=4, d=7), n_features=n_features, how=how)


def test_the_discriminant_plane_is_fitted_on_train_alone():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(6000) % 3  # so many that shrinking fades
    x = torch.randn(6000, 6, generator=generator) + 4 * torch.nn.functional.one_hot(labels, 6)
    train = FeatureSet.from_arrays(x, labels.numpy())
    plane, moved = reduce(train, replace(train, features=x + 100), n_features=2, how="lda")
    means = torch.stack([plane.features[labels == c].mean(0) for c in range(3)])
    within = plane.features - means[labels]
    assert torch.pdist(means).min() > 4  # in units of the spread within classes, which is 1 along either direction
    assert_close(within.square().sum(0) / 6000, torch.ones(2), rtol=0.02, atol=0)
    shift = moved.features - plane.features
    assert_close(shift, shift[:1].expand(6000, 2), rtol=0, atol=1e-3)


def test_discriminants_need_classes():
    with pytest.raises(InputError, match="`how='lda'` needs classes to tell apart, got FeatureSet.* Use how='pca'"):
        reduce(FeatureSet.from_arrays(np.eye(4)), n_features=1, how="lda")


def test_frame_and_torch_dataset_carry_the_same_values():
    fs = a_set()
    frame = fs.to_frame()
    assert list(frame.index) == list(fs.ids)
    assert list(frame["label"][:2]) == ["cat", "dog"]
    np.testing.assert_array_equal(frame.iloc[:, 1:].to_numpy(), fs.features.numpy())
    x, y = fs.to_torch()[3]
    assert_close(x, fs.features[3])
    assert y.item() == 1


def test_a_list_of_names_with_something_else_among_them_is_named_row_by_row():
    x = np.eye(4)
    for odd in (float("nan"), None, 1):
        with pytest.raises(DataError, match="names throughout, but row 1"):
            FeatureSet.from_arrays(x, ["a", odd, "a", "b"])


def test_unsigned_numbers_keep_their_sign():
    features = FeatureSet.from_arrays(np.full((2, 1), 2**63, dtype=np.uint64)).features
    assert features.tolist() == [[2.0**63]] * 2
    with pytest.raises(DataError, match="class indices from 0 on, got whole numbers above 2⁶³. Give names instead"):
        FeatureSet.from_arrays(np.eye(2), np.array([2**63, 2**63 + 9], dtype=np.uint64))


def test_a_principal_axis_that_is_only_rounding_gives_no_feature():
    x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0)) @ torch.randn(3, 8) + 5  # rank 3 in 8 columns
    fs = FeatureSet.from_arrays(x, torch.arange(50) % 2)
    (few,) = reduce(fs, n_features=6)
    assert few.features[:, :3].std(0).min() > 0.1
    torch.testing.assert_close(few.features[:, 3:], torch.zeros(50, 3), rtol=0, atol=0)
