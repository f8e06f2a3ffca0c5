import math

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn import metrics

from frozenkit._arrays import r_squared
from frozenkit.errors import InputError
from frozenkit.probes.intervals import holm, mcnemar_p_value, newcombe_interval, wilson_interval
from frozenkit.probes.scores import compare, confidently_wrong, macro_interval, score


@pytest.fixture
def predictions():
    random = np.random.default_rng(0)
    labels = random.integers(0, 4, 300)
    return np.where(random.random(300) < 0.7, labels, random.integers(0, 4, 300)), labels


def test_metrics_are_those_of_scikit_learn(predictions):
    predicted, labels = predictions
    found = score(predicted, labels, n_classes=4)
    np.testing.assert_allclose(found.accuracy, metrics.accuracy_score(labels, predicted))
    np.testing.assert_allclose(found.balanced_accuracy, metrics.balanced_accuracy_score(labels, predicted))
    np.testing.assert_allclose(found.macro_f1, metrics.f1_score(labels, predicted, average="macro"))
    np.testing.assert_array_equal(found.confusion, metrics.confusion_matrix(labels, predicted))
    np.testing.assert_allclose(found.per_class, metrics.recall_score(labels, predicted, average=None))
    np.testing.assert_allclose(found.to_frame()["precision"], metrics.precision_score(labels, predicted, average=None))


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


def test_r_squared_is_that_of_scikit_learn_constant_labels_included():
    generator = torch.Generator().manual_seed(0)
    y, noise = torch.randn(50, 3, generator=generator), torch.randn(50, 3, generator=generator)
    expected = metrics.r2_score(y, y + noise, multioutput="variance_weighted")
    assert r_squared(y + noise, y) == pytest.approx(expected, rel=1e-5)
    constant = torch.full((30,), 0.5)  # a mean without rounding, which scikit-learn would take for variance
    for predictions in (constant, constant + 1, noise[:30, 0]):
        assert r_squared(predictions, constant) == metrics.r2_score(constant, predictions)


def test_every_way_to_r_squared_gives_one_answer_for_constant_labels():
    from frozenkit import FeatureSet, ridge_path, train_head

    x, y = torch.randn(40, 3, generator=torch.Generator().manual_seed(0)), torch.full((40,), 0.3)
    assert ridge_path(x, y, [0.1, 1.0]).loo_scores.tolist() == [1.0, 1.0]  # the mean, which is the label, is predicted
    train, val = (FeatureSet(x, y, (), tuple(f"{name}{i}" for i in range(40)), "pool", "") for name in "tv")
    assert {epoch["val_score"] for epoch in train_head(torch.nn.Linear(3, 1), train, val, epochs=2).history} == {0.0}


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


def test_compare_is_antisymmetric():
    a, b, labels = torch.randint(3, (3, 200), generator=torch.Generator().manual_seed(0))
    one, two = compare(a, b, labels), compare(b, a, labels)
    np.testing.assert_allclose([one.difference, one.low, one.high], [-two.difference, -two.high, -two.low], atol=1e-12)
    assert one.p_value == two.p_value
    assert "p = " in repr(one)


def test_comparing_with_itself_finds_nothing(predictions):
    predicted, labels = predictions
    same = compare(predicted, predicted, labels)
    assert (same.difference, same.p_value) == (0, 1)


def test_a_class_without_an_image_is_nan_and_not_averaged():
    found = score([0, 0], [0, 0], n_classes=3)
    assert found.balanced_accuracy == 1
    assert found.per_class.isnan().tolist() == [False, True, True]
    assert len(found.to_frame()) == 3


def test_repr_says_it_all(predictions):
    predicted, labels = predictions
    found = score(predicted, labels, n_classes=4)
    assert repr(found).endswith("on 300 images")
    assert repr(score([1], [1], n_classes=2)).endswith("on 1 image")
    assert f"{found.accuracy:.3f}" in found._repr_html_()


@pytest.mark.parametrize("metric", ["balanced_accuracy", "macro_f1"])
def test_macro_interval_holds_the_value(predictions, metric):
    predicted, labels = predictions
    found = score(predicted, labels, n_classes=4)
    low, high = macro_interval(found, metric=metric)
    assert low < getattr(found, metric) < high
    wide = macro_interval(found, metric=metric, confidence=0.99)
    assert wide[0] < low
    assert high < wide[1]


