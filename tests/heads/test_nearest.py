"""Nearest means and neighbours: leave-one-out by brute force, predictions by scikit-learn."""

import numpy as np
import torch
from sklearn.neighbors import KNeighborsClassifier

from frozenkit.heads.nearest import NearestMean, NearestNeighbours
from tests.toy import blobs

TRAIN, TEST = blobs(200), blobs(400, seed=2)


def test_leave_one_out_of_the_prototype_is_brute_force():
    few = blobs(15)
    found = NearestMean(few.features, few.labels, center=False).leave_one_out(few.features, few.labels)
    for i in range(len(few)):
        rest = torch.arange(len(few)) != i
        expected = NearestMean(few.features[rest], few.labels[rest], center=False)(few.features[i : i + 1])
        torch.testing.assert_close(found[i : i + 1], expected, rtol=1e-4, atol=1e-5)


def test_leave_one_out_of_neighbours_is_brute_force():
    few = blobs(15)
    found = NearestNeighbours(few.features, few.labels, neighbours=3, center=False).leave_one_out(few.features)
    for i in range(len(few)):
        rest = torch.arange(len(few)) != i
        alone = NearestNeighbours(few.features[rest], few.labels[rest], neighbours=3, center=False)
        torch.testing.assert_close(found[i : i + 1], alone(few.features[i : i + 1]), rtol=1e-4, atol=1e-4)


def test_one_neighbour_is_that_of_scikit_learn():
    probe = NearestNeighbours(TRAIN.features, TRAIN.labels, neighbours=1, center=False)
    reference = KNeighborsClassifier(1, metric="cosine").fit(*TRAIN.numpy())
    np.testing.assert_array_equal(probe(TEST.features).argmax(1), reference.predict(TEST.features.numpy()))


def test_votes_do_not_overflow():
    probe = NearestNeighbours(TRAIN.features, TRAIN.labels, neighbours=5, temperature=1e-4)
    assert probe(TEST.features).isfinite().all()
