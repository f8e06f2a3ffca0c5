"""Calibration: bins by hand, and a sure classifier that is right half of the time."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from frozenkit.errors import InputError
from frozenkit.probes.calibration import fit_temperature, reliability


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


def test_temperature_is_the_likeliest_for_smoothed_labels():
    logits = 3 * torch.randn(500, 4, generator=torch.Generator().manual_seed(0))
    labels = torch.distributions.Categorical(logits=logits / 2).sample()
    target = torch.full((500, 4), 1 / 502 / 3).scatter(1, labels[:, None], 1 - 1 / 502)
    grid = torch.linspace(0.5, 5, 2001)
    losses = torch.stack([torch.nn.functional.cross_entropy(logits / t, target) for t in grid])
    np.testing.assert_allclose(fit_temperature(logits, labels), float(grid[losses.argmin()]), atol=0.005)


def test_temperature_after_perfect_predictions_leaves_room_for_the_next():
    # Three of three right: the next is right with (3 + 1)/(3 + 2) = .8, so e^(1/T) / (e^(1/T) + 2) = .8.
    np.testing.assert_allclose(fit_temperature(torch.eye(3), torch.arange(3)), 1 / np.log(8), rtol=1e-6)
    # A class out of reach takes no part: of two classes, e^(1/T) / (e^(1/T) + 1) = .8.
    away = torch.cat([torch.eye(3)[:, :2], torch.full((3, 1), -torch.inf)], 1)[:2].repeat(3, 1)[:3]
    np.testing.assert_allclose(fit_temperature(away, torch.tensor([0, 1, 0])), 1 / np.log(4), rtol=1e-6)
    assert fit_temperature(torch.tensor([[1.0, -torch.inf], [0.0, 1.0]]), torch.tensor([0, 0])) > 0
