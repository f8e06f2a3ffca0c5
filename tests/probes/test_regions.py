"""Regions: the plane is fitted on train, the grid agrees with the head, a bent head bends."""

from dataclasses import replace
from functools import partial

import pytest
import torch

from frozenkit import FeatureSet
from frozenkit._projections import discriminant_directions
from frozenkit.errors import DataError, InputError
from frozenkit.probes.regions import decision_regions
from tests import toy

clouds = partial(toy.clouds, d=8, apart=4.0)


def test_the_grid_says_what_the_head_says():
    ridge, knn = decision_regions(clouds(90, 0), clouds(60, 1), heads=["ridge", "knn"], resolution=80)
    assert ridge.score.accuracy > 0.9
    assert (ridge.head, knn.head) == ("ridge", "knn")
    torch.testing.assert_close(ridge.train, knn.train)
    assert ridge.predictions.shape == (80, 80)
    # The grid point nearest to a train image carries the prediction there: look up each image's cell.
    column = (ridge.x[None] - ridge.train[:, :1]).abs().argmin(1)
    row = (ridge.y[None] - ridge.train[:, 1:]).abs().argmin(1)
    assert float((knn.predictions[row, column] == knn.train_labels).double().mean()) > 0.9
    assert (ridge.train >= torch.stack([ridge.x[0], ridge.y[0]])).all()
    assert len(ridge.x) == 80


def with_one_between(n, seed):
    """Four classes, the last of them in the middle of the others."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 4
    centres = torch.cat([8 * torch.eye(3, 8), 8 / 3 * torch.ones(1, 8) * (torch.arange(8) < 3)])
    x = torch.randn(n, 8, generator=generator) + centres[labels]
    return FeatureSet.from_arrays(x, labels, classes=("a", "b", "c", "between"))


@pytest.mark.parametrize("head", ["prototype", "knn"])
def test_neighbours_and_means_keep_their_distance_in_the_plane(head):
    """Scaled to length one, a point of the plane keeps only its angle: all boundaries were rays through one point."""
    both = with_one_between(120, 0), with_one_between(80, 1)
    (by_distance,) = decision_regions(*both, heads=[head], resolution=20)
    (by_angle,) = decision_regions(*both, heads=[head], resolution=20, normalize=True)
    assert by_distance.score.accuracy > 0.95 > 0.9 > by_angle.score.accuracy


def test_the_plane_knows_train_alone():
    train = clouds(90, 0)
    one, other = (decision_regions(train, clouds(60, seed), resolution=5)[0] for seed in (1, 2))
    torch.testing.assert_close(one.train, other.train)


def test_what_has_no_plane():
    train = clouds(30, 0)
    two = train.subset((train.labels < 2).nonzero().squeeze(1))
    with pytest.raises(DataError, match="at least three classes"):
        decision_regions(two, train)
    with pytest.raises(InputError, match="`resolution` must be a whole number of at least 2"):
        decision_regions(train, train, resolution=1)


@pytest.mark.parametrize("each", [1, 2, 3])
def test_a_plane_of_very_few_images_per_class(each):
    """Two per class used to end in LinAlgError: shrinking each class by itself shrinks nothing there."""
    train = clouds(3 * each, 0)
    (found,) = decision_regions(train, clouds(60, 1), resolution=5)
    assert found.train.isfinite().all()
    assert found.score.accuracy > 1 / 3


def test_equal_images_in_each_class_still_give_a_plane():
    train = clouds(9, 0)
    same = replace(train, features=torch.eye(8)[train.labels], ids=tuple("abcdefghi"))
    (found,) = decision_regions(same, clouds(60, 1), resolution=5)
    assert found.train.isfinite().all()


def test_the_plane_is_that_of_textbook_discriminants():
    """Where images are many, shrinking fades, and scikit-learn's own solution spans the same directions."""
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    train = clouds(6_000, 0)
    reference = LinearDiscriminantAnalysis(solver="eigen", n_components=2).fit(train.features, train.labels)
    expected = torch.from_numpy(reference.transform(train.features)).double()
    ours = train.features.double() @ discriminant_directions(train.features, train.labels, 2)
    for column in range(2):
        r = torch.corrcoef(torch.stack([expected[:, column], ours[:, column]]))[0, 1].abs()
        torch.testing.assert_close(r, torch.ones_like(r), rtol=0, atol=1e-3)


def test_the_plane_ignores_the_scale_of_a_feature():
    train = clouds(30, 0)
    scales = torch.tensor([1.0, 100.0, 0.01, 1, 1, 1, 1, 7])
    plain = train.features.double() @ discriminant_directions(train.features, train.labels, 2)
    scaled = (train.features * scales).double() @ discriminant_directions(train.features * scales, train.labels, 2)
    torch.testing.assert_close((plain - plain.mean(0)).abs(), (scaled - scaled.mean(0)).abs(), rtol=1e-4, atol=1e-4)
