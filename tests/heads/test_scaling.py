"""Scaling before a linear head: units do not matter, rare features do not explode, and rows that decide are counted."""

import pytest
import torch
from torch.testing import assert_close

from frozenkit.errors import FrozenkitWarning, InputError
from frozenkit.heads.ridge import ridge_path
from tests.heads.reference import STRENGTHS, uneven


def test_rows_that_decide_their_own_scale_are_counted():
    # Features 6 and 7 are active in one row each: rows 3 and 9 make up all of their variance.
    x, labels = uneven(40, 6, 3)
    rare = torch.zeros(40, 2)
    rare[3, 0], rare[9, 1] = 500.0, 1000.0
    wide = torch.cat([x, rare], 1)
    for shape in (wide, torch.cat([wide, torch.randn(40, 40) / 10], 1)):  # n > d, n < d
        assert ridge_path(shape, labels, [0.1]).self_scaled == 2
        assert ridge_path(shape, labels, [0.1], scale="standard").self_scaled == 2
        assert ridge_path(shape, labels, [0.1], scale="none").self_scaled == 0
    assert ridge_path(x, labels, [0.1]).self_scaled == 0


def test_a_rarely_active_feature_does_not_explode_on_a_new_image():
    x, labels = uneven(40, 6, 3, spread=3)
    rare = torch.zeros(40, 1)
    rare[3] = 1e-3
    new = torch.cat([x, torch.full((40, 1), 1.0)], 1)  # a thousand times what train ever saw

    def right(scale):
        path = ridge_path(torch.cat([x, rare], 1), labels, [1e-4], scale=scale)
        return float((path.at(1e-4)(new).argmax(1) == labels).double().mean())

    assert right("soft") == right("none") == 1
    assert right("standard") < 0.5  # the broken variant


def test_an_unknown_scale_is_refused():
    with pytest.raises(InputError, match="`scale` must be a known name, got 'sfot'. Did you mean 'soft'"):
        ridge_path(*uneven(40, 6, 3), scale="sfot")


def test_a_constant_feature_changes_nothing():
    x, labels = uneven(40, 6, 3)
    wide = torch.cat([x, torch.full((40, 1), 0.1)], 1)
    one, other = ridge_path(x, labels, STRENGTHS), ridge_path(wide, labels, STRENGTHS)
    assert_close(other.loo_scores, one.loo_scores)
    assert_close(other.at(0.1)(wide), one.at(0.1)(x), rtol=1e-4, atol=1e-4)
    assert_close(other.at(0.1).weights[-1], torch.zeros(3), rtol=0, atol=1e-6)


def test_unit_and_shift_of_the_features_change_nothing():
    x, labels = uneven(40, 6, 3)
    moved = 1e3 * x + 3
    one, other = ridge_path(x, labels, STRENGTHS), ridge_path(moved, labels, STRENGTHS)
    assert_close(one.loo_scores, other.loo_scores)
    assert_close(one.at(0.1)(x), other.at(0.1)(moved), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("d", [1, 20])
def test_a_row_that_is_huge_throughout_decides_every_scale(d):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(100, d, generator=generator)
    x[0] = 1000.0
    assert ridge_path(x, torch.arange(100) % 2, [0.1]).self_scaled == 1
    assert ridge_path(x[1:], torch.arange(99) % 2, [0.1]).self_scaled == 0


def test_a_giant_among_the_features_is_named():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(100, 10, generator=generator)
    giant = torch.cat([x, 1e7 * torch.randn(100, 1, generator=generator)], 1)
    with pytest.warns(FrozenkitWarning, match="the largest of 11 features is .* as large as the median one"):
        ridge_path(giant, torch.arange(100) % 2, [0.1])
    for scale in ("none", "standard", "unit"):
        ridge_path(giant, torch.arange(100) % 2, [0.1], scale=scale)
    ridge_path(torch.cat([x, 100 * x], 1), torch.arange(100) % 2, [0.1])
