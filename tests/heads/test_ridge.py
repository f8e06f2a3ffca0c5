"""Ridge: against brute force, against scikit-learn, and against what must not change."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from frozenkit.errors import DataError, InputError
from frozenkit.extraction.saved import load_features, save_features
from frozenkit.features import FeatureSet
from frozenkit.heads.ridge import ridge_path
from tests.heads.reference import SHAPES, STRENGTHS, scaled, uneven


def refitted(z, y, alpha):
    """Weights and intercept of ridge by the normal equations: the slow truth."""
    centred, middle = z - z.mean(0), y.mean(0)
    gram = centred.T @ centred + alpha * torch.eye(z.shape[1], dtype=z.dtype)
    weights = torch.linalg.solve(gram, centred.T @ (y - middle))
    return weights, middle - z.mean(0) @ weights


def left_out_by_hand(x, y, strength):
    """(n, k) prediction of each row by a fit without it: α = λ·n and the scaler as on all rows."""
    z, alpha = scaled(x), strength * len(x)
    rows = []
    for i in range(len(x)):
        keep = torch.arange(len(x)) != i
        weights, intercept = refitted(z[keep], y[keep], alpha)
        rows.append(z[i] @ weights + intercept)
    return torch.stack(rows)


class TestRidge:
    @pytest.mark.parametrize("imbalanced", [False, True])
    @pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
    def test_leave_one_out_accuracy_is_that_of_refits(self, shape, imbalanced):
        x, labels = uneven(*shape, imbalanced=imbalanced, spread=0.5)
        coded = 2.0 * torch.nn.functional.one_hot(labels).double() - 1
        expected = [(left_out_by_hand(x, coded, s).argmax(1) == labels).double().mean() for s in STRENGTHS]
        assert_close(ridge_path(x, labels, STRENGTHS).loo_scores, torch.stack(expected), rtol=0, atol=1e-9)

    @pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
    def test_leave_one_out_r_squared_is_that_of_refits(self, shape):
        x, labels = uneven(*shape)
        y = torch.stack([labels.float(), x[:, 0] / 3 + labels], 1)
        total = (y - y.mean(0)).double().square().sum()
        expected = [1 - (left_out_by_hand(x, y.double(), s) - y).square().sum() / total for s in STRENGTHS]
        assert_close(ridge_path(x, y, STRENGTHS).loo_scores, torch.stack(expected), rtol=1e-5, atol=1e-5)

    def test_the_shortcut_without_the_intercept_is_caught(self):
        # H without its 11ᵀ/n leaves the intercept fitted on the row that should be out: the broken variant.
        x, labels = uneven(15, 40, 3)
        y = labels.double().unsqueeze(1)
        z, alpha = scaled(x), 0.1 * len(x)
        hat = z @ torch.linalg.solve(z.T @ z + alpha * torch.eye(40, dtype=torch.float64), z.T)
        fitted = hat @ (y - y.mean()) + y.mean()
        broken = y - (y - fitted) / (1 - hat.diagonal()).unsqueeze(1)
        right = y - (y - fitted) / (1 - hat.diagonal() - 1 / len(x)).unsqueeze(1)
        truth = left_out_by_hand(x, y, 0.1)
        assert_close(right, truth, rtol=1e-8, atol=1e-8)
        with pytest.raises(AssertionError):
            assert_close(broken, truth, rtol=1e-3, atol=1e-3)

    @pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
    def test_the_fit_is_scikit_learns(self, shape):
        from sklearn.linear_model import Ridge

        x, labels = uneven(*shape)
        coded = (2.0 * torch.nn.functional.one_hot(labels).double() - 1).numpy()
        z = scaled(x).numpy()
        path = ridge_path(x, labels, STRENGTHS)
        for strength in [*STRENGTHS, 0.037]:
            reference = Ridge(alpha=strength * len(x)).fit(z, coded).predict(z)
            np.testing.assert_allclose(path.at(strength)(x).numpy(), reference, rtol=1e-4, atol=1e-4)

    def test_without_a_scale_the_fit_is_scikit_learns_on_raw_features(self):
        from sklearn.linear_model import Ridge

        x, labels = uneven(40, 6, 3)
        reference = Ridge(alpha=0.1 * 40).fit(x.double().numpy(), labels.numpy()).predict(x.double().numpy())
        fit = ridge_path(x, labels.float(), STRENGTHS, scale="none").at(0.1)
        np.testing.assert_allclose(fit(x).numpy()[:, 0], reference, rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
    def test_each_output_has_its_own_error_and_may_have_its_own_strength(self, shape):
        x, labels = uneven(*shape)
        y = torch.randn(len(x), 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) + labels[:, None]
        path = ridge_path(x, y, STRENGTHS)
        by_hand = torch.stack([(y - left_out_by_hand(x, y, s)).square().mean(0) for s in STRENGTHS])
        assert_close(path.loo_errors, by_hand)
        both = path.at(torch.tensor([0.1, 10.0], dtype=torch.float64))(x)
        assert_close(both, torch.stack([path.at(0.1)(x)[:, 0], path.at(10.0)(x)[:, 1]], 1))
        assert ridge_path(x, labels, STRENGTHS).loo_errors is None
        with pytest.raises(InputError, match="`strength` must be positive, got tensor"):
            path.at(torch.tensor([0.1, 0.0]))

    @pytest.mark.parametrize("scale", ["none", "unit"])
    @pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
    def test_leave_one_out_is_that_of_whole_refits_where_no_scale_is_fitted(self, shape, scale):
        x, labels = uneven(*shape, spread=0.5)
        x = x - 5
        path = ridge_path(x, labels, STRENGTHS, scale=scale)
        assert path.self_scaled == 0
        z = torch.nn.functional.normalize(x.double(), dim=1) if scale == "unit" else x.double()
        coded = 2.0 * torch.nn.functional.one_hot(labels).double() - 1
        for strength, found in zip(STRENGTHS, path.loo_scores.tolist(), strict=True):
            rows = []
            for i in range(len(x)):
                keep = torch.arange(len(x)) != i
                weights, intercept = refitted(z[keep], coded[keep], strength * len(x))
                rows.append(z[i] @ weights + intercept)
            assert found == pytest.approx(float((torch.stack(rows).argmax(1) == labels).double().mean()), abs=1e-9)
            assert_close(path.leave_one_out(x, labels, strength), torch.stack(rows), rtol=1e-5, atol=1e-5)

    @pytest.mark.parametrize("scale", ["none", "unit"])
    @pytest.mark.parametrize("n", [12, 13])
    def test_left_out_logits_keep_their_digits_where_n_is_about_d(self, n, scale):
        x, labels = uneven(n, 12, 2, spread=0.5)
        x = x - 5
        z = torch.nn.functional.normalize(x.double(), dim=1) if scale == "unit" else x.double()
        coded = 2.0 * torch.nn.functional.one_hot(labels).double() - 1
        rows = []
        for i in range(n):
            keep = torch.arange(n) != i
            weights, intercept = refitted(z[keep], coded[keep], 1e-7 * n)
            rows.append(z[i] @ weights + intercept)
        path = ridge_path(x, labels, [1e-7], scale=scale)
        assert_close(path.leave_one_out(x, labels, 1e-7), torch.stack(rows), rtol=1e-3, atol=1e-3)

    def test_a_duplicate_feature_is_no_harm(self):
        x, labels = uneven(40, 6, 3)
        assert torch.isfinite(ridge_path(torch.cat([x, x], 1), labels, [1e-8, 1.0]).at(1e-8).weights).all()

    def test_on_disk_equals_in_memory(self, tmp_path):
        x, labels = uneven(200, 6, 3)
        save_features(FeatureSet.from_arrays(x, labels), tmp_path / "f.safetensors")
        from frozenkit.extraction.cache import CachedFeatures

        lazy = ridge_path(CachedFeatures(tmp_path / "f.safetensors"), strengths=STRENGTHS)
        dense = ridge_path(load_features(tmp_path / "f.safetensors"), strengths=STRENGTHS)
        assert_close(lazy.loo_scores, dense.loo_scores)
        assert_close(lazy.at(0.1).weights, dense.at(0.1).weights)

    def test_ties_go_to_the_largest_strength(self):
        x = torch.tensor([[-2.0], [-1.0], [1.0], [2.0]])
        assert_close(ridge_path(x, torch.tensor([0, 0, 1, 1]), [1e-3, 1e-2, 1e-1]).best, 0.1)

    def test_shuffled_labels_give_chance_by_leave_one_out(self):
        # Saturated: with n < d any labels are fitted without error. Leave-one-out still tells.
        generator = torch.Generator().manual_seed(0)
        x, labels = torch.randn(120, 300, generator=generator), torch.arange(120) % 4
        path = ridge_path(x, labels, [1e-4])
        assert_close((path.at(1e-4)(x).argmax(1) == labels).double().mean().item(), 1.0)
        assert abs(float(path.loo_scores[0]) - 0.25) < 3 * (0.25 * 0.75 / 120) ** 0.5

    @pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
    def test_a_weight_of_two_is_the_row_twice(self, shape):
        x, labels = uneven(*shape, spread=0.5)
        twice = torch.arange(0, len(x), 3)
        weights = torch.ones(len(x)).index_fill(0, twice, 2.0)
        one = ridge_path(x, labels, STRENGTHS, sample_weight=weights)
        other = ridge_path(torch.cat([x, x[twice]]), torch.cat([labels, labels[twice]]), STRENGTHS)
        for strength in STRENGTHS:
            assert_close(one.at(strength)(x), other.at(strength)(x), rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
    def test_weighted_leave_one_out_is_that_of_refits(self, shape):
        from sklearn.linear_model import Ridge

        x, labels = uneven(*shape, spread=0.5)
        coded = (2.0 * torch.nn.functional.one_hot(labels) - 1).double()
        w = torch.linspace(0.2, 3, len(x), dtype=torch.float64)
        w = w / w.mean()
        mean = w @ x.double() / len(x)
        variance = w @ (x - mean).square() / len(x)
        z = ((x - mean) / ((variance + variance.mean()) / 2).sqrt()).numpy()
        path, expected = ridge_path(x, labels, [0.1], sample_weight=w), []
        for i in range(len(x)):
            keep = [j for j in range(len(x)) if j != i]
            fit = Ridge(alpha=0.1 * len(x)).fit(z[keep], coded[keep].numpy(), sample_weight=w[keep].numpy())
            expected.append(torch.from_numpy(fit.predict(z[[i]])[0]))
        found = path.leave_one_out(x, labels, 0.1)
        assert_close(found, torch.stack(expected), rtol=1e-4, atol=1e-4)
        assert_close(path.loo_scores[0], w @ (found.argmax(1) == labels).double() / len(x))

    def test_bad_input_is_named(self):
        x, labels = uneven(10, 3, 2)
        with pytest.raises(InputError, match="must be positive"):
            ridge_path(x, labels).at(0.0)
        with pytest.raises(DataError, match="at least two rows"):
            ridge_path(x[:1], labels[:1])
        with pytest.raises(DataError, match="at least two classes"):
            ridge_path(x, torch.zeros(10, dtype=torch.int64))
        with pytest.raises(InputError, match="Pool tokens first"):
            ridge_path(x.reshape(10, 1, 3), labels)
        with pytest.raises(InputError, match="one row for each of 10"):
            ridge_path(x, labels[:9])
        x[7, 1] = float("nan")
        x[3, 0] = float("inf")
        with pytest.raises(DataError, match="`features` must be finite, but row 3 has NaN or infinity"):
            ridge_path(x, labels)

    def test_it_reads_well(self):
        assert repr(ridge_path(*uneven(10, 3, 2), STRENGTHS)).startswith("RidgePath(3 strengths in 1e-03..1e+01, best")


@pytest.mark.parametrize("strength", [1e-9, 1e-6, 1e-3])
def test_leave_one_out_logits_are_those_of_refits_where_there_are_more_features_than_rows(strength):
    generator = torch.Generator().manual_seed(0)
    x, labels = torch.randn(30, 200, generator=generator).relu(), torch.arange(30) % 3
    path = ridge_path(x, labels, [strength], scale="none")
    coded, rows = 2.0 * torch.nn.functional.one_hot(labels).double() - 1, []
    for i in range(30):
        keep = torch.arange(30) != i
        mean, centre = x[keep].double().mean(0), coded[keep].mean(0)
        z = x[keep].double() - mean
        dual = torch.linalg.solve(z @ z.T + strength * 30 * torch.eye(29), coded[keep] - centre)
        rows.append((x[i] - mean) @ z.T @ dual + centre)
    assert_close(path.leave_one_out(x, labels, strength), torch.stack(rows), rtol=1e-4, atol=1e-4)
