"""Shifts: deterministic, by the amounts documented, and of an image's own whatever its place."""

import numpy as np
import pytest
import torch

from frozenkit import load_dataset, shift
from frozenkit.errors import InputError, UnknownNameError
from tests.toy import pixels, tiny_images

KINDS = ("rotate", "blur", "noise", "invert", "contrast", "resolution")


@pytest.mark.parametrize("kind", KINDS)
def test_shift_keeps_labels_grows_with_severity_and_is_deterministic(kind):
    ds = load_dataset("emoji-google", limit=10)
    assert shift(ds, kind, 0) is ds
    distance, digests = [0.0], {ds.digest}
    for severity in range(1, 6):
        moved = shift(ds, kind, severity)
        assert (moved.ids, moved.classes, moved.tasks.keys()) == (ds.ids, ds.classes, ds.tasks.keys())
        torch.testing.assert_close(moved.labels, ds.labels, rtol=0, atol=0)
        assert all(moved[i][0].size == ds[i][0].size for i in range(10))
        np.testing.assert_array_equal(pixels(moved, 3), pixels(shift(ds, kind, severity), 3))
        distance.append(np.mean([np.abs(pixels(moved, i).astype(float) - pixels(ds, i)).mean() for i in range(10)]))
        digests.add(moved.digest)
    assert distance == sorted(distance)
    assert len(digests) == 6


def test_a_image_is_shifted_alike_wherever_it_stands():
    ds = load_dataset("emoji-google", limit=10)
    for kind in KINDS:
        np.testing.assert_array_equal(
            pixels(shift(ds.subset([7, 2]), kind, 2), 1), pixels(shift(ds, kind, 2).subset([2]), 0)
        )


def test_shift_amounts_are_those_documented():
    flat = tiny_images(values=np.full((4, 100, 100, 3), 120, np.uint8))
    noise = pixels(shift(flat, "noise", 2)).astype(float) - 120
    np.testing.assert_allclose([noise.mean(), noise.std()], [0, 40], atol=1)
    np.testing.assert_array_equal(pixels(shift(flat, "invert", 5)), 135)
    np.testing.assert_array_equal(pixels(shift(flat, "invert", 1)), 123)
    half = np.zeros((4, 100, 100, 3), np.uint8)
    half[:, :50] = 200
    np.testing.assert_array_equal(np.unique(pixels(shift(tiny_images(values=half), "contrast", 5))), [90, 110])
    assert len(np.unique(pixels(shift(tiny_images(values=half), "blur", 1))[:, 0, 0])) > 4
    np.testing.assert_array_equal(pixels(shift(flat, "resolution", 5)), 120)
    assert not (pixels(shift(flat, "noise", 1), 0) == pixels(shift(flat, "noise", 1), 1)).all()  # by id


@pytest.mark.parametrize("size", [(1, 1), (1, 9)])
@pytest.mark.parametrize("kind", KINDS)
def test_tiny_images_can_be_shifted(kind, size):
    assert shift(tiny_images(values=np.full((4, *size, 3), 9, np.uint8)), kind, 5)[0][0].size == size[::-1]


def test_shift_errors():
    with pytest.raises(UnknownNameError, match=r"got 'blurr'\. Did you mean 'blur'"):
        shift(tiny_images(), "blurr", 1)
    for severity in (-1, 6, 1.5):
        with pytest.raises(InputError, match=r"`severity` must be a whole number from 0 to 5"):
            shift(tiny_images(), "blur", severity)
