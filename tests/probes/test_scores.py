import numpy as np
import pytest
import torch
from sklearn import metrics

from frozenkit.errors import InputError
from frozenkit.probes.intervals import wilson_interval
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


def test_compare_is_antisymmetric():
    a, b, labels = torch.randint(3, (3, 200), generator=torch.Generator().manual_seed(0))
    one, two = compare(a, b, labels), compare(b, a, labels)
    np.testing.assert_allclose([one.difference, one.low, one.high], [-two.difference, -two.high, -two.low], atol=1e-12)
    assert one.p_value == two.p_value


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
