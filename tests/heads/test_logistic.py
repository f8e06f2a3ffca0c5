"""Logistic regression of several labels against scikit-learn, the two-class softmax, and its own certificate."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from sklearn.linear_model import LogisticRegression
from torch.testing import assert_close

from frozenkit import logistic_path, softmax_path
from frozenkit.errors import DataError, InputError


def tagged(n, d, k, seed=0, noise=2.0):
    """Features of unequal variance, and labels that are ever rarer."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d, generator=generator) * (0.5 + torch.rand(d, generator=generator)) + 1
    z = (x - 1) @ torch.randn(d, k, generator=generator) + noise * torch.randn(n, k, generator=generator)
    return x, z > torch.linspace(0, 2, k)


@pytest.mark.parametrize(("n", "d", "k"), [(60, 5, 3), (40, 100, 4), (200, 20, 50), (30, 4, 1)])
@pytest.mark.parametrize("strength", [1e-2, 1.0])
def test_coefficients_are_those_of_scikit_learn(n, d, k, strength):
    x, y = tagged(n, d, k)
    path = logistic_path(x, y, [strength], scale="none", tolerance=1e-12)
    found = path.at(strength)
    for j in range(k):
        reference = LogisticRegression(C=1 / (strength * n), tol=1e-10, max_iter=10_000)
        reference.fit(x.double().numpy(), y[:, j].numpy())
        assert_allclose(found.weights[:, j], reference.coef_[0], atol=1e-4)
        assert_allclose(found.intercept[j], reference.intercept_[0], atol=1e-4)


@pytest.mark.parametrize("scale", ["soft", "unit", "none", "standard"])
def test_a_single_label_is_the_softmax_of_two_classes(scale):
    x, y = tagged(50, 6, 2)
    both = logistic_path(x, y, [1e-3, 0.1], scale=scale, tolerance=1e-12)
    for j in range(2):
        two = softmax_path(x, y[:, j].long(), [1e-3, 0.1], scale=scale, tolerance=1e-12)
        assert_close(both.weights[:, :, j], two.weights[:, :, 1] - two.weights[:, :, 0], atol=2e-5, rtol=1e-4)
        assert_close(both.intercepts[:, j], two.intercepts[:, 1] - two.intercepts[:, 0], atol=1e-4, rtol=1e-4)
        assert_close(both.objectives[:, j], two.objectives)


def test_a_weight_of_two_is_the_row_written_twice():
    x, y = tagged(40, 5, 3)
    w = 1 + (torch.arange(40) % 3 == 0).double()
    twice = w.long().repeat_interleave(1)
    rows = torch.arange(40).repeat_interleave(twice)
    for scale in ("none", "soft"):
        weighted = logistic_path(x, y, [0.01], sample_weight=w, scale=scale, tolerance=1e-12)
        written = logistic_path(x[rows], y[rows], [0.01], scale=scale, tolerance=1e-12)
        assert_close(weighted.weights, written.weights, atol=1e-5, rtol=1e-5)
        assert_close(weighted.objectives, written.objectives)


def test_each_gap_bounds_the_distance_to_the_minimum():
    x, y = tagged(80, 10, 4)
    exact = logistic_path(x, y, tolerance=1e-12)
    for steps in (1, 3, 10):
        rough = logistic_path(x, y, max_iterations=steps)
        excess = rough.objectives - exact.objectives
        assert bool((excess >= -1e-12).all())
        assert bool((excess <= rough.gaps + 1e-12).all())
    assert not logistic_path(x, y, max_iterations=1, tolerance=1e-10).converged.all()
    assert bool(exact.converged.all())
    assert bool((exact.gaps <= 1e-12 * exact.objectives).all())


def test_labels_that_are_told_apart_perfectly_converge_too():
    x = torch.cat([torch.zeros(20, 2), torch.ones(20, 2)]) + torch.linspace(0, 0.1, 40)[:, None]
    y = torch.stack([torch.arange(40) < 20, torch.arange(40) == 7], 1)
    path = logistic_path(x, y)
    assert bool(path.converged.all())
    assert_close((path.at(1e-5)(x) > 0)[:, 0], y[:, 0])


def test_labels_do_not_depend_on_their_neighbours():
    x, y = tagged(60, 8, 5)
    together = logistic_path(x, y, tolerance=1e-12)
    for j in range(5):
        alone = logistic_path(x, y[:, [j]], tolerance=1e-12)
        assert_close(together.weights[:, :, [j]], alone.weights, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize(
    ("kind", "message", "change"),
    [
        (
            InputError,
            r"\(n, k\) booleans, or 0 and 1, got torch.int64 of shape \(6,\)",
            {"labels": torch.arange(6) % 2},
        ),
        (InputError, "booleans, or 0 and 1, got torch.int64", {"labels": torch.arange(6)[:, None]}),
        (InputError, r"shape \(6, 0\)", {"labels": torch.zeros(6, 0, dtype=torch.bool)}),
        (DataError, "but label 1 is in none", {"labels": torch.arange(12).view(6, 2) == 2}),
        (DataError, "label 0, label 1 are in every image", {"labels": torch.ones(6, 2, dtype=torch.bool)}),
        (InputError, "one row for each of 6 rows", {"labels": torch.eye(5, dtype=torch.bool)}),
        (InputError, "`tolerance` must be positive", {"tolerance": 0.0}),
        (InputError, "finite numbers above 0", {"strengths": [0.0]}),
        (InputError, r"must be 'balanced' \(with class labels\)", {"sample_weight": "balanced"}),
        (DataError, "row 0 has NaN", {"features": torch.full((6, 2), torch.nan)}),
        (DataError, "all rows are the same", {"features": torch.ones(6, 2)}),
    ],
)
def test_bad_input_is_named(kind, message, change):
    given = {"features": torch.arange(12.0).view(6, 2), "labels": torch.eye(6, 3, dtype=torch.bool), **change}
    with pytest.raises(kind, match=message):
        logistic_path(given.pop("features"), given.pop("labels"), **given)


def test_only_strengths_of_the_path_have_a_fit():
    x, y = tagged(20, 2, 2)
    path = logistic_path(x, y, np.array([0.1, 0.01]))
    assert path.strengths.tolist() == [0.01, 0.1]
    with pytest.raises(InputError, match="one of the path's, got 0.05"):
        path.at(0.05)
