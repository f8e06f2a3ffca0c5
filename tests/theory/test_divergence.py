"""Divergences: closed forms on Gaussians, validity under the null, and the biased variants that they are not."""

import math
from statistics import NormalDist

import numpy as np
import pytest
import torch
from torch import Tensor

from frozenkit import CachedFeatures, FeatureSet, cka, frechet_distance, mmd, proxy_a_distance, save_features
from frozenkit.errors import DataError, InputError
from frozenkit.theory.divergence import STRENGTHS, _fold_distance

MEASURES = {"a-distance": proxy_a_distance, "mmd": mmd, "fréchet": frechet_distance}


def gaussian(n: int, d: int, seed: int, shift: float = 0.0, scale: float = 1.0) -> Tensor:
    x = scale * torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    x[:, 0] += shift
    return x


def feature_set(x: Tensor, layer: str = "pool", prefix: str = "") -> FeatureSet:
    ids = tuple(f"{prefix}{i}" for i in range(len(x)))
    return FeatureSet.from_arrays(x, [0] * len(x), classes=["only"], ids=ids, layer=layer)


@pytest.mark.parametrize("delta", [0.5, 1.0, 2.0])
def test_the_a_distance_of_gaussians_tends_to_its_closed_form(delta):
    # Bayes' rule between two unit Gaussians δ apart errs with Φ(−δ/2), and a linear classifier attains it.
    truth = 2 * (1 - 2 * NormalDist().cdf(-delta / 2))
    found = [
        proxy_a_distance(gaussian(3000, 8, seed), gaussian(3000, 8, seed + 100, delta), permutations=0, seed=seed).value
        for seed in range(5)
    ]
    assert np.mean(found) == pytest.approx(truth, abs=0.05)


def distance_by_hand(x: Tensor, y: Tensor, held: Tensor) -> float:
    """Of one fold and one labelling: every leave-one-out fit made anew, the slow truth."""
    train = x[~held]
    variance = train.var(0, correction=0)
    z = (x - train.mean(0)) / ((variance + variance.mean()) / 2).sqrt()
    train, target = z[~held], y[~held]
    n = len(train)

    def predict(rows: Tensor, values: Tensor, at: Tensor, strength: float) -> Tensor:
        centred = rows - rows.mean(0)
        gram = centred.T @ centred + strength * n * torch.eye(rows.shape[1], dtype=rows.dtype)
        return values.mean() + (at - rows.mean(0)) @ torch.linalg.solve(gram, centred.T @ (values - values.mean()))

    losses = []
    for strength in STRENGTHS:
        keep = [torch.arange(n) != i for i in range(n)]
        left_out = torch.stack([predict(train[k], target[k], train[~k], strength)[0] for k in keep])
        losses.append(float((left_out - target).square().mean()))
    logits = predict(train, target, z, STRENGTHS[int(np.argmin(losses))])
    middle = (logits[~held][target > 0].mean() + logits[~held][target < 0].mean()) / 2
    wrong = ((logits > middle) != (y > 0))[held]
    errors = [
        float(wrong[y[held] * side > 0].double().mean()) if (y[held] * side > 0).any() else 0.5 for side in (1, -1)
    ]
    return 2 * (1 - 2 * sum(errors) / 2)


