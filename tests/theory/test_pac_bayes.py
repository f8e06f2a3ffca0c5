"""PAC-Bayes: put together as its theorem says, and holding as often as it says."""

import math
from functools import partial

import pytest
import torch
from scipy.stats import binomtest
from torch import Tensor

from frozenkit import (
    pac_bayes_bound,
    ridge_path,
)
from frozenkit.theory.pac_bayes import DRAWS, SCALES, STRENGTHS, binary_kl, kl_inverse
from tests import toy

clouds = partial(toy.clouds, apart=2.0, drawn=True)


def significantly_above(violations: int, trials: int, delta: float) -> bool:
    return binomtest(violations, trials, delta, alternative="greater").pvalue < 0.001


def test_the_kl_inverse_to_nine_digits():
    from scipy.optimize import brentq

    for q in (0.0, 0.01, 0.3, 0.9):
        for budget in (1e-4, 0.01, 0.3):
            exact = brentq(lambda p, q=q, b=budget: binary_kl(q, p) - b, max(q, 1e-15), 1 - 1e-15, xtol=1e-14)
            assert kl_inverse(q, budget) == pytest.approx(exact, abs=1e-9)
    assert kl_inverse(1.0, 0.1) == 1.0
    assert kl_inverse(0.2, 0.0) == pytest.approx(0.2, abs=1e-9)
    assert kl_inverse(0.0, 0.1) == pytest.approx(1 - math.exp(-0.1))


def test_the_pac_bayes_bound_is_put_together_as_its_theorem_says():
    train = clouds(400, 0)
    found = pac_bayes_bound(train, delta=0.1)
    share = 0.1 / (2 * len(SCALES) * len(STRENGTHS))
    m = 200
    seen = found.terms["Gibbs error on the other half"]
    at_most = kl_inverse(seen, math.log(1 / share) / (m * DRAWS))
    value = kl_inverse(at_most, (found.details["KL"] + math.log(2 * math.sqrt(m) / share)) / m)
    assert found.value == pytest.approx(value, abs=1e-12)
    assert sum(found.terms.values()) == pytest.approx(found.value)
    assert found.details["KL"] > 0
    assert found.details["m"] == m


def test_the_kl_is_that_of_two_gaussians_around_the_two_probes():
    train = clouds(300, 3)
    found = pac_bayes_bound(train, seed=5)
    order = torch.randperm(300, generator=torch.Generator().manual_seed(5))
    half, strength = order[:150], found.details["strength"]
    scale = found.posterior.basis.scale
    x_half = scale(train.features[half]).double()

    def weights(rows: Tensor) -> Tensor:
        fit = ridge_path(scale(train.features[rows]), train.labels[rows], [strength], scale="none", n_classes=3)
        at = fit.at(strength)
        return torch.cat([at.weights, at.intercept[None]]).double()

    # In the space of the weights themselves: one Gaussian a class, covariance σ²·(C + λ)⁻¹, and σ² for the intercept.
    precision = torch.zeros(7, 7, dtype=torch.float64)
    precision[:6, :6] = x_half.T @ x_half / 150 + strength * torch.eye(6)
    precision[6, 6] = 1
    covariance = found.details["deviation"] ** 2 * torch.linalg.inv(precision)
    kl = 0.0
    for one, two in zip(weights(order).T, weights(half).T, strict=True):
        posterior, prior = (torch.distributions.MultivariateNormal(mean, covariance) for mean in (one, two))
        kl += float(torch.distributions.kl_divergence(posterior, prior))
    assert found.details["KL"] == pytest.approx(kl, rel=1e-4)
    x = train.features[order]
    torch.testing.assert_close(
        found.posterior.basis(x) @ found.posterior.mean,
        torch.cat([scale(x).double(), torch.ones(300, 1)], 1) @ weights(order),
        rtol=1e-4,
        atol=1e-5,
    )


def test_the_gibbs_error_is_that_of_drawn_weights():
    train, test = clouds(200, 0), clouds(300, 1)
    gibbs = pac_bayes_bound(train).posterior
    x = gibbs.basis(test.features)
    generator = torch.Generator().manual_seed(0)
    wrong = 0
    for _ in range(1000):  # whole weight matrices, as the definition has it; one for all images is as good on average
        w = gibbs.mean + gibbs.deviation * torch.randn(gibbs.mean.shape, generator=generator, dtype=torch.float64)
        wrong += int(((x @ w).argmax(1) != test.labels).sum())
    assert gibbs.error(test, draws=1000) == pytest.approx(wrong / 300_000, abs=0.01)
    assert gibbs.score(test).n == 300


def test_the_pac_bayes_bound_holds_as_often_as_it_says():
    test = clouds(20_000, 10_000)
    violations = 0
    for seed in range(200):
        bound = pac_bayes_bound(clouds(60, seed), delta=0.05)
        violations += bound.posterior.error(test, draws=2) > bound.value
    assert not significantly_above(violations, 200, 0.05)


def test_on_real_features_it_is_not_vacuous():
    """Frozen Lite0 features of the bundled Fashion-MNIST: the hold-out bound is tighter, and both hold."""
    from frozenkit import extract, load_backbone, load_dataset

    backbone = load_backbone("efficientnet-lite0", image_size=64, device="cpu")
    sets = [load_dataset("fashion-mnist", limit=1000), load_dataset("fashion-mnist", split="test", limit=500)]
    train, test = (extract(backbone, s, layer="blocks.5", progress=False) for s in sets)
    bound = pac_bayes_bound(train)
    assert not bound.is_vacuous
    assert bound.value < 0.6  # trivial is 1; the true error is about a quarter
    assert bound.posterior.error(test) < bound.value
    assert bound.slack(bound.posterior.error(test)) > 0