@pytest.mark.parametrize("metric", ["balanced_accuracy", "macro_f1"])
def test_macro_interval_of_a_perfect_score_is_wilsons_where_classes_are_equal(metric):
    labels = np.arange(40) % 4
    low, high = macro_interval(score(labels, labels, n_classes=4), metric=metric)
    assert high == 1
    assert low == pytest.approx(float(wilson_interval(40, 40)[0]))
    rare = np.array([0] * 37 + [1, 2, 3])
    assert macro_interval(score(rare, rare, n_classes=4), metric=metric)[0] < low - 0.1


@pytest.mark.parametrize("metric", ["balanced_accuracy", "macro_f1"])
def test_macro_interval_with_few_or_missing_classes(metric):
    for predicted, labels in (([0], [0]), ([1], [0]), ([0, 1, 2], [0, 0, 0]), ([0, 1, 3], [0, 1, 3])):
        found = score(predicted, labels, n_classes=4)
        low, high = macro_interval(found, metric=metric)
        assert 0 <= low <= getattr(found, metric) <= high <= 1
        assert low < high


def confusions(n_classes, n, recall, *, balanced, generator, draws=1500):
    """Drawn confusion matrices (draws, k, k) of given class sizes, and the table that they are drawn from."""
    share = np.ones(n_classes) if balanced else np.geomspace(5, 1, n_classes)
    support = np.maximum(1, np.round(n * share / share.sum())).astype(int)
    recalls = recall + min(0.1, 0.8 * (1 - recall)) * np.linspace(1, -1, n_classes)
    rows = np.diag(recalls) + (1 - recalls)[:, None] * np.roll(np.eye(n_classes), 1, axis=1)
    drawn = np.stack([generator.multinomial(s, row, size=draws) for s, row in zip(support, rows)], axis=1)
    return drawn, rows * support[:, None]


def as_score(confusion):
    labels, predicted = (np.repeat(place, confusion.ravel()) for place in np.indices(confusion.shape).reshape(2, -1))
    return score(predicted, labels, n_classes=len(confusion))


@pytest.mark.parametrize("balanced", [True, False])
@pytest.mark.parametrize("metric", ["balanced_accuracy", "macro_f1"])
@pytest.mark.parametrize(("n", "recall"), [(100, 0.7), (100, 0.9), (300, 0.95), (300, 0.99), (1000, 0.99)])
def test_macro_interval_covers(balanced, metric, n, recall):
    drawn, table = confusions(5, n, recall, balanced=balanced, generator=np.random.default_rng(n))
    truth = getattr(as_score((1000 * table).round().astype(int)), metric)
    covered = [low <= truth <= high for low, high in (macro_interval(as_score(c), metric=metric) for c in drawn)]
    assert 0.92 <= np.mean(covered) <= 0.98


def test_confidently_wrong_is_sorted():
    p = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.3, 0.7], [0.05, 0.95]])
    assert confidently_wrong(p, [1, 1, 1, 0]).tolist() == [3, 0, 1]
    assert confidently_wrong(p, [0, 0, 1, 1]).tolist() == []


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: score([0, 1], [0], n_classes=2), "equally long, got 2 and 1"),
        (lambda: score([], [], n_classes=2), "at least one image"),
        (lambda: score([2], [0], n_classes=2), r"`predictions` must lie in 0..1, got 2..2"),
        (lambda: score([0.5], [0], n_classes=2), "must be integers, got float64"),
        (lambda: score([[0.5, 0.5]], [0], n_classes=2), r"Take argmax\(1\)"),
        (lambda: score(["cat"], [0], n_classes=2), "Map names to indices"),
        (lambda: score([0], [0], n_classes=2, confidence=95), "between 0 and 1, got 95"),
        (lambda: score([0], [0], n_classes=0), "`n_classes` must be a whole number of at least 1, got 0"),
        (lambda: score([0], [0], n_classes=2, classes=["a"]), "must hold 2 names, got 1"),
        (lambda: compare([0], [0, 1], [0]), "got 1, 2 and 1"),
        (lambda: compare([], [], []), "at least one image"),
        (lambda: macro_interval(score([0], [0], n_classes=1), metric="f2"), "'macro_f1', got 'f2'"),
        (lambda: confidently_wrong(torch.ones(2, 2), [0]), "equally long"),
    ],
)
def test_errors_say_what_came(call, text):
    with pytest.raises(InputError, match=text):
        call()