@pytest.mark.parametrize(("n", "d"), [(40, 4), (24, 30), (25, 20)])
def test_the_a_distance_of_a_fold_is_that_of_fits_made_anew(n, d):
    x, generator = gaussian(n, d, 0), torch.Generator().manual_seed(1)
    x[n // 2 :, 0] += 1.5
    labels = torch.where(torch.rand(n, 6, generator=generator) > 0.5, 1.0, -1.0).double()
    labels[:, 0] = torch.where(torch.arange(n) < n // 2, -1.0, 1.0)
    held = torch.arange(n) % 5 == 0
    expected = [distance_by_hand(x, column, held) for column in labels.T]
    np.testing.assert_allclose(_fold_distance(x, labels, held), expected, atol=1e-12)


def test_the_a_distance_does_not_depend_on_units_or_on_unequal_sizes():
    x, y = gaussian(600, 6, 0), gaussian(600, 6, 1, 1.5)
    plain = proxy_a_distance(x, y, permutations=0)
    assert proxy_a_distance(1e3 * x + 5, 1e3 * y + 5, permutations=0).value == pytest.approx(plain.value)
    truth = 2 * (1 - 2 * NormalDist().cdf(-0.75))
    lopsided = [
        proxy_a_distance(gaussian(3000, 6, s), gaussian(300, 6, s + 50, 1.5), permutations=0).value for s in range(5)
    ]
    assert np.mean(lopsided) == pytest.approx(truth, abs=0.08)


def test_the_a_distance_at_its_ends():
    x = gaussian(100, 5, 0)
    far = proxy_a_distance(x, x + 100)
    assert (far.value, far.low, far.high) == (2.0, 2.0, 2.0)
    assert far.p_value == pytest.approx(1 / 101)
    same = proxy_a_distance(feature_set(x), feature_set(x))  # one image, twice: neither sample can be told
    assert same.value == 0.0
    constant = proxy_a_distance(torch.ones(40, 3), torch.ones(40, 3))
    assert constant.value == 0.0


def test_images_of_one_id_share_a_fold_and_so_cannot_give_the_domain_away():
    # Each target row is its source row and a little: held out alone, its twin's label would be learnt by heart.
    x = gaussian(60, 200, 0)
    twins = x + 1e-3 * gaussian(60, 200, 1)
    grouped = proxy_a_distance(feature_set(x), feature_set(twins), permutations=20)
    strangers = proxy_a_distance(feature_set(x), feature_set(twins, prefix="other-"), permutations=0)
    assert grouped.value < 0.5
    assert grouped.p_value > 0.05
    # Without the ids the classifier errs on nearly every twin: below chance, which a value of 0 would hide.
    assert strangers.value == 0.0


def test_mmd_equals_its_definition():
    x, y = gaussian(7, 3, 0), gaussian(9, 3, 1, 0.5)
    kernel = lambda a, b: math.exp(-float((a - b).square().sum()) / (2 * 1.3**2))  # noqa: E731
    xx = sum(kernel(a, b) for i, a in enumerate(x) for j, b in enumerate(x) if i != j) / (7 * 6)
    yy = sum(kernel(a, b) for i, a in enumerate(y) for j, b in enumerate(y) if i != j) / (9 * 8)
    xy = sum(kernel(a, b) for a in x for b in y) / (7 * 9)
    assert mmd(x, y, bandwidth=1.3, permutations=3).value == pytest.approx(xx + yy - 2 * xy)


def test_mmd_of_gaussians_has_its_closed_form_and_is_unbiased():
    d, shift, b = 4, 1.0, 2.0
    # E k(x, x') for x − x' ~ N(μ, 2I) is (b²/(b² + 2))^(d/2)·exp(−‖μ‖²/(2(b² + 2))).
    base = (b**2 / (b**2 + 2)) ** (d / 2)
    truth = 2 * base * (1 - math.exp(-(shift**2) / (2 * (b**2 + 2))))
    found = [mmd(gaussian(200, d, s), gaussian(200, d, s + 500, shift), bandwidth=b, permutations=0) for s in range(40)]
    values = np.array([f.value for f in found])
    assert values.mean() == pytest.approx(truth, abs=4 * values.std() / math.sqrt(40))
    covered = np.mean([f.low <= truth <= f.high for f in found])
    assert covered >= 0.85


def test_the_frechet_distance_of_gaussians_tends_to_its_closed_form():
    # Means 2 apart, and deviations 1 and 3 in each of 5 directions: 4 + 5·(1 − 3)².
    x, y = gaussian(20_000, 5, 0), gaussian(20_000, 5, 1, 2.0, scale=3.0)
    assert frechet_distance(x, y, permutations=0).value == pytest.approx(24, rel=0.03)


def test_the_frechet_distance_equals_a_matrix_root_and_does_not_need_n_above_d():
    from scipy.linalg import sqrtm

    for n, d in ((50, 6), (20, 30)):
        x, y = gaussian(n, d, 0), gaussian(n + 3, d, 1, 1.0)
        a, b = np.cov(x.numpy().T), np.cov(y.numpy().T)
        root = np.real(sqrtm(a @ b + 1e-12 * np.eye(d)))
        apart = float((x.mean(0) - y.mean(0)).square().sum())
        expected = apart + np.trace(a + b - 2 * root)
        assert frechet_distance(x, y, permutations=0).value == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(("n", "m"), [(100, 100), (300, 60)])
def test_the_frechet_distance_shows_its_bias_beside_it(n, m):
    # 100 wide and no shift at all: a distance of dozens. The baseline is that of the same sizes.
    found = frechet_distance(gaussian(n, 100, 0), gaussian(m, 100, 1))
    assert found.value > 20
    assert found.baseline == pytest.approx(found.value, rel=0.05)
    assert found.p_value > 0.05
    assert f"without a shift about {found.baseline:.3g}" in repr(found)
    alone = frechet_distance(gaussian(n, 100, 0), gaussian(m, 100, 1), permutations=0)
    assert math.isnan(alone.baseline)
    assert "without a shift" not in repr(alone)


def on_disk(folder, data: FeatureSet, name: str) -> CachedFeatures:
    save_features(data, folder / f"{name}.safetensors")
    return CachedFeatures(folder / f"{name}.safetensors")


@pytest.mark.parametrize("name", MEASURES)
def test_sets_on_disk_and_arrays_give_what_sets_in_memory_give(name, tmp_path):
    x, y = feature_set(gaussian(30, 4, 0), prefix="x"), feature_set(gaussian(40, 4, 1, 0.5), prefix="y")
    expected = MEASURES[name](x, y)
    assert MEASURES[name](on_disk(tmp_path, x, "x"), on_disk(tmp_path, y, "y")) == expected
    assert MEASURES[name](x, CachedFeatures(tmp_path / "y.safetensors")) == expected
    assert MEASURES[name](x.features.numpy(), y.features.numpy()) == expected
    other = on_disk(tmp_path, feature_set(gaussian(30, 4, 0), "late"), "late")
    with pytest.raises(InputError, match="one layer, got 'pool' and 'late'"):
        MEASURES[name](x, other)
    twins = on_disk(tmp_path, feature_set(x.features + 1e-3, prefix="x"), "twins")
    if name == "a-distance":  # rows of one id share a fold on disk, too
        assert MEASURES[name](CachedFeatures(tmp_path / "x.safetensors"), twins) == MEASURES[name](x, twins.load())


def test_cka_of_sets_on_disk_asks_for_the_same_images(tmp_path):
    x = feature_set(gaussian(30, 4, 0))
    a = on_disk(tmp_path, x, "a")
    assert cka(a, x) == pytest.approx(1.0)
    assert cka(a, x.features.numpy()) == pytest.approx(1.0)
    b = on_disk(tmp_path, feature_set(gaussian(30, 4, 0), prefix="other-"), "b")
    turned = x.subset(list(range(29, -1, -1)))
    for other in (b, b.load(), turned):
        with pytest.raises(InputError, match="their ids differ"):
            cka(a, other)
    bad = x.features.clone()
    bad[3, 1] = math.inf
    for pair in ((x, bad), (bad, x)):
        with pytest.raises(DataError, match="must be finite, but row 3"):
            cka(*pair)


@pytest.mark.parametrize("name", MEASURES)
def test_without_a_shift_p_values_are_valid(name):
    options = {"permutations": 19}
    p = np.array(
        [MEASURES[name](gaussian(30, 4, s), gaussian(30, 4, s + 1000), seed=s, **options).p_value for s in range(300)]
    )
    for alpha in (0.05, 0.1, 0.25, 0.5):  # multiples of 1/20, where a uniform p attains α exactly
        # Three standard errors above α; a p-value that is too small too often would fail.
        assert np.mean(p <= alpha + 1e-9) <= alpha + 3 * math.sqrt(alpha * (1 - alpha) / 300)


def test_mmds_p_value_is_uniform_without_a_shift():
    from scipy.stats import kstest

    p = [
        mmd(gaussian(25, 3, s), gaussian(25, 3, s + 10_000), permutations=99, seed=s + 20_000).p_value
        for s in range(2000)
    ]
    assert kstest(np.array(p) - 0.005, "uniform").pvalue > 0.01


@pytest.mark.parametrize("name", MEASURES)
def test_a_shift_is_found(name):
    found = MEASURES[name](gaussian(100, 4, 0), gaussian(100, 4, 1, 1.5))
    assert found.p_value <= 0.05
    assert found.low > 0
    assert found.low <= found.value <= found.high


@pytest.mark.parametrize("name", MEASURES)
def test_the_same_seed_gives_the_same_result(name):
    x, y = gaussian(40, 4, 0), gaussian(50, 4, 1, 0.3)
    assert MEASURES[name](x, y, seed=3) == MEASURES[name](x, y, seed=3)
    assert (MEASURES[name](x, y).n_source, MEASURES[name](x, y).n_target) == (40, 50)


def plug_in_cka(x: Tensor, y: Tensor) -> float:
    """The variant that is biased: what `cka` must not be."""
    x, y = x - x.mean(0), y - y.mean(0)
    own = (x.T @ x).norm() * (y.T @ y).norm()
    return float((x.T @ y).square().sum() / own)


def test_cka_of_independent_features_is_about_zero_where_the_plug_in_is_near_one():
    x, y = gaussian(64, 500, 0), gaussian(64, 500, 1)
    assert plug_in_cka(x, y) > 0.85
    assert abs(cka(x, y)) < 0.05
    mean = np.mean([cka(gaussian(64, 50, s), gaussian(64, 50, s + 100)) for s in range(50)])
    assert abs(mean) < 0.02


def test_cka_equals_its_definition_by_kernel_matrices():
    x, y = gaussian(12, 5, 0), gaussian(12, 3, 1) + gaussian(12, 5, 0)[:, :3]

    def hsic(k: Tensor, m: Tensor) -> float:
        k, m = k.clone().fill_diagonal_(0), m.clone().fill_diagonal_(0)
        n, one = len(k), torch.ones(len(k), dtype=k.dtype)
        return float(
            (k * m).sum() + (one @ k @ one) * (one @ m @ one) / ((n - 1) * (n - 2)) - 2 / (n - 2) * (one @ k @ m @ one)
        )

    a, b = x @ x.T, y @ y.T
    assert cka(x, y) == pytest.approx(hsic(a, b) / math.sqrt(hsic(a, a) * hsic(b, b)))


def test_cka_ignores_rotation_scale_and_shift():
    x, y = gaussian(80, 10, 0), gaussian(80, 6, 1) + gaussian(80, 10, 0)[:, :6]
    rotation = torch.linalg.qr(gaussian(10, 10, 2)).Q
    assert cka(x @ rotation * 7 + 3, y) == pytest.approx(cka(x, y))
    assert cka(x, x @ rotation) == pytest.approx(1.0)
    assert cka(x, y) == pytest.approx(cka(y, x))


@pytest.mark.parametrize("name", MEASURES)
def test_what_cannot_be_compared(name):
    measure, x = MEASURES[name], gaussian(30, 4, 0)
    with pytest.raises(InputError, match="equally wide, got 4 and 3 features"):
        measure(x, gaussian(30, 3, 0))
    with pytest.raises(InputError, match="one layer, got 'a' and 'b'"):
        measure(feature_set(x, "a"), feature_set(x, "b"))
    with pytest.raises(InputError, match="Average tokens first"):
        measure(x[:, None], x)
    with pytest.raises(DataError, match="at least .* images each, got 30 and 2"):
        measure(x, x[:2])
    bad = x.clone()
    bad[7, 2] = math.nan
    with pytest.raises(DataError, match="`target` must be finite, but row 7 has NaN"):
        measure(x, bad)
    with pytest.raises(DataError, match=r"row 7 \('7'\)"):
        measure(feature_set(bad), x)


def test_settings_out_of_range():
    x = gaussian(30, 4, 0)
    with pytest.raises(InputError, match="`bandwidth` must be above 0, got -1"):
        mmd(x, x, bandwidth=-1)
    for measure in (mmd, proxy_a_distance, frechet_distance):
        with pytest.raises(InputError, match="`seed` must be a whole number of at least 0, got 1.5"):
            measure(x, x, seed=1.5)
    with pytest.raises(InputError, match="`folds` must be at least 2"):
        proxy_a_distance(x, x, folds=1)
    with pytest.raises(InputError, match="their ids differ"):
        cka(feature_set(x), feature_set(x, prefix="other-"))
    with pytest.raises(InputError, match="got 30 and 29"):
        cka(x, x[:29])
    with pytest.raises(DataError, match="needs at least 4 images, got 3"):
        cka(x[:3], x[:3])
    with pytest.raises(DataError, match="vary from image to image"):
        cka(x, torch.ones(30, 2))
