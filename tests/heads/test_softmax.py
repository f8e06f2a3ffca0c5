"""Softmax: scikit-learn's minimum of the same objective, and a certificate that holds."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from frozenkit.errors import DataError, InputError
from frozenkit.heads.softmax import softmax_path
from tests.heads.reference import SHAPES, STRENGTHS, scaled, uneven


def logistic(x, labels, strength):
    """scikit-learn's minimum of the same objective, on scaled features."""
    from sklearn.linear_model import LogisticRegression

    z = scaled(x)
    fit = LogisticRegression(C=1 / (strength * len(x)), tol=1e-8, max_iter=10_000).fit(z.numpy(), labels.numpy())
    w, b = torch.tensor(fit.coef_.T), torch.tensor(fit.intercept_)
    logits = z @ w + b
    if len(b) == 1:
        logits = torch.cat([torch.zeros_like(logits), logits], 1)
    return float(torch.nn.functional.cross_entropy(logits, labels) + strength / 2 * w.square().sum()), logits


class TestSoftmax:
    @pytest.mark.parametrize("imbalanced", [False, True])
    @pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
    def test_the_objective_is_scikit_learns(self, shape, imbalanced):
        x, labels = uneven(*shape, imbalanced=imbalanced, spread=0.5)
        path = softmax_path(x, labels, STRENGTHS, tolerance=1e-6)
        assert path.converged.all()
        for i, strength in enumerate(STRENGTHS):
            reference, logits = logistic(x, labels, strength)
            np.testing.assert_allclose(float(path.objectives[i]), reference, rtol=2e-6)
            ours = path.at(strength)(x).softmax(1).double()
            assert_close(ours, logits.softmax(1), rtol=0, atol=5e-3)

    @pytest.mark.parametrize("k", [2, 3])
    def test_with_weights_it_is_scikit_learns(self, k):
        from sklearn.linear_model import LogisticRegression

        x, labels = uneven(60, 8, k, imbalanced=True, spread=0.5)
        w = 1 / labels.bincount().double()[labels]
        w = w / w.mean()
        mean = w @ x.double() / len(x)
        variance = w @ (x - mean).square() / len(x)
        z = ((x - mean) / ((variance + variance.mean()) / 2).sqrt()).numpy()
        reference = LogisticRegression(C=1 / (0.05 * len(x)), tol=1e-10, max_iter=10_000)
        reference.fit(z, labels.numpy(), sample_weight=w.numpy())
        fit = softmax_path(x, labels, [0.05], sample_weight="balanced", tolerance=1e-9)
        assert bool(fit.converged.all())
        p = fit.at(0.05)(x).softmax(1).numpy()
        np.testing.assert_allclose(p, reference.predict_proba(z), rtol=0, atol=2e-4)

    def test_the_certificate_holds(self):
        x, labels = uneven(60, 20, 3)
        minimum = softmax_path(x, labels, STRENGTHS, tolerance=1e-10).objectives
        for tolerance in (0.3, 1e-2, 1e-4):
            path = softmax_path(x, labels, STRENGTHS, tolerance=tolerance)
            assert path.converged.all()
            excess = path.objectives - minimum
            assert (excess <= path.gaps + 1e-10).all()
            assert (path.gaps <= tolerance * path.objectives).all()

    def test_too_few_iterations_are_confessed(self):
        path = softmax_path(*uneven(60, 20, 3), [1e-5, 10.0], max_iterations=1)
        assert not path.converged[0]
        assert f"{int(path.converged.sum())} converged" in repr(path)

    def test_together_equals_one_by_one(self):
        x, labels = uneven(40, 6, 3)
        together = softmax_path(x, labels, STRENGTHS, tolerance=1e-8)
        for i, strength in enumerate(STRENGTHS):
            alone = softmax_path(x, labels, [strength], tolerance=1e-8)
            assert_close(together.weights[i], alone.weights[0], rtol=1e-2, atol=1e-4)

    def test_shapes_and_order(self):
        path = softmax_path(*uneven(40, 6, 3), [10.0, 0.1])
        assert path.weights.shape == (2, 6, 3)
        assert path.intercepts.shape == (2, 3)
        assert path.strengths.tolist() == [0.1, 10.0]
        assert list(path.to_frame().columns) == ["objectives", "gaps", "converged"]

    def test_a_class_without_rows_is_never_likely(self):
        x, labels = uneven(30, 4, 2)
        path = softmax_path(x, labels, [0.1], n_classes=3)
        assert path.at(0.1)(x).softmax(1)[:, 2].max() < 1e-6

    def test_huge_features_do_not_overflow(self):
        x, labels = uneven(40, 6, 3)
        path = softmax_path(x * 1e12, labels, [0.1])
        assert torch.isfinite(path.weights).all()
        assert path.converged.all()

    def test_bad_input_is_named(self):
        x, labels = uneven(10, 3, 2)
        with pytest.raises(InputError, match="`strengths` must be finite numbers above 0"):
            softmax_path(x, labels, [0.0])
        with pytest.raises(InputError, match="`tolerance` must be positive"):
            softmax_path(x, labels, tolerance=0)
        with pytest.raises(InputError, match="use `ridge_path`"):
            softmax_path(x, labels.float())
        with pytest.raises(DataError, match="at least two classes"):
            softmax_path(x, torch.zeros_like(labels))
        with pytest.raises(InputError, match="nearest is 0.1"):
            softmax_path(x, labels, [0.1]).at(0.2)
