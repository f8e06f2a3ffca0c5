"""Intervals and p values: scipy's, the published examples, and simulated coverage."""

import math

import numpy as np
import pytest
from scipy import stats

from frozenkit.probes.intervals import holm, mcnemar_p_value, newcombe_interval, wilson_interval


def test_wilson_is_that_of_scipy():
    for right, n in [(0, 1), (1, 1), (0, 50), (49, 50), (50, 50), (217, 257)]:
        reference = stats.binomtest(right, n).proportion_ci(method="wilson")
        np.testing.assert_allclose(wilson_interval(right, n), reference, atol=1e-12)


def test_newcombe_gives_the_published_examples():
    # Newcombe 1998 (paired), table II, and Fagerland et al. 2014, airway hyper-responsiveness.
    np.testing.assert_allclose(newcombe_interval(36, 12, 2, 0), (0.2, 0.0569, 0.3404), atol=5e-5)
    np.testing.assert_allclose(newcombe_interval(1, 1, 7, 12), (-0.286, -0.507, -0.026), atol=5e-4)


def test_mcnemar_is_the_exact_binomial_test():
    for a, b in [(0, 0), (1, 9), (5, 5), (30, 12), (3000, 2900)]:
        expected = stats.binomtest(a, a + b).pvalue if a + b else 1.0
        np.testing.assert_allclose(mcnemar_p_value(a, b), expected, rtol=1e-9)


def test_mcnemar_on_a_grid_is_the_sum_of_binomial_coefficients():
    for a in range(0, 40, 3):
        for b in range(0, 40, 4):
            tail = sum(math.comb(a + b, i) for i in range(min(a, b) + 1))
            assert mcnemar_p_value(a, b) == pytest.approx(min(1.0, 2 * tail / 2 ** (a + b)), rel=1e-12)


@pytest.mark.parametrize("p", [0.5, 0.7, 0.9])
@pytest.mark.parametrize("n", [300, 1000])
def test_wilson_covers(p, n):
    right = np.random.default_rng(1).binomial(n, p, 20_000)
    low, high = wilson_interval(right, n)
    assert 0.93 <= np.mean((low <= p) & (p <= high)) <= 0.97


@pytest.mark.parametrize(("both", "only_a", "only_b"), [(0.45, 0.1, 0.05), (0.6, 0.2, 0.1), (0.85, 0.06, 0.04)])
@pytest.mark.parametrize("n", [300, 1000])
def test_newcombe_covers(both, only_a, only_b, n):
    cells = [both, only_a, only_b, 1 - both - only_a - only_b]
    _, low, high = newcombe_interval(*np.random.default_rng(2).multinomial(n, cells, 20_000).T)
    assert 0.93 <= np.mean((low <= only_a - only_b) & (only_a - only_b <= high)) <= 0.97


def test_the_coverage_test_fails_the_wald_interval():
    right = np.random.default_rng(1).binomial(30, 0.95, 20_000) / 30
    half = 1.96 * np.sqrt(right * (1 - right) / 30)
    assert not 0.93 <= np.mean((right - half <= 0.95) & (right + half >= 0.95)) <= 0.97


def test_holm_is_that_of_the_definition():
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []
