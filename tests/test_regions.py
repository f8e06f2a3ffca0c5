"""Regions: the plane is fitted on train, the grid agrees with the head, a bent head bends."""

import pytest
import torch

from frozenkit import FeatureSet
from frozenkit.errors import DataError, InputError
from frozenkit.regions import decision_regions


def clouds(n, seed):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 3
    x = torch.randn(n, 8, generator=generator)
    x[torch.arange(n), labels] += 4
    return FeatureSet(x, labels, ("a", "b", "c"), tuple(f"{seed}-{i}" for i in range(n)), "pool", "")


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


def test_the_plane_knows_train_alone():
    train = clouds(90, 0)
    one, other = (decision_regions(train, clouds(60, seed), resolution=5)[0] for seed in (1, 2))
    torch.testing.assert_close(one.train, other.train)


def test_what_has_no_plane():
    train = clouds(30, 0)
    two = train.subset((train.labels < 2).nonzero().squeeze(1))
    with pytest.raises(DataError, match="at least three classes"):
        decision_regions(two, train)
    with pytest.raises(InputError, match="`resolution` must be at least 2"):
        decision_regions(train, train, resolution=1)
