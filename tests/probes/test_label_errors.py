"""Suspected label errors: worked by hand, planted among real features, and refused where there are no probabilities."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal

from frozenkit import extract, fit_probe, load_dataset, suspected_label_errors
from frozenkit.app.inspection import leave_one_out_probabilities
from frozenkit.errors import InputError

P = torch.tensor(
    [
        [0.8, 0.2, 0.0],
        [0.6, 0.3, 0.1],
        [0.1, 0.9, 0.0],  # labelled 0, surely 1
        [0.2, 0.7, 0.1],
        [0.5, 0.4, 0.1],  # labelled 1, said to be 0
        [0.45, 0.5, 0.05],
        [0.0, 0.1, 0.9],
        [0.3, 0.3, 0.4],
    ],
    dtype=torch.float64,
)
Y = torch.tensor([0, 0, 0, 1, 1, 1, 2, 2])


def test_worked_by_hand():
    found = suspected_label_errors(P, Y)
    # Thresholds: (.8 + .6 + .1)/3, (.7 + .4 + .5)/3, (.9 + .4)/2.
    torch.testing.assert_close(found.thresholds, torch.tensor([0.5, 1.6 / 3, 0.65], dtype=torch.float64))
    # Row 4 reaches the threshold of 0, not that of its own class; rows 5 and 7 reach none.
    assert found.joint.tolist() == [[2, 1, 0], [1, 1, 0], [0, 0, 1]]
    assert (found.rows.tolist(), found.labels.tolist(), found.suggested.tolist()) == ([2, 4], [0, 1], [1, 0])
    torch.testing.assert_close(found.margin, torch.tensor([-0.8, -0.1], dtype=torch.float64))
    assert repr(found) == "LabelErrors(2 of 8 labels are suspected, first rows [2, 4])"
    assert_array_equal(found.to_frame().rows, [2, 4])


def test_a_label_that_is_the_likeliest_class_is_no_suspect():
    """It may lie below its own threshold and above another's."""
    p = torch.tensor([[0.95, 0.05], [0.95, 0.05], [0.6, 0.4], [0.65, 0.35], [0.6, 0.4]])
    found = suspected_label_errors(p, [0, 0, 0, 1, 1])
    assert found.joint[0, 1] == 1
    assert len(found) == 0


def test_equal_probabilities_suspect_nobody():
    found = suspected_label_errors(torch.full((9, 3), 1 / 3), torch.arange(9) % 3)
    assert len(found) == 0
    assert repr(found) == "LabelErrors(0 of 9 labels are suspected)"


def test_a_class_without_an_image_is_never_suggested():
    found = suspected_label_errors([[0.1, 0.1, 0.8], [0.1, 0.8, 0.1]], [0, 1])
    assert (found.thresholds[2], len(found)) == (torch.inf, 0)


@pytest.mark.parametrize(
    ("name", "layer", "least_recall", "least_precision"),
    [("digits", "blocks.5", 0.6, 0.9), ("emoji-google", "blocks.6", 0.65, 0.2)],
)
def test_planted_errors_are_found(backbone, name, layer, least_recall, least_precision):
    """One label in twenty flipped, five seeds, by leave-one-out: what a reader of the first rows would see.

    The rule is careful: about half the images of a class lie above the mean confidence that it asks for. Where a third
    of the predictions are wrong anyhow, as of emoji, most suspects are none, but the planted are six times as common.
    """
    features = extract(backbone, load_dataset(name, limit=500, seed=1), layer=layer, progress=False)
    recalls, precisions = [], []
    for seed in range(5):
        random = np.random.RandomState(seed)
        planted = torch.from_numpy(random.choice(len(features), len(features) // 20, replace=False))
        labels = features.labels.clone()
        labels[planted] = (labels[planted] + torch.from_numpy(random.randint(1, features.n_classes, len(planted)))) % (
            features.n_classes
        )
        noisy = features.relabel(labels, features.classes)
        found = suspected_label_errors(leave_one_out_probabilities(fit_probe(noisy), noisy), labels)
        recalls.append(torch.isin(planted, found.rows).double().mean())
        precisions.append(torch.isin(found.rows[: len(planted)], planted).double().mean())
    assert np.mean(recalls) > least_recall
    assert np.mean(precisions) > least_precision


@pytest.mark.parametrize(
    ("probabilities", "labels", "message"),
    [
        (torch.ones(4), [0] * 4, r"must be \(n, k\) with n ≥ 1 images and k ≥ 2 classes, got Tensor of shape \(4,\)"),
        (torch.ones(4, 1), [0] * 4, "k ≥ 2"),
        (torch.empty(0, 2), [], "n ≥ 1"),
        (P * 100, Y, "sum to 1 in each row, but row 0 is 80, 20, 0"),
        (torch.tensor([[0.5, 0.5], [torch.nan, 1.0]]), [0, 1], "row 1 is nan, 1"),
        (torch.tensor([[0.5, 0.5], [-0.5, 1.5]]), [0, 1], "row 1 is -0.5, 1.5"),
        (P, Y[:-1], "one entry per row of `probabilities`, 8, got 7"),
        (P, Y + 1, "`labels` must lie in 0..2, got 1..3"),
        (P, P, r"`labels` must be \(n,\) class indices"),
        (P, Y.float(), "`labels` must be integers"),
        (None, Y, "`probabilities` must be an array of numbers, got None"),
        ("half", Y, "`probabilities` must be an array"),
    ],
)
def test_what_is_no_probabilities_or_labels(probabilities, labels, message):
    with pytest.raises(InputError, match=message):
        suspected_label_errors(probabilities, labels)
