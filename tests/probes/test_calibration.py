"""Calibration: bins by hand, and a sure classifier that is right half of the time."""

from itertools import pairwise

import pytest
import torch

from frozenkit.errors import InputError
from frozenkit.probes.calibration import reliability


def sure(confidence, n=10):
    return torch.tensor([[confidence, 1 - confidence]], dtype=torch.float64).repeat(n, 1)


def test_the_calibration_error_by_hand():
    assert reliability(sure(0.8), [0] * 8 + [1] * 2).error == pytest.approx(0, abs=1e-9)
    assert reliability(sure(0.8), [0] * 5 + [1] * 5).error == pytest.approx(0.3)
    both = torch.cat([sure(0.8), sure(0.6)])
    # Half of the images are off by 0.3, half by 0.1.
    assert reliability(both, [0] * 5 + [1] * 5 + [0] * 5 + [1] * 5).error == pytest.approx(0.2)


def test_bins_hold_what_falls_into_them():
    found = reliability(
        torch.cat([sure(0.95, 4), sure(0.55, 6), sure(1.0, 2)]), [0, 0, 0, 1] + [0] * 3 + [1] * 3 + [0, 0]
    )
    assert found.count.tolist() == [0, 0, 0, 0, 0, 6, 0, 0, 0, 6]
    assert found.accuracy[5] == pytest.approx(0.5)
    assert found.accuracy[9] == pytest.approx(5 / 6)
    assert found.confidence[9] == pytest.approx((4 * 0.95 + 2) / 6)
    assert found.accuracy[0].isnan()
    frame = found.to_frame()
    assert frame["images"].tolist() == [6, 6]
    assert (frame["low"] <= frame["accuracy"]).all()
    assert "on 12 images in 10 bins" in repr(found)


def test_a_finer_diagram_never_has_a_smaller_error():
    generator = torch.Generator().manual_seed(0)
    p = torch.rand(500, 3, generator=generator).softmax(1)
    labels = torch.randint(3, (500,), generator=generator)
    errors = [reliability(p, labels, bins=bins).error for bins in (1, 2, 4, 8, 16)]
    assert all(fine >= coarse - 1e-12 for coarse, fine in pairwise(errors))


def test_what_is_no_diagram():
    with pytest.raises(InputError, match=r"must be \(n, k\) with n = 1"):
        reliability(torch.ones(2, 2), [0])
    with pytest.raises(InputError, match="`bins` at least 1, got .* and 0"):
        reliability(sure(0.8), [0] * 10, bins=0)
